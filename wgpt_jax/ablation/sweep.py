"""Which points a sweep tries, one after the other, and which of them it chooses."""

import dataclasses
import math
from collections.abc import Iterator, Mapping

from wgpt_jax.ablation.grid import Sweep

Point = tuple[float, float]
"""(learning rate, embedding_std)."""


@dataclasses.dataclass(frozen=True)
class Swept:
    """How far a sweep is, as the scores that there are say."""

    points: tuple[Point, ...]
    """What it tries, in order; the last ones may have no score yet."""
    finished: bool
    """Whether every point is scored, and none is to be added."""
    best: Point | None
    """What it chooses; None until it is finished, or if all diverged."""
    edges: tuple[str, ...]
    """Axes on whose edge the choice lies all the same, since ``extend`` was used up."""
    more: int
    """Largest number of points that may still be added."""


def follow(sweep: Sweep, scores: Mapping[Point, float | None]) -> Swept:
    """The points of a sweep, from its grid on: while the best is on an edge, the neighbour beyond is tried too.

    A neighbour is as far from the edge as the edge from the value before it (in ratio), at the best value of the other
    axis. All follows from the scores, so every arm has the same rule, and a sweep that goes on tries the same points.

    Args:
        sweep: its grid, and how many points may be added.
        scores: validation NLL by point, None for one that diverged, which is worse than all; points that the sweep has
            not come to are ignored.
    """
    points = list(sweep.points)
    added: dict[tuple[int, bool], int] = {}
    axes = [axis for axis in (0, 1) if len({point[axis] for point in points}) > 1]
    while True:
        left = sweep.extend * len(axes) - sum(added.values())
        if any(point not in scores for point in points):
            return Swept(tuple(points), False, None, (), left)
        nats = {point: math.inf if scores[point] is None else scores[point] for point in points}
        best = min(points, key=nats.get)
        if math.isinf(nats[best]):
            return Swept(tuple(points), True, None, (), 0)
        edges = [(axis, up) for axis in axes for up in _edges(best, points, axis)]
        beyond = [edge for edge in edges if added.get(edge, 0) < sweep.extend]
        if not beyond:
            names = ("learning rate", "embedding_std")
            return Swept(tuple(points), True, best, tuple(names[axis] for axis, _ in edges), 0)
        for axis, up in beyond:
            added[axis, up] = added.get((axis, up), 0) + 1
        points += [_neighbour(best, points, axis, up) for axis, up in beyond]


def _edges(best: Point, points: list[Point], axis: int) -> Iterator[bool]:
    """Whether the best has the lowest (False) or the highest (True) value of an axis."""
    values = {point[axis] for point in points}
    if best[axis] == min(values):
        yield False
    if best[axis] == max(values):
        yield True


def _neighbour(best: Point, points: list[Point], axis: int, up: bool) -> Point:
    edge, before = sorted({point[axis] for point in points}, reverse=up)[:2]
    value = rounded(edge * edge / before)
    return (value, best[1]) if axis == 0 else (best[0], value)


def rounded(value: float) -> float:
    """To 4 digits, so that it reads the same everywhere."""
    return float(f"{value:.4g}")
