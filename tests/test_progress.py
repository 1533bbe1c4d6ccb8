"""Progress is a bar on a terminal; in a log file it is a line now and then, and never a carriage return."""

import itertools
import os
import pty
import re
import sys
import termios
import threading
import warnings
from pathlib import Path

import pytest
from synthetic import markov_dataset, tiny_config

from wgpt_jax.prepare import progress as corpus_progress
from wgpt_jax.training import progress as progress_module
from wgpt_jax.training.loop import train
from wgpt_jax.training.progress import Progress


class Clock:
    """Seconds that pass when a test says so."""

    now = 5000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    return clock


class Terminal:
    """A terminal of its own in place of stderr; what is written to it is collected."""

    def __init__(self, monkeypatch):
        """To be made in a test itself: pytest sets stderr when its fixtures are done."""
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 120))
        self._stream = open(theirs, "w", buffering=1)  # noqa: SIM115 (closed in text())
        self._read: list[bytes] = []
        self._reader = threading.Thread(target=self._collect, daemon=True)
        self._reader.start()
        monkeypatch.setattr(sys, "stderr", self._stream)

    def _collect(self) -> None:
        while True:
            try:
                part = os.read(self._ours, 4096)
            except OSError:  # the other end is closed
                return
            if not part:
                return
            self._read.append(part)

    def text(self) -> str:
        """Closes it; what it got, a terminal's line ends turned back into plain ones."""
        self._stream.close()
        self._reader.join(timeout=60)
        os.close(self._ours)
        return b"".join(self._read).decode().replace("\r\n", "\n")


def told(progress: Progress, clock: Clock, capsys, steps: range, seconds: float) -> list[tuple[float, str]]:
    """Goes through steps that take so long each; when each line came, and what it says."""
    lines = []
    for step in steps:
        clock.now += seconds
        progress.describe(f"loss {1000 - step}.000")
        progress.advance(step)
        out, err = capsys.readouterr()
        assert "\r" not in out and not err
        lines += [(clock.now, line) for line in out.splitlines()]
    return lines


@pytest.mark.parametrize("seconds", [0.003, 0.37, 4.0, 9.99, 25.0])
def test_without_a_terminal_a_line_comes_at_first_at_last_and_every_ten_seconds_at_most(capsys, clock, seconds):
    lines = told(Progress(0, 1000), clock, capsys, range(1, 1001), seconds)
    assert lines[0][1] == "step 1 of 1,000: loss 999.000"
    assert lines[-1][1] == "step 1,000 of 1,000: loss 0.000"
    gaps = [after - before for (before, _), (after, _) in itertools.pairwise(lines)]
    assert all(gap >= 10 for gap in gaps[:-1]), "the last line comes when it comes"
    assert all(gap < 10.01 + seconds for gap in gaps), "nor is it silent for longer"


def test_a_run_that_stops_between_two_lines_says_where_once(capsys, clock):
    progress = Progress(40, 1000)
    assert [line for _, line in told(progress, clock, capsys, range(41, 44), 1.0)] == ["step 41 of 1,000: loss 959.000"]
    progress.close()
    assert capsys.readouterr().out == "step 43 of 1,000: loss 957.000\n"
    progress.close()
    assert capsys.readouterr().out == ""


def test_a_run_with_nothing_to_do_says_nothing(capsys):
    progress = Progress(10, 10)
    progress.close()
    assert capsys.readouterr() == ("", "")


def test_other_lines_come_when_they_are_said(capsys, clock):
    progress = Progress(0, 10)
    for number in range(3):
        progress.say(f"note {number}")
        assert capsys.readouterr().out == f"note {number}\n"


def test_on_a_terminal_there_is_a_bar_and_no_lines(capsys, monkeypatch):
    terminal = Terminal(monkeypatch)
    progress = Progress(40, 200)
    for step in range(41, 121):
        progress.describe(f"loss {step}.000")
        progress.advance(step)
    progress.say("a note")
    progress.close()
    bars = terminal.text().split("\r")
    assert any(bar.startswith(" 20%|") and "| 40/200 [" in bar for bar in bars), "it begins where the run does"
    assert any(bar.startswith(" 60%|") and "| 120/200 [" in bar and "loss 120.000" in bar for bar in bars), bars[-3:]
    assert capsys.readouterr().out == "a note\n", "nothing else is said"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("progress")
    markov_dataset(folder, train=4, validation=1)
    return folder


CONFIG = tiny_config("tokens", training={"steps": 12, "eval_every": 6}, checkpoint={"every": 12})


def test_training_into_a_file_is_lines(data, tmp_path, capsys, clock):
    train(CONFIG, data, tmp_path / "run")
    out, err = capsys.readouterr()
    assert "\r" not in out + err
    steps = [line for line in out.splitlines() if re.match(r"step [\d,]+ of 12: ", line)]
    assert [line.split(":")[0] for line in steps] == ["step 1 of 12", "step 12 of 12"], "no time has passed"
    assert all(re.match(r"step \d+ of 12: loss \d\.\d{3}", line) for line in steps)
    assert len(re.findall(r"^step (?:6|12): validation NLL ", out, re.M)) == 2


def test_training_on_a_terminal_is_a_bar_with_the_evaluations_above(data, tmp_path, capsys, monkeypatch):
    terminal = Terminal(monkeypatch)
    train(CONFIG, data, tmp_path / "run")
    bars = terminal.text().split("\r")
    assert any(bar.startswith("100%|") and "| 12/12 [" in bar and ", loss " in bar for bar in bars), bars[-3:]
    out = capsys.readouterr().out
    assert not re.search(r"^step \d+ of", out, re.M) and "\r" not in out
    assert len(re.findall(r"^step (?:6|12): validation NLL ", out, re.M)) == 2


def test_a_corpus_in_the_making_is_a_bar_that_rounding_does_not_take_past_its_end(monkeypatch):
    terminal = Terminal(monkeypatch)
    with warnings.catch_warnings(action="error"), corpus_progress.show_made(1.0, 0.25, "h", 2, True) as note:
        note(0.5)
        note(0.25 + 1e-9)
    assert "1.00/1.00 h" in terminal.text()


def test_a_corpus_in_the_making_is_a_line_a_minute_in_a_log(clock, monkeypatch, capsys):
    monkeypatch.setattr(corpus_progress, "time", clock)
    with corpus_progress.show_made(10, 0, "clips", 0, True) as note:
        for _ in range(10):
            clock.now += 20
            note(1)
    assert capsys.readouterr().err.split("\n") == [*(f"made {count} of 10 clips" for count in (4, 7, 10)), ""]
    with corpus_progress.show_made(1, 0, "clips", 0, False) as note:
        clock.now += 100
        note(1)
    assert capsys.readouterr().err == ""
