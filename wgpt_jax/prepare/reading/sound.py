"""A sound that is being read: what every decoder hands on, block by block, so that memory does not grow with length."""

import dataclasses
from collections.abc import Iterator

import numpy as np

BLOCK_SAMPLES = 1 << 17
"""Most samples of a block, all channels together: a header that claims 1000 channels must not fill the memory."""


@dataclasses.dataclass(frozen=True)
class Sound:
    """An open sound."""

    rate: int
    """Hz."""
    channels: int
    blocks: Iterator[np.ndarray]
    """float32 [n, channels], full scale 1, in order, n > 0; raises SourceError where the sound cannot be read on."""
