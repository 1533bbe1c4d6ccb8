"""Figures of one group of runs: learning curves, NLL by position, reliability, NLL against parameters."""

import statistics
from collections.abc import Sequence

import numpy as np

from wgpt_jax.ablation.analysis import final_runs
from wgpt_jax.ablation.plots import learning_panel, parameters_panel
from wgpt_jax.report.figure import Figure, Panel, Series
from wgpt_jax.report.groups import Group
from wgpt_jax.report.rows import Row

_COARSE = "NLL (nats per coarse token)"


def label_of(rows: Sequence[Row]) -> str:
    """What a legend calls an arm."""
    return f"{rows[0]['arm']}: {rows[0]['title']}"


def learning_curves(group: Group, size: str) -> Figure:
    """Validation NLL over steps: each seed a thin line, their mean a thick one."""
    arms = {label_of(rows): rows for rows in (group.final(arm, size) for arm in group.arms(size))}
    caption = f"Learning curves on the validation split, {group.name}, {size}: mean over seeds, seeds thin"
    panel = learning_panel(arms, f"{group.name}, {size}: validation")
    return Figure(f"curves-{group.key}-{size}", caption, (panel,))


def position_and_reliability(group: Group, size: str) -> Figure:
    """NLL of the coarse token by the frames seen before and by its place in the document, and a reliability diagram."""
    seen, placed, reliability = [], [], []
    for number, arm in enumerate(group.arms(size)):
        rows = group.final(arm, size)
        seen.append(Series(label_of(rows), *by_position(rows, "by_position"), colour=number))
        placed.append(Series("", *by_position(rows, "by_document_position"), colour=number))
        bins = reliability_of(rows)
        x, y = tuple(sure for sure, _, _ in bins), tuple(right for _, right, _ in bins)
        reliability.append(Series("", x, y, colour=number))
    name = f"{group.name}, {size}: test"
    panels = (
        Panel(name, "frames seen before (+ 1)", _COARSE, tuple(seen), "log"),
        Panel(name, "frame of the document (from 1)", _COARSE, tuple(placed), "log"),
        Panel(name, "probability of the likeliest token", "how often it came", tuple(reliability), diagonal=True),
    )
    where = "by position in the window and in the document"
    caption = f"NLL {where}, and reliability of the coarse token, {group.name}, {size}"
    return Figure(f"position-{group.key}-{size}", caption, panels)


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
    """Test NLL against parameters: seeds as points, means with their interval, the fit to the token-only arm dashed."""
    by_arm = {arm: final_runs(group.rows, arm=arm) for arm in group.arms()}
    fitted = {label_of(by_arm[arm]) for arm in group.bases()}
    caption = f"NLL on the test split against parameters, {group.name}: means with Student's interval over seeds"
    panel = parameters_panel({label_of(rows): rows for rows in by_arm.values()}, fitted, f"{group.name}: test")
    return Figure(f"parameters-{group.key}", caption, (panel,))
