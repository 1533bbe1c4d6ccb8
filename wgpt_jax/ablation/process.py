"""A run's process, seen from outside: started, watched, asked to stop, and how it ended."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from wgpt_jax.ablation.places import Place
from wgpt_jax.ablation.runs import Run
from wgpt_jax.ablation.worker import ROW_NAME, SPEC_NAME, STOPPED, write_json

LOG_NAME = "log.txt"


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a run's process ended: with a row, asked to stop, or failed for a reason."""

    row: dict[str, Any] | None = None
    reason: str | None = None

    @property
    def stopped(self) -> bool:
        """Whether it was asked to stop."""
        return self.row is None and self.reason is None


class RunProcess:
    """A run that is under way."""

    def __init__(self, run: Run, folder: Path, spec: dict[str, Any], place: Place):
        """Starts it.

        Args:
            run: which one.
            folder: its run folder; made if it is not there.
            spec: what :mod:`wgpt_jax.ablation.worker` reads.
            place: its part of the machine.
        """
        self.run, self.folder, self.place = run, folder, place
        self.started = time.monotonic()
        self._asked = False
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ROW_NAME).unlink(missing_ok=True)
        write_json(folder / SPEC_NAME, spec | {"cores": place.cores})
        # Git writes no index.lock: a run that looks up its commit must not stand in the way of making one.
        environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"} | place.environment
        command = [sys.executable, "-m", "wgpt_jax.ablation.worker", str(folder)]
        self._log = folder / LOG_NAME
        self._from = self._log.stat().st_size if self._log.exists() else 0
        with open(self._log, "ab") as log:
            # A session of its own: Ctrl-C comes to this process alone, which asks the others to save.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, start_new_session=True
            )

    @property
    def ended(self) -> bool:
        """Whether it has."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """Asks it to save and end."""
        self._asked = True
        if not self.ended:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it, and what it started, at once."""
        self._asked = True
        if not self.ended:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def ending(self) -> Ending:
        """How it ended."""
        self._process.stdin.close()
        code, row = self._process.returncode, self.folder / ROW_NAME
        if code == 0 and row.exists():
            return Ending(row=json.loads(row.read_text()))
        if code == STOPPED or self._asked:
            return Ending()
        return Ending(reason=self._reason(code))

    def _reason(self, code: int) -> str:
        with open(self._log, "rb") as log:
            log.seek(self._from)
            lines = log.read().decode(errors="replace").strip().splitlines()
        told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        if told:
            return told[-1]
        ended = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"{ended}: {lines[-1]}" if lines else ended
