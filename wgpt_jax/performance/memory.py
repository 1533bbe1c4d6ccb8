"""What a training step needs of a device's memory besides its arguments: an estimate, without compiling.

The compiler's own figure comes from ``tools/compile_for.py``.
"""

import dataclasses
import math

from wgpt_jax.config import Config

_FLOAT32 = 4  # bytes


@dataclasses.dataclass(frozen=True)
class Activations:
    """Bytes on one device, of one microbatch."""

    saved: int
    """What the blocks keep from the forward pass for the backward pass."""
    working: int
    """The larger of what lies around the blocks (embeddings, logits) and of what one block needs going backward."""


def activations(config: Config, *, rows: float, itemsize: int, attention: str, tensor: int = 1) -> Activations:
    """Estimates what automatic differentiation keeps, per position of a block of width D, MLP F (G gates) and H heads.

    With ``s`` bytes per number of the compute type, A = D / tensor, and F and H divided by ``tensor``:

    - remat none: ``24 D + s (2 D + 5 A + 6 F)``: each of the two norms keeps three float32 copies of its input and its
      result; attention keeps queries, keys, values, its result and that result transposed; the MLP six arrays of its
      hidden channels. The einsum keeps no transposed result, but its weights: ``(4 + s) H T`` at context T.
    - dots: ``s (2 D + 4 A + G F)``, the results of matrix products; without the 4th A except for the splash kernel.
    - full: ``s D``, the block's input.

    Once, for one block at a time, remat needs again what none keeps, and the einsum as much for its weights' gradient
    as for the weights. Around the blocks of the decoder lie
    ``24 D + s D + 8 V / tensor`` for two norms and for logits and their gradient, V the vocabulary, and in hybrids
    ``12 E + s (D + E) + (s k + 16) M`` for the mel branch's norm, fusion and k taps of M bands, E its width; as much
    again for the convolution of the embeddings, with its taps and width and D in place of M.

    XLA fuses some of these away and pads others, so that its own figure differs by tens of per cent.

    Args:
        config: the experiment.
        rows: windows of one microbatch on one device.
        itemsize: bytes of a number of the compute type.
        attention: kernel of whole windows: ``einsum``, ``splash`` or ``cudnn``.
        tensor: size of the mesh's ``tensor`` axis.
    """
    m, t = config.model, config.data.context
    if m.pattern == "flat":
        t *= m.output_codebooks
    positions = rows * t
    gates = 2 if m.mlp == "swiglu" else 1
    stacks = [(m.depth, positions, _block(m.width, m.heads, m.hidden, gates, t, itemsize, attention, tensor))]
    heads = m.output_codebooks if m.pattern == "delay" else 1
    around = positions * (24 * m.width + itemsize * m.width + heads * 8 * m.vocabulary / tensor)
    if m.token_kernel > 1:
        e, taps = m.token_width, (itemsize * m.token_kernel + 16) * m.width
        around += positions * (12 * e + itemsize * (m.width + e) + taps)
    if m.inputs == "hybrid":
        e = m.mel_width
        stacks.append((m.mel_depth, positions, _block(e, m.mel_heads, 4 * e, 1, t, itemsize, attention, tensor)))
        fused, taps = itemsize * (m.width + e), (itemsize * m.mel_kernel + 16) * m.mel_bands
        around += positions * (12 * e + fused + taps)
    if m.has_depformer:
        e, steps = m.depformer_width, m.output_codebooks - 1
        inner = rows * math.ceil(config.training.depformer_fraction * t) * steps
        block = _block(e, m.depformer_heads, 4 * e, 1, steps, itemsize, "einsum", tensor)
        stacks.append((m.depformer_depth, inner, block))
        around += inner * (24 * e + itemsize * e + 8 * m.vocabulary / tensor)
    saved = sum(depth * each * block[m.remat] for depth, each, block in stacks)
    again = max(each * (block["none"] * (m.remat != "none") + block["weights"]) for _, each, block in stacks)
    return Activations(int(saved), int(max(around, again)))


def _block(
    width: int, heads: int, hidden: int, gates: int, length: int, itemsize: int, attention: str, tensor: int
) -> dict[str, float]:
    """Bytes that a block keeps per position under each remat policy; and of the einsum's attention weights."""
    a, f, d = width / tensor, hidden / tensor, width
    none = 24 * d + itemsize * (2 * d + 4 * a + 6 * f)
    dots = itemsize * (2 * d + 3 * a + gates * f)
    if attention == "splash":
        none, dots = none + itemsize * a, dots + itemsize * a
    weights = (_FLOAT32 + itemsize) * heads / tensor * length if attention == "einsum" else 0
    return {"none": none + weights, "dots": dots, "full": itemsize * d, "weights": weights}
