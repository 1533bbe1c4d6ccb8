"""Which run a closed loop was measured on and how its tokens were drawn, by what its row says of it."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from wgpt_jax.ablation.runs import Run
from wgpt_jax.closed_loop.request import SamplingConfig
from wgpt_jax.report.rows import Row, of_kind


@dataclasses.dataclass(frozen=True)
class Loop:
    """A closed loop and what it is called."""

    row: Row
    short: str
    """Arm, size, seed and how tokens were drawn; the run's folder where no row says them."""
    label: str
    """The same with the experiment and its steps."""
    plain: str
    """The label without the seed and without how tokens were drawn."""
    letter: str
    """The arm's name alone; empty where no row says it."""
    rest: str
    """Size, how tokens were drawn, experiment and steps; the run's folder and how, where no row says them."""
    windows: tuple[int, int] | None
    """Batch and context that the run was trained with; this and the seed are None where no row says them."""
    seed: int | None

    @property
    def arm(self) -> str:
        """What it has in common with the other seeds of its arm: its label without the seed."""
        return f"{self.letter}, {self.rest}" if self.letter else self.rest


def loops_of(rows: Sequence[Row]) -> list[Loop]:
    """The closed loops among all rows, in their order.

    No two of one data set and mode are called alike: those that would be have the experiment in their short names, or
    else the run's folder.
    """
    loops = [_loop(row, rows) for row in of_kind(rows, "closed_loop")]
    whole = [f"{loop.label}, {loop.row['run']}" for loop in loops]
    kinds = [(loop.row["data"], loop.row["mode"]) for loop in loops]
    labels = [loop.label for loop in loops]
    named = zip(
        loops,
        _distinct(kinds, [loop.short for loop in loops], labels, whole),
        _distinct(kinds, labels, whole),
        strict=True,
    )
    return [dataclasses.replace(loop, short=short, label=label) for loop, short, label in named]


def behind(loop: Row, rows: Sequence[Row]) -> list[Row]:
    """The final runs that a closed loop may have been measured on: of its folder's name, length and codebooks.

    Where its path has the name of an experiment in it, those of that one alone.
    """
    *above, folder = Path(loop["run"]).parts
    found = [
        row
        for row in of_kind(rows, "run")
        if row["stage"] == "final"
        and _folder(row) == folder
        and row["data"] == loop["data"]
        and loop.get("step") in (None, row["config"]["training"]["steps"])
        and row["config"]["model"]["output_codebooks"] == loop["codebooks"]
    ]
    return [row for row in found if row["experiment"] in above] or found


def drawn(loop: Row) -> str:
    """How tokens were drawn, as ``top_p 0.95``; empty if from the model's own distribution."""
    default = dataclasses.asdict(SamplingConfig())
    return ", ".join(f"{key} {value:g}" for key, value in loop["sampling"].items() if value != default[key])


def _folder(row: Row) -> str:
    """Of a run's row, as ``wgpt ablate`` names it."""
    steps = row["config"]["training"]["steps"]
    return Run(row["data"], row["arm"], row["size"], "final", row["seed"], steps, None, None).name


def _loop(row: Row, rows: Sequence[Row]) -> Loop:
    """A closed loop, called as it is where there is no other one."""
    found, how = behind(row, rows), f", {drawn(row)}" if drawn(row) else ""
    if not found:
        name = f"{Path(row['run']).name}{how}"
        return Loop(row, name, name, row["run"], "", f"{row['run']}{how}", None, None)
    experiments = " or ".join(sorted({run["experiment"] for run in found}))
    where = f" ({experiments}, {found[0]['config']['training']['steps']:,} steps)"
    letter, size, seed = (found[0][key] for key in ("arm", "size", "seed"))
    arm = f"{letter}, {size}"
    short = f"{arm}, seed {seed}{how}"
    windows = found[0]["config"]["training"]["batch"], found[0]["config"]["data"]["context"]
    return Loop(row, short, f"{short}{where}", f"{arm}{where}", letter, f"{size}{how}{where}", windows, seed)


def _distinct(kinds: Sequence[tuple], *names: Sequence[str]) -> list[str]:
    """Of several names for each thing the first that no other thing of its kind has; the last if there is none."""
    counts = [Counter(zip(kinds, each, strict=True)) for each in names]
    found = []
    for kind, *own in zip(kinds, *names, strict=True):
        free = (name for name, count in zip(own, counts, strict=True) if count[kind, name] == 1)
        found.append(next(free, own[-1]))
    return found
