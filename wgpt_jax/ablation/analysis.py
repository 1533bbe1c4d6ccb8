"""What the rows of an ablation say together: means over seeds, paired differences, what a mel is worth in parameters.

Pure functions over rows of ``results.jsonl``. Every interval is made to hold 95 %
(:mod:`wgpt_jax.ablation.resampling`).
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit

from wgpt_jax.ablation.curve import matching_sizes
from wgpt_jax.ablation.resampling import draw_means, draw_weights, interval

Row = Mapping[str, Any]
RESAMPLES = 50_000
"""Draws behind the interval of a difference; another seed of theirs moves its ends by less than 1 % of its width."""
FITTED_RESAMPLES = 10_000
"""Draws behind the interval of a multiplier, each of which takes the fit of a curve."""
ENOUGH = 3
"""Seeds from which on anything is decided: of two, Student's interval is too wide to, and any other too narrow."""
_COARSE, _TOTAL = 2, 3  # columns of a row's documents


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number in nats per frame, and its interval; None where there is too little to say one."""

    value: float
    low: float | None
    high: float | None
    seeds: int
    groups: int
    """Documents, or groups of documents that share a speaker or a work, where that is known."""

    @property
    def decided(self) -> bool:
        """Whether there are enough seeds, and the interval leaves zero out."""
        return self.seeds >= ENOUGH and self.low is not None and (self.low > 0 or self.high < 0)


@dataclasses.dataclass(frozen=True)
class Multiplier:
    """Parameters of the token-only model with a hybrid's NLL, over those of the hybrid.

    Where that is more or less than all that were trained, ``value`` is None and ``where`` says which: nothing is
    extrapolated. ``low`` is 0 and ``high`` is infinite where that end of the interval is not known; both are None of a
    single document.
    """

    value: float | None
    low: float | None
    high: float | None
    where: str
    """inside; above, where no token-only model that was trained is as good; below, where the smallest is."""
    bound: float | None
    """Above and below: the largest or the smallest that was trained, over the hybrid."""
    curve: str
    """What was fitted."""
    seeds: int
    """Of the size or the hybrid that has the fewest."""

    def __str__(self) -> str:
        if self.where == "above":
            said = f"more than {self.bound:.2f}: no token-only model that was trained is as good"
        elif self.where == "below":
            said = f"less than {self.bound:.2f}: the smallest token-only model that was trained is as good"
        else:
            said = f"{self.value:.2f}"
        if self.low is None:
            return f"{said} (no interval: a single document)"
        low = "from beyond the smallest" if self.low == 0 else f"{self.low:.2f}"
        high = "beyond the largest" if math.isinf(self.high) else f"{self.high:.2f}"
        few = f", {count_seeds(self.seeds)}" if self.seeds < ENOUGH else ""
        return f"{said} ({low} to {high}{few})"


def count_seeds(seeds: int) -> str:
    """``1 seed``, ``2 seeds``."""
    return f"{seeds} seed{'' if seeds == 1 else 's'}"


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
    return student_over_seeds(nats.sum(axis=1) / frames.sum(), len(frames))


def student_over_seeds(values: np.ndarray, groups: int) -> Estimate:
    """Mean of what each seed gave, float [S], and Student's 95 % interval; ``groups`` documents were scored."""
    mean, n = float(values.mean()), len(values)
    if n < 2:
        return Estimate(mean, None, None, n, groups)
    half = float(stdtrit(n - 1, 0.975)) * float(values.std(ddof=1)) / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n, groups)


def paired_difference(
    first: Sequence[Row],
    second: Sequence[Row],
    *,
    total: bool = True,
    groups: Mapping[str, str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Mean NLL of ``first`` minus ``second`` over the seeds that both have, paired by document and by seed.

    The interval is of what other documents and other seeds would give (:func:`~wgpt_jax.ablation.resampling.draw_means`
    of the paired differences); of one seed, of what other documents would. Of ``second`` minus ``first`` it is the
    same with the signs and the ends exchanged.

    Args:
        first, second: runs of two arms, scored on the same documents.
        total: nats of all output codebooks per frame; False: of the coarse token.
        groups: what each document shares with others, as its speaker; None: documents are independent.
        resamples: draws; there are fewer of thousands of documents.
        seed: of the draws.

    Raises:
        ValueError: if the two have no seed in common, or were not scored on the same frames, or ``groups`` lacks a
            document.
    """
    common = sorted({row["seed"] for row in first} & {row["seed"] for row in second})
    if not common:
        raise ValueError("the two arms have no seed in common")
    sides = [
        sorted((row for row in rows if row["seed"] in common), key=lambda r: r["seed"]) for rows in (first, second)
    ]
    if _documents(sides[0][0]) != _documents(sides[1][0]):
        raise ValueError("the two arms were not scored on the same frames")
    (ours, frames), (theirs, _) = (nats_of(side, total=total, groups=groups) for side in sides)
    difference, rng = ours - theirs, np.random.default_rng(seed)
    value = float(difference.sum() / (len(common) * frames.sum()))
    if len(frames) < 2:
        return Estimate(value, None, None, len(common), len(frames))
    low, high = interval(draw_means(difference, frames, draw_weights(len(frames), resamples, seed), rng))
    return Estimate(value, float(low), float(high), len(common), len(frames))


def multiplier(
    tokens: Sequence[Row],
    hybrid: Sequence[Row],
    *,
    total: bool = True,
    groups: Mapping[str, str] | None = None,
    resamples: int = FITTED_RESAMPLES,
    seed: int = 0,
) -> Multiplier:
    """How many times a hybrid's parameters a token-only model needs for the same NLL.

    That size lies between two that were trained: the smallest that is as good as the hybrid, and the one before it. A
    curve fitted to all token-only sizes up to the best says where (:func:`~wgpt_jax.ablation.curve.matching_sizes`).
    The interval is of the same done with draws (:func:`~wgpt_jax.ablation.resampling.draw_means`): documents are drawn
    the same for all runs, seeds of each size.

    Args:
        tokens: final runs of the token-only arm, two sizes or more.
        hybrid: final runs of a hybrid at one size, scored on the same documents.
        total: nats of all output codebooks per frame; False: of the coarse token.
        groups: what each document shares with others, as its speaker; None: documents are independent.
        resamples: draws; there are fewer of thousands of documents.
        seed: of the draws.

    Raises:
        ValueError: if there are fewer than two sizes, not all were scored on the same frames, or ``groups`` lacks a
            document.
    """
    sizes = np.array(sorted({row["parameters"] for row in tokens}), float)
    if len(sizes) < 2:
        raise ValueError("a curve needs the token-only arm at two sizes or more")
    by_size = [[row for row in tokens if row["parameters"] == size] for size in sizes]
    if any(_documents(rows[0]) != _documents(hybrid[0]) for rows in by_size):
        raise ValueError("the runs were not scored on the same frames")
    rng, count = np.random.default_rng(seed), len(nats_of(hybrid, groups=groups)[1])
    weights = draw_weights(count, resamples, seed) if count > 1 else None

    def scores(rows: Sequence[Row]) -> np.ndarray:
        """[1 + R]: as it is, then drawn; [1] of a single document."""
        nats, frames = nats_of(rows, total=total, groups=groups)
        mean = [nats.sum() / (len(nats) * frames.sum())]
        return np.array(mean) if weights is None else np.append(mean, draw_means(nats, frames, weights, rng))

    levels, ours = np.stack([scores(rows) for rows in by_size], axis=1), scores(hybrid)
    own = float(np.mean([row["parameters"] for row in hybrid]))
    reached, curves = matching_sizes(sizes, levels, ours)
    ratio, least, most = reached / own, float(sizes[0] / own), float(sizes[-1] / own)
    low = high = None
    if weights is not None:
        # Of a draw beyond the trained sizes one end is known, not the other.
        low = float(interval(np.where(np.isinf(ratio), most, ratio)[1:])[0])
        high = float(interval(np.where(ratio == 0, least, ratio)[1:])[1])
    where, bound = ("above", most) if np.isinf(ratio[0]) else ("below", least) if ratio[0] == 0 else ("inside", None)
    value = float(ratio[0]) if bound is None else None
    seeds = min(len({row["seed"] for row in rows}) for rows in (*by_size, hybrid))
    return Multiplier(value, low, high, where, bound, curves.form, seeds)


def nats_of(
    rows: Sequence[Row], *, total: bool = True, groups: Mapping[str, str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Nats [runs, groups] of some runs, and the frames [groups]; a group is a document where ``groups`` is None.

    Raises:
        ValueError: if they were not scored on the same frames, or ``groups`` lacks a document.
    """
    documents = _documents(rows[0])
    if any(_documents(row) != documents for row in rows):
        raise ValueError("the runs were not scored on the same frames")
    column = _TOTAL if total else _COARSE
    nats = np.array([[document[column] for document in row["documents"]] for row in rows], float)
    frames = np.array([count for _, count in documents], float)
    if groups is None:
        return nats, frames
    if lacking := next((name for name, _ in documents if name not in groups), None):
        raise ValueError(f"nothing says to which group the document {lacking} belongs")
    names = [groups[name] for name, _ in documents]
    belongs = np.array([[name == group for group in dict.fromkeys(names)] for name in names], float)
    return nats @ belongs, frames @ belongs


def _documents(row: Row) -> list[tuple[str, int]]:
    return [(document[0], document[1]) for document in row["documents"]]
