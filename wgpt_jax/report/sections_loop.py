"""Section 7: what the arms that generate make of sound when they listen to themselves."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from wgpt_jax.ablation.analysis import ENOUGH
from wgpt_jax.figure import Figure, Panel, Series
from wgpt_jax.report.loop_arms import arms_of, between, over_seeds, several, together
from wgpt_jax.report.loop_measures import measures
from wgpt_jax.report.loop_runs import Loop, loops_of
from wgpt_jax.report.numbers import counted, listed, table
from wgpt_jax.report.provenance import Provenance
from wgpt_jax.report.rows import Row

COMMAND = "`python tools/closed_loop_quality.py RUN --data DATA --out FOLDER`"
_HOW = (
    "How much more than held-out audio of equal length each run scored, with the standard error. The first line of a "
    "table has the levels of held-out audio: its distance from other held-out audio (the floor), and the fraction of "
    "its tokens that repeats. **Bold**: told from held-out audio, above it or below. The rest cannot be told from it "
    "with these samples."
)
_APART = 0.012
"""Part of the time axis by which the error bars of two arms stand apart."""


def closed_loop(rows: Sequence[Row], origins: Provenance) -> tuple[list[str], list[Figure]]:
    """Tables of drift, repetition and Frechet distance with their floors; drift with time; spectrograms."""
    loops = loops_of(rows)
    if not loops:
        return [f"Not there; it is made by {COMMAND}.", ""], []
    lines, figures = [_seeds_said(loops), "", _HOW, ""], []
    for alike in together(loops, _conditions):
        lines += [f"**{_conditions(alike[0])}:**", "", *_table(alike), ""]
    lines += origins.made_by([loop.row for loop in loops])
    for data in dict.fromkeys(loop.row["data"] for loop in loops):
        figures.append(_drift([loop for loop in loops if loop.row["data"] == data], data))
        lines += [f"![{figures[-1].caption}](results/{figures[-1].file})", ""]
    for alike in together(loops, lambda loop: (loop.row["data"], loop.row["mode"], loop.plain)):
        lines += _pictures(alike)
    return lines, figures


def in_a_line(rows: Sequence[Row]) -> str | None:
    """How many measures of all closed loops are told from held-out audio, and which; None if there is no loop."""
    loops = loops_of(rows)
    if not loops:
        return None
    found = [measure for loop in loops for measure in measures(loop.row)]
    apart = Counter(measure.told for measure in found if measure.side)
    said = "none is told apart"
    if apart:
        told = [f"{what} in {counted(count, 'run')}" for what, count in apart.items()]
        said = f"told apart are {listed(told)} (section 7)"
    count = f"{len(found) - apart.total()} of {counted(len(found), 'measure')} of {counted(len(loops), 'run')}"
    meant = "which is not to say that they are as good"
    return f"{count} cannot be told from held-out audio with these samples, {meant}; {said}"


def _conditions(loop: Loop) -> str:
    """What the runs of a table share: the data, codebooks, how much was generated and beside how much."""
    row = loop.row
    prompt = f" behind {row['prompt_seconds']:g} s of a document" if row["prompts"] else ""
    samples = f"{counted(row['num_samples'], 'sample')} of {row['seconds']:g} s{prompt}"
    return f"{row['data']}, {counted(row['codebooks'], 'codebook')} out, {samples}, {row['documents']} documents"


def _table(loops: Sequence[Loop]) -> list[str]:
    """A line per run, per arm of several seeds one of their mean and deviation, and one per two arms to compare."""
    scored = [measures(loop.row) for loop in loops]
    columns = list(zip(*scored, strict=True))
    levels = [" or ".join(dict.fromkeys(measure.real for measure in column)) for column in columns]
    cells = [["held-out audio", "", *levels]]
    for arm in arms_of(loops):
        each = [measures(loop.row) for loop in arm]
        cells += [[loop.label, loop.row["mode"], *map(str, scores)] for loop, scores in zip(arm, each, strict=True)]
        if several(arm):
            spread = [over_seeds(column) for column in zip(*each, strict=True)]
            cells.append([f"{arm[0].arm}, mean of {len(arm)} seeds +- their deviation", arm[0].row["mode"], *spread])
    cells += [[name, "", *apart] for name, apart in between(loops)]
    return table(("run", "mode", *(column[0].name for column in columns)), cells)


def _seeds_said(loops: Sequence[Loop]) -> str:
    """How many seeds there are of an arm, and what follows."""
    seeds = [len(arm) for alike in together(loops, _conditions) for arm in arms_of(alike) if several(arm)]
    if not seeds:
        return "One seed of each arm was measured, so nothing is said between arms."
    most = f"{min(seeds)} to {max(seeds)}" if min(seeds) < max(seeds) else str(max(seeds))
    return (
        f"Some arms were measured with {most} seeds; below them stand the mean over seeds and the standard deviation "
        "of single ones. A single run's error is of other samples and documents, not of other seeds. A hybrid minus a "
        f"token-only arm is of {ENOUGH} seeds or more that both have, with Student's interval over them; **bold** "
        "where that leaves zero out."
    )


def _pictures(loops: Sequence[Loop]) -> list[str]:
    """The spectrograms of an arm: those of its first run that has some, and links to the others."""
    shown, lines = [loop for loop in loops if loop.row.get("picture")], []
    for loop in loops:
        if loop not in shown:
            lines += [
                f"No spectrogram of {loop.row['data']}, {loop.label}: its closed_loop.png was not beside its row.",
                "",
            ]
    if not shown:
        return lines
    first, *others = shown
    said = f"Held-out and generated spectrograms, {first.row['data']}, {first.label}, {first.row['mode']} mode"
    lines += [f"![{said}, and its drift](results/{first.row['picture']['file']})", ""]
    if others:
        links = [f"[{loop.short}](results/{loop.row['picture']['file']})" for loop in others]
        lines += [f"The same of {listed(links)}.", ""]
    return lines


def _drift(loops: Sequence[Loop], data: str) -> Figure:
    """Divergence above the floor with time, a panel for each number of codebooks."""
    panels = []
    for codebooks in sorted({loop.row["codebooks"] for loop in loops}):
        arms = _lines([loop for loop in loops if loop.row["codebooks"] == codebooks])
        series = []
        for number, arm in enumerate(arms):
            windows = arm[0].row["drift"]["windows"]
            shift = _APART * windows[-1][1] * (number - (len(arms) - 1) / 2)
            x = tuple(float(np.mean(window)) + shift for window in windows)
            series.append(Series(_called(arm), x, *_bits(arm), colour=number))
        title = f"{data}: drift, {counted(codebooks, 'codebook')} out"
        panels.append(Panel(title, "seconds", "divergence above the floor (bits)", tuple(series)))
    told = listed([panel.title.removeprefix(f"{data}: drift, ") for panel in panels])
    caption = f"Divergence of generated coarse tokens from held-out ones above the floor, with time, {data}, {told}"
    if any(several(arm) for arm in _lines(loops)):
        caption += "; of several seeds the mean, with their standard deviation"
    return Figure(f"drift-{data}", caption, tuple(panels))


def _lines(loops: Sequence[Loop]) -> list[list[Loop]]:
    """What a line of a figure is of: an arm where it has several seeds, else a run."""
    arms = together(loops, lambda loop: (_conditions(loop), loop.row["mode"], loop.arm))
    return [part for arm in arms for part in ([arm] if several(arm) else [[loop] for loop in arm])]


def _called(arm: Sequence[Loop]) -> str:
    """What a legend calls a line."""
    mode = arm[0].row["mode"]
    if len(arm) == 1:
        return f"{arm[0].short}, {mode}"
    return f"{arm[0].arm}, {len(arm)} seeds, {mode}"


def _bits(arm: Sequence[Loop]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Excess by window and half its error bar: of one run its error, of several seeds their standard deviation."""
    bits = [loop.row["drift"]["divergence_bits"] for loop in arm]
    if len(arm) == 1:
        return tuple(bits[0]["excess"]), tuple(bits[0]["excess_stderr"])
    excess = np.array([each["excess"] for each in bits])
    return tuple(excess.mean(axis=0).tolist()), tuple(excess.std(axis=0, ddof=1).tolist())
