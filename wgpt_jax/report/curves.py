"""Figures of one group of runs: learning curves, NLL by position, reliability, NLL against parameters."""

import statistics
from collections.abc import Sequence

import numpy as np

from wgpt_jax.ablation.analysis import final_runs
from wgpt_jax.ablation.plots import learning_panel, parameters_panel
from wgpt_jax.figure import Figure, Panel, Series
from wgpt_jax.report.caveats import side_information
from wgpt_jax.report.groups import Group
from wgpt_jax.report.rows import Row
from wgpt_jax.report.verdicts import in_pairs

_FROM = 4
"""Frames of a window or document that are left out: their NLL is far above the rest, and they are few."""


def label_of(rows: Sequence[Row]) -> str:
    """What a legend calls an arm."""
    return f"{rows[0]['arm']}: {rows[0]['title']}"


def learning_curves(group: Group, size: str) -> Figure:
    """Validation NLL over steps: each seed a thin line, their mean a thick one."""
    arms = {label_of(rows): rows for rows in (group.final(arm, size) for arm in group.arms(size))}
    caption = f"Learning curves on the validation split, {_what(group, size)}: mean over seeds, seeds thin"
    panel = learning_panel(arms, f"validation, {_what(group, size)}")
    return Figure(f"curves-{group.key}-{size}", caption, (panel,))


def position_and_reliability(group: Group, size: str) -> Figure:
    """NLL of the coarse token minus a base arm's, by the frames seen before and by its place in the document.

    Beside them a reliability diagram.

    The base is the first token-only arm, or the first arm where there is none. Each difference is over the seeds that
    both arms have.
    """
    arms = group.arms(size)
    base = next((arm for arm in group.bases() if arm in arms), arms[0])
    seen, placed, reliability = [], [], []
    for number, arm in enumerate(arms):
        rows, theirs = in_pairs(group.final(arm, size), group.final(base, size))
        if rows:
            seen.append(Series("", *_apart(rows, theirs, "by_position"), colour=number))
            placed.append(Series("", *_apart(rows, theirs, "by_document_position"), colour=number))
        bins = reliability_of(group.final(arm, size))
        x, y = tuple(sure for sure, _, _ in bins), tuple(right for _, right, _ in bins)
        reliability.append(Series(label_of(group.final(arm, size)), x, y, colour=number))
    nats = f"NLL minus {base}'s (nats per coarse token)"
    name = _what(group, size)
    panels = (
        Panel(f"{name}\nby frames seen in the window", "frames seen before (+ 1)", nats, tuple(seen), "log"),
        Panel(f"{name}\nby frame of the document", "frame of the document (from 1)", nats, tuple(placed), "log"),
        Panel(
            f"{name}\nreliability",
            "probability of the likeliest token",
            "how often it came",
            tuple(reliability),
            diagonal=True,
        ),
    )
    where = f"by position in the window and in the document, from {_FROM} frames on"
    caption = f"NLL minus that of {base} {where}, and reliability of the coarse token, {_what(group, size)}"
    return Figure(f"position-{group.key}-{size}", caption, panels)


def _what(group: Group, size: str) -> str:
    """Experiment, data, size and steps: what tells a figure from those of other grids."""
    return f"{group.experiment}, {group.name}, {size}, {group.steps:,} steps"


def _apart(ours: Sequence[Row], theirs: Sequence[Row], key: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Middles of buckets of positions, and the difference of two arms' NLL there, behind the first few frames."""
    x, levels = by_position(ours, key)
    _, others = by_position(theirs, key)
    kept = [(at, level - other) for at, level, other in zip(x, levels, others, strict=True) if at > _FROM]
    return tuple(at for at, _ in kept), tuple(apart for _, apart in kept)


def by_position(rows: Sequence[Row], key: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Middle of each bucket of positions, counted from 1, and its NLL as a mean over runs.

    Args:
        rows: final runs.
        key: ``by_position`` (in the window) or ``by_document_position``, of their evaluation.
    """
    found: dict[tuple[int, int], list[float]] = {}
    for row in rows:
        for bucket in row["evaluation"][key]:
            found.setdefault((bucket["first"], bucket["last"]), []).append(bucket["nll"])
    buckets = sorted(found)
    x = tuple(((1 + first) * (1 + last)) ** 0.5 for first, last in buckets)
    return x, tuple(statistics.fmean(found[bucket]) for bucket in buckets)


def reliability_of(rows: Sequence[Row]) -> list[tuple[float, float, int]]:
    """(mean probability, how often it came, frames) of every bin of all runs together."""
    sums: dict[float, np.ndarray] = {}
    for row in rows:
        for part in row["evaluation"]["calibration"]:
            frames = part["frames"]
            added = np.array([part["confidence"] * frames, part["accuracy"] * frames, frames])
            sums[part["low"]] = sums.get(part["low"], 0) + added
    return [(float(s / n), float(r / n), int(n)) for _, (s, r, n) in sorted(sums.items())]


def parameters_figure(group: Group) -> Figure:
    """Test NLL against parameters: seeds as points, means with their interval, the fit to the token-only arm dashed.

    Arms whose NLL is conditional on side information say so in their label.
    """
    by_arm = {arm: final_runs(group.rows, arm=arm) for arm in group.arms()}
    names = {arm: label_of(rows) + (" *" if side_information(rows) else "") for arm, rows in by_arm.items()}
    marked = "; *: conditional on side information" if any(name.endswith("*") for name in names.values()) else ""
    fitted = {names[arm] for arm in group.bases()}
    where = f"{group.experiment}, {group.name}, {group.steps:,} steps"
    caption = f"NLL on the test split against parameters, {where}: means with Student's interval over seeds{marked}"
    panel = parameters_panel({names[arm]: rows for arm, rows in by_arm.items()}, fitted, f"test, {where}{marked}")
    return Figure(f"parameters-{group.key}", caption, (panel,))
