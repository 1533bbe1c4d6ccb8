"""Section 6: learning curves, how differences moved while training, positions and calibration."""

import statistics
from collections.abc import Sequence

from wgpt_jax.report.claims import answers
from wgpt_jax.report.curves import learning_curves, position_and_reliability
from wgpt_jax.report.figure import Figure
from wgpt_jax.report.groups import Group
from wgpt_jax.report.numbers import table
from wgpt_jax.report.rows import Row
from wgpt_jax.report.sections_arms import how_to_run


def curves(groups: Sequence[Group], data: Sequence[str]) -> tuple[list[str], list[Figure]]:
    """Figures of every group and size, and a table of the questions' differences at every evaluation."""
    if not groups:
        return [f"Not there; they are made by {how_to_run('ablation_inputs', data)}.", ""], []
    lines, figures = [], []
    for group in groups:
        lines += [f"### {group.title}, {group.codebooks} codebook(s) out", ""]
        for size in group.sizes:
            for figure in (learning_curves(group, size), position_and_reliability(group, size)):
                figures.append(figure)
                lines += [f"![{figure.caption}](results/{figure.file})", ""]
            lines += _differences(group, size)
    return lines, figures


def _differences(group: Group, size: str) -> list[str]:
    """A row per question: NLL of the one arm minus that of the other at each step, as a mean over their seeds."""
    found = []
    for answer in answers([group]):
        if answer.size == size and answer.estimate is not None:
            ours, theirs = (_by_step(group.final(arm, size)) for arm in (answer.claim.arm, answer.claim.base))
            if steps := [step for step in ours if step in theirs]:
                pair = f"{answer.claim.arm} - {answer.claim.base}"
                found.append((pair, {step: ours[step] - theirs[step] for step in steps}))
    if not found:
        return []
    steps = sorted({step for _, differences in found for step in differences})
    cells = [[pair, *(f"{row[step]:+.4f}" if step in row else "" for step in steps)] for pair, row in found]
    said = f"Differences on the validation split while training, {group.name}, {size}, in nats after so many steps:"
    return [said, "", *table(("pair", *(f"{step:,}" for step in steps)), cells), ""]


def _by_step(runs: Sequence[Row]) -> dict[int, float]:
    """NLL of all predicted codebooks by step, where every run has it."""
    each = [{step: total for step, _, total in row["curve"]} for row in runs]
    return {step: statistics.fmean(run[step] for run in each) for step in each[0] if all(step in run for run in each)}
