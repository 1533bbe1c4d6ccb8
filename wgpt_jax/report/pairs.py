"""The table of a group's pairs of arms, each pair once."""

from collections.abc import Sequence

from wgpt_jax.ablation.analysis import Estimate
from wgpt_jax.report.claims import CLAIMS, seeds_beyond
from wgpt_jax.report.groups import Group
from wgpt_jax.report.numbers import in_brief, interval, listed, signed, table
from wgpt_jax.report.rows import Row
from wgpt_jax.report.verdicts import difference, in_pairs, named, verdict

SETTLED = 16
"""Frame of a window from which on what came before it matters little: the mel of a codec's decode knows of it."""


def pairs_of(group: Group, size: str) -> list[tuple[str, str]]:
    """The pairs of a size: each arm and each arm that the rest are compared with, and those of the questions.

    A pair stands as its question has it, and once.
    """
    arms = group.arms(size)
    asked = [(claim.arm, claim.base) for claim in CLAIMS if claim.arm in arms and claim.base in arms]
    found: list[tuple[str, str]] = []
    for base in [arm for arm in group.references() if arm in arms]:
        for pair in [(arm, base) for arm in arms if arm != base]:
            pair = pair[::-1] if pair[::-1] in asked else pair
            if pair not in found and pair[::-1] not in found:
                found.append(pair)
    return found + [pair for pair in asked if pair not in found]


def compared(group: Group) -> list[str]:
    """Differences of all pairs, over the seeds that both arms have; the coarse token's part of them."""
    several = group.codebooks > 1
    heads = ["size", "pair", "seeds", "nats", "95 % interval", "answer"]
    heads += ["bits/s", "of it the coarse token's"] if several else []
    heads += [f"the coarse token's from frame {SETTLED} of a window on"]
    cells, more = [], False
    for size in group.sizes:
        for arm, base in pairs_of(group, size):
            ours, theirs = in_pairs(group.final(arm, size), group.final(base, size))
            estimate = difference(ours, theirs, group.belongs)
            leaks = any(group.final(each, size)[0]["leaks"] for each in (arm, base))
            said = named(arm, verdict(estimate, leaks))
            numbers = ["", ""] if estimate is None else [signed(estimate), interval(estimate)]
            row = [size, f"{arm} - {base}", str(len(ours)), *numbers, said]
            if several:
                coarse = difference(ours, theirs, group.belongs, total=False)
                row += ["", ""] if coarse is None else [_bits(estimate, ours[0]), in_brief(coarse)]
            seeds, alone = seeds_beyond(group, ours, theirs)
            more = more or alone is not None
            later = f"{in_brief(alone)} (seeds {listed([str(seed) for seed in seeds])})" if alone else ""
            cells.append([*row, _settled(ours, theirs), later])
    if not cells:
        return []
    if more:
        return [*table([*heads, f"seeds {group.beyond()}, alone"], cells), ""]
    return [*table(heads, [row[:-1] for row in cells]), ""]


def _bits(estimate: Estimate, run: Row) -> str:
    """A difference in bits per second of sound."""
    scores = run["evaluation"]
    return f"{estimate.value * scores['total_bits_per_second'] / scores['total_nll']:+.1f}"


def _settled(ours: Sequence[Row], theirs: Sequence[Row]) -> str:
    """The difference of the coarse token's NLL where a window has shown some frames, over paired runs."""
    levels = []
    for runs in (ours, theirs):
        parts = [part for row in runs for part in row["evaluation"]["by_position"] if part["first"] >= SETTLED]
        frames = sum(part["frames"] for part in parts)
        if not frames:
            return ""
        levels.append(sum(part["nll"] * part["frames"] for part in parts) / frames)
    return f"{levels[0] - levels[1]:+.3f}"
