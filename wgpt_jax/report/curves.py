"""Figures of one group of runs: learning curves, NLL by position, reliability, NLL against parameters."""

import statistics
from collections.abc import Sequence

import numpy as np

from wgpt_jax.ablation.analysis import final_runs, mean_over_seeds
from wgpt_jax.ablation.curve import fit_curves
from wgpt_jax.report.figure import Figure, Panel, Series
from wgpt_jax.report.groups import Group
from wgpt_jax.report.rows import Row

_NATS = "NLL (nats per frame, all predicted codebooks)"
_COARSE = "NLL (nats per coarse token)"


def label_of(rows: Sequence[Row]) -> str:
    """What a legend calls an arm."""
    return f"{rows[0]['arm']}: {rows[0]['title']}"


def learning_curves(group: Group, size: str) -> Figure:
    """Validation NLL over steps: each seed a thin line, their mean a thick one."""
    series = []
    for number, arm in enumerate(group.arms(size)):
        rows = group.final(arm, size)
        curves = [{step: total for step, _, total in row["curve"] if total is not None} for row in rows]
        curves = [curve for curve in curves if curve]
        if len(curves) > 1:
            series += [Series("", tuple(c), tuple(c.values()), style="thin", colour=number) for c in curves]
        steps = tuple(sorted(set.intersection(*map(set, curves)))) if curves else ()
        means = tuple(statistics.fmean(curve[step] for curve in curves) for step in steps)
        if steps:
            series.append(Series(label_of(rows), steps, means, colour=number))
    caption = f"Learning curves on the validation split, {group.data}, {size}: mean over seeds, seeds thin"
    panel = Panel(f"{group.data}, {size}: validation", "step", _NATS, tuple(series))
    return Figure(f"curves-{group.key}-{size}", caption, (panel,))


def position_and_reliability(group: Group, size: str) -> Figure:
    """NLL of the coarse token by the frames seen before, and how often the likeliest token came, by its probability."""
    positions, reliability = [], []
    for number, arm in enumerate(group.arms(size)):
        rows = group.final(arm, size)
        x, y = by_position(rows)
        positions.append(Series(label_of(rows), x, y, colour=number))
        bins = reliability_of(rows)
        x, y = tuple(sure for sure, _, _ in bins), tuple(right for _, right, _ in bins)
        reliability.append(Series("", x, y, colour=number))
    name = f"{group.data}, {size}: test"
    panels = (
        Panel(name, "frames seen before (+ 1)", _COARSE, tuple(positions), "log"),
        Panel(name, "probability of the likeliest token", "how often it came", tuple(reliability), diagonal=True),
    )
    caption = f"NLL by position in the window, and reliability of the coarse token, {group.data}, {size}"
    return Figure(f"position-{group.key}-{size}", caption, panels)


def by_position(rows: Sequence[Row]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Middle of each bucket of positions, counted from 1, and its NLL as a mean over runs."""
    found: dict[tuple[int, int], list[float]] = {}
    for row in rows:
        for bucket in row["evaluation"]["by_position"]:
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
    series = []
    for number, arm in enumerate(group.arms()):
        runs = final_runs(group.rows, arm=arm)
        series.append(
            Series(
                "",
                tuple(row["parameters"] for row in runs),
                tuple(row["evaluation"]["total_nll"] for row in runs),
                style="points",
                colour=number,
            )
        )
        by_size = [group.final(arm, size) for size in group.sizes if group.final(arm, size)]
        means = [mean_over_seeds(rows) for rows in by_size]
        x, y = tuple(rows[0]["parameters"] for rows in by_size), tuple(mean.value for mean in means)
        half = tuple(0.0 if mean.low is None else mean.value - mean.low for mean in means)
        series.append(Series(label_of(runs), x, y, half, colour=number))
        if arm in group.bases() and len(x) > 1:
            fit = fit_curves(np.array(x, float), np.array([y]))
            sizes = np.geomspace(min(x), max(x), 40)
            fitted = tuple(fit.at(sizes)[0].tolist())
            series.append(Series(f"{arm}: {fit.form}", tuple(sizes.tolist()), fitted, style="dashed", colour=number))
    caption = f"NLL on the test split against parameters, {group.data}: means with Student's interval over seeds"
    panel = Panel(f"{group.data}: test", "parameters", _NATS, tuple(series), "log")
    return Figure(f"parameters-{group.key}", caption, (panel,))
