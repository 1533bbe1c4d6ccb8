"""Which run a closed loop was measured on, by what its row says of it."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from wgpt_jax.ablation.runs import Run
from wgpt_jax.report.rows import Row, of_kind


def labels(loops: Sequence[Row], rows: Sequence[Row]) -> list[str]:
    """What each closed loop is called: arm, size, seed and experiment; the run's folder where no row says them.

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


def _folder(row: Row) -> str:
    """Of a run's row, as ``wgpt ablate`` names it."""
    steps = row["config"]["training"]["steps"]
    return Run(row["data"], row["arm"], row["size"], "final", row["seed"], steps, None, None).name


def _label(loop: Row, rows: Sequence[Row]) -> str:
    found = behind(loop, rows)
    if not found:
        return Path(loop["run"]).name
    experiments = sorted({row["experiment"] for row in found})
    run = found[0]
    return f"{run['arm']}, {run['size']}, seed {run['seed']} ({' or '.join(experiments)})"
