"""The highest model FLOPs utilisation that a configuration's widths allow on a chip (roofline: Williams et al., 2009).

Narrow products take longer to move than to multiply, and sizes short of the matrix unit's tile are padded: most of a
small model's distance to 100 % is no fault of the code.
"""

import dataclasses

from wgpt_jax.config import Config
from wgpt_jax.performance.chips import Chip
from wgpt_jax.performance.flops import BACKWARD_AND_FORWARD, Matmul, flops_per_step, matmuls

OPTIMIZER_BYTES = 28
"""Of each parameter per step, float32: gradient, parameter and AdamW's two means read, the latter three written."""
_OPERAND_BYTES = 2  # bfloat16


@dataclasses.dataclass(frozen=True)
class Ceiling:
    """What the roofline allows at most."""

    chip: Chip
    mfu: float
    """Model FLOPs utilisation, in (0, 1]."""
    seconds: float
    """The shortest time of a step."""


def mfu_ceiling(
    config: Config, chip: Chip, parameters: int, *, data: int = 1, fsdp: int = 1, tensor: int = 1
) -> Ceiling:
    """An upper bound on model FLOPs utilisation.

    ``mfu = flops_per_step / (devices peak seconds)`` with, per device,

    ``seconds = sum over products of 3 count max(2 m' k' n' / peak, bytes / bandwidth) + optimiser bytes / bandwidth``

    for the forward product and its two in the backward pass. A product's rows are divided by ``data x fsdp``, heads,
    hidden channels or vocabulary by ``tensor``; m', k' and n' are sizes padded to the chip's tile. Bytes are those of
    both operands and the result, each moved once in bfloat16; attention moves queries, keys, values and its result
    alone, as a flash kernel does, and is counted causally. The optimiser moves :data:`OPTIMIZER_BYTES` per parameter,
    of which a device holds one in ``fsdp x tensor``.

    A bound, because all else takes time too: softmax, norms, activations, logits in float32, recomputation,
    collectives, the start of each kernel. Only a kernel that does two products without writing what lies between them
    could pass it.

    Args:
        config: the experiment; its batch is over all devices.
        chip: one device.
        parameters: of the network.
        data, fsdp, tensor: sizes of the mesh's axes.
    """
    seconds = sum(product_seconds(product, chip, data * fsdp, tensor) for product in matmuls(config))
    seconds += OPTIMIZER_BYTES * parameters / (fsdp * tensor) / chip.hbm_bandwidth
    return Ceiling(chip, flops_per_step(config) / (data * fsdp * tensor * chip.peak_bf16_flops * seconds), seconds)


def product_seconds(product: Matmul, chip: Chip, replicas: int = 1, tensor: int = 1) -> float:
    """Shortest time of a product and of its two in the backward pass, on one of ``replicas x tensor`` devices.

    Each of the three multiplies the same three sizes and moves the same three arrays, one of them being the result.
    """
    m, k, n, count = product.rows, product.inner, product.outer, product.count
    if product.attention:
        count /= replicas * tensor
    else:
        m /= replicas
        k /= tensor if product.split == "inner" else 1
        n /= tensor if product.split == "outer" else 1
    left, right, result = m * k, k * n, m * n
    moved = {"scores": left + right, "values": right + result}.get(product.attention, left + right + result)
    # Products of a few rows (the depth transformer's attention) can be left to the vector unit, which pads nothing.
    tile = chip.matrix_tile if m >= chip.matrix_tile else 1
    flops = 2 * _padded(m, tile) * _padded(k, tile) * _padded(n, tile) / (2 if product.attention else 1)
    each = max(flops / chip.peak_bf16_flops, _OPERAND_BYTES * moved / chip.hbm_bandwidth)
    return BACKWARD_AND_FORWARD * count * each


def _padded(size: float, tile: int) -> float:
    return -(-size // tile) * tile
