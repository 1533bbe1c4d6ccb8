"""What the rows of an ablation say together: means over seeds, paired differences, what a mel is worth in parameters.

Pure functions over rows of ``results.jsonl``. Every interval holds 95 %.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit

from wgpt_jax.ablation.curve import fit_curves

Row = Mapping[str, Any]
RESAMPLES = 2000
_COARSE, _TOTAL = 2, 3  # columns of a row's documents


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number in nats per frame, and its interval; None where there is too little to say one."""

    value: float
    low: float | None
    high: float | None
    seeds: int
    documents: int

    @property
    def decided(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low is not None and (self.low > 0 or self.high < 0)


@dataclasses.dataclass(frozen=True)
class Multiplier:
    """Parameters of the token-only model with a hybrid's NLL, over those of the hybrid.

    Where that size is outside the sizes that were trained, ``value`` is None and ``where`` says on which side: nothing
    is extrapolated. ``low`` is 0 and ``high`` is infinite where that end of the interval is outside.
    """

    value: float | None
    low: float
    high: float
    where: str
    """inside, above (more parameters than any that were trained) or below the fitted range; undefined if the token-only
    NLL does not fall with the parameters."""
    bound: float | None
    """The multiplier at the end of the range that it is beyond."""
    curve: str
    """What was fitted."""

    def __str__(self) -> str:
        low = "from below the range" if self.low == 0 else f"from {self.low:.2f}"
        high = "to above the range" if math.isinf(self.high) else f"to {self.high:.2f}"
        if math.isinf(self.low):
            low, high = "all of it", "above the range"
        if self.where == "undefined":
            return "not defined: the token-only NLL does not fall with the parameters"
        if self.value is None:
            side = "more" if self.where == "above" else "less"
            return f"{side} than {self.bound:.2f}: outside the fitted range ({low} {high})"
        return f"{self.value:.2f} ({low} {high})"


def final_runs(rows: Sequence[Row], **wanted: Any) -> list[Row]:
    """Scored final runs whose fields have some values, as ``final_runs(rows, data="piano", arm="a")``, by seed."""
    found = [row for row in rows if row["kind"] == "run" and row["stage"] == "final"]
    found = [row for row in found if all(row[key] == value for key, value in wanted.items())]
    return sorted(found, key=lambda row: row["seed"])


def mean_over_seeds(rows: Sequence[Row], *, total: bool = True) -> Estimate:
    """Mean NLL of runs that differ in their seed, and Student's interval over seeds.

    The interval is of what another seed on the same documents gives, not of what other documents would.

    Args:
        rows: at least one run.
        total: nats of all output codebooks per frame; False: of the coarse token.
    """
    nats, frames = nats_of(rows, total=total)
    values = nats.sum(axis=1) / frames.sum()
    mean, n = float(values.mean()), len(values)
    if n < 2:
        return Estimate(mean, None, None, n, len(frames))
    half = float(stdtrit(n - 1, 0.975)) * float(values.std(ddof=1)) / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n, len(frames))


def paired_difference(
    first: Sequence[Row], second: Sequence[Row], *, total: bool = True, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Mean NLL of ``first`` minus ``second`` over the seeds that both have, paired by document and by seed.

    The interval is the percentile bootstrap's over documents and seeds, both drawn with replacement: of what other
    documents and other seeds would give. With very few seeds it is too narrow; one seed is not resampled.

    Args:
        first, second: runs of two arms, scored on the same documents.
        total: nats of all output codebooks per frame; False: of the coarse token.
        resamples: draws of the bootstrap.
        seed: of the draws.

    Raises:
        ValueError: if the two have no seed in common, or were not scored on the same frames.
    """
    common = sorted({row["seed"] for row in first} & {row["seed"] for row in second})
    if not common:
        raise ValueError("the two arms have no seed in common")
    sides = [
        sorted((row for row in rows if row["seed"] in common), key=lambda r: r["seed"]) for rows in (first, second)
    ]
    if _documents(sides[0][0]) != _documents(sides[1][0]):
        raise ValueError("the two arms were not scored on the same frames")
    nats, frames = (nats_of(side, total=total) for side in sides), nats_of(sides[0])[1]
    ours, theirs = (each for each, _ in nats)
    difference, rng = ours - theirs, np.random.default_rng(seed)
    value = float(difference.sum() / (len(common) * frames.sum()))
    if len(frames) < 2:
        return Estimate(value, None, None, len(common), len(frames))
    drawn = _resampled(difference, frames, _weights(len(frames), resamples, rng), rng)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(value, float(low), float(high), len(common), len(frames))


def multiplier(
    tokens: Sequence[Row], hybrid: Sequence[Row], *, total: bool = True, resamples: int = RESAMPLES, seed: int = 0
) -> Multiplier:
    """How many times a hybrid's parameters a token-only model needs for the same NLL.

    The token-only NLL is fitted over its sizes (:func:`~wgpt_jax.ablation.curve.fit_curves`). The interval is the
    percentile bootstrap's: documents are drawn with replacement, the same for all runs, and seeds within each size.

    Args:
        tokens: final runs of the token-only arm, two sizes or more.
        hybrid: final runs of a hybrid at one size, scored on the same documents.
        total: nats of all output codebooks per frame; False: of the coarse token.
        resamples: draws of the bootstrap.
        seed: of the draws.

    Raises:
        ValueError: if there are fewer than two sizes, or not all were scored on the same frames.
    """
    sizes = sorted({row["parameters"] for row in tokens})
    if len(sizes) < 2:
        raise ValueError("a curve needs the token-only arm at two sizes or more")
    groups = [[row for row in tokens if row["parameters"] == size] for size in sizes]
    if any(_documents(group[0]) != _documents(hybrid[0]) for group in groups):
        raise ValueError("the runs were not scored on the same frames")
    rng, frames = np.random.default_rng(seed), nats_of(hybrid)[1]
    weights = np.concatenate([np.ones((1, len(frames))), _weights(len(frames), resamples, rng)])

    def scores(rows: Sequence[Row]) -> np.ndarray:
        """[1 + resamples]: as it is, then resampled."""
        nats = nats_of(rows, total=total)[0]
        return np.concatenate([[nats.sum() / (len(nats) * frames.sum())], _resampled(nats, frames, weights[1:], rng)])

    curves = fit_curves(np.array(sizes, float), np.stack([scores(group) for group in groups], axis=1))
    ratio = curves.size_at(scores(hybrid)) / float(np.mean([row["parameters"] for row in hybrid]))
    least, most = (size / float(np.mean([row["parameters"] for row in hybrid])) for size in (sizes[0], sizes[-1]))
    censored = np.where(ratio < least, 0.0, np.where(ratio > most, np.inf, ratio))[1:]
    # A resampled curve that does not fall says nothing: it widens the interval at both ends.
    low = np.percentile(np.nan_to_num(censored, nan=0.0, posinf=np.inf), 2.5, method="nearest")
    high = np.percentile(np.nan_to_num(censored, nan=np.inf, posinf=np.inf), 97.5, method="nearest")
    if np.isnan(ratio[0]):
        return Multiplier(None, float(low), float(high), "undefined", None, curves.form)
    if least <= ratio[0] <= most:
        return Multiplier(float(ratio[0]), float(low), float(high), "inside", None, curves.form)
    where, bound = ("below", least) if ratio[0] < least else ("above", most)
    return Multiplier(None, float(low), float(high), where, bound, curves.form)


def nats_of(rows: Sequence[Row], *, total: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Nats [runs, documents] of some runs, and the frames of each document [documents].

    Raises:
        ValueError: if they were not scored on the same frames.
    """
    if any(_documents(row) != _documents(rows[0]) for row in rows):
        raise ValueError("the runs were not scored on the same frames")
    column = _TOTAL if total else _COARSE
    nats = np.array([[document[column] for document in row["documents"]] for row in rows], float)
    return nats, np.array([frames for _, frames in _documents(rows[0])], float)


def _documents(row: Row) -> list[tuple[str, int]]:
    return [(document[0], document[1]) for document in row["documents"]]


def _weights(count: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of ``count`` things is drawn, [resamples, count]."""
    return rng.multinomial(count, np.full(count, 1 / count), size=resamples).astype(float)


def _resampled(nats: np.ndarray, frames: np.ndarray, documents: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Nats per frame [R] with documents drawn as often as [R, documents] says, and seeds drawn here."""
    seeds = _weights(len(nats), len(documents), rng)
    return ((seeds @ nats) * documents).sum(axis=1) / (len(nats) * (documents @ frames))
