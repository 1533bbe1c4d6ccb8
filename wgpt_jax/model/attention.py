"""Causal self-attention within documents, over whole windows and one position at a time.

Letters: B batch, T queries, S keys, W cached positions, H heads, C head channels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from wgpt_jax.model.splash import LANES, splash_attention
from wgpt_jax.parallel.mesh import over_mesh, platform


def rotate(x: jax.Array, positions: jax.Array, base: float) -> jax.Array:
    """Rotary position embedding (Su et al., arXiv 2104.09864), halves convention.

    Args:
        x: [B, T, H, C], C even.
        positions: int32 [B, T].
        base: wavelength of the slowest pair, over 2 pi.

    Returns:
        [B, T, H, C] in the type of ``x``; angles are computed in float32.
    """
    half = x.shape[-1] // 2
    frequencies = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions[:, :, None, None].astype(jnp.float32) * frequencies
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    first, second = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1).astype(x.dtype)


def attend(
    query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array, kernel: str = "auto"
) -> jax.Array:
    """Softmax attention to positions at or before the query's own, in the same segment.

    Args:
        query, key, value: [B, T, H, C].
        segment_ids: int32 [B, T].
        kernel: ``einsum``, ``splash`` (TPU), ``cudnn`` (GPU), or ``auto``: what suits the platform compiled for.

    Returns:
        [B, T, H, C] in the type of ``value``; the softmax is float32.
    """
    return KERNELS[kernel_for(query, kernel)](query, key, value, segment_ids)


def kernel_for(query: jax.Array, asked: str = "auto") -> str:
    """The kernel that :func:`attend` takes: short sequences never need more than the einsum."""
    _, t, _, c = query.shape
    if t < LANES:
        return "einsum"
    if asked != "auto":
        return asked
    if platform() == "tpu":
        return "splash"
    # What cuDNN 9 takes: jax._src.cudnn.fused_attention_stablehlo, jax 0.10.
    suits_cudnn = query.dtype == jnp.bfloat16 and t % 2 == 0 and c % 8 == 0 and c <= 128
    return "cudnn" if platform() == "gpu" and suits_cudnn else "einsum"


def einsum_attention(query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array) -> jax.Array:
    """:func:`attend` by two matrix products and the whole [B, H, T, S] of weights between them."""
    logits = jnp.einsum("bthc,bshc->bhts", query, key, preferred_element_type=jnp.float32)
    logits = logits * query.shape[-1] ** -0.5
    # The lowest finite value, not -inf: a query always sees itself, so masked weights become exact zeros.
    steps = jnp.arange(query.shape[1])
    visible = (steps[:, None] >= steps) & (segment_ids[:, :, None] == segment_ids[:, None, :])
    logits = jnp.where(visible[:, None], logits, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    return jnp.einsum("bhts,bshc->bthc", weights, value)


def cudnn_attention(query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array) -> jax.Array:
    """:func:`attend` by cuDNN's flash attention, through ``jax.nn.dot_product_attention``; T even, bfloat16."""

    def local(query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array) -> jax.Array:
        # cuDNN knows no segments: they are a mask. Causality is not in it, so that blocks of the future are skipped.
        same = (segment_ids[:, :, None] == segment_ids[:, None, :])[:, None]
        return jax.nn.dot_product_attention(query, key, value, mask=same, is_causal=True, implementation="cudnn")

    # By itself the call's backward pass leaves it to its surroundings how its operands are split.
    return over_mesh(local, heads_axis=2)(query, key, value, segment_ids)


KERNELS = {"einsum": einsum_attention, "splash": splash_attention, "cudnn": cudnn_attention}


class KeyValueCache(NamedTuple):
    """Rotated keys and values of the last W positions of one layer, in a ring.

    Rows and heads share an axis: a step's products take the rings as they are. Apart, XLA's CPU backend would reshape,
    and make an updated copy of each ring at every step instead of writing one row in place: most of a step's time.
    """

    key: jax.Array
    """[B * H, W, C]."""
    value: jax.Array
    """[B * H, W, C]."""

    @classmethod
    def empty(cls, batch: int, heads: int, window: int, channels: int, dtype: jnp.dtype) -> "KeyValueCache":
        """A cache of nothing."""
        zeros = jnp.zeros((batch * heads, window, channels), dtype)
        return cls(zeros, zeros)


def attend_cached(
    query: jax.Array, key: jax.Array, value: jax.Array, cache: KeyValueCache, slot: jax.Array, visible: jax.Array
) -> tuple[jax.Array, KeyValueCache]:
    """:func:`attend` for one new position: writes its key and value into the ring, then looks around in it.

    Args:
        query, key, value: [B, 1, H, C], rotated.
        cache: of the positions before.
        slot: int32 [], where this position is written, the same for all rows.
        visible: bool [B, W], the slots seen, the new one among them.

    Returns:
        [B, 1, H, C] in the type of ``value``, and the cache.
    """
    b, _, h, c = query.shape
    query, key, value = (x.reshape(b * h, 1, c) for x in (query, key, value))
    keys = jax.lax.dynamic_update_slice(cache.key, key.astype(cache.key.dtype), (0, slot, 0))
    values = jax.lax.dynamic_update_slice(cache.value, value.astype(cache.value.dtype), (0, slot, 0))
    logits = jnp.einsum("nc,nwc->nw", query[:, 0], keys, preferred_element_type=jnp.float32).reshape(b, h, -1)
    logits = jnp.where(visible[:, None], logits * c**-0.5, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(logits, axis=-1).astype(values.dtype).reshape(b * h, -1)
    return jnp.einsum("nw,nwc->nc", weights, values).reshape(b, 1, h, c), KeyValueCache(keys, values)
