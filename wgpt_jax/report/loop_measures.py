"""What a closed loop scored beside held-out audio, and whether it can be told from it."""

import dataclasses
import math
from typing import Any

from scipy.special import stdtrit

from wgpt_jax.report.rows import Row


@dataclasses.dataclass(frozen=True)
class Measure:
    """What a closed loop scored on one scale."""

    name: str
    real: str
    """Held-out audio against other held-out audio (the floor), or its own level, with its error."""
    excess: float
    """Generated minus real."""
    error: float
    """Of the excess."""
    side: int
    """1 above, -1 below, 0 if the error is too large to say."""
    digits: int
    """Behind the point."""

    @property
    def told(self) -> str:
        """Its name and the side; only of one that is told from held-out audio."""
        return f"{self.name} {'above' if self.side > 0 else 'below'}"

    def __str__(self) -> str:
        said = with_error(self.excess, self.error, self.digits)
        return f"**{said}**" if self.side else said


def measures(row: Row) -> list[Measure]:
    """Distances from held-out sound and repetition."""
    return [*_distances(row), *_repetitions(row)]


def with_error(value: float, stderr: float, digits: int, sign: str = "+") -> str:
    """``+0.123 +- 0.045``."""
    return f"{value:{sign}.{digits}f} +- {stderr:.{digits}f}"


def _distances(row: Row) -> list[Measure]:
    """How far generated sound is from held-out sound, beside how far that is from itself."""
    drift, frechet = row["drift"], row["frechet"]
    found = (
        ("divergence of coarse tokens (bits)", drift["overall"], 3),
        ("rise of the divergence, first to last window (bits)", drift["rise"], 3),
        ("Fréchet distance of frames", frechet["frames"], 1),
        (f"Fréchet distance of means of {frechet['patch_frames']} frames", frechet["patches"], 1),
    )
    return [
        _measure(row, name, each, "floor", (each["excess"], each["excess_stderr"]), digits)
        for name, each, digits in found
    ]


def _repetitions(row: Row) -> list[Measure]:
    """How much of the tokens repeats; samples and documents are drawn apart, so their errors add in squares."""
    found = []
    for key, name in (("repeated", "token as the one before"), ("looped", "token in a loop")):
        each = row["repetition"][key]
        error = math.hypot(each["generated_stderr"], each["held_out_stderr"])
        excess = each["generated"] - each["held_out"]
        found.append(_measure(row, name, each, "held_out", (excess, error), 3))
    return found


def _measure(row: Row, name: str, each: dict[str, Any], real: str, excess: tuple[float, float], digits: int) -> Measure:
    """By whether an excess is more errors than Student's distribution allows."""
    value, error = excess
    sure = float(stdtrit(min(row["num_samples"], row["documents"]) - 1, 0.975))
    side = 0 if abs(value) <= sure * error else 1 if value > 0 else -1
    return Measure(name, with_error(each[real], each[f"{real}_stderr"], digits, ""), value, error, side, digits)
