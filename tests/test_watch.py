"""`wgpt watch` tells from a run's files alone what a person, or a script, wants to know of it."""

import contextlib
import dataclasses
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from synthetic import VOCABULARY, tiny_config

from wgpt_jax.audio.clock import Clock
from wgpt_jax.audio.mel import MelConfig
from wgpt_jax.data.index import CodecInfo
from wgpt_jax.metrics import metrics_line
from wgpt_jax.run_lock import locked
from wgpt_jax.run_status import run_status
from wgpt_jax.runs import RunFolder, RunInfo, write_run
from wgpt_jax.status_table import format_status
from wgpt_jax.watch import watch_command

WATCH = [sys.executable, "-c", "import sys; from wgpt_jax.watch import watch_command as w; sys.exit(w(sys.argv[1:]))"]
HOLD = """
import sys, time
from wgpt_jax.run_lock import locked
from wgpt_jax.runs import RunFolder
with locked(RunFolder(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""
NORMS = {"grad_norm": 0.5, "update_norm": 0.002, "param_norm": 30.0, "learning_rate": 1e-3, "skipped": 0}


def train_line(step, loss, **values) -> str:
    return metrics_line("train", step, {"loss": loss, **NORMS, **values})


def validation_line(step, nll, **values) -> str:
    scores = {"nll_stderr": 0.25, "top1": 0.125, "top10": 0.5, "total_nll": nll, "total_bits_per_second": 300.0}
    return metrics_line("validation", step, {"mel_source": "original", "nll": nll, **scores, **values})


def a_run(folder: Path, lines: str = "", checkpoints=(), *, steps=100, model=None, started_from=None) -> Path:
    """A run folder as training leaves it: checkpoints of 1000 bytes each."""
    info = RunInfo(
        config=tiny_config(model=model or {}, training={"steps": steps}),
        clock=Clock(24000, 320),
        codec=CodecInfo("synthetic", "c0dec", VOCABULARY, True),
        mel=MelConfig(bands=8),
        codebooks=2,
        data_fingerprint="f00d",
        parameters={"decoder": 1200, "mel": 34},
        versions={},
        started_from=started_from,
    )
    write_run(folder, info)
    if lines:
        (folder / "metrics.jsonl").write_text(lines)
    for step in checkpoints:
        (folder / f"checkpoints/{step}/params").mkdir(parents=True)
        (folder / f"checkpoints/{step}/params/data").write_bytes(bytes(1000))
    return folder


def aged(path: Path, seconds: float) -> None:
    """Makes a file or folder as old as that."""
    os.utime(path, (time.time() - seconds,) * 2)


@contextlib.contextmanager
def held(run: Path):
    """Another process holds the run's lock, until it is killed; yields that."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def table(run: Path) -> str:
    return format_status(run_status(run))


def row(run: Path, label: str) -> str:
    return re.search(rf"^{label} +(.*)$", table(run), re.MULTILINE)[1]


def test_the_numbers_are_those_of_the_lines(tmp_path):
    """Losses fall from 4 by 0.1 a line: means of 6 lines are 0.6 apart. One slow line does not move a median."""
    lines = [train_line(10 * n, 4 - 0.1 * n, steps_per_second=2.0, frames_per_second=640.0) for n in range(1, 12)]
    lines += [train_line(120, 2.8, steps_per_second=0.1, frames_per_second=32.0, learning_rate=2e-4, skipped=3)]
    lines[5:5] = [validation_line(50, 3.0)]
    lines += [validation_line(120, 3.25)]
    run = a_run(tmp_path / "run", "".join(lines), (50, 120), steps=200)
    aged(run / "metrics.jsonl", 300)
    status, logged = run_status(run), run_status(run).logged
    assert (status.state, status.step, status.steps, status.holder) == ("stopped", 120, 200, None)
    assert status.line_age == pytest.approx(300, abs=30)
    assert logged.loss == 2.8
    assert (logged.loss_lines, logged.loss_mean) == (6, pytest.approx(3.05))
    assert logged.loss_mean_before == pytest.approx(3.65)
    assert (logged.steps_per_second, logged.frames_per_second, logged.mfu) == (2.0, 640.0, None)
    assert status.seconds_left == 80 / 2
    assert logged.line_every == 5
    assert (logged.learning_rate, logged.skipped, logged.param_norm) == (2e-4, 3, 30.0)
    assert (logged.validation.step, logged.validation.nll, logged.validation.top10) == (120, 3.25, 0.5)
    assert (logged.best_step, logged.best_nll) == (50, 3.0)
    assert (status.checkpoints, status.checkpoint_bytes, status.unfinished) == ((50, 120), 2000, ())
    assert (status.inputs, status.parameters) == ("hybrid", 1234)

    assert row(run, "run").endswith("hybrid, 1,234 parameters")
    assert "stopped at step 120; the command that started it continues it from step 120" in row(run, "state")
    assert "last line 5 min ago" in row(run, "state")
    assert row(run, "progress") == "step 120 of 200 (60.0 %), about 40 s of training left"
    assert row(run, "loss") == "2.8000 nats per token; last 6 lines 3.0500, 0.6000 lower than the 6 before"
    assert row(run, "norms") == "gradient 0.5, update 0.002, parameters 30"
    assert row(run, "optimiser") == "learning rate 0.0002; 3 updates skipped"
    assert row(run, "speed") == "640 frames/s, 2 steps/s"
    assert row(run, "validation").startswith(
        "step 120, mel original: NLL 3.2500 +- 0.2500 nats per coarse token, top-1"
    )
    assert row(run, "best") == "step 50: NLL 3.0000 nats per coarse token; its checkpoint is kept"
    assert row(run, "checkpoints") == "steps 50, 120 (0.00 MiB)"


def test_speed_of_several_chips_codebooks_and_averaged_weights_has_its_units(tmp_path):
    speed = {"frames_per_second": 8000.0, "frames_per_second_per_device": 1000.0, "mfu": 0.375}
    averaged = {"total_nll": 20.0, "ema_nll": 2.5, "ema_total_nll": 19.5}
    lines = train_line(10, 2.5, nll_codebook_1=3.0, **speed) + validation_line(10, 3.0, **averaged)
    run = a_run(tmp_path / "run", lines, model={"output_codebooks": 8}, started_from="/models/base@500")
    assert row(run, "run").endswith("parameters, started from /models/base@500")
    assert row(run, "loss") == "2.5000 nats per token (mean of 8 codebooks)"
    assert row(run, "speed") == "8,000 frames/s (1,000 per device), MFU 37.5 %"
    assert "all 8 codebooks: NLL 20.0000 nats per frame, 300 bits/s\n" in table(run)
    assert "averaged weights: NLL 2.5000 nats per coarse token, 19.5000 per frame of all 8\n" in table(run)
    assert row(run, "best") == "step 10: NLL 19.5000 nats per frame; its checkpoint is not there"
    assert row(run, "checkpoints") == "none"


def test_what_is_not_finite_is_said_and_spoils_no_mean(tmp_path):
    losses = [3.0] * 5 + [float("nan")] + [2.0] * 5 + [float("inf")]
    lines = "".join(train_line(step, loss, grad_norm=float("nan")) for step, loss in enumerate(losses, start=1))
    run = a_run(tmp_path / "run", lines + validation_line(12, float("nan")) + validation_line(13, float("nan")))
    assert run_status(run).logged.loss is None
    assert row(run, "loss") == "NOT FINITE at step 12; last 5 lines 2.0000, 1.0000 lower than the 5 before"
    assert row(run, "norms").startswith("gradient n/a, update 0.002")
    assert "NLL NOT FINITE nats" in row(run, "validation")
    assert "best " not in table(run)


@pytest.mark.parametrize(
    "tail",
    [
        '{"kind": "train", "st',
        "\0\0\0\0\n",
        "[1, 2]\n",
        '{"kind": "train"}\n',
        '{"kind": "train", "step": null}\n',
        "\n",
    ],
)
def test_a_damaged_end_of_the_lines_is_left_out(tmp_path, tail):
    run = a_run(tmp_path / "run", train_line(10, 3.5) + tail)
    assert run_status(run).step == 10
    assert row(run, "loss").startswith("3.5000")


@pytest.mark.parametrize("lines", ["", "\n", "\xff\xfe{", "null\n"])
def test_no_lines_at_all_break_nothing(tmp_path, lines):
    run = a_run(tmp_path / "run")
    (run / "metrics.jsonl").write_bytes(lines.encode("latin-1"))
    assert run_status(run).state == "not started"
    assert row(run, "progress") == "step 0 of 100 (0.0 %)"


def test_values_of_the_wrong_type_count_as_unknown(tmp_path):
    odd = '{"kind": "train", "step": 7, "loss": "low", "steps_per_second": [], "skipped": true}\n'
    odd += '{"kind": "validation", "step": 7, "nll": {}, "total_nll": "x"}\n'
    logged = run_status(a_run(tmp_path / "run", odd)).logged
    assert (logged.step, logged.loss, logged.steps_per_second, logged.skipped) == (7, None, None, None)
    assert (logged.validation.nll, logged.best_step) == (None, None)


def test_a_run_is_running_as_long_as_its_process_lives(tmp_path):
    run = a_run(tmp_path / "run", checkpoints=(10,))
    with held(run) as process:
        (run / "metrics.jsonl").write_text(train_line(10, 3.5) + train_line(20, 3.0))
        assert run_status(run).state == "running"
        assert f"process {process.pid} on " in row(run, "state")
        assert "last line" in row(run, "state")
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert run_status(run).state == "stopped"
        assert row(run, "state").startswith(
            "stopped at step 20; the command that started it continues it from step 10;"
        )


def test_the_process_that_trained_sees_its_own_run_as_ended(tmp_path):
    run = a_run(tmp_path / "run", train_line(100, 2.0), (100,))
    with locked(RunFolder(run)):
        assert run_status(run).state == "finished"
        assert row(run, "state").startswith("finished; last line ")


def test_a_run_without_lines_says_that_it_begins(tmp_path):
    run = a_run(tmp_path / "run")
    assert row(run, "state").startswith("not started: ")
    with held(run):
        assert run_status(run).starting
        assert row(run, "state").endswith("nothing logged yet: it reads data, restores, compiles")
        (run / "metrics.jsonl").write_text("")
        assert run_status(run).starting
    (run / "metrics.jsonl").write_text(train_line(3, 3.5))
    assert "from the beginning, since nothing was saved" in row(run, "state")


@pytest.mark.parametrize("dropped", [False, True])
def test_a_resumed_run_stands_at_its_checkpoint_until_it_logs(tmp_path, dropped):
    """Lines past the checkpoint are of the killed process: they will be done again. Dropping them rewrites the file."""
    before, past = train_line(5, 3.5) + train_line(10, 3.0), train_line(15, 2.5) + validation_line(15, 2.0)
    run = a_run(tmp_path / "run", before + past, (10,))
    for path in (run / "metrics.jsonl", run / "checkpoints/10"):
        aged(path, 3600)
    assert run_status(run).step == 15
    with held(run):
        if dropped:
            (run / "metrics.jsonl").write_text(before)
        status = run_status(run)
        assert (status.starting, status.silent, status.step) == (True, False, 10)
        assert (status.logged.loss, status.logged.best_step) == (3.0, None)
        (run / "metrics.jsonl").write_text(before + train_line(11, 2.9))
        status = run_status(run)
        assert (status.starting, status.step, status.logged.loss) == (False, 11, 2.9)


def test_a_step_that_was_just_saved_is_no_new_start(tmp_path):
    run = a_run(tmp_path / "run")
    with held(run):
        aged(run / "training.lock", 60)
        a_run(run, train_line(10, 3.0), (10,))
        assert not run_status(run).starting


@pytest.mark.parametrize(
    ("per_second", "age", "silent"),
    # A line every 10 steps: every 5 s, 10 times that is less than a minute; every 10 min.
    [(2.0, 55, False), (2.0, 720, True), (1 / 60, 720, False), (1 / 60, 6500, True), (None, 6500, False)],
)
def test_silence_is_said_by_the_run_s_own_measure(tmp_path, per_second, age, silent):
    speed = {"steps_per_second": per_second} if per_second else {}
    run = a_run(tmp_path / "run", "".join(train_line(10 * n, 3.0, **speed) for n in range(1, 5)))
    with held(run):
        aged(run / "training.lock", 10_000)
        aged(run / "metrics.jsonl", age)
        assert run_status(run).silent == silent
        told = row(run, "state")
        assert ("SILENT" in told) == silent
        if age == 720:
            assert ("12 min, after a line every 5.0 s" if silent else "last line 12 min ago") in told


def test_a_lock_that_may_not_be_seen_from_here_is_no_proof(tmp_path):
    run = a_run(tmp_path / "run", train_line(10, 3.0))
    (run / "training.lock").write_text('{"pid": 5, "host": "another-machine"}')
    assert run_status(run).elsewhere == "another-machine"
    assert "unless it still runs on another-machine" in table(run)
    aged(run / "metrics.jsonl", 90)
    assert run_status(run).elsewhere is None
    assert "unless" not in table(run)


def test_finished_is_only_what_is_saved(tmp_path):
    run = a_run(tmp_path / "run", train_line(100, 2.0), (50,))
    assert row(run, "state").startswith("stopped at step 100; the command that started it continues it from step 50;")
    a_run(tmp_path / "run", train_line(100, 2.0), (100,))
    assert row(run, "state").startswith("finished; last line ")
    assert row(run, "progress") == "step 100 of 100 (100.0 %)"


def test_an_unfinished_save_is_no_checkpoint(tmp_path):
    run = a_run(tmp_path / "run", train_line(20, 2.0), (10, "20.orbax-checkpoint-tmp-1732000000"))
    assert run_status(run).checkpoints == (10,)
    assert run_status(run).unfinished == (20,)
    assert row(run, "checkpoints").endswith("; step 20 cut short while being saved")
    with held(run):
        assert row(run, "checkpoints").endswith("; step 20 being saved")
    (run / "damaged-checkpoints/5").mkdir(parents=True)
    assert row(run, "checkpoints").endswith("; 1 damaged, in damaged-checkpoints")


def test_json_holds_the_same_facts(tmp_path, capsys):
    run = a_run(tmp_path / "run", train_line(10, float("nan")) + validation_line(10, 3.0), (10,))
    aged(run / "metrics.jsonl", 3600)
    assert watch_command([str(run), "--json"]) == 0
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)  # no NaN: other readers know none
    assert (told["state"], told["step"], told["checkpoints"]) == ("stopped", 10, [10])
    assert (told["logged"]["loss"], told["logged"]["validation"]["nll"]) == (None, 3.0)
    assert told.keys() == {field.name for field in dataclasses.fields(run_status(run))}
    assert watch_command([str(run)]) == 0
    assert capsys.readouterr().out == table(run) + "\n"


@pytest.mark.parametrize(
    ("run_json", "flags", "message"),
    [
        (None, [], "is no run folder (no run.json)"),
        ('{"version"', [], "run.json is damaged"),
        ("[]", [], "run.json is damaged"),
        ("{}", ["--follow", "0"], "--follow 0: give a positive number of seconds"),
        ("{}", ["--follow", "inf"], "--follow inf: give a positive number of seconds"),
    ],
)
def test_mistakes_end_in_one_sentence(tmp_path, capsys, run_json, flags, message):
    if run_json is not None:
        (tmp_path / "run.json").write_text(run_json)
    assert watch_command([str(tmp_path), *flags]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_file_that_cannot_be_read_ends_in_one_sentence(tmp_path, capsys):
    run = a_run(tmp_path / "run")
    (run / "metrics.jsonl").mkdir()
    assert watch_command([str(run)]) == 1
    assert capsys.readouterr().err == f"error: cannot read {run / 'metrics.jsonl'}: Is a directory\n"


def test_no_device_library_is_loaded(tmp_path):
    run = a_run(tmp_path / "run", train_line(10, 3.0), (10,))
    script = "import sys; from wgpt_jax.watch import watch_command as w; w(sys.argv[1:]); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script, str(run)], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert "wgpt_jax" in loaded
    assert not loaded & {"jax", "jaxlib", "flax", "optax", "orbax", "grain", "torch", "tensorflow", "matplotlib"}


@contextlib.contextmanager
def following(run: Path, **pipes):
    """`wgpt watch --follow`, ended after a minute at most; yields the process."""
    process = subprocess.Popen([*WATCH, str(run), "--follow", "0.05"], text=True, stderr=subprocess.PIPE, **pipes)
    timer = threading.Timer(60, process.kill)
    timer.start()
    try:
        yield process
    finally:
        timer.cancel()
        process.kill()
        process.communicate()


def next_table(process) -> str:
    """Lines up to the next empty one."""
    return "".join(iter(process.stdout.readline, "\n"))


def test_following_tells_each_new_step_once_and_ends_with_the_run(tmp_path):
    run = a_run(tmp_path / "run", checkpoints=(10,))
    with held(run) as trainer, following(run, stdout=subprocess.PIPE) as process:
        assert "nothing logged yet" in next_table(process)
        for step in (20, 30):
            with open(run / "metrics.jsonl", "a") as file:
                file.write(train_line(step, 3.0))
            assert f"step {step} of 100" in next_table(process)
        trainer.kill()
        trainer.wait()
        assert "stopped at step 30" in next_table(process)
        out, err = process.communicate()
        assert (out, err, process.returncode) == ("", "", 0)


def test_ctrl_c_ends_following_without_a_word(tmp_path):
    run = a_run(tmp_path / "run")
    with held(run), following(run, stdout=subprocess.PIPE) as process:
        next_table(process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
        assert (out, err, process.returncode) == ("", "", 0)


def test_a_terminal_is_drawn_in_place(tmp_path):
    """Cursor home, clear to the end, the table; again and again, and no other control."""
    run = a_run(tmp_path / "run", train_line(10, 3.0))
    main, terminal = pty.openpty()
    with held(run) as trainer, following(run, stdout=terminal) as process:
        os.close(terminal)
        seen = b""
        while seen.count(b"\x1b[H\x1b[J") < 3:
            seen += os.read(main, 1 << 16)
        trainer.kill()
        with contextlib.suppress(OSError):  # how a terminal says that the other end is closed
            while part := os.read(main, 1 << 16):
                seen += part
        assert process.wait() == 0
    os.close(main)
    drawn = seen.decode().split("\x1b[H\x1b[J")
    assert drawn[0] == ""
    assert all(one.startswith("run  ") and "\x1b" not in one for one in drawn[1:])
    assert "running for" in drawn[1]
    assert "stopped at step 10" in drawn[-1]
