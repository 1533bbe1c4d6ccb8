"""What a difference says, by its seeds and by whether its interval leaves zero out."""

from collections.abc import Mapping, Sequence

from wgpt_jax.ablation.analysis import ENOUGH, Estimate, count_seeds, paired_difference
from wgpt_jax.report.rows import Row


def difference(ours: Sequence[Row], theirs: Sequence[Row], belongs: Mapping[str, str] | None) -> Estimate | None:
    """NLL of ours minus theirs over all predicted codebooks, paired; None where they have no seed in common.

    Args:
        ours, theirs: final runs of two arms.
        belongs: what each document shares with others; None if documents are taken as independent.

    Raises:
        ValueError: if they were not scored on the same frames.
    """
    if not {row["seed"] for row in ours} & {row["seed"] for row in theirs}:
        return None
    return paired_difference(ours, theirs, groups=belongs)


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
