"""From one frame's logits to its token: repetition penalty, temperature, top-k, top-p, min-p, a draw.

Everything a user sets is an array, so that new values never recompile the loop around it.

Letters: B batch, V vocabulary, R ``MAX_REPETITION_WINDOW``.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wgpt_jax.errors import RequestError

MAX_REPETITION_WINDOW = 512
"""Frames that the repetition penalty can look back on."""

_GREEDY = 1e-6  # temperatures below are greedy: dividing by them would overflow


class Sampling(NamedTuple):
    """How a token is drawn, as run-time values; made by :func:`make_sampling`."""

    temperature: jax.Array
    """float32 [], divides the logits; 0 is greedy."""
    top_k: jax.Array
    """int32 [], keeps the k likeliest; 0 is off."""
    top_p: jax.Array
    """float32 [], keeps the likeliest that together reach this probability; 1 is off."""
    min_p: jax.Array
    """float32 [], keeps what is at least this fraction as likely as the likeliest; 0 is off."""
    repetition_penalty: jax.Array
    """float32 [], divides the probability of recent tokens; 1 is off."""
    repetition_window: jax.Array
    """int32 [], frames that count as recent; 0 is off."""


def make_sampling(
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    repetition_window: int = 0,
    vocabulary: int,
) -> Sampling:
    """Checks what a user asked for.

    Args:
        temperature: at least 0, finite; 0 is greedy, as is everything below 1e-6.
        top_k: 0 to ``vocabulary``; 0 is off.
        top_p: in (0, 1]; 1 is off.
        min_p: in [0, 1]; 0 is off.
        repetition_penalty: at least 1, finite; 1 is off.
        repetition_window: 0 to ``MAX_REPETITION_WINDOW`` frames; 0 is off.
        vocabulary: entries of the codebook, V.

    Raises:
        RequestError: naming the flag that is wrong.
    """
    if not (math.isfinite(temperature) and temperature >= 0):
        raise RequestError(f"--temperature {temperature:g}: a temperature is a number from 0 (greedy) up")
    if top_k < 0:
        raise RequestError(f"--top-k {top_k}: the number of entries to keep is at least 1, or 0 for all")
    if top_k > vocabulary:
        raise RequestError(f"--top-k {top_k}: the codebook has {vocabulary} entries")
    if not 0 < top_p <= 1:
        raise RequestError(f"--top-p {top_p:g}: the probability to keep is above 0 and at most 1 (all)")
    if not 0 <= min_p <= 1:
        raise RequestError(f"--min-p {min_p:g}: the fraction of the highest probability is from 0 (off) to 1")
    if not (math.isfinite(repetition_penalty) and repetition_penalty >= 1):
        raise RequestError(f"--repetition-penalty {repetition_penalty:g}: a penalty is a number from 1 (off) up")
    if not 0 <= repetition_window <= MAX_REPETITION_WINDOW:
        raise RequestError(f"--repetition-window {repetition_window}: from 0 (off) to {MAX_REPETITION_WINDOW} frames")
    if repetition_penalty > 1 and repetition_window == 0:
        raise RequestError(f"--repetition-penalty {repetition_penalty:g} does nothing with --repetition-window 0")
    return Sampling(
        temperature=jnp.float32(temperature),
        top_k=jnp.int32(top_k),
        top_p=jnp.float32(top_p),
        min_p=jnp.float32(min_p),
        repetition_penalty=jnp.float32(repetition_penalty),
        repetition_window=jnp.int32(repetition_window),
    )


def filter_logits(logits: jax.Array, sampling: Sampling) -> jax.Array:
    """Temperature, then top-k, top-p and min-p, each on what the one before left, as transformers' warpers do.

    An entry stays where the entries strictly above it are fewer than k, and hold less than the probability p. Equal
    entries therefore stay or go together: a tie at the edge keeps all of them (so does transformers' top-k; its top-p
    cuts a tie anywhere). The likeliest entry always stays; greedy keeps it alone, the first of equals.

    Args:
        logits: float32 [B, V]; -inf excludes an entry from the start.
        sampling: how to draw.

    Returns:
        float32 [B, V], ``logits / temperature``, or -inf where excluded.
    """
    greedy = sampling.temperature < _GREEDY
    scaled = logits / jnp.where(greedy, 1.0, sampling.temperature)
    scaled = jax.lax.cond(sampling.top_k > 0, _keep_top_k, lambda x, _: x, scaled, sampling.top_k)
    scaled = jax.lax.cond(sampling.top_p < 1, _keep_top_p, lambda x, _: x, scaled, sampling.top_p)
    top = jnp.max(scaled, axis=-1, keepdims=True)
    likeliest = jnp.arange(logits.shape[-1]) == jnp.argmax(logits, axis=-1)[:, None]
    return jnp.where(jnp.where(greedy, likeliest, scaled >= top + jnp.log(sampling.min_p)), scaled, -jnp.inf)


def _keep_top_k(logits, k):
    count = jnp.where(jnp.isfinite(logits), 1.0, 0.0)
    return jnp.where(_lighter_above(logits, count, jnp.full(len(logits), k, jnp.float32)), logits, -jnp.inf)


def _keep_top_p(logits, p):
    weights = _weights(logits)
    # A p that float32 rounds to zero would keep nothing.
    budget = jnp.maximum(p, jnp.finfo(jnp.float32).tiny) * jnp.sum(weights, axis=-1)
    return jnp.where(_lighter_above(logits, weights, budget), logits, -jnp.inf)


def _weights(logits):
    """Probabilities up to one factor per row, the likeliest 1: float32 [B, V]."""
    return jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))


def _lighter_above(logits, weights, budget):
    """Where the strictly larger logits of the row weigh less than the budget: top-k and top-p are both this.

    The largest logit too low to stay is found bit by bit, in 32 weighed comparisons: half the time of a sort on a CPU.

    Args:
        logits, weights: float32 [B, V], no NaN; weights at least 0.
        budget: float32 [B], above 0.

    Returns:
        bool [B, V].
    """
    bits = jax.lax.bitcast_convert_type(jnp.where(logits == 0, 0.0, logits), jnp.uint32)  # one zero, not two
    sign = jnp.uint32(1 << 31)
    order = jnp.where(bits < sign, bits | sign, ~bits)  # unsigned integers in the order of the floats

    def add_bit(place, edge):
        higher = edge | (sign >> place.astype(jnp.uint32))
        above = jnp.sum(jnp.where(order > higher[:, None], weights, 0.0), axis=-1)
        return jnp.where(above >= budget, higher, edge)

    edge = jax.lax.fori_loop(0, 32, add_bit, jnp.zeros(len(logits), jnp.uint32))
    return order > edge[:, None]


def sample(logits: jax.Array, sampling: Sampling, keys: jax.Array) -> jax.Array:
    """Draws one token per row with the row's own key, so that it does not depend on the rest of the batch.

    The draw inverts the cumulative distribution: one uniform number per row, a third of the time that V Gumbel numbers
    per row take on a CPU.

    Args:
        logits: float32 [B, V].
        sampling: how to draw.
        keys: typed PRNG keys [B].

    Returns:
        int32 [B]; the argmax where greedy.
    """
    weights = _weights(filter_logits(logits, sampling))
    # Excluded entries reach nothing: where the sum's rounding is not monotone, one could be hit.
    reach = jnp.where(weights > 0, jnp.cumsum(weights, axis=-1), 0.0)
    uniform = jax.vmap(jax.random.uniform)(keys)
    drawn = uniform * jnp.max(reach, axis=-1)
    return jnp.argmax(reach > drawn[:, None], axis=-1).astype(jnp.int32)


def penalise(logits: jax.Array, recent: jax.Array, step: jax.Array, sampling: Sampling) -> jax.Array:
    """Divides the probability of recent tokens by the penalty, once however often they occurred; before temperature.

    ``log(penalty)`` is subtracted from their logits. CTRL (arXiv 1909.05858, section 4.1) divides the logit itself,
    which depends on where zero lies, and so changes when a constant is added to all logits; this does not.

    Args:
        logits: float32 [B, V].
        recent: int32 [B, R], ring of tokens, from :func:`no_tokens` and :func:`remember`.
        step: int32 [], tokens that the ring has seen so far.
        sampling: penalty and window.

    Returns:
        float32 [B, V].
    """
    age = (step - 1 - jnp.arange(MAX_REPETITION_WINDOW)) % MAX_REPETITION_WINDOW
    counts = (age < sampling.repetition_window) & (recent >= 0)
    rows, outside = jnp.arange(len(logits))[:, None], logits.shape[-1]
    repeated = jnp.zeros(logits.shape, bool).at[rows, jnp.where(counts, recent, outside)].set(True, mode="drop")
    return logits - jnp.where(repeated, jnp.log(sampling.repetition_penalty), 0.0)


def no_tokens(batch: int) -> jax.Array:
    """The ring before the first frame: int32 [B, R] of -1, which is no token."""
    return jnp.full((batch, MAX_REPETITION_WINDOW), -1, jnp.int32)


def remember(recent: jax.Array, token: jax.Array, step: jax.Array) -> jax.Array:
    """The ring with the token of frame ``step``: int32 [B, R], [B], [] -> [B, R]."""
    return jax.lax.dynamic_update_slice(recent, token[:, None], (0, step % MAX_REPETITION_WINDOW))
