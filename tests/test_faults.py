"""Faults provoked for real end in one sentence and a code that is not 0, and lose nothing; then training goes on.

A small disk that fills up, bytes that flip, files that are cut, folders that vanish or cannot be written.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from synthetic import markov_dataset, tiny_config

from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.evaluation import evaluate
from wgpt_jax.metrics import read_metrics
from wgpt_jax.parallel.mesh import make_mesh
from wgpt_jax.run_lock import locked
from wgpt_jax.runs import RunFolder
from wgpt_jax.training.checkpoint import Checkpoints
from wgpt_jax.training.loop import train
from wgpt_jax.training.optimizer import make_optimizer
from wgpt_jax.training.state import abstract_state

GROUPS = {
    "training": {"steps": 30, "eval_every": 10},
    "checkpoint": {"every": 5},
    "logging": {"every": 1, "tensorboard": True},
    "optimizer": {"ema": 0.9},
}
CONFIG = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from synthetic import tiny_config
config = tiny_config(**{GROUPS!r})
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    markov_dataset(folder / "data")
    (folder / "config.py").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module")
def whole(folder) -> Path:
    """A run that nothing happened to."""
    assert train(tiny_config(**GROUPS), folder / "data", folder / "whole") == 30
    return folder / "whole"


@pytest.fixture(scope="module")
def half(folder) -> Path:
    """A run that a signal stopped after step 12, its checkpoints 5, 10 and 12."""
    stop = f"""
import os, signal, sys
from wgpt_jax.training.logs import RunLog
real = RunLog.train
def stopping(log, step, values):
    real(log, step, values)
    if step == 11:
        os.kill(os.getpid(), signal.SIGTERM)
RunLog.train = stopping
from wgpt_jax.cli import main
if __name__ == "__main__":
    sys.exit(main({words(folder, folder / "half")!r}))
"""
    (folder / "stop.py").write_text(stop)
    done = subprocess.run([sys.executable, folder / "stop.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    command = f"wgpt {' '.join(words(folder, folder / 'half'))}"
    assert done.stdout.endswith(f"stopped and saved at step 12; to continue:\n  {command}\n")
    assert sorted(int(path.name) for path in (folder / "half/checkpoints").iterdir()) == [10, 12]
    return folder / "half"


def words(folder: Path, run: Path) -> list[str]:
    return ["train", str(folder / "config.py"), "--data", str(folder / "data"), "--workdir", str(run)]


def wgpt(folder: Path, run: Path, *more: str) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "wgpt_jax.cli", *words(folder, run), *more]
    return subprocess.run(line, capture_output=True, text=True)


def state_of(run: Path):
    config = tiny_config(**GROUPS)
    abstract = abstract_state(config, make_optimizer(config.optimizer, 30), make_mesh(config.mesh))
    with Checkpoints(RunFolder(run).checkpoints) as checkpoints:
        return checkpoints.restore_latest(abstract, pytest.fail)[:2]


def assert_same_end(run: Path, whole: Path) -> None:
    """Parameters, optimiser, averages, data position and metrics: every bit."""
    (ours, position), (theirs, expected) = state_of(run), state_of(whole)
    assert position == expected
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True))
    rows = [
        [{k: v for k, v in row.items() if "per_second" not in k} for row in read_metrics(RunFolder(path).metrics)]
        for path in (run, whole)
    ]
    assert rows[0] == rows[1]


def one_sentence(done: subprocess.CompletedProcess, code: int = 1) -> str:
    assert done.returncode == code, done.stderr[-3000:]
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr[-3000:]
    return lines[0]


@pytest.fixture
def disk(tmp_path):
    """A disk of 2 MiB of its own."""
    mount = tmp_path / "disk"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", mount], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a small disk here")
    yield mount
    subprocess.run(["umount", "--lazy", mount], check=True)


def test_a_full_disk_is_told_at_the_save_that_met_it_and_costs_no_checkpoint(folder, half, whole, disk):
    run = disk / "run"
    shutil.copytree(half, run)
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(disk).free - 60_000))
    sentence = one_sentence(wgpt(folder, run))
    assert f"checkpoint 15 could not be written to {run}/checkpoints: no space left on the device" in sentence
    assert "checkpoint 12 is kept; once that is mended the same command continues" in sentence
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["10", "12"], "no remains take up room"
    ballast.unlink()
    assert wgpt(folder, run).returncode == 0
    assert_same_end(run, whole)


def test_a_disk_that_can_only_be_read_is_refused_before_training(folder, half, disk):
    run = disk / "run"
    shutil.copytree(half, run)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    sentence = one_sentence(wgpt(folder, run), code=2)
    assert f"cannot write to the run folder {run}: Read-only file system" in sentence


def test_a_disk_that_becomes_read_only_while_training_is_one_sentence(folder, half, whole, disk):
    run = disk / "run"
    shutil.copytree(half, run)
    code = f"""
import subprocess, sys
from wgpt_jax.training.logs import RunLog
real = RunLog.train
def remounting(log, step, values):
    real(log, step, values)
    if step == 13:
        # Files that are open stay so, as they do when a disk's errors make the kernel remount it.
        subprocess.run(["mount", "--bind", {str(disk)!r}, {str(disk)!r}], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", {str(disk)!r}], check=True)
RunLog.train = remounting
from wgpt_jax.cli import main
if __name__ == "__main__":
    sys.exit(main({words(folder, run)!r}))
"""
    (folder / "remount.py").write_text(code)
    done = subprocess.run([sys.executable, folder / "remount.py"], capture_output=True, text=True)
    subprocess.run(["umount", disk], check=True)
    sentence = one_sentence(done)
    assert (
        f"checkpoint 15 could not be written to {run}/checkpoints: Read-only file system; checkpoint 12 is" in sentence
    )
    assert wgpt(folder, run).returncode == 0
    assert_same_end(run, whole)


def test_a_run_folder_that_vanishes_is_one_sentence(folder, half, tmp_path):
    run, moved = tmp_path / "run", tmp_path / "moved"
    shutil.copytree(half, run)
    code = f"""
import os, sys
from wgpt_jax.training.logs import RunLog
real = RunLog.train
def moving(log, step, values):
    real(log, step, values)
    if step == 13:
        os.rename({str(run)!r}, {str(moved)!r})
RunLog.train = moving
from wgpt_jax.cli import main
if __name__ == "__main__":
    sys.exit(main({words(folder, run)!r}))
"""
    (folder / "vanish.py").write_text(code)
    done = subprocess.run([sys.executable, folder / "vanish.py"], capture_output=True, text=True)
    sentence = one_sentence(done)
    assert f"{run}/checkpoints has vanished, checkpoint 15 was not saved" in sentence
    assert not run.exists(), "nothing is made anew where a disk may be missing"
    assert {"10", "12"} <= {path.name for path in (moved / "checkpoints").iterdir()}


def largest(folder: Path) -> Path:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "commit_success.txt"]
    return max(files, key=lambda path: path.stat().st_size)


def cut(folder: Path) -> None:
    """Halves every file: which of them hold arrays that are still referred to differs from save to save."""
    for file in folder.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            file.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("what", ["params", "ema", "optimizer", "data", "meta"])
def test_a_cut_checkpoint_falls_back_to_the_one_before_and_says_so(folder, half, whole, tmp_path, capsys, what):
    run = tmp_path / "run"
    shutil.copytree(half, run)
    cut(run / "checkpoints/12" / what)
    assert train(tiny_config(**GROUPS), folder / "data", run) == 30
    out = capsys.readouterr().out
    assert f"warning: checkpoint 12 in {run}/checkpoints cannot be read" in out
    assert "going on from checkpoint 10, the one before" in out
    assert (run / "damaged-checkpoints/12").is_dir(), "moved, not deleted"
    assert_same_end(run, whole)


def test_a_flipped_bit_in_any_large_file_of_a_checkpoint_is_noticed(folder, half, tmp_path):
    """Bytes of the arrays themselves: no format's own check need see them, the digest must."""
    config = tiny_config(**GROUPS)
    abstract = abstract_state(config, make_optimizer(config.optimizer, 30), make_mesh(config.mesh))
    files = [path for path in (half / "checkpoints/12").rglob("d/*") if path.stat().st_size > 1000]
    rng, tried, told = np.random.default_rng(0), 0, []
    with Checkpoints(half / "checkpoints", config.checkpoint) as checkpoints:
        saved, _, _ = checkpoints.restore_latest(abstract, told.append)
    assert int(saved.step) == 12 and not told
    for number, file in enumerate(files):
        for place in rng.choice(file.stat().st_size, 3, replace=False):
            run = tmp_path / f"{number}-{place}"
            shutil.copytree(half, run)
            damaged = run / file.relative_to(half)
            content = bytearray(damaged.read_bytes())
            content[place] ^= 1 << int(rng.integers(8))
            damaged.write_bytes(content)
            said = []
            with Checkpoints(run / "checkpoints", config.checkpoint) as checkpoints:
                state, _, meta = checkpoints.restore_latest(abstract, said.append)
            tried += 1
            told += said
            # Either it is noticed, or the bit is in no array that is read: then all of it is what was saved.
            assert int(state.step) == meta["step"] == (10 if said else 12)
            if not said:
                jax.tree.map(np.testing.assert_array_equal, state, saved)
    # Not a half: how many copies of an array Orbax leaves unread in its files differs from one save to the next.
    assert tried >= 6 and len(told) >= tried / 4, "the flips must hit something"


def test_a_data_position_that_changed_is_noticed(folder, half, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(half, run)
    file = run / "checkpoints/12/data/metadata"
    file.write_text(file.read_text().replace("96", "97"))
    config, said = tiny_config(**GROUPS), []
    abstract = abstract_state(config, make_optimizer(config.optimizer, 30), make_mesh(config.mesh))
    with Checkpoints(run / "checkpoints", config.checkpoint) as checkpoints:
        _, position, _ = checkpoints.restore_latest(abstract, said.append)
    assert position == {"global_next_index": 80}
    assert "checkpoint 12" in said[0] and "is not what was saved (the position in the data changed)" in said[0]


def test_evaluation_names_another_step_when_its_checkpoint_is_damaged(folder, half, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(half, run)
    cut(run / "checkpoints/12/params")
    with pytest.raises(RequestError, match=r"checkpoint 12 in .* cannot be read .*; take another step \(10\)$"):
        evaluate(run, folder / "data", progress=False)
    assert evaluate(run, folder / "data", step=10, progress=False).summary["step"] == 10


def test_when_no_checkpoint_is_whole_nothing_is_deleted_and_nothing_trained(folder, half, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(half, run)
    for step in (10, 12):
        cut(run / f"checkpoints/{step}/params")
    with pytest.raises(
        RequestError, match=r"no checkpoint in .* can be read: checkpoint 12 .*; checkpoint 10 .*--workdir"
    ):
        train(tiny_config(**GROUPS), folder / "data", run)
    assert {"10", "12"} <= {path.name for path in (run / "checkpoints").iterdir()}


def test_a_run_whose_checkpoints_are_gone_is_not_begun_anew(folder, half, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(half, run)
    log = (run / "metrics.jsonl").read_text()
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(RequestError, match="was trained until step 12, but its checkpoints are gone"):
        train(tiny_config(**GROUPS), folder / "data", run)
    assert (run / "metrics.jsonl").read_text() == log
    # Killed before its first save it does begin anew, also when it is to save more often from now on.
    (run / "metrics.jsonl").write_text("".join(log.splitlines(keepends=True)[:4]))
    sooner = {**GROUPS, "checkpoint": {"every": 1}, "training": {**GROUPS["training"], "steps": 5}}
    assert train(tiny_config(**sooner), folder / "data", run) == 5


@pytest.mark.parametrize("version", [1, 2, 4])
def test_a_checkpoint_of_another_version_is_refused_with_both_named(folder, half, tmp_path, version):
    run = tmp_path / "run"
    shutil.copytree(half, run)
    file = largest(run / "checkpoints/12/meta")
    file.write_text(json.dumps({**json.loads(file.read_text()), "checkpoint_version": version}))
    for attempt in (lambda: train(tiny_config(**GROUPS), folder / "data", run), lambda: evaluate(run, folder / "data")):
        with pytest.raises(RequestError, match=rf"checkpoint 12 .* of version {version}, .* reads 3; use the wgpt_jax"):
            attempt()


def test_a_broken_shard_saves_what_was_trained_before_it_is_told(folder, whole, tmp_path):
    """The shard breaks while training: steps since the last checkpoint are not lost."""
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(folder / "data", data)
    shard = data / "train-00000.array_record"
    whole_shard = shard.read_bytes()
    from wgpt_jax.training.logs import RunLog

    real = RunLog.train

    def breaking(log, step, values):
        real(log, step, values)
        if step == 7:
            content = bytearray(whole_shard)
            content[200:-200] = bytes(len(content) - 400)
            with open(shard, "r+b") as file:  # the same file, which is open
                file.write(content)

    RunLog.train = breaking
    try:
        with pytest.raises(WorkError, match=r"train-00000\.array_record is damaged \(its sha256 is not [0-9a-f]{64}\)"):
            train(tiny_config(**GROUPS), data, run)
    finally:
        RunLog.train = real
    with Checkpoints(run / "checkpoints") as checkpoints:
        assert checkpoints.steps[-1] >= 8, "the last checkpoint due was 5"
    shard.write_bytes(whole_shard)
    assert train(tiny_config(**GROUPS), data, run) == 30
    assert_same_end(run, whole)


def test_two_trainings_in_one_folder_are_refused(folder, half, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(half, run)
    with locked(RunFolder(run)):
        sentence = one_sentence(wgpt(folder, run), code=2)
    assert f"process {os.getpid()} on " in sentence and f"trains in {run}; wait for it, or stop it" in sentence


def test_a_second_signal_ends_at_once_and_the_last_checkpoint_stays(folder, half, tmp_path):
    """The second one comes while the first one's step is under way."""
    run = tmp_path / "run"
    shutil.copytree(half, run)
    code = f"""
import os, signal, sys, time
from wgpt_jax.training.logs import RunLog
def hanging(log, step, values):
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(600)
RunLog.train = hanging
from wgpt_jax.cli import main
if __name__ == "__main__":
    sys.exit(main({words(folder, run)!r}))
"""
    (folder / "hang.py").write_text(code)
    done = subprocess.run([sys.executable, folder / "hang.py"], capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGTERM
    assert "stopping after this step; once more ends at once" in done.stdout
    assert int(state_of(run)[0].step) == 12
