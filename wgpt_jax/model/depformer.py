"""The depth transformer: a frame's codebooks above the first, one after the other (moshi, arXiv 2410.00037, 3.4).

It has no lag, unlike a delay pattern (MusicGen, arXiv 2306.05284): when the decoder takes its next step, the frame is
complete, and with it the sound whose mel slice the decoder hears.

Letters: N frames, K codebooks, D model, E channels of this transformer, V vocabulary.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from wgpt_jax.config import ModelConfig
from wgpt_jax.model.attention import KeyValueCache
from wgpt_jax.model.layers import BlockConfig, Einsum, RMSNorm, Stack
from wgpt_jax.parallel.mesh import replicate


class Depformer(nnx.Module):
    """Predicts codebook k of a frame from the decoder's state and the frame's codebooks before k, for k > 0."""

    def __init__(self, config: ModelConfig, dtype, rngs):
        d, e, v, steps = config.width, config.depformer_width, config.vocabulary, config.output_codebooks - 1
        self.steps, self.heads, self.channels = steps, config.depformer_heads, e // config.depformer_heads
        self.dtype = dtype
        self.embedding = nnx.Param(
            config.embedding_std * jax.random.normal(rngs.params(), (steps, v, e), jnp.float32),
            out_sharding=(None, "vocab", "embed"),
        )
        self.token_norm = RMSNorm(e)
        axes = (None, "embed", None)
        self.project = Einsum("nd,kde->nke", (steps, d, e), axes, fan_in=d, dtype=dtype, rngs=rngs)
        blocks = BlockConfig.narrow(config, dtype, e, config.depformer_heads, config.depformer_depth)
        self.stack = Stack(blocks, rngs, config.remat)
        self.head_norm = RMSNorm(e)
        self.head = Einsum(
            "nke,kev->nkv",
            (steps, e, v),
            (None, "embed", "vocab"),
            fan_in=e,
            gain=0.5,
            dtype=dtype,
            out_dtype=jnp.float32,
            rngs=rngs,
        )

    def __call__(self, hidden: jax.Array, codes: jax.Array, dropout_key: jax.Array | None = None) -> jax.Array:
        """Logits of known frames, all codebooks at once.

        Args:
            hidden: [N, D], the decoder's normalised state that predicts each frame.
            codes: int [N, K], the frames' tokens; the last codebook's are not read.
            dropout_key: PRNG key, or None to drop nothing.

        Returns:
            float32 [N, K - 1, V], of codebooks 1 to K - 1.
        """
        tables = replicate(self.embedding[...])
        previous = tables[jnp.arange(self.steps), codes[:, : self.steps].astype(jnp.int32)]
        x = self.project(hidden) + self.token_norm(previous).astype(self.dtype)
        positions = jnp.broadcast_to(jnp.arange(self.steps), x.shape[:2])
        x = self.stack(x, jnp.ones_like(positions), positions, dropout_key)
        return self.head(self.head_norm(x))

    def sample(self, hidden: jax.Array, first: jax.Array, draw: Callable[[jax.Array, int], jax.Array]) -> jax.Array:
        """Draws a frame's codebooks one after the other.

        Args:
            hidden: [N, D].
            first: int32 [N], the coarse tokens.
            draw: (float32 logits [N, V], codebook k) -> int32 [N].

        Returns:
            int32 [N, K], the coarse token first.
        """
        rows = len(hidden)
        projected, blocks = self.project(hidden), self.stack.unrolled()
        caches = [KeyValueCache.empty(rows, self.heads, self.steps, self.channels, self.dtype) for _ in blocks]
        codes = [first]
        for k in range(self.steps):
            token = self.token_norm(self.embedding[k][codes[-1]]).astype(self.dtype)
            x = (projected[:, k] + token)[:, None]
            visible = jnp.broadcast_to(jnp.arange(self.steps) <= k, (rows, self.steps))
            positions = jnp.full((rows, 1), k)
            for layer, block in enumerate(blocks):
                x, caches[layer] = block.step(x, caches[layer], k, visible, positions)
            codes.append(draw(self._logits(x[:, 0], k), k + 1))
        return jnp.stack(codes, axis=1)

    def _logits(self, x: jax.Array, k: int) -> jax.Array:
        operands = self.head_norm(x).astype(self.dtype), self.head.kernel[k].astype(self.dtype)
        return jnp.einsum("ne,ev->nv", *operands, preferred_element_type=jnp.float32)
