"""Section 7: what the arms that generate make of sound when they listen to themselves."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit

from wgpt_jax.figure import Figure, Panel, Series
from wgpt_jax.report.loop_runs import labels
from wgpt_jax.report.numbers import listed, table
from wgpt_jax.report.provenance import Provenance
from wgpt_jax.report.rows import Row, of_kind

COMMAND = "`python tools/closed_loop_quality.py RUN --data DATA --out FOLDER`"
_NOT_TOLD = "cannot be told from {} with these samples"
_HEADS = ("data", "run", "mode", "codebooks", "samples x s", "measure", "generated")
_APART = 0.012
"""Part of the time axis by which the error bars of two runs stand apart."""


@dataclasses.dataclass(frozen=True)
class Measure:
    """What a closed loop scored on one scale."""

    name: str
    generated: str
    real: str
    """Held-out audio against other held-out audio (the floor), or its own."""
    excess: str
    """Generated minus real."""
    side: int
    """1 above, -1 below, 0 if the error is too large to say."""
    says: str


def closed_loop(rows: Sequence[Row], origins: Provenance) -> tuple[list[str], list[Figure]]:
    """Tables of drift, repetition and Frechet distance with their floors; drift with time; spectrograms."""
    found = of_kind(rows, "closed_loop")
    if not found:
        return [f"Not there; it is made by {COMMAND}.", ""], []
    named = dict(enumerate(labels(found, rows)))
    lines = ["Against held-out audio of equal length, and held-out audio against itself (the floor):", ""]
    cells = [[*_named(row, named[n]), *_cells(measure)] for n, row in enumerate(found) for measure in distances(row)]
    lines += [*table((*_HEADS, "floor", "excess", "says"), cells), "", "Repetition of coarse tokens, a fraction:", ""]
    cells = [[*_named(row, named[n]), *_cells(measure)] for n, row in enumerate(found) for measure in repetitions(row)]
    lines += [*table((*_HEADS, "held out", "excess", "says"), cells), *origins.made_by(found)]
    figures = []
    for data in dict.fromkeys(row["data"] for row in found):
        figures.append(_drift([(row, named[n]) for n, row in enumerate(found) if row["data"] == data], data))
        lines += [f"![{figures[-1].caption}](results/{figures[-1].file})", ""]
    for n, row in enumerate(found):
        if picture := row.get("picture"):
            said = f"Held-out and generated spectrograms, {row['data']}, {named[n]}, {row['mode']} mode, and its drift"
            lines += [f"![{said}](results/{picture['file']})", ""]
        else:
            lines += [f"No spectrogram of {row['data']}, {named[n]}: its closed_loop.png was not beside its row.", ""]
    return lines, figures


def in_a_line(rows: Sequence[Row]) -> str | None:
    """How many measures of all closed loops are told from held-out audio, and which; None if there is no loop."""
    found = of_kind(rows, "closed_loop")
    if not found:
        return None
    measured = [[*distances(row), *repetitions(row)] for row in found]
    told = []
    for row, label, measures in zip(found, labels(found, rows), measured, strict=True):
        apart = [f"{measure.name} {'above' if measure.side > 0 else 'below'}" for measure in measures if measure.side]
        if apart:
            told.append(f"{row['data']}, {_short(label)}: {listed(apart)}")
    said = f"those that are told apart: {'; '.join(told)}" if told else "none is told apart"
    sides = [measure.side for measures in measured for measure in measures]
    return (
        f"{sides.count(0)} of {len(sides)} measures of {len(found)} runs cannot be told from held-out audio with these "
        f"samples, which is not to say that they are as good; {said}"
    )


def distances(row: Row) -> list[Measure]:
    """How far generated sound is from held-out sound, beside how far that is from itself."""
    drift, frechet = row["drift"], row["frechet"]
    measures = (
        ("divergence of coarse tokens (bits)", drift["overall"]),
        ("its rise, first to last window (bits)", drift["rise"]),
        ("Fréchet distance of frames", frechet["frames"]),
        (f"Fréchet distance of means of {frechet['patch_frames']} frames", frechet["patches"]),
    )
    return [_measure(row, name, each, "floor", each["excess"], each["excess_stderr"]) for name, each in measures]


def repetitions(row: Row) -> list[Measure]:
    """How much of the tokens repeats; samples and documents are drawn apart, so their errors add in squares."""
    found = []
    for key, name in (("repeated", "token as the one before"), ("looped", "token in a loop")):
        each = row["repetition"][key]
        error = math.hypot(each["generated_stderr"], each["held_out_stderr"])
        found.append(_measure(row, name, each, "held_out", each["generated"] - each["held_out"], error))
    return found


def _measure(row: Row, name: str, each: dict[str, Any], real: str, excess: float, error: float) -> Measure:
    """By whether an excess is more errors than Student's distribution allows."""
    sure = float(stdtrit(min(row["num_samples"], row["documents"]) - 1, 0.975))
    side = 0 if abs(excess) <= sure * error else 1 if excess > 0 else -1
    what = "the floor" if real == "floor" else "held-out audio"
    says = {0: _NOT_TOLD.format(what), 1: f"above {what}", -1: f"below {what}"}[side]
    numbers = (_with_error(each[column], each[f"{column}_stderr"]) for column in ("generated", real))
    return Measure(name, *numbers, _with_error(excess, error), side, says)


def _named(row: Row, label: str) -> list[str]:
    prompt = f" behind {row['prompt_seconds']:g} s" if row["prompts"] else ""
    samples = f"{row['num_samples']} x {row['seconds']:g}{prompt}"
    return [row["data"], label, row["mode"], str(row["codebooks"]), samples]


def _short(label: str) -> str:
    """A run's label without its experiment."""
    return label.split(" (")[0]


def _cells(measure: Measure) -> list[str]:
    return [measure.name, measure.generated, measure.real, measure.excess, measure.says]


def _with_error(value: float, stderr: float) -> str:
    return f"{value:.4f} +- {stderr:.4f}"


def _drift(found: Sequence[tuple[Row, str]], data: str) -> Figure:
    """Divergence above the floor with time, a panel for each number of codebooks."""
    panels = []
    for codebooks in sorted({row["codebooks"] for row, _ in found}):
        runs = [(row, label) for row, label in found if row["codebooks"] == codebooks]
        series = []
        for number, (row, label) in enumerate(runs):
            bits, windows = row["drift"]["divergence_bits"], row["drift"]["windows"]
            shift = _APART * windows[-1][1] * (number - (len(runs) - 1) / 2)
            x = tuple(float(np.mean(window)) + shift for window in windows)
            short = f"{_short(label)}, {row['mode']}"
            series.append(Series(short, x, tuple(bits["excess"]), tuple(bits["excess_stderr"]), colour=number))
        title = f"{data}: drift, {codebooks} codebook{'s' * (codebooks > 1)} out"
        panels.append(Panel(title, "seconds", "divergence above the floor (bits)", tuple(series)))
    told = listed([panel.title.removeprefix(f"{data}: drift, ") for panel in panels])
    caption = f"Divergence of generated coarse tokens from held-out ones above the floor, with time, {data}, {told}"
    return Figure(f"drift-{data}", caption, tuple(panels))
