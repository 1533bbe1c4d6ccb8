"""A figure as the numbers that it shows; drawn into a PNG that says which numbers those are.

Two versions of matplotlib draw different pixels, so a picture is compared by the digest of its numbers, which it holds.
"""

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Literal

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from PIL import Image

STAMP = "Numbers"
"""Key of the PNG's text that holds the digest."""
_INSIDE = 5
"""Entries of a legend that fit beside the lines; a longer one goes below the axes."""


@dataclasses.dataclass(frozen=True)
class Series:
    """Points, or a line through them."""

    label: str
    """In the legend; empty for none."""
    x: tuple[float, ...]
    y: tuple[float, ...]
    half: tuple[float, ...] = ()
    """Half the height of the error bars; empty for none."""
    style: Literal["line", "thin", "points", "dashed"] = "line"
    colour: int = 0


@dataclasses.dataclass(frozen=True)
class Panel:
    """Axes and what is on them."""

    title: str
    xlabel: str
    ylabel: str
    series: tuple[Series, ...]
    scale: Literal["linear", "log"] = "linear"
    """Of the x axis."""
    diagonal: bool = False
    """Whether a line shows where x equals y."""


@dataclasses.dataclass(frozen=True)
class Figure:
    """Panels beside each other, in one file."""

    name: str
    """Of the file, without .png."""
    caption: str
    panels: tuple[Panel, ...]

    @property
    def file(self) -> str:
        """Name of the PNG."""
        return f"{self.name}.png"

    def digest(self) -> str:
        """Of everything that is shown; numbers count to six digits, so that another library's rounding is none."""
        text = json.dumps(_rounded(dataclasses.asdict(self)), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def draw(self, out: Path) -> None:
        """Draws into a PNG.

        Raises:
            OSError: if it cannot be written.
        """
        count = len(self.panels)
        entries = [_entries(panel) for panel in self.panels]
        # A legend of one panel alone is that of the whole figure.
        shared = sum(map(bool, entries)) == 1
        columns = count if shared else 1
        below = math.ceil(max(entries) / columns) if max(entries) > _INSIDE else 0
        size = (5.5 * count + 1, 4.2 + 0.2 * below)
        figure, axes = plt.subplots(1, count, figsize=size, layout="constrained", squeeze=False)
        for panel, place in zip(self.panels, axes[0], strict=True):
            _draw(panel, place)
            options = {"frameon": False, "fontsize": 8}
            if _entries(panel) > _INSIDE and shared:
                figure.legend(*place.get_legend_handles_labels(), loc="outside lower center", ncols=columns, **options)
            elif _entries(panel) > _INSIDE:
                place.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), **options)
            elif _entries(panel):
                if any(series.half for series in panel.series):
                    # matplotlib looks for a place off the lines, but not off their error bars.
                    low, high = place.get_ylim()
                    place.set_ylim(low, high + 0.06 * (_entries(panel) + 1) * (high - low))
                place.legend(**options)
        figure.savefig(out, dpi=90, metadata={STAMP: self.digest()})
        plt.close(figure)


def stamp_of(path: Path) -> str | None:
    """The digest of the numbers that a PNG shows; None if it is no PNG of a :class:`Figure`."""
    try:
        with Image.open(path) as picture:
            return getattr(picture, "text", {}).get(STAMP)
    except OSError:
        return None


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _entries(panel: Panel) -> int:
    """Of its legend."""
    return sum(bool(series.label) for series in panel.series)


def _draw(panel: Panel, axes: Axes) -> None:
    if panel.diagonal:
        axes.plot((0, 1), (0, 1), color="0.6", linestyle=":", linewidth=1)
    for series in panel.series:
        options = {"color": f"C{series.colour % 10}", "label": series.label or None}
        if series.style == "thin":
            axes.plot(series.x, series.y, alpha=0.35, linewidth=0.8, **options)
        elif series.style == "points":
            axes.plot(series.x, series.y, linestyle="none", marker="o", markersize=3, alpha=0.5, **options)
        elif series.style == "dashed":
            axes.plot(series.x, series.y, linestyle="--", linewidth=1, **options)
        else:
            half = series.half or None
            axes.errorbar(series.x, series.y, yerr=half, linewidth=1.6, marker="o", markersize=3, capsize=2, **options)
    axes.set_xscale(panel.scale)
    axes.set(xlabel=panel.xlabel, ylabel=panel.ylabel)
    axes.set_title(panel.title, fontsize=10, parse_math=False)
    axes.grid(alpha=0.25)
