"""The closed loop: sampled tokens, the sound the codec makes of them, the mel slice of that sound, the next tokens.

Everything between two frames happens on the device, in one jitted scan. What is carried has a fixed size: the rings of
keys and values, the codec's state, the last samples heard. So a minute costs no more memory than a second.

Letters: B batch, n frames of a chunk, K codebooks, M mel bands.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from wgpt_jax.audio.clock import Clock
from wgpt_jax.audio.codec_file import DecoderSpec
from wgpt_jax.audio.encodec import DecoderCarry, decode, initial_carry
from wgpt_jax.audio.mel import MelConfig
from wgpt_jax.audio.mel_jax import windows_to_log_mel
from wgpt_jax.closed_loop.sampling import Sampling, make_sampling, no_tokens, penalise, remember, sample
from wgpt_jax.model.cached import Cache, CachedDecoder, empty_cache


class LoopState(NamedTuple):
    """What passes from frame to frame."""

    cache: Cache
    codec: DecoderCarry
    heard: jax.Array
    """float32 [B, n_fft - hop]; the last samples, which the next mel slice reaches back to."""
    tokens: jax.Array
    """int32 [B, K]; the last frame's."""
    mel: jax.Array
    """float32 [B, M]; the last frame's slice."""
    recent: jax.Array
    """int32 [B, R]; the last coarse tokens, for the repetition penalty."""
    frame: jax.Array
    """int32 []; frames done."""


class Given(NamedTuple):
    """Frames that are given instead of drawn: those of a prompt."""

    known: jax.Array
    """bool [n]; whether a frame is given."""
    tokens: jax.Array
    """int32 [n, K]."""
    samples: jax.Array
    """float32 [n, hop]."""


@dataclasses.dataclass(frozen=True)
class Loop:
    """What does not change while a run generates; hashable, fixed when compiled."""

    graph: nnx.GraphDef
    codec: DecoderSpec
    mel: MelConfig
    clock: Clock
    codebooks: int
    """K, what the network predicts per frame."""
    window: int
    """Frames that attention looks back on."""
    closed: bool
    """True: the mel of the decoded sound is fed back. False: the null mel, the token-only mode of the same network."""
    hears_prompt: bool
    """Whether a prompt's mel is that of its own samples (a network trained on the original's mel) or of its decode."""

    def start(self, params: nnx.State, weights: dict[str, jax.Array], batch: int) -> LoopState:
        """The state before the first frame: digital silence has been heard."""
        return LoopState(
            cache=empty_cache(nnx.merge(self.graph, params), batch, self.window),
            codec=initial_carry(self.codec, weights, batch, self.codebooks),
            heard=jnp.zeros((batch, self.mel.n_fft - self.clock.hop)),
            tokens=jnp.zeros((batch, self.codebooks), jnp.int32),
            mel=jnp.zeros((batch, self.mel.bands)),
            recent=no_tokens(batch),
            frame=jnp.zeros((), jnp.int32),
        )

    def chunk(
        self,
        params: nnx.State,
        weights: dict[str, jax.Array],
        state: LoopState,
        given: Given,
        sampling: Sampling,
        seeds: jax.Array,
    ) -> tuple[LoopState, jax.Array, jax.Array]:
        """The next n frames.

        Args:
            params: the network's.
            weights: the codec decoder's.
            state: from :meth:`start` or the chunk before.
            given: frames that are not drawn.
            sampling: run-time values.
            seeds: uint32 [B]; a row's randomness is a function of its own seed alone.

        Returns:
            the state, tokens int32 [B, n, K], decoded samples float32 [B, n * hop].
        """
        network = nnx.merge(self.graph, params)
        cached = CachedDecoder(network)
        keys = jax.vmap(jax.random.key)(seeds)
        batch = len(seeds)

        def predict(state: LoopState) -> tuple[jax.Array, Cache]:
            starts = jnp.broadcast_to(state.frame == 0, batch)
            null_mel = jnp.full(batch, not self.closed)
            hidden, cache = cached.step(state.cache, state.tokens, state.mel, starts, null_mel)
            frame_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, state.frame)

            def draw(logits: jax.Array, codebook: int) -> jax.Array:
                token = sample(logits, sampling, jax.vmap(jax.random.fold_in, (0, None))(frame_keys, codebook))
                # No entry of the codebook: its sound is nan, so that a broken network is noticed.
                return jnp.where(jnp.isfinite(logits).all(axis=-1), token, logits.shape[-1])

            coarse = penalise(network.head(hidden[:, None])[:, 0], state.recent, state.frame, sampling)
            first = draw(coarse, 0)
            return (first[:, None] if self.codebooks == 1 else network.depformer.sample(hidden, first, draw)), cache

        def hear(state: LoopState, samples: jax.Array) -> tuple[jax.Array, jax.Array]:
            window = jnp.concatenate([state.heard, samples], axis=1)
            # Stored slices are float16: the loop's are rounded alike.
            mel = windows_to_log_mel(window, self.mel, self.clock.sample_rate).astype(jnp.float16)
            return mel.astype(jnp.float32), window[:, self.clock.hop :]

        def step(state: LoopState, given: Given) -> tuple[LoopState, tuple[jax.Array, jax.Array | None]]:
            tokens, cache = predict(state)
            tokens = jnp.where(given.known, given.tokens, tokens)
            state = state._replace(
                cache=cache,
                tokens=tokens,
                recent=remember(state.recent, tokens[:, 0], state.frame),
                frame=state.frame + 1,
            )
            if not self.closed:
                return state, (tokens, None)
            samples, codec = decode(self.codec, weights, tokens[:, None], state.codec)
            own = given.known & self.hears_prompt
            mel, heard = hear(state, jnp.where(own, given.samples, samples))
            return state._replace(codec=codec, mel=mel, heard=heard), (tokens, samples)

        state, (tokens, samples) = jax.lax.scan(step, state, given)
        tokens = jnp.swapaxes(tokens, 0, 1)
        if not self.closed:  # nothing waits for the sound: all frames are decoded at once
            samples, codec = decode(self.codec, weights, tokens, state.codec)
            return state._replace(codec=codec), tokens, samples
        return state, tokens, jnp.swapaxes(samples, 0, 1).reshape(batch, -1)


def compile_chunk(
    loop: Loop, params: nnx.State, weights: dict[str, jax.Array], batch: int, frames: int
) -> tuple[Callable[..., LoopState], Callable[..., tuple[LoopState, jax.Array, jax.Array]]]:
    """Compiles :meth:`Loop.start` and :meth:`Loop.chunk` for a batch; the chunk's state buffers are donated.

    Args:
        loop: what is fixed.
        params, weights: arrays or shapes.
        batch: rows, B.
        frames: frames per chunk, n.

    Returns:
        ``start(params, weights)`` and ``chunk(params, weights, state, given, sampling, seeds)``.
    """

    def start(params: nnx.State, weights: dict[str, jax.Array]) -> LoopState:
        return loop.start(params, weights, batch)

    def shape(dims: tuple[int, ...], dtype: jnp.dtype) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(dims, dtype)

    given = Given(
        known=shape((frames,), jnp.bool_),
        tokens=shape((frames, loop.codebooks), jnp.int32),
        samples=shape((frames, loop.clock.hop), jnp.float32),
    )
    state = jax.eval_shape(start, params, weights)
    chunk = jax.jit(loop.chunk, donate_argnums=2).lower(
        params, weights, state, given, make_sampling(vocabulary=1), shape((batch,), jnp.uint32)
    )
    return jax.jit(start).lower(params, weights).compile(), chunk.compile()
