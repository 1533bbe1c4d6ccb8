"""What a difference says, by whether its interval leaves zero out."""

from collections.abc import Sequence

from wgpt_jax.ablation.analysis import Estimate, paired_difference
from wgpt_jax.report.rows import Row


def difference(ours: Sequence[Row], theirs: Sequence[Row]) -> Estimate | None:
    """NLL of ours minus theirs over all predicted codebooks, paired; None where they have no seed in common.

    Raises:
        ValueError: if they were not scored on the same frames.
    """
    if not {row["seed"] for row in ours} & {row["seed"] for row in theirs}:
        return None
    return paired_difference(ours, theirs)


def verdict(estimate: Estimate | None, leaks: bool = False) -> str:
    """``wins``, ``loses``, ``no difference``, or why nothing can be said.

    Args:
        estimate: NLL of one arm minus that of another.
        leaks: whether the first sees the future, so that nothing it wins counts.
    """
    if estimate is None:
        return "no seed in common"
    if estimate.low is None:
        said = "undecided: a single document"
    elif estimate.decided:
        said = "wins" if estimate.value < 0 else "loses"
    else:
        said = "no difference"
    if leaks:
        said = f"a leak, no result ({said})"
    return f"{said}, one seed" if estimate.seeds == 1 else said
