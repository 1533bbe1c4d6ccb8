"""The runs of an ablation: which there are, in which order, and what each must wait for."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from wgpt_jax.ablation.counts import Sized
from wgpt_jax.ablation.grid import Ablation, Arm
from wgpt_jax.ablation.sweep import Point, Swept, follow, rounded
from wgpt_jax.config import Config
from wgpt_jax.errors import RequestError

KEYS = ("arm", "size", "data", "seed", "stage")
"""What ``--only`` can name."""
DIVERGED = "training diverged"
"""How the reason of a run starts that failed by itself, and would fail again."""
Group = tuple[str, str, str]
"""(data, arm, size)."""
Rows = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Run:
    """A training run; a final one's learning rate and embedding scale are those that its sweep chooses."""

    data: str
    arm: str
    size: str
    stage: Literal["tune", "final"]
    seed: int
    steps: int
    point: Point | None
    """None for the sweep's choice."""
    tuned_by: Group | None
    """The sweep that chooses; None if there is nothing to choose."""

    @property
    def name(self) -> str:
        """Of its folder."""
        stem = f"{self.data}-{self.arm.replace(chr(39), '_leaks')}-{self.size}"
        if self.stage == "final":
            return f"{stem}-seed{self.seed}"
        return f"{stem}-tune-lr{self.point[0]:g}-std{self.point[1]:g}"

    @property
    def group(self) -> Group:
        """What the run is one of."""
        return self.data, self.arm, self.size


def all_runs(ablation: Ablation, data: Sequence[str], rows: Rows) -> list[Run]:
    """Every run of the grid, size by size, sweeps first, then seed by seed.

    Args:
        ablation: the grid.
        data: names of the data sets.
        rows: what ``results.jsonl`` holds: sweeps go on beyond their grids as it says.
    """
    runs: list[Run] = []
    swept: set[Group] = set()
    for size in ablation.sizes:
        tuning = ablation.tuning_size(size)
        finals = []
        for name, arm in itertools.product(data, ablation.arms):
            sweep, where = ablation.sweep_of(arm), name if ablation.sweep_per_data else data[0]
            alone = len(sweep.points) == 1
            group = (where, arm.name, tuning.name)
            if not alone and group not in swept:
                swept.add(group)
                for point in sweep_of(ablation, group, rows).points:
                    runs.append(Run(*group, "tune", sweep.seed, sweep.steps, point, None))
            scale = (tuning.width / size.width) ** 0.5
            point = (rounded(sweep.points[0][0] * scale), sweep.points[0][1]) if alone else None
            finals += [
                Run(name, arm.name, size.name, "final", seed, ablation.steps, point, None if alone else group)
                for seed in ablation.seeds
            ]
        runs += sorted(finals, key=lambda run: ablation.seeds.index(run.seed))
    return runs


def select(runs: Sequence[Run], only: Sequence[str]) -> list[Run]:
    """The runs that ``--only`` names, with the sweeps that they need unless it says ``stage=final``.

    Args:
        runs: all of them.
        only: ``arm=c,size=0.5m`` and the like; a run is named if all of one hold. Empty for all runs.

    Raises:
        RequestError: if one is ill-formed, or names no run.
    """
    if not only:
        return list(runs)
    chosen: set[Run] = set()
    for text in only:
        wanted = _parse(text, runs)
        named = {run for run in runs if all(_value(run, key) == value for key, value in wanted.items())}
        if wanted.get("stage") is None:  # a seed says which final runs; their sweep has a seed of its own
            named = {run for run in named if run.stage == "final"}
            groups = {run.tuned_by for run in named}
            named |= {run for run in runs if run.stage == "tune" and run.group in groups}
        if not named:
            raise RequestError(f"--only {text}: no run of the grid is all that")
        chosen |= named
    return [run for run in runs if run in chosen]


def _value(run: Run, key: str) -> str:
    return str(getattr(run, key))


def _parse(text: str, runs: Sequence[Run]) -> dict[str, str]:
    wanted = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if key not in KEYS or not equals:
            raise RequestError(f"--only {text}: {part!r} is none of {', '.join(f'{key}=...' for key in KEYS)}")
        known = list(dict.fromkeys(_value(run, key) for run in runs))
        if value not in known:
            raise RequestError(f"--only {text}: there is no {key} {value!r}; there are {', '.join(known)}")
        if key in wanted:
            raise RequestError(f"--only {text}: {key} is named twice; give {key}={wanted[key]} {key}={value} for both")
        wanted[key] = value
    return wanted


def tuned_point(ablation: Ablation, run: Run, rows: Rows) -> Point | None:
    """The learning rate and embedding scale of a run, where they are known yet.

    The best of a sweep is the lowest validation NLL of all output codebooks.

    Args:
        ablation: the grid.
        run: any run.
        rows: what ``results.jsonl`` holds.

    Returns:
        the pair; None if its sweep is not finished, or all of it diverged.
    """
    if run.point is not None:
        return run.point
    best = sweep_of(ablation, run.tuned_by, rows).best
    if best is None:
        return None
    scale = (ablation.size(run.tuned_by[2]).width / ablation.size(run.size).width) ** 0.5
    return rounded(best[0] * scale), best[1]


def sweep_of(ablation: Ablation, group: Group, rows: Rows) -> Swept:
    """How far a sweep is. A point that failed, but did not diverge, is not tried yet: it says nothing of the arm.

    Args:
        ablation: the grid.
        group: which sweep.
        rows: what ``results.jsonl`` holds.
    """
    sweep = ablation.sweep_of(ablation.arm(group[1]))
    settled = [row for row in rows if row["kind"] == "run" or is_diverged(row)]
    return follow(sweep, sweep_scores(group, [row for row in settled if row["seed"] == sweep.seed]))


def more_runs(ablation: Ablation, runs: Sequence[Run], rows: Rows) -> int:
    """Largest number of runs that sweeps may still add to some runs.

    Args:
        ablation: the grid.
        runs: those that are asked for.
        rows: what ``results.jsonl`` holds.
    """
    groups = dict.fromkeys(run.group for run in runs if run.stage == "tune")
    return sum(sweep_of(ablation, group, rows).more for group in groups)


def is_diverged(row: Mapping[str, Any]) -> bool:
    """Whether a row says that a run failed by diverging."""
    return row["kind"] == "failed" and row["reason"].startswith(DIVERGED)


def sweep_scores(group: Group, rows: Rows) -> dict[Point, float | None]:
    """Validation NLL (nats per frame over all output codebooks) of the points of a sweep; None for a failed one.

    Args:
        group: which sweep.
        rows: what ``results.jsonl`` holds.
    """
    scores: dict[Point, float | None] = {}
    for row in rows:
        if row["kind"] in ("run", "failed") and row["stage"] == "tune":
            if (row["data"], row["arm"], row["size"]) != group:
                continue
            point = (row["learning_rate"], row["embedding_std"])
            if row["kind"] == "run":
                scores[point] = row["evaluation"]["total_nll"]
            else:  # it may have been made again since
                scores.setdefault(point, None)
    return scores


def configured(run: Run, sized: Sized, point: Point) -> Config:
    """What a run trains; its seed is also that of the order of the data, so that seeds differ in both.

    Args:
        run: the run.
        sized: its arm at its size.
        point: its learning rate and embedding scale.
    """
    config = sized.config
    training = dataclasses.replace(
        config.training, steps=run.steps, seed=run.seed, eval_every=min(config.training.eval_every, run.steps)
    )
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, embedding_std=point[1]),
        data=dataclasses.replace(config.data, shuffle_seed=run.seed),
        training=training,
        optimizer=dataclasses.replace(config.optimizer, learning_rate=point[0]),
    ).validate()


def is_of(row: Mapping[str, Any], run: Run) -> bool:
    """Whether a row is of a run."""
    if any(row.get(key) != getattr(run, key) for key in ("data", "arm", "size", "stage", "seed")):
        return False
    return run.stage == "final" or (row["learning_rate"], row["embedding_std"]) == run.point


def arms_in(runs: Sequence[Run], ablation: Ablation) -> list[Arm]:
    """The arms that some runs need, in the grid's order."""
    needed = {run.arm for run in runs}
    return [arm for arm in ablation.arms if arm.name in needed]
