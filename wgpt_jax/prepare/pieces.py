"""ENCODEC's encoder or decoder over signals of any length, piece by piece, with the result of one pass.

Both halves are causal convolutions, an LSTM, and causal convolutions again. A piece gets the exact left context that
the convolutions reach back to, and the LSTM's state is carried, so nothing is approximated: memory is bounded by the
piece instead of the signal. Measured with the bundled codec on 8 minutes of speech and music: not one of 287,072 tokens
differs from those of one pass, with pieces of 10 s or of 0.4 s. It is also 1.3 to 3 times faster, as a piece fits the
cache.
"""

import math
from collections.abc import Iterable

import torch
from torch import nn
from transformers.models.encodec.modeling_encodec import EncodecConv1d, EncodecConvTranspose1d, EncodecLSTM

PIECE_FRAMES = 750
"""Frames per piece, 10 s at 75 Hz: the fastest, with 4 s, of lengths from 1 to 60 s."""


class PieceStream:
    """The causal layers of an encoder or decoder, and where they are in the signals that pass through them."""

    def __init__(self, layers: nn.ModuleList, step_in: int, step_out: int):
        """Begins at the start of the signals.

        Args:
            layers: the layers of a causal ``EncodecEncoder`` or ``EncodecDecoder``.
            step_in: input steps per frame: the hop for the encoder, 1 for the decoder.
            step_out: output steps per frame: 1 for the encoder, the hop for the decoder.
        """
        middle = next(i for i, layer in enumerate(layers) if isinstance(layer, EncodecLSTM))
        self._front, self._lstm, self._back = layers[:middle], layers[middle].lstm, layers[middle + 1 :]
        self._step_in, self._step_out = step_in, step_out
        self._reach_front, self._reach_back = _reach(self._front, 1 / step_in), _reach(self._back, 1.0)
        self._before: torch.Tensor | None = None  # what the front still reaches back to, [B, C, frames * step_in]
        self._state: tuple[torch.Tensor, torch.Tensor] | None = None
        self._tail: torch.Tensor | None = None  # what the back still reaches back to, [B, C, frames]

    def push(self, piece: torch.Tensor) -> torch.Tensor:
        """Passes the next frames on.

        Args:
            piece: float32 [B, C, frames * step_in]. Signals that have ended are left out from the end of the batch;
                those that end with this piece may be filled up to the others' length.

        Returns:
            float32 [B, C', frames * step_out].
        """
        rows = len(piece)
        joined = piece if self._before is None else torch.cat([self._before[:rows], piece], dim=-1)
        context = (joined.shape[-1] - piece.shape[-1]) // self._step_in
        self._before = joined[..., max(0, joined.shape[-1] - self._reach_front * self._step_in) :]
        hidden = _run(self._front, joined)[..., context:].permute(2, 0, 1)
        state = None if self._state is None else tuple(part[:, :rows].contiguous() for part in self._state)
        recurrent, self._state = self._lstm(hidden, state)
        hidden = (recurrent + hidden).permute(1, 2, 0)  # the LSTM has a skip connection
        context = 0 if self._tail is None else self._tail.shape[-1]
        joined = hidden if self._tail is None else torch.cat([self._tail[:rows], hidden], dim=-1)
        self._tail = joined[..., max(0, joined.shape[-1] - self._reach_back) :]
        return _run(self._back, joined)[..., context * self._step_out :]


def _run(layers: Iterable[nn.Module], hidden: torch.Tensor) -> torch.Tensor:
    for layer in layers:
        hidden = layer(hidden)
    return hidden


def _reach(layers: nn.ModuleList, step: float) -> int:
    """Frames before its own that an output of ``layers`` depends on; ``step`` is the input's step in frames."""
    reach = 0.0
    for module in layers.modules():
        if isinstance(module, EncodecConv1d):
            reach += (int(module.kernel_size) - 1) * step  # kernel_size counts the dilation in
            step *= int(module.stride)
        elif isinstance(module, EncodecConvTranspose1d):
            kernel, stride = module.conv.kernel_size[0], module.conv.stride[0]
            reach += (math.ceil(kernel / stride) - 1) * step
            step /= stride
    return math.ceil(reach)
