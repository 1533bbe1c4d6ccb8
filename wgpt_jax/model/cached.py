"""The decoder one frame at a time: what generation runs, equal to the full-sequence form position by position.

Attention looks back on the last W positions through ring buffers, so that a sequence may be of any length at constant
memory and cost. A document that begins anew needs no clearing: its positions start at zero again, and a position sees
no more slots than there are positions before it in its document.

Letters: B batch, W window, M mel bands, D model.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from wgpt_jax.model.attention import KeyValueCache
from wgpt_jax.model.decoder import Decoder, compute_dtype
from wgpt_jax.model.layers import Block


class Cache(NamedTuple):
    """What a cached step remembers."""

    step: jax.Array
    """int32 []; frames stepped through, all documents together."""
    positions: jax.Array
    """int32 [B]; frames of the present document."""
    embeddings: jax.Array
    """float32 [B, taps - 1, D]; the last normalised embeddings."""
    slices: jax.Array
    """float32 [B, taps - 1, M]; the last mel slices, null ones as they were fed."""
    mel_layers: tuple[KeyValueCache, ...]
    layers: tuple[KeyValueCache, ...]


class CachedDecoder:
    """The cached form of a decoder; made inside a trace, before the scan that steps it."""

    def __init__(self, decoder: Decoder):
        """Takes the layers out of their stacks: a step that sliced them out each time would copy every parameter."""
        self.decoder = decoder
        self.blocks, self.tables = decoder.stack.unrolled(), decoder.tables()
        branch = decoder.mel_branch if decoder.config.inputs == "hybrid" else None
        self.mel_blocks = branch.stack.unrolled() if branch and branch.stack else []

    def step(
        self, cache: Cache, tokens: jax.Array, mel: jax.Array, starts: jax.Array, null_mel: jax.Array
    ) -> tuple[jax.Array, Cache]:
        """One frame of every row.

        Args:
            cache: from :func:`empty_cache` or the step before.
            tokens: int [B, K], the frame before; as many codebooks as the network reads, or more.
            mel: float [B, M], the mel slice of the frame before; not read by token-only models.
            starts: bool [B], where a document begins: BOS and the null mel stand instead of these.
            null_mel: bool [B], where the null mel replaces the slice besides.

        Returns:
            [B, D], the normalised state that predicts the frame, and the cache with the frame in it.
        """
        decoder, window = self.decoder, cache.layers[0].key.shape[1]
        positions = jnp.where(starts, 0, cache.positions)
        slot = cache.step % window
        # Age in steps, the newest 0. Slots of another document, or never written, are older than `positions`.
        age = (slot - jnp.arange(window)) % window
        visible = age <= positions[:, None]

        def through(blocks: list[Block], caches: tuple[KeyValueCache, ...], x: jax.Array):
            written = []
            for block, layer in zip(blocks, caches, strict=True):
                x, layer = block.step(x, layer, slot, visible, positions[:, None])
                written.append(layer)
            return x, tuple(written)

        x = decoder.embed(self.tables, tokens[:, None], starts[:, None])
        embeddings, slices, mel_layers = cache.embeddings, cache.slices, cache.mel_layers
        if decoder.config.token_kernel > 1:
            taps, embeddings = _taps(embeddings, x[:, 0], positions)
            x = decoder.token_conv(x, taps)
        if decoder.config.inputs == "hybrid":
            branch = decoder.mel_branch
            mel = jnp.where((starts | null_mel)[:, None], branch.null[...], mel.astype(jnp.float32))
            taps, slices = _taps(slices, mel, positions)
            features, mel_layers = through(self.mel_blocks, mel_layers, branch.stem(taps))
            x = decoder.merge(x, features)
        x, layers = through(self.blocks, cache.layers, x.astype(compute_dtype(decoder.config)))
        return decoder.head_norm(x)[:, 0], Cache(cache.step + 1, positions + 1, embeddings, slices, mel_layers, layers)


def _taps(before: jax.Array, newest: jax.Array, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The last values [B, taps, 1, C] of each row, zero before its document, and those to keep [B, taps - 1, C]."""
    values = jnp.concatenate([before, newest[:, None].astype(before.dtype)], axis=1)
    back = jnp.arange(values.shape[1])[::-1]
    return jnp.where((positions[:, None] >= back)[..., None], values, 0.0)[:, :, None], values[:, 1:]


def empty_cache(decoder: Decoder, batch: int, window: int) -> Cache:
    """A cache before the first frame.

    Args:
        decoder: the network.
        batch: rows, B.
        window: positions that attention sees, W: the context the network was trained with.
    """
    config = decoder.config
    dtype = compute_dtype(config)
    hybrid = config.inputs == "hybrid"

    def layers(depth: int, heads: int, width: int) -> tuple[KeyValueCache, ...]:
        return tuple(KeyValueCache.empty(batch, heads, window, width // heads, dtype) for _ in range(depth))

    return Cache(
        step=jnp.zeros((), jnp.int32),
        positions=jnp.zeros(batch, jnp.int32),
        embeddings=jnp.zeros((batch, config.token_kernel - 1, config.width)),
        slices=jnp.zeros((batch, config.mel_kernel - 1 if hybrid else 0, config.mel_bands)),
        mel_layers=layers(config.mel_depth if hybrid else 0, config.mel_heads, config.mel_width),
        layers=layers(config.depth, config.heads, config.width),
    )
