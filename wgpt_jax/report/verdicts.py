"""What a difference says, by its seeds and by whether its interval leaves zero out."""

from collections.abc import Mapping, Sequence

from wgpt_jax.ablation.analysis import ENOUGH, Estimate, count_seeds, paired_difference
from wgpt_jax.report.rows import Row


def in_pairs(ours: Sequence[Row], theirs: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Those runs of two arms whose seeds both have."""
    seeds = {row["seed"] for row in ours} & {row["seed"] for row in theirs}
    return tuple([row for row in rows if row["seed"] in seeds] for rows in (ours, theirs))


def difference(
    ours: Sequence[Row], theirs: Sequence[Row], belongs: Mapping[str, str] | None, *, total: bool = True
) -> Estimate | None:
    """NLL of ours minus theirs, paired; None where they have no seed in common.

    A pair has one interval, whichever way round it is asked for: the other's with the signs and the ends exchanged.

    Args:
        ours, theirs: final runs of two arms, or of one at two sizes.
        belongs: what each document shares with others; None if documents are taken as independent.
        total: of all predicted codebooks; False: of the coarse token.

    Raises:
        ValueError: if they were not scored on the same frames.
    """
    if not in_pairs(ours, theirs)[0]:
        return None
    return paired_difference(ours, theirs, total=total, groups=belongs)


def verdict(estimate: Estimate | None, leaks: bool = False) -> str:
    """``wins``, ``loses``, ``no difference shown``, or why nothing can be said.

    Args:
        estimate: NLL of one arm minus that of another.
        leaks: whether the first sees the future, so that nothing it wins counts.
    """
    if estimate is None:
        return "no seed in common"
    if estimate.low is None:
        said = "undecided: a single document"
    elif estimate.seeds < ENOUGH:
        said = f"undecided: {count_seeds(estimate.seeds)}"
    elif estimate.decided:
        said = "wins" if estimate.value < 0 else "loses"
    else:
        said = "no difference shown"
    return f"a leak, no result ({said})" if leaks else said


def named(arm: str, said: str) -> str:
    """A verdict with the arm that wins or loses: ``c wins``."""
    return f"{arm} {said}" if said.startswith(("wins", "loses")) else said
