"""Closed loops of an arm over its seeds, and of two arms over the seeds that both have."""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Callable, Hashable, Sequence

from scipy.special import stdtrit

from wgpt_jax.ablation.analysis import ENOUGH
from wgpt_jax.report.loop_measures import Measure, measures, with_error
from wgpt_jax.report.loop_runs import Loop


@dataclasses.dataclass(frozen=True)
class Between:
    """How much more one arm scored than another, of each measure."""

    name: str
    """The pair, as ``d - a``, what both have in common, and how many seeds."""
    cells: tuple[str, ...]
    """The difference and its 95 % interval; bold where that leaves zero out."""


def together(loops: Sequence[Loop], key: Callable[[Loop], Hashable]) -> list[list[Loop]]:
    """Those that have a key in common together, in the order of the first of each."""
    found: dict[Hashable, list[Loop]] = {}
    for loop in loops:
        found.setdefault(key(loop), []).append(loop)
    return list(found.values())


def arms_of(loops: Sequence[Loop]) -> list[list[Loop]]:
    """The seeds of each arm together."""
    return together(loops, lambda loop: (loop.row["mode"], loop.arm))


def several(loops: Sequence[Loop]) -> bool:
    """Whether closed loops of one arm are of several seeds, each once."""
    seeds = {loop.seed for loop in loops}
    return len(loops) > 1 and None not in seeds and len(seeds) == len(loops)


def over_seeds(found: Sequence[Measure]) -> str:
    """Mean over seeds and their standard deviation."""
    values = [measure.excess for measure in found]
    return with_error(statistics.fmean(values), statistics.stdev(values), found[0].digits)


def between(loops: Sequence[Loop]) -> list[Between]:
    """Hybrid arms minus token-only ones that were trained and drawn from alike, where enough seeds are in common.

    The interval is Student's over the seeds that both have, each a run and its samples, beside the same held-out
    documents: of what other seeds and samples would give, not of what other documents would.
    """
    arms = [{loop.seed: loop for loop in arm} for arm in arms_of(loops) if several(arm)]
    found = []
    for theirs, ours in itertools.product(arms, arms):
        first, second = (next(iter(arm.values())) for arm in (ours, theirs))
        modes, alike = (first.row["mode"], second.row["mode"]), (first.rest, first.windows)
        if modes != ("hybrid", "tokens") or alike != (second.rest, second.windows):
            continue
        seeds = sorted(ours.keys() & theirs.keys())
        if len(seeds) >= ENOUGH:
            scored = [[measures(arm[seed].row) for seed in seeds] for arm in (ours, theirs)]
            cells = (_difference(*pair) for pair in zip(*(zip(*arm, strict=True) for arm in scored), strict=True))
            name = f"{first.letter} - {second.letter}, {first.rest}, {len(seeds)} seeds: difference (95 % interval)"
            found.append(Between(name, tuple(cells)))
    return found


def _difference(ours: Sequence[Measure], theirs: Sequence[Measure]) -> str:
    """Mean of the differences of each seed, with Student's interval."""
    apart = [one.excess - other.excess for one, other in zip(ours, theirs, strict=True)]
    mean, digits = statistics.fmean(apart), ours[0].digits
    half = float(stdtrit(len(apart) - 1, 0.975)) * statistics.stdev(apart) / math.sqrt(len(apart))
    said = f"{mean:+.{digits}f} ({mean - half:+.{digits}f} to {mean + half:+.{digits}f})"
    return f"**{said}**" if abs(mean) > half else said
