"""Runs that may be compared: of one experiment, on the same data, equally long, with as many codebooks out."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import wgpt_jax
from wgpt_jax.ablation.analysis import ENOUGH, final_runs
from wgpt_jax.ablation.arms import CONTEST, INPUTS
from wgpt_jax.ablation.grid import Ablation, load_ablation
from wgpt_jax.errors import RequestError
from wgpt_jax.report.numbers import listed
from wgpt_jax.report.rows import Row, of_kind

SAME_SIZE = 0.03
"""Largest relative difference in parameters between models that count as of one size."""
_CONFIGS = Path(wgpt_jax.__file__).parents[1] / "configs"
ARMS = INPUTS | CONTEST
"""The registry."""


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
        long = f"{self.steps}x{self.batch}x{self.context}"
        return f"{self.experiment}-{self.data}-{self.fingerprint}-{long}-k{self.codebooks}"

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
        known = [name for name in ARMS if name in found]
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

    def usual_seeds(self) -> list[int]:
        """The seeds that the grid's file has today; the first few of the runs' where there is no such file."""
        grid = grid_of(self.experiment)
        return list(grid.seeds) if grid else sorted({row["seed"] for row in final_runs(self.rows)})[:ENOUGH]

    def beyond(self) -> str:
        """What other seeds than the usual ones are called."""
        return "beyond the file's seeds" if grid_of(self.experiment) else f"beyond the first {ENOUGH}"

    def missing(self) -> str:
        """What the grid's file has and these rows do not, in a line; empty if there is nothing.

        Without a file the grid is what the rows have: their arms at each of their sizes, with each of their seeds.
        """
        grid = grid_of(self.experiment)
        arms, sizes, seeds = self.arms(), self.sizes, sorted({row["seed"] for row in final_runs(self.rows)})
        if grid is not None:
            arms = [arm.name for arm in grid.arms if arm.model.get("output_codebooks", 1) == self.codebooks]
            sizes, seeds = [size.name for size in grid.sizes], list(grid.seeds)
        told = [f"all of {size}" for size in sizes if not self.arms(size)]
        for size in [size for size in sizes if self.arms(size)]:
            have = {arm: {row["seed"] for row in self.final(arm, size)} for arm in arms}
            if absent := [arm for arm in arms if not have[arm]]:
                told.append(f"{listed(absent)} at {size}")
            for arm in [arm for arm in arms if have[arm]]:
                if lacking := [str(seed) for seed in seeds if seed not in have[arm]]:
                    told.append(f"seed{'s' * (len(lacking) > 1)} {listed(lacking)} of {arm} at {size}")
        return "; ".join(told)

    def length_of_file(self) -> str | None:
        """Steps, windows and frames of the grid's file where these runs have others; None where they do not."""
        grid = grid_of(self.experiment)
        if grid is None or (grid.steps, grid.batch, grid.context) == (self.steps, self.batch, self.context):
            return None
        return length(grid.steps, grid.batch, grid.context)


def length(steps: int, batch: int, context: int) -> str:
    """``steps x windows x frames``."""
    return f"{steps:,} x {batch} x {context}"


@functools.cache
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
    groups = []
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
        name = _name(key, [other for other in finals if other[:2] == key[:2]])
        told = shared.get(key[1:3])
        belongs = dict(told["documents"]) if told else None
        groups.append(Group(*key, rows=(*found, *tunes), failed=tuple(broken), name=name, belongs=belongs))
    return groups


def data_names(groups: Sequence[Group]) -> list[str]:
    """Of the data sets that something was trained on."""
    return list(dict.fromkeys(group.data for group in groups))


def _name(key: tuple, alike: Sequence[tuple]) -> str:
    """The data's name, with what tells a group apart from others of its experiment on data of that name."""
    parts = ((key[2], slice(2, 3)), (length(*key[3:6]), slice(3, 6)), (f"{key[6]} codebook(s)", slice(6, 7)))
    told = [said for said, part in parts if len({other[part] for other in alike}) > 1]
    return f"{key[1]} ({', '.join(told)})" if told else key[1]


def _key(row: Row) -> tuple:
    config = row["config"]
    divisor = ARMS[row["arm"]].batch_divisor if row["arm"] in ARMS else 1
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
