"""Causal self-attention within documents.

Letters: B batch, T queries, S keys, H heads, C head channels.
"""

import jax
import jax.numpy as jnp


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


def attend(query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array) -> jax.Array:
    """Softmax attention to positions at or before the query's own, in the same segment.

    Args:
        query, key, value: [B, T, H, C].
        segment_ids: int32 [B, T].

    Returns:
        [B, T, H, C] in the type of ``value``; the softmax is float32.
    """
    logits = jnp.einsum("bthc,bshc->bhts", query, key, preferred_element_type=jnp.float32)
    logits = logits * query.shape[-1] ** -0.5
    steps = jnp.arange(query.shape[1])
    visible = (steps[:, None] >= steps) & (segment_ids[:, :, None] == segment_ids[:, None, :])
    # The lowest finite value, not -inf: a query always sees itself, so masked weights become exact zeros.
    logits = jnp.where(visible[:, None], logits, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    return jnp.einsum("bhts,bshc->bthc", weights, value)
