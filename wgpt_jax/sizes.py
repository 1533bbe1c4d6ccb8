"""A ladder of sizes from 1M to 3B parameters: hybrids, and token-only twins of the same number of parameters."""

import dataclasses
from typing import Literal

from wgpt_jax.config import Config, DataConfig, MeshConfig, ModelConfig, OptimizerConfig, TrainingConfig
from wgpt_jax.errors import RequestError

LADDER: dict[str, tuple[int, int]] = {
    "1m": (128, 4),
    "4m": (256, 4),
    "15m": (384, 8),
    "40m": (512, 12),
    "150m": (768, 20),
    "400m": (1280, 20),
    "1b": (2048, 20),
    "3b": (3072, 26),
}
"""The dial: width D and depth L of each size; everything else follows from them."""
_ALL_DATA = MeshConfig()
_MATRIX_TILE = 128  # sizes of wide networks are multiples of what a TPU's matrix unit takes


def hybrid(size: str) -> ModelConfig:
    """The hybrid of a size; ``4m`` is the paper's.

    Heads have 64 channels up to width 512, 128 above. The mel branch has two blocks of 3/8 of the width.

    Raises:
        RequestError: if there is no such size.
    """
    if size not in LADDER:
        raise RequestError(f"no size {size!r}; there are {', '.join(LADDER)}")
    width, depth = LADDER[size]
    return ModelConfig(
        inputs="hybrid",
        width=width,
        depth=depth,
        heads=width // (64 if width <= 512 else 128),
        hidden=4 * width,
        mel_width=3 * width // 8,
        mel_depth=2,
        mel_heads=width // 128,
    )


def tokens(size: str) -> ModelConfig:
    """The hybrid's token-only twin: what the mel branch costs, its MLPs have instead.

    Raises:
        RequestError: if there is no such size.
    """
    model = hybrid(size)
    per_channel = 2 * model.width * model.depth
    step = _MATRIX_TILE if model.width >= 768 else 16
    hidden = model.hidden + round(_mel_parameters(model) / per_channel / step) * step
    return dataclasses.replace(model, inputs="tokens", hidden=hidden)


def _mel_parameters(model: ModelConfig) -> int:
    """What the mel branch and the fusion add to a decoder."""
    d, e, m = model.width, model.mel_width, model.mel_bands
    block = 4 * e * e + 2 * e * 4 * e + 2 * e
    return m + model.mel_kernel * m * e + model.mel_depth * block + e + e + (d + e) * d


def experiment(
    inputs: Literal["hybrid", "tokens"],
    size: str,
    *,
    batch: int,
    context: int = 1024,
    mesh: MeshConfig = _ALL_DATA,
    remat: str = "none",
) -> Config:
    """A training run of a size: the learning rate falls with the square root of the width, 1e-3 at 256.

    Args:
        inputs: hybrid, or the token-only twin.
        size: a key of :data:`LADDER`.
        batch: windows per step over all devices.
        context: frames per window.
        mesh: how devices share the work; by default each has a copy of the model.
        remat: what a block recomputes in the backward pass.
    """
    model = hybrid(size) if inputs == "hybrid" else tokens(size)
    return Config(
        model=dataclasses.replace(model, remat=remat),
        data=DataConfig(context=context, workers=4),
        training=TrainingConfig(steps=100_000, batch=batch, eval_every=2000),
        optimizer=OptimizerConfig(learning_rate=round(1e-3 * (256 / model.width) ** 0.5, 5), warmup=2000),
        mesh=mesh,
    )
