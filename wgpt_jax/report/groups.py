"""Runs that may be compared: of one experiment, on the same data, equally long, with as many codebooks out."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import wgpt_jax
from wgpt_jax.ablation.analysis import final_runs
from wgpt_jax.ablation.arms import CONTEST, INPUTS
from wgpt_jax.ablation.grid import Ablation, load_ablation
from wgpt_jax.errors import RequestError
from wgpt_jax.report.rows import Row, of_kind

_CONFIGS = Path(wgpt_jax.__file__).parents[1] / "configs"
_ARMS = INPUTS | CONTEST


@dataclasses.dataclass(frozen=True)
class Group:
    """Final runs that may be compared, and the sweeps behind them."""

    experiment: str
    data: str
    fingerprint: str
    """Of the training shards."""
    steps: int
    batch: int
    """Windows per step of an arm with one step per frame."""
    context: int
    codebooks: int
    """Predicted per frame."""
    rows: tuple[Row, ...]
    """Final runs and those of their sweeps."""
    failed: tuple[Row, ...]
    name: str
    """Its data's, with what tells it apart from the other groups of its experiment on data of that name."""
    belongs: Mapping[str, str] | None
    """What each document of the test split shares with others (a speaker, a work); None if nothing says so."""

    @property
    def key(self) -> str:
        """Of its figures' file names; no other group's."""
        length = f"{self.steps}x{self.batch}x{self.context}"
        return f"{self.experiment}-{self.data}-{self.fingerprint}-{length}-k{self.codebooks}"

    @property
    def title(self) -> str:
        """Of its tables."""
        return f"{self.experiment}, {self.name}: {self.steps:,} steps of {self.batch} windows of {self.context} frames"

    @property
    def sizes(self) -> list[str]:
        """Names of the sizes that have final runs, the smallest first."""
        runs = sorted(final_runs(self.rows), key=lambda row: row["parameters"])
        return list(dict.fromkeys(row["size"] for row in runs))

    def arms(self, size: str | None = None) -> list[str]:
        """Names of the arms that have final runs, in the registry's order."""
        found = dict.fromkeys(row["arm"] for row in final_runs(self.rows) if size in (None, row["size"]))
        known = [name for name in _ARMS if name in found]
        return known + [name for name in found if name not in known]

    def final(self, arm: str, size: str) -> list[Row]:
        """Final runs of an arm at a size, by seed."""
        return final_runs(self.rows, arm=arm, size=size)

    def bases(self) -> list[str]:
        """The token-only arms that the others are compared with."""
        return [arm for arm in (("a", "ac") if self.codebooks == 1 else ("g", "g2", "g2c")) if arm in self.arms()]

    def references(self) -> list[str]:
        """The arms that tables compare the others with: the token-only ones, and what the rest are variants of."""
        origins = {arm.split("-")[0] for arm in self.arms() if "-" in arm}
        return self.bases() + [arm for arm in self.arms() if arm in origins and arm not in self.bases()]

    def missing(self) -> list[str]:
        """What the grid has and the rows do not, in words; the grid is its file's, if that is as long as these runs."""
        arms, sizes, seeds = self._expected()
        lines = []
        for size in sizes:
            have = {arm: {row["seed"] for row in self.final(arm, size)} for arm in arms}
            if not any(have.values()):
                lines.append(f"size {size}: no run of any arm")
                continue
            for arm in arms:
                lacking = [seed for seed in seeds if seed not in have[arm]]
                if lacking:
                    what = "all seeds" if len(lacking) == len(seeds) else f"seed {', '.join(map(str, lacking))}"
                    lines.append(f"size {size}, arm {arm}: {what}")
        return lines

    def _expected(self) -> tuple[list[str], list[str], list[int]]:
        runs = final_runs(self.rows)
        arms, sizes, seeds = self.arms(), self.sizes, sorted({row["seed"] for row in runs})
        grid = grid_of(self.experiment)
        if grid is None:
            return arms, sizes, seeds
        ours = [arm.name for arm in grid.arms if arm.model.get("output_codebooks", 1) == self.codebooks]
        arms = ours + [arm for arm in arms if arm not in ours]
        if (grid.steps, grid.batch, grid.context) == (self.steps, self.batch, self.context):
            named = [size.name for size in grid.sizes]
            sizes = named + [size for size in sizes if size not in named]
            seeds = sorted({*grid.seeds, *seeds})
        return arms, sizes, seeds


def grid_of(experiment: str) -> Ablation | None:
    """The grid that an experiment's file defines; None if there is no such file."""
    path = _CONFIGS / f"{experiment}.py"
    return load_ablation(path) if path.is_file() else None


def make_groups(rows: Sequence[Row]) -> list[Group]:
    """Sorts runs into groups.

    Raises:
        RequestError: if a final run is there twice.
    """
    runs, failed = of_kind(rows, "run"), of_kind(rows, "failed")
    shared = {(row["data"], row["data_fingerprint"]): row["test_groups"] for row in of_kind(rows, "data")}
    finals: dict[tuple, list[Row]] = {}
    for row in runs:
        if row["stage"] == "final":
            finals.setdefault(_key(row), []).append(row)
    groups, names = [], Counter(key[:2] for key in finals)
    for key, found in finals.items():
        seen: set[tuple] = set()
        for row in found:
            run = row["arm"], row["size"], row["seed"]
            if run in seen:
                raise RequestError(
                    f"{row['experiment']} has two final rows of {row['data']}, arm {row['arm']}, size {row['size']}, "
                    f"seed {row['seed']}; delete the one that is no longer wanted"
                )
            seen.add(run)
        tunes = [row for row in runs if row["stage"] == "tune" and _tunes(row, key)]
        broken = [row for row in failed if _fails(row, key)]
        name = key[1] if names[key[:2]] == 1 else f"{key[1]} ({key[2]}, {'x'.join(map(str, key[3:6]))}, k{key[6]})"
        told = shared.get(key[1:3])
        belongs = dict(told["documents"]) if told else None
        groups.append(Group(*key, rows=(*found, *tunes), failed=tuple(broken), name=name, belongs=belongs))
    return groups


def _key(row: Row) -> tuple:
    config = row["config"]
    divisor = _ARMS[row["arm"]].batch_divisor if row["arm"] in _ARMS else 1
    batch = config["training"]["batch"] * divisor
    codebooks = config["model"]["output_codebooks"]
    length = config["training"]["steps"], batch, config["data"]["context"]
    return row["experiment"], row["data"], row["data_fingerprint"], *length, codebooks


def _tunes(row: Row, key: tuple) -> bool:
    """Sweeps have steps of their own, and one data set's may serve another, but not an earlier one of its own name."""
    ours = _key(row)
    return ours[0] == key[0] and ours[4:] == key[4:] and (ours[1] != key[1] or ours[2] == key[2])


def _fails(row: Row, key: tuple) -> bool:
    return _key(row) == key if row["stage"] == "final" else _tunes(row, key) and row["data"] == key[1]
