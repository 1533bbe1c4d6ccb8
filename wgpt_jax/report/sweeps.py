"""What the sweep behind an arm's final runs tried, and what it chose."""

import dataclasses
from collections.abc import Mapping, Sequence

from wgpt_jax.ablation.runs import sweep_scores
from wgpt_jax.report.groups import Group
from wgpt_jax.report.numbers import listed
from wgpt_jax.report.rows import Row

Point = tuple[float, float]
"""(learning rate, embedding_std)."""
_NEAR = 1e-3
"""Relative difference of a learning rate that was rounded when it was scaled to another width."""


@dataclasses.dataclass(frozen=True)
class Swept:
    """A sweep in words for a table."""

    tried: str
    """Number of points among which the choice was made, where they were tried if not on the arm's own data and size,
    and what was tried beside them."""
    chosen: str
    """Which of its edges the chosen point lies on; empty if on none, or if there was only one point."""
    spread: str
    """Validation NLL of the best and the worst point."""
    place: tuple[str, str] | None = None
    """Data and size that it was on; None if there was no sweep."""


def swept(group: Group, arm: str, size: str) -> Swept:
    """The sweep of an arm at a size: its own, or the one on other data or at another size that served it.

    Rows of other steps or another seed are another sweep. The choice was made among all of them if it is the best of
    all, else among those of which it is the best.
    """
    tunes = [row for row in (*group.rows, *group.failed) if row["stage"] == "tune" and row["arm"] == arm]
    places = list(dict.fromkeys((row["data"], row["size"]) for row in tunes))
    own = (group.data, size)
    place = own if own in places else next((each for each in places if each[0] == group.data), None)
    place = place or next(iter(places), None)
    if place is None:
        return Swept("1, no sweep", "", "")
    tunes = [row for row in tunes if (row["data"], row["size"]) == place]
    sweeps = _sweeps(tunes)
    scores = {how: sweep_scores((place[0], arm, place[1]), rows) for how, rows in sweeps.items()}
    chosen = _chosen(group.final(arm, size)[0], tunes)
    used = _used(scores, chosen)
    among = _merged([scores[how] for how in used])
    known = {point: nll for point, nll in among.items() if nll is not None}
    failed = len(among) - len(known)
    tried = f"{len(among)}" + (f", {failed} failed" if failed else "")
    if place != own:
        tried += f" (at {place[1]} on {place[0]})"
    if beside := [f"{len(scores[how])} of {how[0]} steps, seed {how[1]}" for how in scores if how not in used]:
        tried += f"; apart from them {listed(beside)}"
    if not _is_best(among, chosen):
        return Swept(f"{tried}; the choice is not the best of them", "", "", place)
    if len(known) < 2:
        return Swept(tried, "", "", place)
    best = min(known, key=known.get)
    spread = f"{min(known.values()):.4f} to {max(known.values()):.4f}"
    return Swept(tried, _edges(best, list(known)), spread, place)


def _sweeps(rows: Sequence[Row]) -> dict[tuple[int, int, str], list[Row]]:
    """Rows by (steps, seed, data's fingerprint), the latest last."""
    found: dict[tuple[int, int, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["config"]["training"]["steps"], row["seed"], row["data_fingerprint"]), []).append(row)
    return found


def _chosen(final: Row, tunes: Sequence[Row]) -> Point:
    """The point of a sweep that a final run took; its learning rate was scaled by the root of the widths."""
    width = tunes[0]["config"]["model"]["width"]
    scale = (width / final["config"]["model"]["width"]) ** 0.5
    return final["learning_rate"] / scale, final["embedding_std"]


def _used(scores: Mapping[tuple, Mapping[Point, float | None]], chosen: Point) -> list[tuple]:
    """The sweeps among whose points the choice was made."""
    if _is_best(_merged(list(scores.values())), chosen):
        return list(scores)
    return [how for how in scores if _is_best(scores[how], chosen)] or list(scores)[-1:]


def _is_best(scores: Mapping[Point, float | None], chosen: Point) -> bool:
    known = {point: nll for point, nll in scores.items() if nll is not None}
    if not known:
        return False
    rate, std = min(known, key=known.get)
    return std == chosen[1] and abs(rate - chosen[0]) <= _NEAR * rate


def _merged(sweeps: Sequence[Mapping[Point, float | None]]) -> dict[Point, float | None]:
    """Each point with its lowest score; None where it failed in all."""
    points = dict.fromkeys(point for scores in sweeps for point in scores)
    found = {point: [scores[point] for scores in sweeps if scores.get(point) is not None] for point in points}
    return {point: min(values, default=None) for point, values in found.items()}


def _edges(best: Point, points: Sequence[Point]) -> str:
    """The sides of a grid that a point lies on, where the grid has more than one value."""
    sides = []
    for at, name in ((0, "rate"), (1, "std")):
        values = {point[at] for point in points}
        if len(values) > 1 and best[at] == min(values):
            sides.append(f"lowest {name}")
        if len(values) > 1 and best[at] == max(values):
            sides.append(f"highest {name}")
    return ", ".join(sides)
