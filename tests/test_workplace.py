"""Worker processes are spread over devices, and say how far they are."""

import multiprocessing
import os
import re
import signal
import time
from pathlib import Path

import pytest

from wgpt_jax.prepare import progress
from wgpt_jax.prepare.engines.local import run_tasks
from wgpt_jax.prepare.workplace import device_of_worker, enter_workplace, note_progress

DEVICES = ("cuda:0", "cuda:1", "cuda:2")


def work(task: tuple[Path, int]) -> tuple[str, int]:
    """The process on the second device dies of its first task; the others wait until one has taken its place."""
    folder, number = task
    device = device_of_worker(DEVICES)
    note_progress(0.5)
    (folder / f"{os.getpid()}").touch()
    dies = device == "cuda:1" and not (folder / "dead").exists()
    late = time.monotonic() + 60
    while len(list(folder.iterdir())) < (3 if dies else 5):  # five: four processes, and the mark of the dead one
        assert time.monotonic() < late, "nobody took the place of the one that died"
        time.sleep(0.01)
    if dies:
        (folder / "dead").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return device, number


@pytest.fixture
def seconds():
    return multiprocessing.get_context("spawn").Value("d", 0.0)


def test_each_device_has_its_process_and_a_dead_one_is_replaced_there(tmp_path, seconds):
    seats, together = tmp_path / "seats", tmp_path / "together"
    seats.mkdir(), together.mkdir()
    tasks = [(together, number) for number in range(12)]
    options = {"initializer": enter_workplace, "initargs": (seats, seconds)}
    outcomes = list(run_tasks(work, tasks, 3, **options))
    assert sum(outcome.died is not None for outcome in outcomes) == 1
    devices = [outcome.result[0] for outcome in outcomes if outcome.died is None]
    assert set(devices) == set(DEVICES)  # the first one on cuda:1 has finished nothing
    assert seconds.value == 6.0


def test_what_is_done_is_said_in_lines_where_there_is_no_terminal(monkeypatch, capsys, seconds):
    monkeypatch.setattr(progress, "_REDRAW", 0.01)
    monkeypatch.setattr(progress, "_LINE_EVERY", 0.05)
    with progress.show_progress(7200.0, seconds) as note_failures:
        seconds.value = 1800.0
        note_failures(3)
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2
    assert re.fullmatch(r"prepared 0\.50 of 2\.00 h, \d+x realtime, 0 minutes left, 3 failed", lines[-1])
