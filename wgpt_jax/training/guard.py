"""The guard of updates: on the device, before one is applied, without the host waiting for anything."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from wgpt_jax.config import TrainingConfig

_WINDOW = 128
"""Steps that a spike is measured against."""


class Guard(NamedTuple):
    """What the guard remembers."""

    skipped: jax.Array
    """int32 []; updates skipped since the run began."""
    in_row: jax.Array
    """int32 []; updates skipped one after the other until now, because something was not finite."""
    recent: jax.Array | None
    """float32 [128, 2]; loss and gradient norm of step s in row s % 128, nan if they were not finite or there is none
    yet; None where spikes may pass."""


def new_guard(config: TrainingConfig) -> Guard:
    """The guard of a run that begins."""
    recent = jnp.full((_WINDOW, 2), jnp.nan, jnp.float32) if config.spike_sigma else None
    return Guard(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), recent)


def judge(
    guard: Guard, config: TrainingConfig, step: jax.Array, loss: jax.Array, grad_norm: jax.Array
) -> tuple[jax.Array, Guard]:
    """Whether an update is applied.

    It is not if the loss or the gradient's norm is not finite; nor, with ``spike_sigma``, if one of them lies so many
    standard deviations above its mean over the last 128 steps (once half of them are there and finite), skipped ones
    included, lest a loss that rises for good stop learning for good: the rule of the skip-step optimiser in OLMo-core
    (Ai2), but for steps that lie below. After ``max_skipped`` updates in a row that were not finite nothing is applied
    any more: the state stays what it was when the host reads it.

    Args:
        guard: until now.
        config: the rule.
        step: int32 []; steps done before this one.
        loss: float32 [].
        grad_norm: float32 []; before clipping.

    Returns:
        bool []; the guard after this step.
    """
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    stopped = guard.in_row >= config.max_skipped
    apply, recent = finite & ~stopped, guard.recent
    if config.spike_sigma:
        row, have = jnp.stack([loss, grad_norm]), jnp.isfinite(recent)
        mean = jnp.mean(recent, axis=0, where=have)
        limit = mean + config.spike_sigma * jnp.std(recent, axis=0, where=have, ddof=1)
        apply &= (jnp.sum(have[:, 0]) < _WINDOW // 2) | jnp.all(row <= limit)
        recent = recent.at[step % _WINDOW].set(jnp.where(finite, row, jnp.nan))
    in_row = jnp.where(stopped, guard.in_row, jnp.where(finite, 0, guard.in_row + 1))
    return apply, Guard(guard.skipped + ~apply, in_row, recent)
