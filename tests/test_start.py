"""A run folder is begun, continued or refused: nothing in it is lost unasked, and no evaluation that was due."""

import dataclasses
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import typing
from pathlib import Path

import pytest
from synthetic import markov_dataset, tiny_config

from wgpt_jax import evaluation
from wgpt_jax.cli import main
from wgpt_jax.config import Config, config_from_dict, flatten
from wgpt_jax.data.index import save_index
from wgpt_jax.errors import RequestError
from wgpt_jax.metrics import read_metrics
from wgpt_jax.run_lock import locked
from wgpt_jax.runs import RunFolder, check_same_run, read_run
from wgpt_jax.training.checkpoint import Checkpoints
from wgpt_jax.training.logs import RunLog
from wgpt_jax.training.loop import train

# A learning rate that only rises, to where it does harm: the best step is the first that is evaluated.
GROUPS = {
    "training": {"steps": 6, "eval_every": 3, "eval_windows": 0},
    "optimizer": {"learning_rate": 6.0, "warmup": 12},
    "checkpoint": {"every": 2, "keep": 1},
}
FILE = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from synthetic import tiny_config
config = tiny_config("tokens", **{GROUPS!r})
"""
CONFIG = tiny_config("tokens", **GROUPS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    index = markov_dataset(folder / "data", train=10, validation=3)
    (folder / "data/codec.safetensors").write_bytes(b"a decoder")
    (folder / "config.py").write_text(FILE)
    markov_dataset(folder / "other data", train=10, validation=3, seed=1)
    shutil.copytree(folder / "data", folder / "other codec")
    codec = dataclasses.replace(index.codec, fingerprint="0ther")
    save_index(dataclasses.replace(index, codec=codec), folder / "other codec")
    return folder


@pytest.fixture(scope="module")
def whole(folder) -> Path:
    """A run in a new folder that nothing happened to."""
    assert train(CONFIG, folder / "data", folder / "whole") == 6
    return folder / "whole"


@pytest.fixture
def run(whole, tmp_path) -> Path:
    """A copy of it."""
    return shutil.copytree(whole, tmp_path / "run")


def words(folder: Path, run: Path, *more) -> list[str]:
    return [str(word) for word in ("train", folder / "config.py", "--data", folder / "data", "--workdir", run, *more)]


def one_sentence(capsys, argv: list[str]) -> str:
    capsys.readouterr()
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1, error
    return error


def files(run: Path) -> dict[str, bytes]:
    """All that lies in a run folder, but for the lock, which every attempt takes."""
    found = {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if name != "training.lock"}


def lines(run: Path) -> list[dict]:
    """The log without speeds."""
    rows = read_metrics(run / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k == "total_bits_per_second" or "per_second" not in k} for row in rows]


def steps(run: Path) -> set[int]:
    return {int(path.name) for path in (run / "checkpoints").iterdir()}


def assert_same_end(run: Path, whole: Path) -> None:
    """The log; what is kept; the last checkpoint's digest of every array, data position and configuration."""
    assert lines(run) == lines(whole)
    assert steps(run) == steps(whole)
    meta = "checkpoints/6/meta/metadata"
    assert (run / meta).read_text() == (whole / meta).read_text()


def test_fresh_deletes_what_training_and_evaluation_made_and_nothing_else(folder, whole, tmp_path, capsys):
    run = tmp_path / "run"
    old = tiny_config("tokens", model={"width": 8}, training={"steps": 3}, logging={"tensorboard": True})
    train(old, folder / "data", run, profile="1:2")
    evaluation.evaluate(run, folder / "data", progress=False)
    strangers = {"notes.txt": "mine", "checkpoints-of-mine/1": "a backup", "logs/process-0001.log": "may be written to"}
    for name, text in {**strangers, "damaged-checkpoints/2/params": "set aside"}.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(text)
    made = {"checkpoints", "damaged-checkpoints", "evaluation", "profile", "tensorboard", "codec.safetensors"}
    made |= {"run.json", "metrics.jsonl", "loss.png", "training.lock"}
    assert {path.name for path in run.iterdir()} == made | {"notes.txt", "checkpoints-of-mine", "logs"}

    sentence = one_sentence(capsys, words(folder, run))
    assert "model.width is 8 there and 16 here" in sentence and "--fresh" in sentence
    assert main(words(folder, run, "--fresh")) == 0
    assert "resuming" not in capsys.readouterr().out
    expected = {path.name for path in whole.iterdir()} | {"notes.txt", "checkpoints-of-mine", "logs"}
    assert {path.name for path in run.iterdir()} == expected
    assert {name: (run / name).read_text() for name in strangers} == strangers
    assert_same_end(run, whole)


def other_configuration(folder, run):
    return dataclasses.replace(CONFIG, training=dataclasses.replace(CONFIG.training, seed=1)), "data"


def other_data(folder, run):
    return CONFIG, "other data"


def other_codec(folder, run):
    return CONFIG, "other codec"


def later_version(folder, run):
    (run / "run.json").write_text(json.dumps(json.loads((run / "run.json").read_text()) | {"version": 99}))
    return CONFIG, "data"


def cut_description(folder, run):
    (run / "run.json").write_text((run / "run.json").read_text()[:500])
    return CONFIG, "data"


def lost_description(folder, run):
    (run / "run.json").unlink()
    return CONFIG, "data"


def empty_checkpoints(folder, run):
    for file in (run / "checkpoints").rglob("params/*"):
        if file.is_file():
            file.write_bytes(b"")
    return CONFIG, "data"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (other_configuration, r"belongs to another configuration: training\.seed is 0 there and 1 here; .*--fresh"),
        (other_data, r"was trained on other data \(training shards \w+, now \w+\)"),
        (other_codec, r"made with another codec \(0ther\) than the run"),
        (later_version, r"run\.json is of version 99, this version of wgpt_jax reads 2"),
        (cut_description, r"run\.json is damaged .*--fresh"),
        (lost_description, r"checkpoints holds checkpoints, but run\.json, .*, is missing; .*--fresh"),
        (empty_checkpoints, r"no checkpoint in .* can be read: .*another --workdir"),
    ],
)
def test_nothing_is_deleted_unasked_whatever_is_wrong(folder, run, wrong, message):
    config, data = wrong(folder, run)
    before = files(run)
    with pytest.raises(RequestError, match=message):
        train(config, folder / data, run)
    assert files(run) == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model.heads", "3"], "model.heads: 3 heads must divide"),
        (["--model.vocabulary", "99"], "set --model.vocabulary 16"),
        (["--from", "/nowhere"], "--from: /nowhere is not there"),
        (["--mesh.data", "3"], "number of devices"),
        (["--profile", "6:3"], "--profile"),
    ],
)
def test_fresh_deletes_nothing_for_a_request_that_is_refused(folder, run, capsys, flags, message):
    before = files(run)
    assert message in one_sentence(capsys, words(folder, run, "--fresh", *flags))
    assert files(run) == before


def test_fresh_deletes_nothing_where_another_process_trains(folder, run, capsys):
    before = files(run)
    with locked(RunFolder(run)):
        sentence = one_sentence(capsys, words(folder, run, "--fresh"))
    assert f"process {os.getpid()} on " in sentence and f"trains in {run}; wait for it, or stop it" in sentence
    assert files(run) == before


def test_what_fresh_cannot_delete_is_named(folder, run, capsys):
    """A link to another disk is the user's; what is behind it stays."""
    shutil.move(run / "checkpoints", run / "elsewhere")
    (run / "checkpoints").symlink_to(run / "elsewhere")
    before = files(run)
    assert f"--fresh: cannot delete {run}/checkpoints: " in one_sentence(capsys, words(folder, run, "--fresh"))
    assert files(run) == before


@pytest.mark.parametrize("damage", [later_version, cut_description, lost_description])
def test_fresh_begins_anew_whatever_the_run_said_of_itself(folder, run, whole, damage):
    damage(folder, run)
    assert train(CONFIG, folder / "data", run, fresh=True) == 6
    assert_same_end(run, whole)
    assert json.loads((run / "run.json").read_text()) == json.loads((whole / "run.json").read_text())


FREE = {
    *("training.steps", "training.eval_every", "training.eval_windows", "training.microbatches"),
    *("training.max_skipped", "data.workers", "model.attention", "model.remat"),
    *("checkpoint.every", "checkpoint.keep", "checkpoint.keep_every"),
    *("logging.every", "logging.tensorboard", "logging.audio_seconds"),
    *("mesh.data", "mesh.fsdp", "mesh.tensor"),
}


def changed(config: Config, *keys: str) -> Config:
    """A configuration with another value for each of some keys."""
    fields = dataclasses.asdict(config)
    for key in keys:
        group, name = key.split(".")
        value = fields[group][name]
        choices = typing.get_args(typing.get_type_hints(type(getattr(config, group)))[name])
        if isinstance(value, str):
            fields[group][name] = next(choice for choice in choices if choice != value)
        elif isinstance(value, dict):
            fields[group][name] = {"codec1": 1.0}
        else:
            fields[group][name] = not value if isinstance(value, bool) else value + 1
    return config_from_dict(fields)


@pytest.mark.parametrize("key", flatten(Config()))
def test_a_key_that_changes_the_result_is_named_and_any_other_is_accepted(whole, key):
    info = read_run(whole)
    config = changed(info.config, key)
    old, new = flatten(info.config)[key], flatten(config)[key]
    assert old != new
    if key not in FREE:
        with pytest.raises(RequestError) as refused:
            check_same_run(info, config, info.data_fingerprint, whole)
        assert f"{whole} belongs to another configuration: {key} is {old} there and {new} here; " in str(refused.value)
    elif key == "training.steps":
        (warning,) = check_same_run(info, config, info.data_fingerprint, whole)
        assert warning.startswith(f"training.steps changes from {old} to {new}: the learning-rate schedule changes")
    else:
        assert check_same_run(info, config, info.data_fingerprint, whole) == []


def test_all_keys_that_changed_are_named_in_one_sentence(folder, run, capsys):
    flags = ["--optimizer.beta2", "0.9", "--model.depth", "3", "--logging.every", "2"]
    sentence = one_sentence(capsys, words(folder, run, *flags))
    assert "model.depth is 2 there and 3 here, optimizer.beta2 is 0.95 there and 0.9 here; use the same" in sentence
    assert "logging" not in sentence


def test_a_run_goes_on_with_other_free_keys_and_a_warning_for_more_steps(folder, run, capsys):
    flags = ["--training.steps", "8", "--training.eval-every", "4", "--training.eval-windows", "8"]
    flags += ["--training.microbatches", "2", "--training.max-skipped", "3", "--logging.every", "2"]
    flags += ["--checkpoint.every", "5", "--checkpoint.keep", "2", "--mesh.data", "1", "--mesh.fsdp", "-1"]
    assert main(words(folder, run, *flags)) == 0
    out = capsys.readouterr().out
    assert "warning: training.steps changes from 6 to 8" in out and "resuming at step 6 of 8" in out
    assert out.count("warning") == 1
    assert [(row["kind"], row["step"]) for row in lines(run)][-2:] == [("train", 8), ("validation", 8)]
    assert read_run(run).config.training.microbatches == 2, "the run is what it was continued as"


def signals_at(monkeypatch, number: int, at: int) -> None:
    """A signal with the line of a training step."""
    real = RunLog.train

    def signalling(log, step, values):
        real(log, step, values)
        if step == at:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(RunLog, "train", signalling)


def test_the_command_that_continues_a_fresh_run_does_not_begin_it_afresh(folder, whole, tmp_path, capsys, monkeypatch):
    run = tmp_path / "a run"
    shutil.copytree(whole, run)
    signals_at(monkeypatch, signal.SIGINT, 2)
    assert main(words(folder, run, "--fresh", "--training.seed", "0")) == 0
    monkeypatch.undo()
    said, command = capsys.readouterr().out.rstrip("\n").rsplit("\n", 1)
    at = int(said.rsplit("stopped and saved at step ", 1)[1].removesuffix("; to continue:"))
    assert 0 < at < 6
    program, *argv = shlex.split(command)
    assert (program, argv) == ("wgpt", words(folder, run, "--training.seed", "0"))
    assert main(argv) == 0
    assert f"resuming at step {at} of 6" in capsys.readouterr().out
    assert_same_end(run, whole)


def test_an_evaluation_that_was_killed_is_done_when_the_run_goes_on(folder, whole, tmp_path):
    """kill -9 after the first batch of the first evaluation; the state is on disk already."""
    run = tmp_path / "run"
    code = f"""
import os, sys, time
from wgpt_jax import evaluation
real = evaluation.evaluation_batches
def dying(*args):
    yield next(real(*args))
    while not os.path.isdir({str(run / "checkpoints/3")!r}):
        time.sleep(0.01)
    os.kill(os.getpid(), 9)
evaluation.evaluation_batches = dying
from wgpt_jax.cli import main
if __name__ == "__main__":
    sys.exit(main({words(folder, run)!r}))
"""
    (tmp_path / "die.py").write_text(code)
    done = subprocess.run([sys.executable, tmp_path / "die.py"], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert [row["kind"] for row in lines(run)] == ["train"] * 3
    assert train(CONFIG, folder / "data", run) == 6
    assert_same_end(run, whole)
    assert_best_is_kept(run)


def assert_best_is_kept(run: Path) -> None:
    scores = {row["step"]: row["nll"] for row in lines(run) if row["kind"] == "validation"}
    assert set(scores) == {3, 6} and scores[3] < scores[6], "with this learning rate the best is early"
    with Checkpoints(run / "checkpoints", evaluated=RunFolder(run).evaluated()) as checkpoints:
        assert (checkpoints.best_step, checkpoints.steps) == (3, [3, 6])


@pytest.mark.parametrize(("number", "step"), [(1, 3), (2, 6)])
def test_a_signal_ends_an_evaluation_early_and_resuming_does_it(folder, whole, tmp_path, monkeypatch, number, step):
    real, evaluations, batches = evaluation.evaluation_batches, [], []

    def signalling(*args):
        evaluations.append(args)
        for batch in real(*args):
            batches.append(len(evaluations))
            if batches.count(number) == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    monkeypatch.setattr(evaluation, "evaluation_batches", signalling)
    run = tmp_path / "run"
    assert train(CONFIG, folder / "data", run) == step
    assert len(evaluations) == number and batches.count(number) == 1
    monkeypatch.undo()
    assert step in steps(run), "what is evaluated is saved before"
    assert [row["step"] for row in lines(run) if row["kind"] == "validation"] == [3, 6][: number - 1]
    assert train(CONFIG, folder / "data", run) == 6
    assert_same_end(run, whole)
    assert_best_is_kept(run)
