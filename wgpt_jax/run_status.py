"""The state of a training run, from its files alone: also while it runs, also from another machine that mounts them."""

import dataclasses
import json
import math
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from wgpt_jax.errors import WorkError
from wgpt_jax.logged import Logged, summarise
from wgpt_jax.metrics import read_metrics
from wgpt_jax.run_lock import LOCK_NAME, holder
from wgpt_jax.runs import RunFolder, read_run

_SILENT_INTERVALS, _SILENT_SECONDS = 10, 60.0


@dataclasses.dataclass(frozen=True)
class RunStatus:
    """Where a run stands; None is what is not known."""

    run: str
    inputs: str
    parameters: int
    output_codebooks: int
    started_from: str | None
    """The run or file that the weights came from."""
    state: Literal["running", "stopped", "finished", "not started"]
    step: int
    """Last step that was logged or saved."""
    steps: int
    seconds_left: float | None
    """At the speed of recent lines; evaluations and saves are not counted."""
    holder: str | None
    """The other process that trains now, as ``process 123 on host``."""
    held_for: float | None
    """Seconds since the holder began."""
    starting: bool
    """Whether the holder has logged nothing yet."""
    silent: bool
    """Whether it has logged nothing for far longer than it used to."""
    elsewhere: str | None
    """Host that may still train although no lock is seen here: it did last, and the last line is fresh."""
    line_age: float | None
    """Seconds since the last line was written."""
    logged: Logged
    checkpoints: tuple[int, ...]
    """Steps, oldest first."""
    checkpoint_bytes: int
    unfinished: tuple[int, ...]
    """Steps whose save is under way, or was cut short."""
    damaged: int
    """Checkpoints that could not be read any more and were set aside."""


def run_status(run: str | os.PathLike) -> RunStatus:
    """Reads where the run in a folder stands; loads no JAX and touches no device.

    A run is running as long as another process holds its lock: the one that trains asks when it has ended.

    Raises:
        RequestError: if ``run`` is no run folder, or its run.json is damaged.
        WorkError: if a file cannot be read.
    """
    try:
        return _read(RunFolder(run), str(run))
    except OSError as error:
        raise WorkError(f"cannot read {error.filename or run}: {error.strerror}") from error


def _read(folder: RunFolder, name: str) -> RunStatus:
    info, now = read_run(name), time.time()
    held = holder(folder)
    if held == f"process {os.getpid()} on {socket.gethostname()}":
        held = None
    steps, lock, written = info.config.training.steps, folder.path / LOCK_NAME, _modified(folder.metrics)
    checkpoints, unfinished = _saves(folder.checkpoints)
    newest = max(checkpoints, default=0)

    rows = read_metrics(folder.metrics)
    starting = held is not None and _nothing_new(folder, rows, newest, _modified(lock))
    until = newest if starting else math.inf  # what a killed run logged past its last checkpoint will be done again
    rows = [row for row in rows if row["step"] <= until]
    logged = summarise(rows)

    step, age = max(newest, logged.step), max(now - written, 0.0) if rows else None
    fresh = age is not None and age <= max(_SILENT_INTERVALS * (logged.line_every or 0.0), _SILENT_SECONDS)
    if held is not None:
        state = "running"
    elif newest >= steps:
        state = "finished"
    else:
        state = "stopped" if rows or checkpoints else "not started"
    timed = state != "finished" and logged.steps_per_second
    return RunStatus(
        run=name,
        inputs=info.config.model.inputs,
        parameters=sum(info.parameters.values()),
        output_codebooks=info.config.model.output_codebooks,
        started_from=info.started_from,
        state=state,
        step=step,
        steps=steps,
        seconds_left=max(steps - step, 0) / logged.steps_per_second if timed else None,
        holder=held,
        held_for=None if held is None else max(now - _modified(lock), 0.0),
        starting=starting,
        silent=held is not None and not starting and logged.line_every is not None and not fresh,
        elsewhere=_other_host(lock) if state == "stopped" and fresh else None,
        line_age=age,
        logged=logged,
        checkpoints=checkpoints,
        checkpoint_bytes=_size(folder.checkpoints),
        unfinished=unfinished,
        damaged=len(list(folder.damaged.iterdir())) if folder.damaged.is_dir() else 0,
    )


def _nothing_new(folder: RunFolder, rows: Sequence[Mapping[str, Any]], newest: int, since: float) -> bool:
    """Whether no line was written since a process took the lock.

    It first drops the lines past the newest checkpoint, so that the file is newer than the lock before any new line.
    """
    if _modified(folder.metrics) < since:
        return True
    past = bool(rows) and rows[-1]["step"] > newest
    return not past and (newest == 0 or _modified(folder.checkpoints / str(newest)) < since)


def _saves(folder: Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Steps of the checkpoints, and of saves that are not committed: Orbax commits by renaming the folder."""
    names = [entry.name for entry in os.scandir(folder) if entry.is_dir()] if folder.is_dir() else []
    cut = [name.partition(".orbax-checkpoint-tmp")[0] for name in names if ".orbax-checkpoint-tmp" in name]
    done, unfinished = (sorted({int(name) for name in some if name.isdecimal()}) for some in (names, cut))
    return tuple(done), tuple(unfinished)


def _size(folder: Path) -> int:
    """Bytes of all files; what is deleted meanwhile counts nothing."""
    total = 0
    for parent, _, files in os.walk(folder):
        for file in files:
            try:
                total += os.stat(os.path.join(parent, file)).st_size
            except FileNotFoundError:
                continue
    return total


def _modified(path: Path) -> float:
    """When a file was written, in seconds since 1970; 0 if it is not there."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _other_host(lock: Path) -> str | None:
    """Where the run was trained last, as its lock file says, if that is not here: some mounts do not share locks."""
    try:
        host = str(json.loads(lock.read_text())["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None if host == socket.gethostname() else host
