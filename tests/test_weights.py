"""Weights that leave a run are its weights, bit for bit, and a run that begins with them begins with nothing else."""

import dataclasses
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from synthetic import markov_dataset, tiny_config

from wgpt_jax.cli import main
from wgpt_jax.config import config_from_dict
from wgpt_jax.data.index import save_index
from wgpt_jax.evaluation import evaluate
from wgpt_jax.metrics import read_metrics
from wgpt_jax.training.logs import RunLog
from wgpt_jax.training.loop import train

# A learning rate that only rises, to where it does harm: the best step, 2, is not the latest. That of the first step is
# zero, so that checkpoint 1 holds what a run began with.
SOURCE = {
    "model": {"mel_depth": 0},  # compiles sooner
    "training": {"steps": 4, "eval_every": 2, "eval_windows": 0},
    "optimizer": {"learning_rate": 12.0, "warmup": 12, "ema": 0.5},
    "checkpoint": {"every": 1, "keep": 4},
}
NEW = SOURCE | {"training": {"steps": 4, "eval_every": 0}}
CONFIG = """
import sys
sys.path.insert(0, {tests!r})
from synthetic import tiny_config
config = tiny_config(**{groups!r})
"""
EIGHT = """
import sys
from synthetic import tiny_config
from wgpt_jax.config import MeshConfig
from wgpt_jax.training.loop import train
data, *pairs = sys.argv[1:]
for source, run in zip(pairs[::2], pairs[1::2]):
    train(tiny_config(mesh=MeshConfig(2, 2, 2), **{groups!r}), data, run, start_from=source)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Data; a run with checkpoints 1 to 4, in a folder with an @ in its name; exports of it; a run from its step 1."""
    folder = tmp_path_factory.mktemp("weights")
    index = markov_dataset(folder / "data", train=10, validation=3)
    for name, field, values in (("codec", "codec", {"fingerprint": "0ther"}), ("mel", "mel", {"n_fft": 512})):
        shutil.copytree(folder / "data", folder / name)
        other = dataclasses.replace(getattr(index, field), **values)
        save_index(dataclasses.replace(index, **{field: other}), folder / name)
    tests = str(Path(__file__).parent)
    (folder / "new.py").write_text(CONFIG.format(tests=tests, groups=NEW))
    train(tiny_config(**SOURCE), folder / "data", folder / "take@two")
    train(tiny_config(**NEW), folder / "data", folder / "again", start_from=f"{folder}/take@two@1")
    for name, flags in {"raw": [], "ema": ["--weights", "ema"], "best": ["--step", "best"]}.items():
        assert wgpt("export", folder / "take@two", folder / name, *flags) == 0
    return folder


@pytest.fixture(scope="module")
def source(folder) -> Path:
    return folder / "take@two"


@pytest.fixture(scope="module")
def begin(folder):
    """Trains a run that begins with some weights, or returns the one that was trained before."""

    @functools.cache
    def train_from(start: str) -> Path:
        run = folder / f"from-{start}"
        assert train(tiny_config(**NEW), folder / "data", run, start_from=str(folder / start)) == 4
        return run

    return train_from


def wgpt(*words) -> int:
    return main([str(word) for word in words])


def begun(folder: Path, run: Path, source, *more, data="data") -> list[str]:
    """The words of a training that begins with weights."""
    words = ["train", folder / "new.py", "--data", folder / data, "--workdir", run, "--from", source, *more]
    return [str(word) for word in words]


def one_sentence(capsys, words, code: int = 2) -> str:
    capsys.readouterr()
    assert wgpt(*words) == code
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1, error
    return error


def stored(run: Path, step: int, item: str = "params") -> dict[str, np.ndarray]:
    """Arrays of a checkpoint as Orbax alone reads them, by their names in the network."""
    folder, checkpointer = run / f"checkpoints/{step}/{item}", ocp.PyTreeCheckpointer()
    as_numpy = jax.tree.map(
        lambda _: ocp.RestoreArgs(restore_type=np.ndarray), checkpointer.metadata(folder).item_metadata.tree
    )
    leaves = jax.tree_util.tree_leaves_with_path(checkpointer.restore(folder, restore_args=as_numpy))
    names = [[str(getattr(key, "key", getattr(key, "idx", ""))) for key in path] for path, _ in leaves]
    return {
        ".".join(name for name in path if name != "value"): leaf for path, (_, leaf) in zip(names, leaves, strict=True)
    }


def assert_equal(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert set(ours) == set(theirs)
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype
        assert ours[name].tobytes() == array.tobytes(), name


def lines(run: Path) -> list[dict]:
    return [{k: v for k, v in row.items() if "per_second" not in k} for row in read_metrics(run / "metrics.jsonl")]


@pytest.mark.parametrize(("name", "step", "item"), [("raw", 4, "params"), ("ema", 4, "ema"), ("best", 2, "params")])
def test_an_export_is_the_checkpoint_bit_for_bit_in_float32(folder, source, name, step, item):
    tensors = load_file(folder / name / "model.safetensors")
    assert_equal(tensors, stored(source, step, item))
    assert {array.dtype for array in tensors.values()} == {np.dtype("float32")}
    width, hidden, depth, matrices = 16, 32, 2, 1
    assert tensors["stack.blocks.mlp.up.kernel"].shape == (depth, width, matrices, hidden)
    with safe_open(folder / name / "model.safetensors", "numpy") as file:
        assert file.metadata() == {"wgpt_jax": "0.1.0", "step": str(step)}
    config = json.loads((folder / name / "config.json").read_text())
    assert (config["step"], config["weights"]) == (step, "ema" if item == "ema" else "raw")
    assert set(config["digest"]) == set(tensors), "for each array, by its name"
    assert sum(config["run"]["parameters"].values()) == sum(array.size for array in tensors.values())


def test_an_export_says_what_its_run_was_and_whoever_reads_one_file_may_read_the_other(folder, source):
    config = json.loads((folder / "raw/config.json").read_text())
    assert config["run"] == json.loads((source / "run.json").read_text())
    assert config_from_dict(config["run"]["config"]) == tiny_config(**SOURCE)
    modes = {path.name: path.stat().st_mode for path in (folder / "raw").iterdir()}
    assert set(modes) == {"config.json", "model.safetensors"}
    assert modes["model.safetensors"] == modes["config.json"]


def test_the_command_tells_what_it_wrote(folder, source, tmp_path, capsys):
    assert wgpt("export", source, tmp_path / "out", "--step", "2", "--weights", "ema") == 0
    parameters = sum(array.size for array in stored(source, 2).values())
    assert capsys.readouterr().out == (
        f"{parameters:,} averaged parameters of step 2 in {tmp_path}/out/model.safetensors\n"
    )
    assert_equal(load_file(tmp_path / "out/model.safetensors"), stored(source, 2, "ema"))


@pytest.mark.parametrize(
    ("start", "step", "item"),
    [
        ("take@two", 4, "params"),
        ("take@two@3", 3, "params"),
        ("take@two@best", 2, "params"),
        ("raw@4", 4, "params"),
        ("ema", 4, "ema"),
    ],
)
def test_training_begins_with_exactly_these_weights(folder, source, begin, start, step, item):
    run, begun_with = begin(start), stored(source, step, item)
    assert_equal(stored(run, 1), begun_with)
    for name, array in stored(run, 1, "ema").items():
        np.testing.assert_allclose(array, begun_with[name], rtol=1e-6, err_msg="the average begins there too")
    counts = {name: int(x) for name, x in stored(run, 1, "optimizer").items() if x.ndim == 0}
    assert counts.pop("guard.skipped") == counts.pop("guard.in_row") == 0
    assert set(counts.values()) == {1}, "step and optimiser count from the beginning"
    recorded = json.loads((run / "run.json").read_text())["started_from"]
    assert recorded == f"{source if start.startswith('take') else folder / start[:3]}@{step}"


def test_all_but_the_weights_is_new(folder, source):
    """Begun with the weights that a run drew, a run is that run: optimiser, data and randomness are those of step 0."""
    for item in ("params", "ema", "optimizer"):
        assert_equal(stored(folder / "again", 4, item), stored(source, 4, item))
    assert lines(folder / "again") == [row for row in lines(source) if row["kind"] == "train"]
    position = "checkpoints/4/data/metadata"
    assert (folder / "again" / position).read_text() == (source / position).read_text()


def test_eight_devices_begin_with_the_same_weights_and_export_them(folder, source, tmp_path, capsys):
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    env = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(Path(__file__).parent)}
    groups = {"model": SOURCE["model"], "training": {"steps": 1, "eval_every": 0}}
    line = [sys.executable, "-c", EIGHT.format(groups=groups), folder / "data"]
    line += [folder / "ema", tmp_path / "from_export", f"{source}@2", tmp_path / "from_run"]
    done = subprocess.run(line, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "8 cpu device(s)" in done.stdout
    assert_equal(stored(tmp_path / "from_export", 1), stored(source, 4, "ema"))
    assert_equal(stored(tmp_path / "from_run", 1), stored(source, 2))
    assert wgpt("export", tmp_path / "from_run", tmp_path / "out") == 0
    assert_equal(load_file(tmp_path / "out/model.safetensors"), stored(source, 2))
    sentence = one_sentence(capsys, ["export", tmp_path / "from_run", tmp_path / "averaged", "--weights", "ema"])
    assert f"checkpoint 1 in {tmp_path}/from_run/checkpoints has no averaged weights (optimizer.ema was 0)" in sentence


def test_evaluation_of_either_weights_is_of_those(folder, source, begin):
    """What `--weights` names is scored as a run that has nothing else."""
    alone = evaluate(begin("ema"), folder / "data", step=1, mel="original", progress=False).summary
    scores = {
        weights: evaluate(source, folder / "data", weights=weights, mel="original", progress=False).summary
        for weights in ("raw", "ema")
    }
    assert scores["ema"]["nll"] == alone["nll"] != scores["raw"]["nll"]
    logged = lines(source)[-1]
    assert (logged["nll"], logged["ema_nll"]) == (scores["raw"]["nll"], scores["ema"]["nll"])
    names = {path.name for path in (source / "evaluation").glob("*.json")}
    assert names == {"validation-4-original.json", "validation-4-ema-original.json"}, "neither writes over the other"


@pytest.mark.parametrize(
    ("start", "data", "flags", "message"),
    [
        ("nowhere", "data", [], "--from: {folder}/nowhere is not there; give a run, RUN@STEP, or a folder that"),
        ("data", "data", [], "--from: {folder}/data is neither a run nor an export"),
        ("raw/model.safetensors", "data", [], "{folder}/raw/model.safetensors is not there; give a run"),
        ("take@two@7", "data", [], "no checkpoint of step 7 in {folder}/take@two/checkpoints; there are 1, 2, 3, 4"),
        ("raw@2", "data", [], "--from {folder}/raw@2: that export is of step 4; leave the step out"),
        ("take@two", "data", ["--model.width", "32"], "--from {folder}/take@two: model.width is 16 there and 32 here"),
        ("raw", "data", ["--model.mel-kernel", "5"], "--from {folder}/raw: model.mel_kernel is 3 there and 5 here"),
        ("take@two", "codec", [], "another codec (0ther) than the run {folder}/take@two (c0dec); prepare it with the"),
        ("raw", "mel", [], "made with another mel"),
    ],
)
def test_weights_that_cannot_be_begun_with_are_one_sentence(folder, tmp_path, capsys, start, data, flags, message):
    sentence = one_sentence(capsys, begun(folder, tmp_path / "run", folder / start, *flags, data=data))
    assert message.format(folder=folder) in sentence
    assert not (tmp_path / "run/run.json").exists(), "nothing has begun"


def flip(file: Path) -> None:
    """Changes the lowest bit of a number in the middle of the arrays."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2 // 4 * 4] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def without_one(file: Path) -> None:
    save_file({name: array for name, array in load_file(file).items() if name != "mel_branch.null"}, file)


def with_one_more(file: Path) -> None:
    save_file(load_file(file) | {"adapter": np.zeros(3, np.float32)}, file)


def with_half_precision(file: Path) -> None:
    save_file(load_file(file) | {"bos": load_file(file)["bos"].astype(np.float16)}, file)


def of_a_later_version(file: Path) -> None:
    config = file.with_name("config.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"version": 2}))


def of_something_else(file: Path) -> None:
    file.with_name("config.json").write_text('{"model_type": "llama"}')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip, "{out}/model.safetensors is not what was exported; export it again"),
        (cut, "{out}/model.safetensors cannot be read ("),
        (Path.unlink, "{out}/model.safetensors cannot be read ("),
        (without_one, "{out}/model.safetensors is of another network: mel_branch.null is only in one of them"),
        (with_one_more, "{out}/model.safetensors is of another network: adapter is only in one of them"),
        (with_half_precision, "{out}/model.safetensors: bos is F16 [16], not F32 (16,)"),
        (of_a_later_version, "{out}/config.json is of version 2, this version of wgpt_jax reads 1; export it again"),
        (of_something_else, "{out}/config.json is damaged (KeyError('version')); export it again"),
    ],
)
def test_a_damaged_export_is_one_sentence(folder, tmp_path, capsys, damage, message):
    out = shutil.copytree(folder / "raw", tmp_path / "out")
    damage(out / "model.safetensors")
    assert message.format(out=out) in one_sentence(capsys, begun(folder, tmp_path / "run", out))
    assert not (tmp_path / "run/checkpoints").exists() or not list((tmp_path / "run/checkpoints").iterdir())


def test_a_folder_whose_name_ends_like_a_step_is_named_with_one(folder, source, tmp_path, capsys):
    copy = shutil.copytree(folder / "best", tmp_path / "best@2")
    sentence = one_sentence(capsys, begun(folder, tmp_path / "run", copy))
    assert f"{copy} is a folder itself; say which of its steps, as in {copy}@latest" in sentence
    assert wgpt(*begun(folder, tmp_path / "run", f"{copy}@latest")) == 0
    assert_equal(stored(tmp_path / "run", 1), stored(source, 2))
    assert wgpt(*begun(folder, tmp_path / "run", f"{copy}@latest")) == 0, "and the same line again"


def test_what_cannot_be_exported_is_one_sentence(folder, source, tmp_path, capsys):
    again = folder / "again"
    for words, sentence in (
        ([again, tmp_path / "x", "--step", "best"], "no checkpoint in {again}/checkpoints has been evaluated yet"),
        (
            [again, tmp_path / "x", "--step", "9"],
            "no checkpoint of step 9 in {again}/checkpoints; there are 1, 2, 3, 4",
        ),
        ([again, tmp_path / "x", "--step", "last"], "--step 'last' is no step; give a number, latest or best"),
        ([tmp_path / "none", tmp_path / "x"], "none is no run folder"),
        ([source, folder / "raw"], "{folder}/raw holds an export already; give another folder"),
        ([source, again], "{again} is a run folder, and an export would be taken for it; give another folder"),
    ):
        assert sentence.format(again=again, folder=folder) in one_sentence(capsys, ["export", *words])
    (tmp_path / "file").touch()
    words = ["export", source, tmp_path / "file"]
    assert f"cannot write to {tmp_path}/file: File exists" in one_sentence(capsys, words, code=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_run_is_never_begun_with_itself(folder, source, tmp_path, capsys):
    """However its folder is spelt; --fresh would have deleted the weights before they are read."""
    run = shutil.copytree(source, tmp_path / "run")
    (tmp_path / "link").symlink_to(run)
    before = files(run)
    assert "is the run folder itself" in one_sentence(capsys, begun(folder, run, run))
    for spelling in (tmp_path / "link", f"{tmp_path}/sub/../run@2"):
        (tmp_path / "sub").mkdir(exist_ok=True)
        sentence = one_sentence(capsys, begun(folder, run, spelling, "--fresh"))
        assert f"--from {spelling} is the run folder itself" in sentence
    assert files(run) == before


def files(run: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if name != "training.lock"}


@pytest.fixture
def moving(folder, source, tmp_path) -> Path:
    """A source that things can happen to; it has step 1 alone."""
    return shutil.copytree(source, tmp_path / "moving", ignore=shutil.ignore_patterns("[234]"))


def gain(source: Path, moving: Path) -> None:
    """A newer checkpoint with other weights."""
    shutil.copytree(source / "checkpoints/2", moving / "checkpoints/12")


def test_a_run_goes_on_whatever_became_of_its_source(folder, source, moving, tmp_path, monkeypatch, capsys):
    data, whole, real = folder / "data", folder / "again", RunLog.train

    def stopping(log, step, values):
        real(log, step, values)
        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(RunLog, "train", stopping)
    stopped = train(tiny_config(**NEW), data, tmp_path / "half", start_from=str(moving))
    assert 0 < stopped < 4
    monkeypatch.undo()
    for what, happens, start_from in (
        ("nothing, and the source is not named again", lambda: None, []),
        ("it has gained checkpoints", lambda: gain(source, moving), ["--from", moving]),
        ("it is gone", lambda: shutil.rmtree(moving), ["--from", moving]),
    ):
        happens()
        run = shutil.copytree(tmp_path / "half", tmp_path / what)
        assert wgpt("train", folder / "new.py", "--data", data, "--workdir", run, *start_from) == 0, what
        said = capsys.readouterr().out
        assert f"resuming at step {stopped} of 4" in said and f"started from {moving}@1" in said
        for item in ("params", "optimizer"):
            assert_equal(stored(run, 4, item), stored(whole, 4, item))
        assert lines(run) == lines(whole), what


def test_another_source_than_the_recorded_one_is_refused(folder, source, tmp_path, capsys):
    run = shutil.copytree(folder / "again", tmp_path / "run")
    before = files(run)
    for start in (f"{source}@2", folder / "raw", folder / "nowhere"):
        sentence = one_sentence(capsys, begun(folder, run, start))
        assert f"{run} was started from {source}@1, not from {start}; leave --from out to continue it" in sentence
    assert files(run) == before
    own = shutil.copytree(source, tmp_path / "own")
    sentence = one_sentence(capsys, begun(folder, own, source))
    assert f"{own} was started from drawn weights, not from {source};" in sentence


def test_a_run_killed_before_its_first_save_begins_again_with_the_recorded_step(
    folder, source, moving, tmp_path, monkeypatch, capsys
):
    class Killed(BaseException):
        pass

    def dying(*_):
        raise Killed

    monkeypatch.setattr(RunLog, "train", dying)
    with pytest.raises(Killed):
        train(tiny_config(**NEW), folder / "data", tmp_path / "run", start_from=str(moving))
    monkeypatch.undo()
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    gain(source, moving)
    assert wgpt(*begun(folder, tmp_path / "run", moving)) == 0
    assert f"started from {moving}@1" in capsys.readouterr().out
    assert_equal(stored(tmp_path / "run", 1), stored(source, 1))

    shutil.rmtree(moving)
    words = ["train", folder / "new.py", "--data", folder / "data", "--workdir", tmp_path / "other"]
    sentence = one_sentence(capsys, words)
    assert f"{moving}, whose weights this run begins with, is not there any more; bring it back, or" in sentence
