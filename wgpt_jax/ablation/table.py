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


def format_runs(
    runs: Sequence[Run], sized: Mapping[tuple[str, str], Sized], made: int, more: int, frames: Mapping[str, int]
) -> str:
    """How many runs there are, the frames that they take, and how often each sees its data.

    Args:
        runs: all that are asked for.
        sized: by the names of arm and size.
        made: how many of them are there already.
        more: largest number of runs that sweeps may still add.
        frames: of the training split, by the name of the data.
    """
    taken = sum(frames_of(run, sized) for run in runs)
    work = sum(frames_of(run, sized) * sized[run.arm, run.size].parameters for run in runs)
    tune = sum(run.stage == "tune" for run in runs)
    grows = f", and up to {more} more where a sweep's best point is on its edge" if more else ""
    lines = [
        f"{len(runs)} runs, {tune} of them to tune{grows}; {made} are there already",
        f"{taken:,} frames in all, {6 * work:.2e} floating-point operations (6 x parameters x frames)",
    ]
    for data, stages in epochs(runs, sized, frames).items():
        told = [f"{_span(stages[stage])} in a run of stage {stage}" for stage in ("tune", "final") if stage in stages]
        lines.append(f"epochs of {data} ({frames[data]:,} frames): {', '.join(told)}")
    return "\n".join(lines)


def epochs(
    runs: Sequence[Run], sized: Mapping[tuple[str, str], Sized], frames: Mapping[str, int]
) -> dict[str, dict[str, list[float]]]:
    """How often runs see their training split: the fewest and the most, by data and stage.

    Args:
        runs: all that are asked for.
        sized: by the names of arm and size.
        frames: of the training split, by the name of the data.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        found.setdefault(run.data, {}).setdefault(run.stage, []).append(frames_of(run, sized) / frames[run.data])
    return {
        data: {stage: [round(min(each), 2), round(max(each), 2)] for stage, each in stages.items()}
        for data, stages in found.items()
    }


def _span(ends: Sequence[float]) -> str:
    return " to ".join(f"{end:.1f}" for end in dict.fromkeys(ends))


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
