"""The figures of an ablation: learning curves by arm, NLL against parameters by arm."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from wgpt_jax.ablation.analysis import Row, mean_over_seeds

_Y = "NLL (nats per frame, all predicted codebooks)"


def plot_curves(arms: Mapping[str, Sequence[Row]], title: str, out: Path) -> None:
    """Validation NLL over steps: each seed a thin line, their mean a thick one.

    Args:
        arms: final runs of one data set at one size, by label.
        title: what they are of.
        out: PNG to write.
    """
    figure, axes = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    for number, (label, rows) in enumerate(arms.items()):
        colour, curves = f"C{number}", [np.array(row["curve"], float) for row in rows if row["curve"]]
        for curve in curves:
            axes.plot(curve[:, 0], curve[:, 2], color=colour, alpha=0.35, linewidth=0.8)
        if not curves:
            continue
        steps = sorted(set.intersection(*(set(curve[:, 0]) for curve in curves)))
        means = [np.mean([curve[curve[:, 0] == step][0, 2] for curve in curves]) for step in steps]
        axes.plot(steps, means, color=colour, linewidth=1.8, marker="o", markersize=3, label=label)
    _finish(axes, title, "step")
    figure.savefig(out, dpi=120)
    plt.close(figure)


def plot_parameters(arms: Mapping[str, Sequence[Row]], title: str, out: Path) -> None:
    """Test NLL against parameters: each seed a small point, the mean of a size with its interval on a line.

    Args:
        arms: final runs of one data set, by label.
        title: what they are of.
        out: PNG to write.
    """
    figure, axes = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    for number, (label, rows) in enumerate(arms.items()):
        colour, sizes = f"C{number}", sorted({row["parameters"] for row in rows})
        groups = [[row for row in rows if row["parameters"] == size] for size in sizes]
        means = [mean_over_seeds(group) for group in groups]
        points = [(row["parameters"], row["evaluation"]["total_nll"]) for row in rows]
        axes.scatter(*zip(*points, strict=True), color=colour, alpha=0.35, s=10)
        half = [0 if each.low is None else each.value - each.low for each in means]
        values = [each.value for each in means]
        axes.errorbar(sizes, values, yerr=half, color=colour, marker="o", capsize=3, label=label)
    axes.set_xscale("log")
    _finish(axes, title, "parameters")
    figure.savefig(out, dpi=120)
    plt.close(figure)


def _finish(axes: Axes, title: str, xlabel: str) -> None:
    axes.set(xlabel=xlabel, ylabel=_Y, title=title)
    axes.grid(alpha=0.25)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
