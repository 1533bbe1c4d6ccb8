"""What the sweep behind an arm's final runs tried, and what it chose."""

import dataclasses

from wgpt_jax.ablation.runs import sweep_scores
from wgpt_jax.report.groups import Group


@dataclasses.dataclass(frozen=True)
class Swept:
    """A sweep in words for a table."""

    tried: str
    """Number of points, and where they were tried if not on the arm's own data and size."""
    chosen: str
    """Which of its edges the best point lies on; empty if on none, or if there was only one point."""
    spread: str
    """Validation NLL of the best and the worst point."""


def swept(group: Group, arm: str, size: str) -> Swept:
    """The sweep of an arm at a size: its own, or the one on other data or at another size that served it."""
    tunes = [row for row in group.rows if row["stage"] == "tune" and row["arm"] == arm]
    tunes += [row for row in group.failed if row["stage"] == "tune" and row["arm"] == arm]
    places = list(dict.fromkeys((row["data"], row["size"]) for row in tunes))
    own = (group.data, size)
    place = own if own in places else next((each for each in places if each[0] == group.data), None)
    place = place or next(iter(places), None)
    if place is None:
        return Swept("1, no sweep", "", "")
    scores = sweep_scores((place[0], arm, place[1]), tunes)
    known = {point: nll for point, nll in scores.items() if nll is not None}
    failed = len(scores) - len(known)
    tried = f"{len(scores)}" + (f", {failed} failed" if failed else "")
    if place != own:
        tried += f" (at {place[1]} on {place[0]})"
    if len(known) < 2:
        return Swept(tried, "", "")
    best = min(known, key=known.get)
    return Swept(tried, _edges(best, list(known)), f"{min(known.values()):.4f} to {max(known.values()):.4f}")


def _edges(best: tuple[float, float], points: list[tuple[float, float]]) -> str:
    """The sides of a grid that a point lies on, where the grid has more than one value."""
    sides = []
    for at, name in ((0, "rate"), (1, "std")):
        values = {point[at] for point in points}
        if len(values) > 1 and best[at] == min(values):
            sides.append(f"lowest {name}")
        if len(values) > 1 and best[at] == max(values):
            sides.append(f"highest {name}")
    return ", ".join(sides)
