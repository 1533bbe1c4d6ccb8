"""Whether a hybrid equals a token-only model of ten times its parameters, by the difference between the two."""

import dataclasses
from collections.abc import Sequence

from wgpt_jax.ablation.analysis import final_runs, multiplier
from wgpt_jax.report.caveats import knowledge, tuning
from wgpt_jax.report.groups import SAME_SIZE, Group
from wgpt_jax.report.numbers import in_brief
from wgpt_jax.report.rows import Row
from wgpt_jax.report.verdicts import difference, verdict

TIMES = 10
_RIVALS = {"a": ("c", "d", "cc", "dc"), "ac": ("cc", "dc"), "g2": ("h", "hc"), "g2c": ("hc",)}
"""Token-only arms, and the arms held against them, which read a mel and do not leak; a convolved one against both."""


@dataclasses.dataclass(frozen=True)
class Tenfold:
    """What a group says of one arm at one size against a token-only arm."""

    arm: str
    base: str
    where: str
    """Data, size of the arm, experiment."""
    holds: str
    """yes, NO, or not decided and why."""
    brief: str
    """The difference that decides, or how large the largest token-only model is."""
    said: str
    """The same in full, with what limits it."""

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
        for base, arms in _RIVALS.items():
            tokens = final_runs(group.rows, arm=base)
            if len({row["parameters"] for row in tokens}) < 2:
                continue
            for arm in arms:
                sizes = [size for size in group.sizes if group.final(arm, size)]
                decided = [size for size in sizes if _ten_times(tokens, group.final(arm, size))]
                found += [_judged(group, arm, size, base, tokens) for size in decided or sizes[:1]]
    return found


def _ten_times(tokens: Sequence[Row], ours: Sequence[Row]) -> list[Row]:
    """Runs of the smallest token-only size that has ten times the parameters; none if no size has."""
    least = TIMES * (1 - SAME_SIZE) * ours[0]["parameters"]
    enough = [row["parameters"] for row in tokens if row["parameters"] >= least]
    return [row for row in tokens if row["parameters"] == min(enough)] if enough else []


def _judged(group: Group, arm: str, size: str, base: str, tokens: Sequence[Row]) -> Tenfold:
    ours, where = group.final(arm, size), f"{group.name}, {size} ({group.experiment})"
    theirs = _ten_times(tokens, ours)
    if not theirs:
        times = max(row["parameters"] for row in tokens) / ours[0]["parameters"]
        worth = multiplier(tokens, ours, groups=group.belongs)
        brief = f"the largest {base} has {times:.1f} times its parameters"
        holds = f"not decided: no {base} so large"
        return Tenfold(arm, base, where, holds, brief, f"{brief}; multiplier {worth}; {knowledge({arm: ours})}")
    estimate = difference(ours, theirs, group.belongs)
    says = verdict(estimate)
    holds = {"wins": "yes", "loses": "NO"}.get(says, f"not decided: {says.removeprefix('undecided: ')}")
    times = f"{base} at {theirs[0]['size']}, {theirs[0]['parameters'] / ours[0]['parameters']:.1f} times its parameters"
    limits = "; ".join([knowledge({arm: ours}), *tuning(group, {arm: size, base: theirs[0]["size"]})])
    brief = f"{in_brief(estimate) if estimate else says}; {limits}"
    return Tenfold(arm, base, where, holds, brief, f"minus {times}: {brief}")
