"""The batch: what passes from the data to the model."""

from typing import NamedTuple

import numpy as np


class Batch(NamedTuple):
    """Windows of T frames to predict, each with the frame before it in front.

    Position ``t`` of a window predicts frame ``t`` and sees frame ``t - 1``: the shift by one is in the arrays'
    lengths, so no code can get it wrong by a slice. Fields are NumPy arrays on the host, JAX arrays on the device.
    """

    tokens: np.ndarray
    """int16 [B, T + 1, K]; column 0 is the frame before the window."""
    mel: np.ndarray
    """float16 [B, T + 1, M]; the same frames."""
    segment_ids: np.ndarray
    """int32 [B, T]; which document a position belongs to, 0 where there is nothing to predict."""
    positions: np.ndarray
    """int32 [B, T]; index of the position in its segment of the window."""
    starts: np.ndarray
    """bool [B, T]; the first frame of a document: its input is BOS and the null mel."""

    @property
    def targets(self) -> np.ndarray:
        """[B, T]: the coarse token of every frame."""
        return self.tokens[:, 1:, 0]

    def codes(self, codebooks: int) -> np.ndarray:
        """[B, T, codebooks]: the tokens of every frame, coarse first; what is predicted."""
        return self.tokens[:, 1:, :codebooks]

    @property
    def weights(self) -> np.ndarray:
        """bool [B, T]: True where a token is predicted."""
        return self.segment_ids > 0
