"""The floating-point operations that a step of training is worth: every matrix product of the network, counted."""

import dataclasses
import math
from typing import Literal

from wgpt_jax.config import Config

BACKWARD_AND_FORWARD = 3
"""Each product of the forward pass has two in the backward pass, for either operand's gradient, of the same size."""


@dataclasses.dataclass(frozen=True)
class Matmul:
    """``count`` products [rows, inner] x [inner, outer] of the forward pass, over the global batch."""

    name: str
    rows: int
    """m: positions of the batch; positions of one window in attention."""
    inner: int
    """k, summed over."""
    outer: int
    """n."""
    count: int
    """Layers; in attention layers x windows x heads."""
    split: Literal["inner", "outer"] | None = None
    """The side that the mesh's ``tensor`` axis divides; attention is divided by heads, and the rest not at all."""
    attention: Literal["scores", "values"] | None = None
    """Queries x keys or weights x values, if it is of attention."""

    @property
    def flops(self) -> int:
        """Multiplications and additions: 2 m k n each, half of it in attention, which is causal."""
        return 2 * self.rows * self.inner * self.outer * self.count // (2 if self.attention else 1)


def matmuls(config: Config) -> tuple[Matmul, ...]:
    """Every matrix product of the forward pass of one step, over the global batch.

    Looking up embeddings multiplies nothing, so it is not here.
    """
    m, t, windows = config.model, config.data.context, config.training.batch
    if m.pattern == "flat":
        t *= m.output_codebooks
    positions = windows * t
    products = _blocks("decoder", m.width, m.heads, m.hidden, m.depth, windows, t, gates=2 if m.mlp == "swiglu" else 1)
    if m.token_kernel > 1:
        products += [Matmul("token taps", positions, m.token_kernel * m.width, m.token_width, 1)]
        products += [Matmul("token project", positions, m.token_width, m.width, 1)]
    if m.inputs == "hybrid":
        fused = m.width + m.mel_width if m.fusion == "concat" else m.mel_width
        products += [Matmul("mel stem", positions, m.mel_kernel * m.mel_bands, m.mel_width, 1)]
        products += _blocks("mel", m.mel_width, m.mel_heads, 4 * m.mel_width, m.mel_depth, windows, t)
        products += [Matmul("fuse", positions, fused, m.width, 1)]
    heads = m.output_codebooks if m.pattern == "delay" else 1  # one reads each step otherwise
    products += [Matmul("head", positions, m.width, m.vocabulary, heads, split="outer")]
    if m.has_depformer:
        frames, steps = windows * math.ceil(config.training.depformer_fraction * t), m.output_codebooks - 1
        width, heads, depth = m.depformer_width, m.depformer_heads, m.depformer_depth
        products += [Matmul("depth project", frames, m.width, steps * width, 1)]
        products += _blocks("depth", width, heads, 4 * width, depth, frames, steps)
        products += [Matmul("depth head", frames, width, m.vocabulary, steps, split="outer")]
    return tuple(product for product in products if product.count)  # a mel branch may have no blocks


def _blocks(
    name: str, width: int, heads: int, hidden: int, depth: int, sequences: int, length: int, gates: int = 1
) -> list[Matmul]:
    """Products of ``depth`` blocks over ``sequences`` of ``length`` positions."""
    rows, channels, products = sequences * length, width // heads, depth * sequences * heads
    return [
        Matmul(f"{name} qkv", rows, width, 3 * width, depth, split="outer"),
        Matmul(f"{name} scores", length, channels, length, products, attention="scores"),
        Matmul(f"{name} values", length, length, channels, products, attention="values"),
        Matmul(f"{name} out", rows, width, width, depth, split="inner"),
        Matmul(f"{name} up", rows, width, gates * hidden, depth, split="outer"),
        Matmul(f"{name} down", rows, hidden, width, depth, split="inner"),
    ]


def flops_per_step(config: Config) -> int:
    """Model FLOPs of one optimiser step over the global batch: three times the products of the forward pass.

    A model of L blocks, width D, MLP F, vocabulary V and context T without a mel branch costs, per position,
    ``3 (L (8 D^2 + 4 D F + 2 T D) + 2 D V)``; the ``2 T D`` is attention, counted causally: T / 2 keys per query.

    Model FLOPs utilisation divides these by time and peak (PaLM, arXiv 2204.02311, appendix B). PaLM's formula counts
    attention in full, 12 L T D where this has 6 L T D; MaxText counts it causally since July 2025. What remat computes
    again is not counted: these are the model's FLOPs, not the hardware's. Every position of a window counts, padding
    too, which is computed all the same.
    """
    return BACKWARD_AND_FORWARD * sum(product.flops for product in matmuls(config))


def flops_per_frame(config: Config) -> float:
    """Model FLOPs of one training step for each position of its windows."""
    return flops_per_step(config) / (config.training.batch * config.data.context)
