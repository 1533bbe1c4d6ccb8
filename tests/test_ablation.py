"""``wgpt ablate``: a row per run whatever is killed, failures told, mistakes refused."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from synthetic import markov_document, markov_matrix, write_dataset

from wgpt_jax.ablation import scheduler
from wgpt_jax.ablation.places import places
from wgpt_jax.ablation.results import Results, read_rows
from wgpt_jax.cli import main
from wgpt_jax.errors import RequestError, WorkError

GRID = """
from wgpt_jax.ablation.grid import Ablation, Arm, Size, Sweep
from wgpt_jax.config import Config, LoggingConfig, OptimizerConfig, TrainingConfig

ablation = Ablation(
    # The second cannot run: its kernel is another platform's.
    arms=(
        Arm("a", "tokens", {}),
        Arm("x", "broken", {"attention": "cudnn"}),
        Arm("c", "mel", {}, mel="original"),
    ),
    sizes=(Size("16k", 16_000, width=16, depth=1, heads=2, mel_width=8),),
    sweep=Sweep(learning_rates=(3e-3,), embedding_stds=(0.3,), steps=4),
    steps=120, batch=8, context=32, seeds=(0,), eval_every=20,
    base=Config(
        training=TrainingConfig(eval_windows=8),
        optimizer=OptimizerConfig(warmup=2),
        logging=LoggingConfig(every=5, tensorboard=False),
    ),
)
"""
# The proof of causality needs a codec, which this data has none of; tests/test_causality.py has the proof.
COMMAND = """
import sys
from wgpt_jax.ablation import scheduler
from wgpt_jax.cli import main
scheduler.can_prove = lambda: False
sys.exit(main(sys.argv[1:]))
"""
MEASURED = {"train_seconds", "command"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ablation")
    rng, matrix = np.random.default_rng(0), markov_matrix()
    counts = {"train": 10, "validation": 3, "test": 4}
    splits = {
        split: [markov_document(f"{split}/{i}", int(rng.integers(50, 200)), matrix, rng) for i in range(count)]
        for split, count in counts.items()
    }
    write_dataset(folder / "data", splits)
    (folder / "grid.py").write_text(GRID)
    return folder


def line(folder: Path, work: str, *more) -> list[str]:
    words = ["ablate", folder / "grid.py", "--data", f"m={folder / 'data'}", "--workdir", folder / work, *more]
    return [str(word) for word in words]


@pytest.fixture(scope="module")
def whole(folder) -> tuple[Path, int, dict]:
    """The work folder of a grid that nothing interrupted, its exit code, and the JSON that it printed."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        patch.setattr(scheduler, "can_prove", lambda: False)
        code = main(line(folder, "whole", "--json"))
    return folder / "whole", code, json.loads(out.getvalue())


def runs(work: Path) -> dict[str, dict]:
    return {row["arm"]: row for row in read_rows(work / "results.jsonl")}


def test_a_run_that_fails_is_told_and_the_others_go_on(whole):
    work, code, told = whole
    rows = runs(work)
    assert code == 1 and told["failed"] == ["m-x-16k-seed0"] and (told["runs"], told["made"]) == (3, 2)
    assert told["names"] == ["m-a-16k-seed0", "m-x-16k-seed0", "m-c-16k-seed0"]
    assert {arm: row["kind"] for arm, row in rows.items()} == {"a": "run", "x": "failed", "c": "run"}
    assert "runs on gpu, not on cpu" in rows["x"]["reason"]
    assert rows["x"]["reason"] in (work / "summary.md").read_text()


def test_a_row_holds_what_the_run_was_and_what_it_scored(whole):
    work = whole[0]
    for arm, mel in (("a", "none"), ("c", "original")):
        row = runs(work)[arm]
        assert (row["stage"], row["split"], row["step"], row["steps"]) == ("final", "test", 120, 120)
        assert row["frames"] == 120 * 8 * 32
        assert row["evaluation"]["mel_source"] == mel and row["causality"] is None and row["leaks"] is False
        assert sum(row["parameters_by_group"].values()) == row["parameters"] == pytest.approx(16_000, rel=0.01)
        assert [point[0] for point in row["curve"]] == [20, 40, 60, 80, 100, 120]
        assert len(row["documents"]) == row["evaluation"]["documents"] == 4
        frames, nats = (sum(document[at] for document in row["documents"]) for at in (1, 2))
        assert nats / frames == pytest.approx(row["evaluation"]["nll"])
        assert row["config"]["model"]["inputs"] == row["inputs"]
        assert not (work / "runs" / f"m-{arm}-16k-seed0" / "checkpoints").exists()
        assert {"machine", "commit", "versions", "data_fingerprint", "train_seconds"} <= set(row)
    assert {path.name for path in work.glob("*.png")} == {"curves-m-16k.png", "parameters-m.png"}


def test_a_grid_that_is_killed_goes_on_to_the_same_rows(folder, whole):
    work, second = folder / "killed", folder / "killed/runs/m-c-16k-seed0"
    command = [sys.executable, "-c", COMMAND, *line(folder, "killed", "--only", "arm=c")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
    until = time.monotonic() + 300
    while not any(path.name.isdigit() for path in (second / "checkpoints").glob("*")):  # a save that is whole
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (work / "results.jsonl").exists()
    assert subprocess.run(command, capture_output=True, env=os.environ).returncode == 0
    assert "resuming at step" in (second / "log.txt").read_text()
    assert [row["arm"] for row in read_rows(work / "results.jsonl")] == ["c"]
    ours, theirs = ({k: v for k, v in runs(each)["c"].items() if k not in MEASURED} for each in (whole[0], work))
    assert ours == theirs


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--data", "{folder}/nowhere"], "no prepared data"),
        (["--data", "m={folder}/data", "--data", "m={folder}/data"], "two folders are called m"),
        (["--data", "{folder}/data", "--only", "arm=z"], "there are a, x, c"),
        (["--data", "a,b={folder}/data"], "'a,b' is no name"),
        (["--data", "{folder}/data", "--jobs", "0"], "at least one run"),
        (["--data", "{folder}/data", "--jobs", "4096"], "cores"),
        (["--data", "{folder}/data", "--sizes", "3t"], "no size '3t'"),
        (["--data", "{folder}/data", "--steps", "0"], "steps is 0"),
    ],
)
def test_mistakes_end_in_one_sentence_and_2(folder, words, told, capsys):
    start = ["ablate", str(folder / "grid.py"), "--workdir", str(folder / "none")]
    assert main([*start, *(word.format(folder=folder) for word in words)]) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1
    assert not (folder / "none").exists()


def test_a_file_that_defines_no_grid_is_told(folder, capsys):
    (folder / "empty.py").write_text("ablation = 3\n")
    words = ["ablate", str(folder / "empty.py"), "--data", str(folder / "data"), "--workdir", str(folder / "none")]
    assert main(words) == 2
    assert "must define `ablation`" in capsys.readouterr().err


def test_a_row_that_was_cut_short_is_cut_off(tmp_path):
    results = Results(tmp_path)
    results.append({"kind": "data", "nll": float("nan")})
    with open(results.path, "a") as file:
        file.write('{"kind": "ru')
    again = Results(tmp_path)
    assert again.rows == [{"kind": "data", "nll": None}]
    again.append({"kind": "baseline"})
    assert [row["kind"] for row in read_rows(results.path)] == ["data", "baseline"]
    with open(results.path, "a") as file:
        file.write("nonsense\n")
    with pytest.raises(RequestError, match="line 3 is no row"):
        Results(tmp_path)
    results.path.write_text('{"kind": "run"}\n')
    with pytest.raises(RequestError, match=r"line 1 is no row \(KeyError\('experiment'\)\)"):
        Results(tmp_path)


def test_a_row_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "results.jsonl").mkdir()
    with pytest.raises((WorkError, RequestError), match=r"results\.jsonl"):
        Results(tmp_path).append({"kind": "run"})


def test_a_machine_is_divided_among_the_runs(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4}, raising=False)
    assert [place.cores for place in places(None)] == [None]
    two = places(2)
    assert sorted(core for place in two for core in place.cores) == [0, 1, 2, 3, 4]
    assert all("XLA_FLAGS" not in place.environment for place in two)
    assert all("multi_thread_eigen=false" in place.environment["XLA_FLAGS"] for place in places(5))
    monkeypatch.setattr("wgpt_jax.ablation.places._gpus", lambda: ["0", "3"])
    assert [place.environment for place in places(None)] == [{"CUDA_VISIBLE_DEVICES": each} for each in ("0", "3")]
    shared = places(4)
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in shared] == ["0", "3", "0", "3"]
    assert sum(float(place.environment["XLA_PYTHON_CLIENT_MEM_FRACTION"]) for place in shared) / 2 < 1
    monkeypatch.setattr("wgpt_jax.ablation.places._gpus", list)
    monkeypatch.setattr("wgpt_jax.ablation.places._has_tpu", lambda: True)
    assert len(places(None)) == 1
    with pytest.raises(RequestError, match="a TPU belongs to one process"):
        places(2)


def test_a_dry_run_prints_the_table_and_trains_nothing(folder, capsys):
    assert main(line(folder, "dry", "--dry-run", "--only", "arm=a", "arm=c")) == 0
    out = capsys.readouterr().out
    assert "2 runs, 0 of them to tune" in out and "m-c-16k-seed0" in out and "mel branch" in out
    assert f"{2 * 120 * 8 * 32:,} frames in all" in out
    assert not (folder / "dry").exists()
