"""What the terminal shows while an ablation runs: a block that is redrawn, or lines where there is no terminal."""

import math
import sys
import time
from collections.abc import Sequence
from typing import TextIO

from wgpt_jax.ablation.process import RunProcess
from wgpt_jax.metrics import read_metrics
from wgpt_jax.runs import RunFolder

_REDRAW, _LINES = 2.0, 60.0
"""Seconds between two looks: at a terminal, and in a log."""


class Display:
    """Runs done, those under way with their step and loss, and how long the rest may take."""

    def __init__(self, total: int, done: int, stream: TextIO | None = None):
        """Of ``total`` runs, ``done`` of which were made before; while ``growing``, there may be more."""
        self.total, self.done, self.growing = total, done, False
        self._stream = stream or sys.stdout
        self._terminal = self._stream.isatty()
        self._drawn, self._looked = 0, time.monotonic()

    def say(self, text: str) -> None:
        """Prints a line above the block."""
        self._clear()
        print(text, file=self._stream, flush=True)
        self._looked -= _REDRAW if self._terminal else 0

    def look(self, running: Sequence[RunProcess], seconds_left: float | None) -> None:
        """Shows the runs under way, if it is time to.

        Args:
            running: their processes.
            seconds_left: of all that is left; None if nothing is known of it.
        """
        now = time.monotonic()
        if now - self._looked < (_REDRAW if self._terminal else _LINES):
            return
        self._looked = now
        left = "" if seconds_left is None else f", about {duration(seconds_left)} left"
        head = f"{self.done} of {'at least ' if self.growing else ''}{self.total} runs{left}"
        lines = [_described(process) for process in running]
        if self._terminal:
            self._clear()
            print(head, *(f"  {line}" for line in lines), sep="\n", file=self._stream, flush=True)
            self._drawn = 1 + len(lines)
        else:
            print("; ".join([head, *lines]), file=self._stream, flush=True)

    def _clear(self) -> None:
        if self._drawn:
            print(f"\x1b[{self._drawn}A\x1b[J", end="", file=self._stream)
            self._drawn = 0


def _described(process: RunProcess) -> str:
    rows = read_metrics(RunFolder(process.folder).metrics)
    losses = [row for row in rows if row["kind"] == "train" and row.get("loss") is not None]
    steps = process.run.steps
    if not losses:
        return f"{process.run.name}: starting"
    scored = [row for row in rows if row["kind"] == "validation" and row.get("nll") is not None]
    valid = f", validation {scored[-1]['nll']:.3f}" if scored else ""
    step = rows[-1]["step"]
    state = f"step {step:,} of {steps:,}" if step < steps else "scoring"
    return f"{process.run.name}: {state}, loss {losses[-1]['loss']:.3f}{valid}"


def duration(seconds: float) -> str:
    """A time in words: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
