"""Section 7: what the arms that generate make of sound when they listen to themselves."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit

from wgpt_jax.report.figure import Figure, Panel, Series
from wgpt_jax.report.numbers import table
from wgpt_jax.report.provenance import Provenance
from wgpt_jax.report.rows import Row, of_kind

COMMAND = "`python tools/closed_loop_quality.py RUN --data DATA --out FOLDER`"


def closed_loop(rows: Sequence[Row], origins: Provenance) -> tuple[list[str], list[Figure]]:
    """Tables of drift, repetition and Frechet distance with their floors; drift with time; spectrograms."""
    found = of_kind(rows, "closed_loop")
    if not found:
        return [f"Not there; it is made by {COMMAND}.", ""], []
    lines = ["Against held-out audio of equal length, and held-out audio against itself (the floor):", ""]
    heads = ("data", "run", "mode", "codebooks", "samples x s", "measure", "generated", "floor", "excess", "says")
    cells = [[*_named(row), *measured] for row in found for measured in _distances(row)]
    lines += [*table(heads, cells), "", "Repetition of coarse tokens, a fraction:", ""]
    heads = ("data", "run", "mode", "codebooks", "samples x s", "measure", "generated", "held out")
    cells = [[*_named(row), *measured] for row in found for measured in _repetitions(row)]
    lines += [*table(heads, cells), *origins.made_by(found)]
    figures = [_drift([row for row in found if row["data"] == data], data) for data in _data(found)]
    for figure in figures:
        lines += [f"![{figure.caption}](results/{figure.file})", ""]
    for row in found:
        if picture := row.get("picture"):
            said = f"Held-out and generated spectrograms, {row['run']}, {row['mode']} mode, and its drift"
            lines += [f"![{said}](results/{picture['file']})", ""]
        else:
            lines += [f"No spectrogram of {row['run']}: its closed_loop.png was not beside its row.", ""]
    return lines, figures


def _data(found: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["data"] for row in found))


def _named(row: Row) -> list[str]:
    prompt = f" behind {row['prompt_seconds']:g} s" if row["prompts"] else ""
    samples = f"{row['num_samples']} x {row['seconds']:g}{prompt}"
    return [row["data"], row["run"], row["mode"], str(row["codebooks"]), samples]


def _distances(row: Row) -> list[list[str]]:
    drift, frechet = row["drift"], row["frechet"]
    sure = float(stdtrit(min(row["num_samples"], row["documents"]) - 1, 0.975))
    measures = [
        ("divergence of coarse tokens, bits", drift["overall"]),
        ("its rise, last window - first, bits", drift["rise"]),
        ("Fréchet, frames", frechet["frames"]),
        (f"Fréchet, means of {frechet['patch_frames']} frames", frechet["patches"]),
    ]
    columns = ("generated", "floor", "excess")
    return [[label, *(_with_error(each, column) for column in columns), _says(each, sure)] for label, each in measures]


def _says(row: dict[str, Any], sure: float) -> str:
    """Whether an excess is above the floor by more errors than Student's distribution allows."""
    if abs(row["excess"]) <= sure * row["excess_stderr"]:
        return "not told from the floor"
    return "above the floor" if row["excess"] > 0 else "below the floor"


def _repetitions(row: Row) -> list[list[str]]:
    measures = (("repeated", "token as the one before"), ("looped", "token in a loop"))
    columns = ("generated", "held_out")
    return [[label, *(_with_error(row["repetition"][name], column) for column in columns)] for name, label in measures]


def _with_error(row: dict[str, Any], column: str) -> str:
    return f"{row[column]:.4f} +- {row[f'{column}_stderr']:.4f}"


def _drift(found: Sequence[Row], data: str) -> Figure:
    series = []
    for number, row in enumerate(found):
        bits = row["drift"]["divergence_bits"]
        x = tuple(float(np.mean(window)) for window in row["drift"]["windows"])
        label = f"{row['run']}, {row['mode']}"
        series.append(Series(label, x, tuple(bits["excess"]), tuple(bits["excess_stderr"]), colour=number))
    panel = Panel(f"{data}: drift", "seconds", "divergence above the floor (bits)", tuple(series))
    caption = f"Divergence of generated coarse tokens from held-out ones above the floor, with time, {data}"
    return Figure(f"drift-{data}", caption, (panel,))
