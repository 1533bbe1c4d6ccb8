"""The one clock: sample rate, hop and frame of everything that is heard, stored, learned or generated.

Frame ``t`` is samples ``[t * hop, (t + 1) * hop)``. Mel slice ``t`` and token ``t`` may depend on samples before
``(t + 1) * hop`` only: the causality contract of ``docs/design.md``.
"""

import dataclasses
import math
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Clock:
    """Sample rate and hop of a codec, in Hz and samples."""

    sample_rate: int
    hop: int

    @classmethod
    def of_codec(cls, sampling_rate: int, upsampling_ratios: Sequence[int]) -> "Clock":
        """The clock of an ENCODEC configuration: its hop is the product of the decoder's upsampling ratios."""
        return cls(sample_rate=sampling_rate, hop=math.prod(upsampling_ratios))

    @property
    def frames_per_second(self) -> float:
        """Frames (mel slices, token columns) per second."""
        return self.sample_rate / self.hop

    def frames(self, samples: int) -> int:
        """Number of whole frames in ``samples`` samples; a last partial frame has no token and no mel slice."""
        return samples // self.hop

    def samples(self, frames: int) -> int:
        """Number of samples in ``frames`` frames; also the first sample that frame ``frames - 1`` may not see."""
        return frames * self.hop

    def seconds(self, frames: int) -> float:
        """Duration of ``frames`` frames in seconds."""
        return frames * self.hop / self.sample_rate
