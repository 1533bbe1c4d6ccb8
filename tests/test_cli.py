"""The command line: help, exit codes, one sentence per mistake, Ctrl-C and the same line again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from synthetic import markov_dataset

from wgpt_jax.cli import COMMANDS, main

TINY = """
import sys
sys.path.insert(0, {tests!r})
from synthetic import tiny_config
config = tiny_config(training={{"steps": {steps}}}, logging={{"every": 1, "tensorboard": False}})
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    markov_dataset(folder / "data", train=10, validation=3)
    for name, steps in (("tiny", 3), ("long", 100_000)):
        (folder / f"{name}.py").write_text(TINY.format(tests=str(Path(__file__).parent), steps=steps))
    return folder


def wgpt(*argv) -> int:
    return main([str(word) for word in argv])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as done:
        main([name, "--help"])
    assert done.value.code == 0
    assert "usage" in capsys.readouterr().out.lower()


def test_overview_and_unknown_command(capsys):
    assert main(["--help"]) == 0
    assert main([]) == 2
    assert main(["trian"]) == 2
    assert "did you mean train?" in capsys.readouterr().err


def test_train_then_evaluate_json(folder, capsys):
    assert wgpt("train", folder / "tiny.py", "--data", folder / "data", "--workdir", folder / "run") == 0
    capsys.readouterr()
    assert wgpt("evaluate", folder / "run", "--data", folder / "data", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    names = "nll nll_stderr bits_per_second ppl top1 top10 documents frames mel_source"
    assert set(names.split()) <= set(summary)
    assert wgpt("evaluate", folder / "run", "--data", folder / "data") == 0
    assert "conditional on side information" in capsys.readouterr().out
    assert (folder / "run/loss.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train", "nowhere.py", "--data", "{data}", "--workdir", "{run}"], "no configuration file nowhere.py"),
        (["train", "{tiny}", "--data", "{folder}/none", "--workdir", "{run}"], "tools/prepare_audio.py"),
        (["train", "{tiny}", "--data", "{data}", "--workdir", "{run}", "--mesh.data", "3"], "number of devices"),
        (["train", "{tiny}", "--data", "{data}", "--workdir", "{tiny}/run"], "cannot write to the run folder"),
        (["evaluate", "{folder}/none", "--data", "{data}"], "is no run folder"),
        (["evaluate", "{folder}/none", "--data", "{data}", "--step", "last"], "is no step"),
        (["demo", "--minutes", "0"], "must be positive"),
    ],
)
def test_mistakes_end_in_one_sentence_and_2(folder, argv, message, capsys):
    places = {"folder": folder, "data": folder / "data", "run": folder / "run2", "tiny": folder / "tiny.py"}
    assert main([word.format(**places) for word in argv]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_the_configuration_file_may_stand_anywhere(folder, capsys):
    """A flag before the file must not hide it."""
    argv = [
        "train",
        "--data",
        folder / "data",
        "--workdir",
        folder / "last",
        folder / "tiny.py",
        "--training.steps",
        "2",
    ]
    assert wgpt(*argv) == 0
    assert json.loads((folder / "last/run.json").read_text())["config"]["model"]["width"] == 16
    assert wgpt("train", "--data", folder / "data", "--workdir", folder / "last", "nowhere.py") == 2
    assert "no configuration file nowhere.py" in capsys.readouterr().err


@pytest.mark.parametrize("workers", [0, 1])
def test_ctrl_c_saves_and_the_same_line_continues(folder, workers):
    """As a terminal does it: the signal goes to the whole process group, data workers included."""
    run = folder / f"long{workers}"
    line = [
        sys.executable, "-m", "wgpt_jax.cli", "train", folder / "long.py", "--data", folder / "data",
        "--workdir", run, "--data.workers", str(workers),
    ]  # fmt: skip
    stopped_at = []
    for _ in range(2):
        before = len((run / "metrics.jsonl").read_text().splitlines()) if stopped_at else 0
        process = subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ, start_new_session=True
        )
        metrics = run / "metrics.jsonl"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            if metrics.exists() and len(metrics.read_text().splitlines()) > before + 3:
                break
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert f"to continue:\n  wgpt train {folder / 'long.py'} --data {folder / 'data'} --workdir {run}" in out
        assert "Traceback" not in err
        stopped_at.append(int(out.split("saved at step ")[1].split(";")[0]))
    assert f"resuming at step {stopped_at[0]} " in out
    assert stopped_at[1] > stopped_at[0]
