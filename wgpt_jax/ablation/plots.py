"""What the figures of an ablation show: learning curves by arm, NLL against parameters by arm."""

import statistics
from collections.abc import Container, Mapping, Sequence

import numpy as np

from wgpt_jax.ablation.analysis import Row, mean_over_seeds
from wgpt_jax.ablation.curve import fit_curves
from wgpt_jax.figure import Panel, Series

NATS = "NLL (nats per frame, all predicted codebooks)"


def learning_panel(arms: Mapping[str, Sequence[Row]], title: str) -> Panel:
    """Validation NLL over steps: each seed a thin line, their mean a thick one.

    Args:
        arms: final runs of one data set at one size, by label.
        title: what they are of.
    """
    series = []
    for number, (label, rows) in enumerate(arms.items()):
        curves = [{step: total for step, _, total in row["curve"] if total is not None} for row in rows]
        curves = [curve for curve in curves if curve]
        if len(curves) > 1:
            series += [Series("", tuple(c), tuple(c.values()), style="thin", colour=number) for c in curves]
        steps = tuple(sorted(set.intersection(*map(set, curves)))) if curves else ()
        means = tuple(statistics.fmean(curve[step] for curve in curves) for step in steps)
        if steps:
            series.append(Series(label, steps, means, colour=number))
    return Panel(title, "step", NATS, tuple(series))


def parameters_panel(arms: Mapping[str, Sequence[Row]], fitted: Container[str], title: str) -> Panel:
    """Test NLL against parameters: seeds as points, means with Student's interval, fits dashed.

    Args:
        arms: final runs of one data set, by label.
        fitted: labels of the arms whose fit is shown, those with two sizes or more.
        title: what they are of.
    """
    series = []
    for number, (label, rows) in enumerate(arms.items()):
        points = [(row["parameters"], row["evaluation"]["total_nll"]) for row in rows]
        x, y = zip(*points, strict=True)
        series.append(Series("", x, y, style="points", colour=number))
        sizes = sorted({row["parameters"] for row in rows})
        means = [mean_over_seeds([row for row in rows if row["parameters"] == size]) for size in sizes]
        half = tuple(0.0 if mean.low is None else mean.value - mean.low for mean in means)
        levels = tuple(mean.value for mean in means)
        series.append(Series(label, tuple(sizes), levels, half, colour=number))
        if label in fitted and len(sizes) > 1 and levels.index(min(levels)) > 0:
            fit = fit_curves(np.array(sizes, float), np.array([levels]))
            along = np.geomspace(sizes[0], fit.ends[0], 40)
            y = tuple(fit.at(along)[0].tolist())
            series.append(Series(f"fitted: {fit.form}", tuple(along.tolist()), y, style="dashed", colour=number))
    return Panel(title, "parameters", NATS, tuple(series), "log")
