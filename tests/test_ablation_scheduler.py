"""The scheduling of an ablation, with processes that score at once: sweeps that go on, failures, what is refused."""

import dataclasses
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from synthetic import BANDS, VOCABULARY, markov_document, markov_matrix, write_dataset

from wgpt_jax import ablate
from wgpt_jax.ablation import main, scheduler, worker
from wgpt_jax.ablation.arms import INPUTS, chosen
from wgpt_jax.ablation.check import fitted
from wgpt_jax.ablation.counts import Sized
from wgpt_jax.ablation.grid import Ablation, Size, Sweep
from wgpt_jax.ablation.places import Place
from wgpt_jax.ablation.process import Ending
from wgpt_jax.ablation.results import read_rows
from wgpt_jax.ablation.runs import DIVERGED
from wgpt_jax.ablation.worker import commit_of
from wgpt_jax.config import Config, MeshConfig, TrainingConfig
from wgpt_jax.data.index import load_index
from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.runs import new_run, write_run
from wgpt_jax.training.keeper import Keeper

SIZE = Size("small", 100_000, width=32, depth=2, heads=2, mel_width=16)
SWEEP = Sweep(learning_rates=(6e-3, 1.2e-2), embedding_stds=(0.1, 0.3), steps=5, extend=2)
ABLATION = Ablation(chosen("a", "c"), (SIZE,), SWEEP, steps=10, batch=8, context=32, seeds=(0, 1), name="test")
BEST = {"a": (2.4e-2, 0.3), "c": (6e-3, 0.1)}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder, rng = tmp_path_factory.mktemp("scheduler") / "data", np.random.default_rng(0)
    splits = {split: [markov_document(split, 640, markov_matrix(), rng)] for split in ("train", "validation", "test")}
    write_dataset(folder, splits)
    return folder


@pytest.fixture
def run_grid(data, tmp_path, monkeypatch):
    """A call that makes the grid's runs: NLL by distance from ``BEST``; ``reasons`` says by name why some fail."""
    reasons: dict[str, str] = {}

    class Instant:
        """A run's process that has scored as soon as it is started."""

        ended, started = True, 0.0

        def __init__(self, run, folder, spec, place):
            self.run, self.folder, self.place, self._spec = run, folder, place, spec

        def ending(self):
            if self.run.name in reasons:
                return Ending(reason=reasons[self.run.name])
            row = self._spec["row"]
            rate, std = BEST[row["arm"]]
            nll = math.log(row["learning_rate"] / rate) ** 2 + math.log(row["embedding_std"] / std) ** 2
            scores = {"nll": nll, "total_nll": nll}
            return Ending(row=row | {"config": self._spec["config"], "evaluation": scores, "causality": None})

    monkeypatch.setattr(scheduler, "RunProcess", Instant)
    monkeypatch.setattr(scheduler, "_POLL", 0)
    monkeypatch.setattr(scheduler, "write_summary", lambda *_: None)
    monkeypatch.setattr(main, "places", lambda jobs: [Place("CPU")])
    monkeypatch.setattr(
        main,
        "size_all",
        lambda grid, pairs: {
            (arm.name, size.name): Sized(grid.config(arm, size), {"MLPs": size.parameters}) for arm, size in pairs
        },
    )

    def call(ablation=ABLATION, **changes):
        return ablate(ablation, changes.pop("data", {"m": data}), tmp_path / "work", **changes)

    call.reasons, call.work = reasons, tmp_path / "work"
    return call


def finals(work: Path) -> dict[tuple[str, int], tuple[float, float]]:
    rows = [row for row in read_rows(work / "results.jsonl") if row["kind"] == "run" and row["stage"] == "final"]
    return {(row["arm"], row["seed"]): (row["learning_rate"], row["embedding_std"]) for row in rows}


def test_sweeps_go_on_beyond_their_grids_and_final_runs_take_what_is_inside(run_grid, capsys):
    dry = run_grid(dry_run=True)
    assert (dry["runs"], dry["more"]) == (2 * 4 + 2 * 2, 2 * 4)
    assert dry["epochs"] == {"m": {"tune": [2.0, 2.0], "final": [4.0, 4.0]}}
    told = capsys.readouterr().out
    assert "and up to 8 more" in told and "2.0 in a run of stage tune, 4.0 in a run of stage final" in told
    done = run_grid()
    # Arm a moves on to (2.4e-2, 0.3), then tries beyond that; arm c is best in the other corner at once.
    assert done["failed"] == [] and done["runs"] == done["made"] == 2 * 4 + 3 + 2 + 2 * 2 and done["more"] == 0
    assert finals(run_grid.work) == {(arm, seed): BEST[arm] for arm in BEST for seed in (0, 1)}
    rows = (run_grid.work / "results.jsonl").read_bytes()
    assert run_grid()["made"] == done["made"] and (run_grid.work / "results.jsonl").read_bytes() == rows
    told = capsys.readouterr().out
    assert "goes on: m-a-small-tune-lr0.024-std0.3, m-a-small-tune-lr0.012-std0.9\n" in told
    assert "m-a-small: best learning rate 0.024, embedding_std 0.3\n" in told


def test_a_sweep_that_was_stopped_goes_on_to_the_same_points_and_reuses_rows(run_grid):
    names = run_grid()["names"]
    path = run_grid.work / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for keep in (3, 6, 9):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows[:keep]))
        assert run_grid()["names"] == names
        assert {row["arm"] + str(row["learning_rate"]) for row in read_rows(path)} == {
            row["arm"] + str(row["learning_rate"]) for row in rows
        }
    # The grid's points are not there, those beyond are: of an earlier grid, say.
    points = [(row["learning_rate"], row["embedding_std"]) for row in rows]
    beyond = [row for row, point in zip(rows, points, strict=True) if point not in SWEEP.points]
    path.write_text("".join(json.dumps(row) + "\n" for row in beyond if row["stage"] == "tune"))
    assert run_grid()["names"] == names and len(read_rows(path)) == len(rows)


def test_final_runs_wait_for_a_point_that_failed_and_the_other_arms_go_on(run_grid, capsys):
    broken = "m-a-small-tune-lr0.006-std0.1"
    run_grid.reasons[broken] = "out of memory"
    assert set(run_grid()["failed"]) == {broken, "m-a-small-seed0", "m-a-small-seed1"}
    assert f"m-a-small-seed0 cannot be made: it waits for {broken}, which failed" in capsys.readouterr().out
    assert finals(run_grid.work) == {("c", seed): BEST["c"] for seed in (0, 1)}
    run_grid.reasons.clear()
    assert len(run_grid()["failed"]) == 3
    assert run_grid(retry=True)["failed"] == [] and finals(run_grid.work)["a", 0] == BEST["a"]


def test_a_point_that_diverged_is_settled(run_grid, capsys):
    run_grid.reasons["m-a-small-tune-lr0.024-std0.3"] = f"{DIVERGED}: nan"
    done = run_grid()
    assert done["failed"] == [] and done["made"] == done["runs"]
    assert finals(run_grid.work)["a", 0] == (1.2e-2, 0.3)
    assert "diverged: it counts as worse" in capsys.readouterr().out
    run_grid.reasons.clear()
    run_grid(retry=True)
    assert finals(run_grid.work)["a", 0] == (1.2e-2, 0.3)


def test_a_sweep_that_diverged_everywhere_is_told(run_grid, capsys):
    run_grid.reasons |= {name: f"{DIVERGED}: nan" for name in run_grid(dry_run=True)["names"] if "-a-" in name}
    assert run_grid()["failed"] == ["m-a-small-seed0", "m-a-small-seed1"]
    assert "every point of the sweep m-a-small diverged" in capsys.readouterr().out


def test_training_says_that_it_diverged_in_the_words_that_a_sweep_looks_for():
    keeper = Keeper.__new__(Keeper)
    keeper._config = Config(training=TrainingConfig(max_skipped=3))
    keeper._checkpoints = SimpleNamespace(steps=[])
    with pytest.raises(WorkError, match=f"^{DIVERGED}"):
        keeper._stop_if_diverged(5, 3, 1.0)


def test_the_models_take_vocabulary_and_mel_bands_from_the_data(run_grid, data, tmp_path):
    run_grid(only=["arm=c,seed=0"])
    model = read_rows(run_grid.work / "results.jsonl")[0]["config"]["model"]
    assert (model["vocabulary"], model["mel_bands"]) == (VOCABULARY, BANDS)
    indices = {"m": main.load_index(data)}
    indices["n"] = dataclasses.replace(indices["m"], mel=dataclasses.replace(indices["m"].mel, bands=BANDS + 1))
    with pytest.raises(RequestError, match=f"y has {VOCABULARY} entries per codebook and {BANDS + 1} mel bands"):
        fitted(ABLATION, {"m": Path("x"), "n": Path("y")}, indices)


def test_a_work_folder_holds_one_experiment(run_grid):
    run_grid()
    with pytest.raises(RequestError, match="has rows of the experiment test, this one is other"):
        run_grid(dataclasses.replace(ABLATION, name="other"))


def test_rows_of_another_grid_or_other_data_are_refused(run_grid, tmp_path):
    run_grid(only=["arm=a"])
    with pytest.raises(RequestError, match=r"training\.steps was 10 and is 7 now"):
        run_grid(steps=7)
    rng, matrix = np.random.default_rng(1), markov_matrix()
    splits = {split: [markov_document(split, 60, matrix, rng)] for split in ("train", "validation", "test")}
    write_dataset(tmp_path / "other", splits)
    with pytest.raises(RequestError, match="on other data"):
        run_grid(data={"m": tmp_path / "other"}, only=["arm=a"])


def test_rows_that_were_scored_on_other_documents_are_refused(run_grid, data, tmp_path):
    run_grid(only=["arm=a"])
    shutil.copytree(data, tmp_path / "other")
    index = json.loads((tmp_path / "other" / "index.json").read_text())
    for shard in index["shards"]:
        if shard["split"] == "test":
            shard["sha256"] = "0" * 64
    (tmp_path / "other" / "index.json").write_text(json.dumps(index))
    with pytest.raises(RequestError, match=r"m-a-small-seed0 on other data \(test shards"):
        run_grid(data={"m": tmp_path / "other"}, only=["arm=a"])


def test_rows_that_do_not_say_what_they_were_scored_on_are_refused(run_grid, tmp_path):
    run_grid(only=["arm=a"])
    results = next(tmp_path.rglob("results.jsonl"))
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    older = [{key: value for key, value in row.items() if key != "scored_fingerprint"} for row in rows]
    results.write_text("".join(f"{json.dumps(row)}\n" for row in older))
    with pytest.raises(RequestError, match="of an earlier version: no scored_fingerprint"):
        run_grid(only=["arm=a"])


def test_a_run_that_was_begun_with_other_steps_does_not_go_on(data, tmp_path):
    begun = Config(training=TrainingConfig(steps=20_000))
    write_run(tmp_path / "run", new_run(begun, load_index(data), {}))
    asked = dataclasses.replace(begun, training=TrainingConfig(steps=100), mesh=MeshConfig(data=2))
    spec = {"config": dataclasses.asdict(asked), "data_folder": str(data)}
    with pytest.raises(WorkError, match=r"another configuration: training\.steps was 20000 and is 100 now; give"):
        worker._run(tmp_path / "run", spec)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data": {}}, "no data"),
        ({"data": {"a/b": "folder"}}, "data 'a/b'"),
        ({"ablation": dataclasses.replace(ABLATION, name="")}, "has no name"),
        (
            {"ablation": dataclasses.replace(ABLATION, arms=chosen("g"))},
            "arm g: .*; prepare it with --num-codebooks 4",
        ),
        ({"ablation": dataclasses.replace(ABLATION, arms=chosen("a", "d"))}, "arm d reads the mel codec1"),
        (
            {
                "ablation": dataclasses.replace(
                    ABLATION,
                    arms=(dataclasses.replace(INPUTS["c"], mel_mix={"original": 0.5, "codec4": 0.5}),),
                )
            },
            "arm c reads the mel codec4",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(run_grid, changes, told):
    with pytest.raises(RequestError, match=told):
        run_grid(**changes)
    assert not run_grid.work.exists()


def test_a_commit_is_that_of_the_start_and_all_of_them_after_a_resume(tmp_path):
    assert [commit_of(tmp_path, each) for each in ("a", "b")] == ["a", "b"]  # nothing was saved: it began anew
    (tmp_path / "checkpoints/20").mkdir(parents=True)
    assert [commit_of(tmp_path, each) for each in ("b", "c", "c", None)] == [
        "b",
        "b -> c",
        "b -> c",
        "b -> c -> no checkout",
    ]
