"""Which run a closed loop was measured on and how its tokens were drawn, by what its row says of it."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from wgpt_jax.ablation.runs import Run
from wgpt_jax.closed_loop.request import SamplingConfig
from wgpt_jax.report.rows import Row, of_kind


def labels(loops: Sequence[Row], rows: Sequence[Row]) -> list[str]:
    """What each closed loop is called: arm, size, seed, experiment and how tokens were drawn; the run's folder where no
    row says them.

    Args:
        loops: rows of kind ``closed_loop``.
        rows: all rows, among them those of the runs.
    """
    names = [_label(loop, rows) for loop in loops]
    count = Counter((loop["data"], loop["mode"], name) for loop, name in zip(loops, names, strict=True))
    return [
        name if count[loop["data"], loop["mode"], name] == 1 else f"{name}, {loop['run']}"
        for loop, name in zip(loops, names, strict=True)
    ]


def behind(loop: Row, rows: Sequence[Row]) -> list[Row]:
    """The final runs that a closed loop may have been measured on: of its folder's name, length and codebooks."""
    folder = Path(loop["run"]).name
    return [
        row
        for row in of_kind(rows, "run")
        if row["stage"] == "final"
        and _folder(row) == folder
        and row["data"] == loop["data"]
        and loop.get("step") in (None, row["config"]["training"]["steps"])
        and row["config"]["model"]["output_codebooks"] == loop["codebooks"]
    ]


def drawn(loop: Row) -> str:
    """How tokens were drawn, as ``top_p 0.95``; empty if from the model's own distribution."""
    default = dataclasses.asdict(SamplingConfig())
    return ", ".join(f"{key} {value:g}" for key, value in loop["sampling"].items() if value != default[key])


def _folder(row: Row) -> str:
    """Of a run's row, as ``wgpt ablate`` names it."""
    steps = row["config"]["training"]["steps"]
    return Run(row["data"], row["arm"], row["size"], "final", row["seed"], steps, None, None).name


def _label(loop: Row, rows: Sequence[Row]) -> str:
    found, how = behind(loop, rows), f", {drawn(loop)}" if drawn(loop) else ""
    if not found:
        return f"{Path(loop['run']).name}{how}"
    experiments = sorted({row["experiment"] for row in found})
    run = found[0]
    return f"{run['arm']}, {run['size']}, seed {run['seed']}{how} ({' or '.join(experiments)})"
