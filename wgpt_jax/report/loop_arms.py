"""Closed loops of an arm over its seeds, and of two arms over the seeds that both have."""

import itertools
import statistics
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from wgpt_jax.ablation.analysis import ENOUGH, student_over_seeds
from wgpt_jax.report.loop_measures import Measure, measures, with_error
from wgpt_jax.report.loop_runs import Loop
from wgpt_jax.report.numbers import in_brief


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


def between(loops: Sequence[Loop]) -> list[tuple[str, list[str]]]:
    """Hybrid arms minus token-only ones that were trained and drawn from alike, where enough seeds are in common.

    Of each pair its name and, for each measure, the difference with its 95 % interval, bold where that leaves zero out.

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
            pairs = [zip(measures(ours[seed].row), measures(theirs[seed].row), strict=True) for seed in seeds]
            cells = [_difference(column, first.row["documents"]) for column in zip(*pairs, strict=True)]
            name = f"{first.letter} - {second.letter}, {first.rest}, {len(seeds)} seeds: difference (95 % interval)"
            found.append((name, cells))
    return found


def _difference(pairs: Sequence[tuple[Measure, Measure]], documents: int) -> str:
    """Mean over seeds of one arm's measure minus the other's, with Student's interval."""
    apart = student_over_seeds(np.array([ours.excess - theirs.excess for ours, theirs in pairs]), documents)
    said = in_brief(apart, pairs[0][0].digits)
    return f"**{said}**" if apart.decided else said
