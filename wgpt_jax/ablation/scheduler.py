"""Runs the runs: each in its own process and place, as soon as what it waits for is there."""

import contextlib
import dataclasses
import importlib.util
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from wgpt_jax.ablation.check import check_rows
from wgpt_jax.ablation.counts import Sized
from wgpt_jax.ablation.display import Display, duration
from wgpt_jax.ablation.grid import Ablation
from wgpt_jax.ablation.places import Place
from wgpt_jax.ablation.process import RunProcess
from wgpt_jax.ablation.results import Results
from wgpt_jax.ablation.runs import DIVERGED, Run, configured, is_of, more_runs, sweep_of, tuned_point
from wgpt_jax.ablation.summary import write_summary
from wgpt_jax.ablation.table import frames_of
from wgpt_jax.errors import WorkError
from wgpt_jax.interrupt import hold_interrupts
from wgpt_jax.runs import RunFolder

_POLL = 0.2
_PATIENCE = 60.0
"""Seconds that a run which is asked to stop has to save."""
_CAUSAL = "causal: "


class Scheduler:
    """The runs of a grid that are not made yet."""

    def __init__(
        self,
        ablation: Ablation,
        planned: Callable[[], list[Run]],
        sized: Mapping[tuple[str, str], Sized],
        folders: Mapping[str, Path],
        fingerprints: Mapping[str, Mapping[str, str]],
        results: Results,
        places: Sequence[Place],
        command: str,
        retry: bool,
        quiet: bool,
    ):
        """For what :func:`wgpt_jax.ablation.main.ablate` was asked for; ``planned`` says which runs that is by now."""
        self._ablation, self._sized, self._folders, self._fingerprints = ablation, sized, folders, fingerprints
        self._results, self._free, self._command, self._quiet = results, list(places), command, quiet
        self._work = results.path.parent
        self._planned = planned
        runs = planned()
        self._known = set(runs)
        made = check_rows(ablation, runs, sized, fingerprints, results)
        self._failed = [] if retry else [run for run in runs if run not in made and self._has_failed(run)]
        self._waiting = [run for run in runs if run not in made and run not in self._failed]
        self._running: list[RunProcess] = []
        self._display = Display(len(runs), len(made))
        self._display.growing = more_runs(ablation, runs, self._rows()) > 0
        self._spent = self._done = 0.0
        self._proves = can_prove()
        for run in made:  # a kill may have come between a row and this
            self._tidy(run)

    def run_all(self) -> list[str]:
        """Makes what is left; returns the names of the runs that failed or could not be made.

        Raises:
            WorkError: if a file cannot be written.
            KeyboardInterrupt: after a signal, when the runs under way have saved.
        """
        for run in self._failed:
            self._say(f"{run.name} failed before; --retry makes it again")
        if not self._proves:
            self._say("causality is not checked, since the extra [prepare] is not installed")
        try:
            with _terminated_as_interrupted():
                while self._waiting or self._running:
                    self._start_ready()
                    if not self._running:
                        break  # what waits, waits for a sweep that failed
                    self._collect()
                    if not self._quiet:
                        self._display.look(self._running, self._seconds_left())
                    time.sleep(_POLL)
        except KeyboardInterrupt as interrupt:
            self._stop()
            raise KeyboardInterrupt(f"stopped; to go on, the same again:\n  {self._command}") from interrupt
        finally:
            for process in self._running:
                process.kill()
        for run in self._waiting:
            self._say(f"{run.name} cannot be made: {self._missing(run)}")
        self._summarise()
        return [run.name for run in (*self._failed, *self._waiting)]

    def _start_ready(self) -> None:
        """Gives every free place the first run that waits for nothing."""
        for run in list(self._waiting):
            if not self._free:
                return
            point = tuned_point(self._ablation, run, self._rows())
            if point is None:
                continue
            self._waiting.remove(run)
            folder = self._work / "runs" / run.name
            process = RunProcess(run, folder, self._spec(run, point), self._free.pop(0))
            self._running.append(process)
            chosen = "" if run.tuned_by is None else f" (learning rate {point[0]:g}, embedding_std {point[1]:g})"
            self._say(f"{run.name} starts on {process.place.label}{chosen}")

    def _missing(self, run: Run) -> str:
        """Why a run's learning rate is not known."""
        swept, group = sweep_of(self._ablation, run.tuned_by, self._rows()), "-".join(run.tuned_by)
        failed = [each.name for each in self._failed if each.stage == "tune" and each.group == run.tuned_by]
        if failed:
            return f"it waits for {', '.join(failed)}, which failed; --retry makes that again"
        if swept.finished:
            return f"every point of the sweep {group} diverged; give it smaller learning rates"
        return f"the sweep {group} is not finished; ask for its runs too"

    def _spec(self, run: Run, point: tuple[float, float]) -> dict[str, Any]:
        """What the run's process is told."""
        sized, arm = self._sized[run.arm, run.size], self._ablation.arm(run.arm)
        final = run.stage == "final"
        split = "test" if final else "validation"
        return {
            "config": dataclasses.asdict(configured(run, sized, point)),
            "data_folder": str(self._folders[run.data]),
            "mel": arm.mel,
            "causality": self._proves and final,
            "row": {
                "kind": "run",
                "experiment": self._ablation.name,
                "data": run.data,
                "data_fingerprint": self._fingerprints[run.data]["train"],
                "scored_fingerprint": self._fingerprints[run.data][split],
                "arm": run.arm,
                "title": arm.title,
                "inputs": sized.config.model.inputs,
                "size": run.size,
                "seed": run.seed,
                "stage": run.stage,
                "learning_rate": point[0],
                "embedding_std": point[1],
                "split": split,
                "leaks": arm.leaks,
                "command": self._command,
            },
        }

    def _collect(self) -> None:
        """Takes the rows of the runs that have ended."""
        for process in [each for each in self._running if each.ended]:
            self._running.remove(process)
            self._free.append(process.place)
            ending, run, took = process.ending(), process.run, time.monotonic() - process.started
            if ending.stopped:
                raise KeyboardInterrupt  # a signal came to the process itself
            if ending.reason is not None:
                self._fail(run, process, ending.reason)
                continue
            with hold_interrupts():
                self._results.append(ending.row)
                self._tidy(run)
            self._display.done += 1
            self._spent += took
            self._done += self._cost(run)
            self._tell(run, ending.row, took)
            if run.stage == "final":
                self._summarise()

    def _tidy(self, run: Run) -> None:
        """Deletes the checkpoints of a run that is in the results, unless its arm keeps them."""
        if not (run.stage == "final" and self._ablation.arm(run.arm).keep_checkpoints):
            shutil.rmtree(RunFolder(self._work / "runs" / run.name).checkpoints, ignore_errors=True)

    def _fail(self, run: Run, process: RunProcess, reason: str) -> None:
        spec = self._spec(run, tuned_point(self._ablation, run, self._rows()))
        self._results.append(spec["row"] | {"kind": "failed", "config": spec["config"], "reason": reason})
        if run.stage == "tune" and reason.startswith(DIVERGED):
            self._say(f"{run.name} diverged: it counts as worse than the other points of its sweep")
            self._tidy(run)
            self._display.done += 1
            self._follow_sweep(run)
            return
        self._failed.append(run)
        self._say(f"{run.name} FAILED: {reason} ({process.folder}/log.txt)")

    def _tell(self, run: Run, row: dict[str, Any], took: float) -> None:
        scores = row["evaluation"]
        total = "" if scores["total_nll"] == scores["nll"] else f", {scores['total_bits_per_second']:.1f} bits/s in all"
        self._say(f"{run.name}: {row['split']} NLL {scores['nll']:.4f}{total}, in {duration(took)}")
        line = row["causality"]
        if line is not None and not line.startswith(_CAUSAL) and not row["leaks"]:
            self._say(f"{run.name}: the proof of causality says: {line}")
        if run.stage == "tune":
            self._follow_sweep(run)

    def _follow_sweep(self, run: Run) -> None:
        """Adds the points that a sweep goes on with, or says what it chose."""
        group, swept = "-".join(run.group), sweep_of(self._ablation, run.group, self._rows())
        runs = self._planned()
        if new := [each for each in runs if each not in self._known]:
            self._known |= set(new)
            made = check_rows(self._ablation, new, self._sized, self._fingerprints, self._results)
            waiting = {*self._waiting, *new} - made  # rows of an earlier, wider grid may be there
            self._waiting = [each for each in runs if each in waiting]
            names = ", ".join(each.name for each in new)
            self._say(f"{group}: the best point is on the edge of the sweep, which goes on: {names}")
            self._display.done += len(made)
        self._display.total = len(runs)
        self._display.growing = more_runs(self._ablation, runs, self._rows()) > 0
        if swept.best is not None:
            rate, std = swept.best
            edge = f"; the {' and the '.join(swept.edges)} on the edge of the sweep" if swept.edges else ""
            self._say(f"{group}: best learning rate {rate:g}, embedding_std {std:g}{edge}")

    def _has_failed(self, run: Run) -> bool:
        return any(row["kind"] == "failed" and is_of(row, run) for row in self._rows())

    def _rows(self) -> list[dict[str, Any]]:
        return [row for row in self._results.rows if row.get("experiment") == self._ablation.name]

    def _cost(self, run: Run) -> float:
        return frames_of(run, self._sized) * self._sized[run.arm, run.size].parameters

    def _seconds_left(self) -> float | None:
        """From the runs that were made, by parameters x frames."""
        if not self._done:
            return None
        speed, now = self._done / self._spent, time.monotonic()
        seconds = sum(self._cost(run) for run in self._waiting) / speed
        seconds += sum(max(self._cost(each.run) / speed - (now - each.started), 0) for each in self._running)
        return seconds / (len(self._free) + len(self._running))

    def _stop(self) -> None:
        """Lets the runs under way save, then ends them."""
        self._say("stopping: the runs under way save; once more ends at once")
        until = time.monotonic() + _PATIENCE
        with contextlib.suppress(KeyboardInterrupt):
            for process in self._running:
                process.stop()
            while any(not process.ended for process in self._running) and time.monotonic() < until:
                time.sleep(_POLL)
            for process in [each for each in self._running if each.ended]:
                if (row := process.ending().row) is not None:
                    self._results.append(row)

    def _summarise(self) -> None:
        try:
            write_summary(self._ablation, self._rows(), self._work)
        except OSError as error:
            raise WorkError(f"cannot write {error.filename or self._work}: {error.strerror}") from error

    def _say(self, text: str) -> None:
        if not self._quiet:
            self._display.say(text)


def can_prove() -> bool:
    """Whether what the proof of causality needs is installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "transformers"))


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Inside, SIGTERM has the effect of Ctrl-C: a batch system's end of time lets the runs save."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    handler = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
