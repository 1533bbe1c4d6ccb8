"""The causality contract as a check: noise after frame t must leave every output up to t as it was, bit for bit."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from wgpt_jax.audio.clock import Clock

FrameFunction = Callable[[np.ndarray], np.ndarray]
"""Maps samples float32 [N] to an array [n_frames, ...], one row per frame: mel, tokens, logits."""

_ROUNDING = 0.02  # in units of the normalised mel; tokens differ by one at least
_OTHER_FRAMES = 0.05


@dataclasses.dataclass(frozen=True)
class CausalityReport:
    """Outcome of checking one function on one signal."""

    name: str
    """What was checked."""
    frames: tuple[int, ...]
    """Frames t after which the signal was replaced by noise."""
    leaks: tuple[tuple[int, int], ...]
    """Pairs (t, f): noise after frame t changed frame f <= t, the first one."""
    reacts: bool
    """Whether the noise changed anything at all; a function that ignores its input proves nothing."""
    mismatch: int | None = None
    """First frame where the undisturbed signal does not give the expected output; None if it does."""
    agreement: float = 1.0
    """Fraction of frames where it does."""
    labelled: bool = False
    """Whether it says of itself that it sees the future: then the check must find that it does."""

    @property
    def passed(self) -> bool:
        """Whether the contract holds; of what is labelled a leak, whether it is one."""
        return bool(self.leaks) == self.labelled and self.reacts and self.mismatch is None

    def __str__(self) -> str:
        if self.mismatch is not None:
            return f"FAILED {self.name}: frame {self.mismatch} is not what its audio gives now"
        if self.leaks:
            t, first = self.leaks[0]
            verdict = (
                ("leaks ", "sees the future, as its name says") if self.labelled else ("FAILED", "sees the future")
            )
            return (
                f"{verdict[0]} {self.name}: {verdict[1]}: noise after frame {t} changes frame {first} "
                f"({len(self.leaks)} of {len(self.frames)} cuts leak)"
            )
        if self.labelled:
            return f"FAILED {self.name}: is labelled a leak, and no cut shows one"
        if not self.reacts:
            return f"FAILED {self.name}: noise changes nothing at all, the check is blind"
        stored = "" if self.agreement == 1.0 else f"; stored as computed now in {100 * self.agreement:.2f} % of frames"
        return f"ok     {self.name}: bit-identical up to frame t for noise after t, at {len(self.frames)} cuts{stored}"


def sweep_frames(n_frames: int) -> tuple[int, ...]:
    """Frames to cut after: the first twelve (where padding could leak), some in the middle, the last."""
    middle = (n_frames // 3, n_frames // 2, n_frames - n_frames // 3)
    candidates = {*range(12), *middle, n_frames - 2, n_frames - 1}
    return tuple(sorted(frame for frame in candidates if 0 <= frame < n_frames))


def with_noise_after(samples: np.ndarray, clock: Clock, frame: int, seed: int) -> np.ndarray:
    """The signal with every sample at or after ``(frame + 1) * hop`` replaced by full-scale white noise."""
    disturbed = np.array(samples, np.float32)
    start = clock.samples(frame + 1)
    noise = np.random.default_rng((seed, frame)).uniform(-1.0, 1.0, max(0, len(samples) - start))
    disturbed[start:] = noise
    return disturbed


def first_change(
    function: FrameFunction,
    samples: np.ndarray,
    clock: Clock,
    frame: int,
    seed: int = 0,
    expected: np.ndarray | None = None,
) -> int | None:
    """First output up to ``frame`` that noise after ``frame`` changes.

    Args:
        function: what is checked.
        samples: float32 [N].
        clock: sample rate and hop.
        frame: t; samples from ``(t + 1) * hop`` on are replaced.
        seed: of the noise.
        expected: output for the undisturbed signal; computed if not given.

    Returns:
        The frame, or None if all are bit-identical.
    """
    expected = function(samples) if expected is None else expected
    changed = _changed(function(with_noise_after(samples, clock, frame, seed)), expected)[: frame + 1]
    return int(changed.argmax()) if changed.any() else None


def verify_function(
    name: str,
    function: FrameFunction,
    samples: np.ndarray,
    clock: Clock,
    frames: Sequence[int] | None = None,
    seed: int = 0,
    expected: np.ndarray | None = None,
) -> CausalityReport:
    """Checks a function at every frame of a sweep.

    Args:
        name: for the report.
        function: what is checked.
        samples: float32 [N], at least two frames.
        clock: sample rate and hop.
        frames: cuts; :func:`sweep_frames` by default.
        seed: of the noise.
        expected: output that the undisturbed signal must have (a stored array); computed if not given. It may come
            from another device or batch, where sums round otherwise and a token between two entries may be the other:
            one frame in twenty may differ.
    """
    frames = sweep_frames(clock.frames(len(samples))) if frames is None else tuple(frames)
    current = function(samples)
    expected = current if expected is None else expected
    different = _differs(current, expected)
    other = different.mean() > _OTHER_FRAMES or len(current) != len(expected)
    mismatch = int(different.argmax()) if other else None
    leaks, reacts = [], False
    for frame in frames:
        changed = _changed(function(with_noise_after(samples, clock, frame, seed)), current)
        if changed[: frame + 1].any():
            leaks.append((frame, int(changed.argmax())))
        reacts |= bool(changed.any())
    return CausalityReport(name, frames, tuple(leaks), reacts, mismatch, 1.0 - float(different.mean()))


def _differs(output: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Rows that differ by more than rounding, bool [n]; rows that only one of the two has differ."""
    n, common = max(len(output), len(expected)), min(len(output), len(expected))
    different = np.ones(n, bool)
    if output.dtype == expected.dtype and output.shape[1:] == expected.shape[1:]:
        far = np.abs(output[:common].astype(np.float64) - expected[:common]) > _ROUNDING
        different[:common] = far.reshape(common, -1).any(axis=1)
    return different


def _changed(output: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Rows that differ in any bit, bool [n]; rows that only one of the two has differ."""
    n, common = max(len(output), len(expected)), min(len(output), len(expected))
    changed = np.ones(n, bool)
    if common and output.dtype == expected.dtype and output.shape[1:] == expected.shape[1:]:
        rows = [np.ascontiguousarray(array[:common]).view(np.uint8).reshape(common, -1) for array in (output, expected)]
        changed[:common] = (rows[0] != rows[1]).any(axis=1)
    return changed
