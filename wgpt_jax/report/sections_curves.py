"""Section 6: learning curves, how differences moved while training, positions and calibration."""

import statistics
from collections.abc import Sequence

from wgpt_jax.figure import Figure
from wgpt_jax.report.claims import Answer
from wgpt_jax.report.curves import learning_curves, position_and_reliability
from wgpt_jax.report.groups import Group
from wgpt_jax.report.numbers import table
from wgpt_jax.report.rows import Row
from wgpt_jax.report.sections_arms import how_to_run
from wgpt_jax.report.verdicts import in_pairs


def curves(groups: Sequence[Group], found: Sequence[Answer], data: Sequence[str]) -> tuple[list[str], list[Figure]]:
    """Figures of every group and size that has two arms, and the questions' differences at every evaluation.

    Args:
        groups: all of them.
        found: what they answer.
        data: names of the data sets, for the command that fills an empty section.
    """
    if not groups:
        return [f"Not there; they are made by {how_to_run('ablation_inputs', data)}.", ""], []
    lines, figures = [], []
    for group in groups:
        sizes = [size for size in group.sizes if len(group.arms(size)) > 1]
        if not sizes:
            continue
        lines += [f"### {group.title}, {group.codebooks} codebook(s) out", ""]
        for size in sizes:
            for figure in (learning_curves(group, size), position_and_reliability(group, size)):
                figures.append(figure)
                lines += [f"![{figure.caption}](results/{figure.file})", ""]
            lines += _differences([answer for answer in found if answer.group is group and answer.size == size])
    return lines, figures


def _differences(found: Sequence[Answer]) -> list[str]:
    """A row per question of a group and size: NLL of the one arm minus the other's at each step, over their pairs."""
    told = []
    for answer in found:
        ours, theirs = (_by_step(runs) for runs in in_pairs(*answer.runs()))
        if steps := [step for step in ours if step in theirs]:
            told.append((answer, {step: ours[step] - theirs[step] for step in steps}))
    if not told:
        return []
    steps = sorted({step for _, differences in told for step in differences})
    cells = [
        [answer.claim.pair, str(answer.estimate.seeds), *(f"{row[step]:+.3f}" if step in row else "" for step in steps)]
        for answer, row in told
    ]
    said = f"Differences on the validation split while training, {told[0][0].where}, in nats after so many steps:"
    return [said, "", *table(("pair", "seeds", *(f"{step:,}" for step in steps)), cells), ""]


def _by_step(runs: Sequence[Row]) -> dict[int, float]:
    """NLL of all predicted codebooks by step, where every run has it; nothing of no run."""
    each = [{step: total for step, _, total in row["curve"]} for row in runs]
    steps = [step for step in each[0] if all(step in run for run in each)] if each else []
    return {step: statistics.fmean(run[step] for run in each) for step in steps}
