"""Tables: what every arm is made of, before anything trains; what came out, after each final run."""

from collections.abc import Mapping, Sequence

from wgpt_jax.ablation.counts import Sized
from wgpt_jax.ablation.grid import Ablation
from wgpt_jax.ablation.groups import GROUPS
from wgpt_jax.ablation.runs import Run


def format_counts(ablation: Ablation, sized: Mapping[tuple[str, str], Sized]) -> str:
    """Parameters of every arm at every size, by part of the network.

    Args:
        ablation: the grid.
        sized: by the names of arm and size.
    """
    used = [group for group in GROUPS if any(group in each.parameters_by_group for each in sized.values())]
    heads = ["size", "arm", "width", "depth", "hidden", *used, "parameters", "off"]
    rows = []
    for (arm, size), each in sized.items():
        model, target = each.config.model, ablation.size(size).parameters
        counts = [f"{each.parameters_by_group.get(group, 0):,}" for group in used]
        off = f"{100 * (each.parameters - target) / target:+.2f} %"
        shape = [str(value) for value in (model.width, model.depth, model.hidden)]
        rows.append([size, arm, *shape, *counts, f"{each.parameters:,}", off])
    return aligned(heads, rows)


def format_runs(runs: Sequence[Run], sized: Mapping[tuple[str, str], Sized], made: int) -> str:
    """How many runs there are, their names, and the frames that they take.

    Args:
        runs: all that are asked for.
        sized: by the names of arm and size.
        made: how many of them are there already.
    """
    frames = sum(frames_of(run, sized) for run in runs)
    work = sum(frames_of(run, sized) * sized[run.arm, run.size].parameters for run in runs)
    tune = sum(run.stage == "tune" for run in runs)
    return "\n".join(
        [
            f"{len(runs)} runs, {tune} of them to tune; {made} are there already",
            f"{frames:,} frames in all, {6 * work:.2e} floating-point operations (6 x parameters x frames)",
        ]
    )


def frames_of(run: Run, sized: Mapping[tuple[str, str], Sized]) -> int:
    """Frames that a run trains on: steps x windows x frames per window."""
    config = sized[run.arm, run.size].config
    return run.steps * config.training.batch * config.data.context


def aligned(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal, numbers to the right."""
    table = [list(heads), *map(list, rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(heads))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    )
