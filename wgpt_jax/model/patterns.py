"""Orders in which several codebooks are predicted by the decoder alone, one head each: delayed, or flattened.

MusicGen (arXiv 2306.05284, section 2.2) compares them. Both are likelihoods of all codebooks: each token is predicted
once, from tokens that come before it in the order.

Letters: B batch, T time, K codebooks, S steps of the decoder, D model.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from wgpt_jax.data.batch import Batch


class Steps(NamedTuple):
    """What each step of the decoder reads, and which step predicts which token."""

    tokens: jax.Array
    """int [B, S, Kin]; what is read, by codebook."""
    known: jax.Array
    """bool [B, S, Kin]; False where none is read: its document begins later, or it is another codebook's turn."""
    starts: jax.Array
    """bool [B, S]; the first step of a document."""
    segment_ids: jax.Array
    """int32 [B, S]."""
    positions: jax.Array
    """int32 [B, S]; index in the segment."""
    predicts: jax.Array
    """int32 [B, T, K]; the step whose state predicts codebook k of frame t."""


def delayed(batch: Batch, codebooks: int) -> Steps:
    """One step per frame: step s predicts codebook k of frame s - k, and reads what the step before predicted.

    The codebooks of a segment's last frames whose step would come after its end are predicted by its last step: 6 of a
    window's 1,024 tokens for four codebooks and 256 frames, which know a little less than in a longer window.

    Args:
        batch: windows of T frames with K codebooks or more.
        codebooks: K.
    """
    b, t = batch.segment_ids.shape
    step, k = jnp.arange(t), jnp.arange(codebooks)
    # What stands between segments (padding, a frame of context) is room for the one before.
    segments = jax.lax.cummax(batch.segment_ids, axis=1)
    first = jax.lax.cummax(jnp.where(batch.weights, step - batch.positions, 0), axis=1)
    positions = step - first
    begins = jnp.take_along_axis(batch.starts, first, axis=1)
    # Codebook k of the frame before step s - k, which is in column s - k: the frame before the window is in column 0.
    column = step[:, None] - k
    tokens = jnp.asarray(batch.tokens)[:, jnp.maximum(column, 0), k]
    behind = positions[..., None] - k  # frames of the segment up to that one
    last = jax.lax.cummax(jnp.where(batch.weights, step, -1), axis=1)
    known = (behind > 0) | ((behind == 0) & ~begins[..., None])
    known &= column <= last[..., None] + 1  # behind a segment's end stands padding, or another document
    changes = jnp.concatenate([segments[:, 1:] != segments[:, :-1], jnp.ones((b, 1), bool)], axis=1)
    end = jax.lax.cummin(jnp.where(changes, step, t - 1), axis=1, reverse=True)
    predicts = jnp.minimum(step[:, None] + k, end[..., None])
    return Steps(tokens, known, batch.starts, segments, positions, predicts)


def flattened(batch: Batch, codebooks: int) -> Steps:
    """K steps per frame: step t K + k predicts codebook k of frame t, and reads the token before it in that order.

    Args:
        batch: windows of T frames with K codebooks or more.
        codebooks: K.
    """
    b, t = batch.segment_ids.shape
    steps = jnp.arange(t * codebooks)
    flat = batch.tokens[:, :, :codebooks].reshape(b, -1)
    read = flat[:, codebooks - 1 : -1]
    turn = (steps - 1) % codebooks  # the codebook of the token that a step reads
    known = jnp.broadcast_to(turn[:, None] == jnp.arange(codebooks), (b, len(steps), codebooks))
    return Steps(
        tokens=jnp.broadcast_to(read[..., None], known.shape),
        known=known,
        starts=jnp.repeat(batch.starts, codebooks, axis=1) & (steps % codebooks == 0),
        segment_ids=jnp.repeat(batch.segment_ids, codebooks, axis=1),
        positions=jnp.repeat(batch.positions * codebooks, codebooks, axis=1) + steps % codebooks,
        predicts=jnp.broadcast_to(steps.reshape(t, codebooks), (b, t, codebooks)),
    )


PATTERNS = {"delay": delayed, "flat": flattened}
