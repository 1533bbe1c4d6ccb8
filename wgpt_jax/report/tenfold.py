"""Whether a hybrid equals a token-only model of ten times its parameters, by the difference between the two."""

import dataclasses
from collections.abc import Sequence

from wgpt_jax.ablation.analysis import Estimate, final_runs, mean_over_seeds
from wgpt_jax.mel_sources import NONE
from wgpt_jax.report.caveats import knowledge, tuning
from wgpt_jax.report.groups import SAME_SIZE, Group
from wgpt_jax.report.numbers import in_brief
from wgpt_jax.report.rows import Row
from wgpt_jax.report.verdicts import difference, verdict

TIMES = 10


@dataclasses.dataclass(frozen=True)
class Tenfold:
    """What a group says of one arm at one size against a token-only arm."""

    arm: str
    base: str
    where: str
    """Data, size of the arm, experiment."""
    holds: str
    """yes, NO, or not decided and why."""
    said: str
    """The differences that decide, or how large the largest token-only model is, with what limits the answer."""

    @property
    def claim(self) -> str:
        """What the answer is to."""
        return f"{self.arm} equals a token-only model ({self.base}) of {TIMES} times its parameters"


def tenfold(groups: Sequence[Group]) -> list[Tenfold]:
    """Every pair of a hybrid and a token-only arm that has two sizes or more.

    An arm is judged at those of its sizes that have a model of ten times their parameters to be held against; at its
    smallest if none has.
    """
    found = []
    for group in groups:
        for base in group.bases():
            tokens = final_runs(group.rows, arm=base)
            if len({row["parameters"] for row in tokens}) < 2:
                continue
            for arm in _rivals(group, tokens[0]):
                sizes = [size for size in group.sizes if group.final(arm, size)]
                decided = [size for size in sizes if _ten_times(tokens, group.final(arm, size))]
                found += [_judged(group, arm, size, base, tokens) for size in decided or sizes[:1]]
    return found


def _rivals(group: Group, base: Row) -> list[str]:
    """The arms that are held against a token-only one: they read a mel and do not leak.

    A convolution is the network's and no mel's, and so is an order of the codebooks: an arm predicts them in the base's
    order, and has a convolution over its tokens where the base has one. A convolved arm is held against both.
    """
    found = []
    for arm in group.arms():
        row = final_runs(group.rows, arm=arm)[0]
        hybrid = row["evaluation"]["mel_source"] != NONE and not row["leaks"]
        alike = row["config"]["model"]["pattern"] == base["config"]["model"]["pattern"]
        if hybrid and alike and (_convolved(row) or not _convolved(base)):
            found.append(arm)
    return found


def _convolved(row: Row) -> bool:
    """Whether a run's model has a convolution over its tokens; the first rows were made before there was one."""
    return row["config"]["model"].get("token_kernel", 1) > 1


def _ten_times(tokens: Sequence[Row], ours: Sequence[Row]) -> list[Row]:
    """Runs of the smallest token-only size that has ten times the parameters; none if no size has."""
    least = TIMES * (1 - SAME_SIZE) * ours[0]["parameters"]
    enough = [row["parameters"] for row in tokens if row["parameters"] >= least]
    return _of_size(tokens, min(enough)) if enough else []


def _best(tokens: Sequence[Row], most: int) -> list[Row]:
    """Runs of the token-only size with the lowest mean NLL among those of at most so many parameters."""
    sizes = sorted({row["parameters"] for row in tokens if row["parameters"] <= most})
    return min((_of_size(tokens, size) for size in sizes), key=lambda runs: mean_over_seeds(runs).value)


def _of_size(runs: Sequence[Row], parameters: int) -> list[Row]:
    return [row for row in runs if row["parameters"] == parameters]


def _judged(group: Group, arm: str, size: str, base: str, tokens: Sequence[Row]) -> Tenfold:
    """``yes`` if the arm beats the model of ten times its parameters, and the best of the smaller ones with it."""
    ours, where = group.final(arm, size), f"{group.name}, {size} ({group.experiment})"
    theirs = _ten_times(tokens, ours)
    if not theirs:
        times = _times(_of_size(tokens, max(row["parameters"] for row in tokens)), ours)
        said = f"the largest {base} has {times} its parameters; {knowledge({arm: ours})}"
        return Tenfold(arm, base, where, f"not decided: no {base} so large", said)
    estimate = difference(ours, theirs, group.belongs)
    holds, said = _verdict(estimate), [_minus(theirs, ours, estimate)]
    limits = [knowledge({arm: ours}), *tuning(group, {arm: size, base: theirs[0]["size"]})]
    best = _best(tokens, theirs[0]["parameters"])
    if holds == "yes" and best[0]["size"] != theirs[0]["size"]:
        smaller = difference(ours, best, group.belongs)
        holds = _beside(verdict(smaller), f"{base} of {_times(best, ours)}")
        said.append(_minus(best, ours, smaller))
        limits += tuning(group, {arm: size, base: best[0]["size"]})
    return Tenfold(arm, base, where, holds, "; ".join(dict.fromkeys([*said, *limits])))


def _verdict(estimate: Estimate | None) -> str:
    """By the difference from the model of ten times the parameters alone."""
    said = verdict(estimate)
    return {"wins": "yes", "loses": "NO"}.get(said, f"not decided: {said.removeprefix('undecided: ')}")


def _beside(said: str, smaller: str) -> str:
    """Of an arm that beats the model of ten times its parameters, by what it makes of a smaller and better one."""
    if said == "wins":
        return "yes"
    told = {"loses": f"{smaller} is better", "no difference shown": f"{smaller} may be as good"}
    return f"not decided: {told.get(said, f'{said} beside {smaller}')}"


def _minus(theirs: Sequence[Row], ours: Sequence[Row], estimate: Estimate | None) -> str:
    """The difference from a token-only size, which is named."""
    difference = in_brief(estimate) if estimate else verdict(estimate)
    return f"minus {theirs[0]['arm']} at {theirs[0]['size']}, {_times(theirs, ours)} its parameters: {difference}"


def _times(theirs: Sequence[Row], ours: Sequence[Row]) -> str:
    return f"{theirs[0]['parameters'] / ours[0]['parameters']:.1f} times"
