"""The optimiser: AdamW or Muon, the learning rate over the steps, clipped gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, muon

from wgpt_jax.config import OptimizerConfig

# Reduction and output axes of the matrices of blocks, whose first axis is the layer: heads, and the three of query,
# key and value, are matrices of their own or parts of one as Jordan's Muon has them.
_MATRICES = {
    "qkv": MuonDimensionNumbers(1, (3, 4)),  # [L, D, 3, H, C]
    "out": MuonDimensionNumbers((1, 2), 3),  # [L, H, C, D]
    "up": MuonDimensionNumbers(1, 3),  # [L, D, gates, F]
    "down": MuonDimensionNumbers(1, 2),  # [L, F, D]
    "fuse": MuonDimensionNumbers(0, 1),  # [D + E, D]
    "project": MuonDimensionNumbers(1, 2),  # [K - 1, D, E]
}
_MUON_RMS = 0.2
"""Root mean square of Muon's updates, AdamW's in practice, so that both take one learning rate (arXiv 2502.16982)."""


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate of every step: float32 [], of the number of updates done.

    It rises linearly to the peak. ``cosine`` decays towards ``final_fraction`` of it, which the update after the last
    one would have; ``wsd`` (warm-up, stable, decay) stays there, then falls towards the same by one minus the square
    root of what is done of the decay, the best of the shapes compared by Haegele et al. (arXiv 2405.18392), section 3.
    """
    peak, last = config.learning_rate, config.learning_rate * config.final_fraction
    warmup = min(config.warmup, max(steps - 1, 1))
    if config.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, max(steps, warmup + 1), last)
    begin = min(max(config.warmup, steps - round(config.decay_fraction * steps)), steps - 1)

    def decay(step: jax.Array) -> jax.Array:
        return last + (peak - last) * (1 - jnp.sqrt(jnp.clip(step / (steps - begin), 0.0, 1.0)))

    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), lambda _: peak, decay], [warmup, begin])


def decayed(params) -> dict:
    """Which parameters weight decay pulls on: matrix kernels; no embeddings, norms or null vectors."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: any(getattr(key, "key", None) == "kernel" for key in path), params
    )


def matrices(params) -> Any:
    """Axes of the kernels that Muon orthogonalises; None for what AdamW updates: embeddings, norms, stem and heads."""

    def axes(path, _):
        names = [getattr(key, "key", None) for key in path]
        return _MATRICES.get(names[names.index("kernel") - 1]) if "kernel" in names else None

    return jax.tree_util.tree_map_with_path(axes, params)


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """The gradient transformation of a run of ``steps`` steps.

    AdamW is Loshchilov and Hutter's (arXiv 1711.05101). Muon is Jordan's (2024) as ``optax.contrib.muon`` has it,
    scaled as Liu et al. do (arXiv 2502.16982, section 2.2); what is no matrix of a block goes through AdamW with
    Nesterov momentum and without decay there.
    """
    schedule = learning_rate(config, steps)
    if config.name == "muon":
        rule = muon(
            schedule,
            beta=config.momentum,
            weight_decay=config.weight_decay,
            adam_b1=config.beta1,
            adam_b2=config.beta2,
            eps=config.epsilon,
            muon_weight_dimension_numbers=matrices,
            consistent_rms=_MUON_RMS,
        )
    else:
        rule = optax.adamw(
            schedule,
            b1=config.beta1,
            b2=config.beta2,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            mask=decayed,
        )
    return optax.chain(optax.clip_by_global_norm(config.clip), rule)
