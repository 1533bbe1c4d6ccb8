"""What one of several processes prints, and how it ends: a sentence on its terminal and an exit code, never a hang."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from wgpt_jax.errors import RequestError
from wgpt_jax.parallel.hub import End
from wgpt_jax.runs import RunFolder

_ON_ABORT = ctypes.CFUNCTYPE(None, ctypes.c_int)


class Output:
    """The terminal belongs to process 0; what the others print goes to their logs, failures to their terminals too."""

    def __init__(self, run: RunFolder, process: int):
        """Redirects this process's output for good; of process 0 only what C++ prints.

        Raises:
            RequestError: if the log cannot be written.
        """
        self.run, self.process = run, process
        self.ending = threading.Lock()
        self.on_abort: Callable | None = None
        try:
            run.logs.mkdir(parents=True, exist_ok=True)
            log = os.open(run.log_of(process), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise RequestError(f"cannot write to the run folder {run.path}: {error.strerror}") from error
        sys.stdout.flush()
        stdout, self.stderr = os.dup(1), os.dup(2)
        os.dup2(log, 1)
        if process:
            os.dup2(log, 2)
        # Line by line, because end() cannot safely flush what another thread may be writing.
        sys.stdout = open(1 if process else stdout, "w", buffering=1, closefd=False)  # noqa: SIM115

    def tell(self, text: str) -> None:
        """Writes a line to the terminal that this process was started from."""
        os.write(self.stderr, (f"process {self.process}: {text}\n" if self.process else f"{text}\n").encode())

    def end(self, end: End) -> None:
        """Says why the run ends and ends this process, whatever its other threads wait for; does not return."""
        with self.ending:  # never released: one sentence is enough
            sentence = end.sentence
            if end.process not in (None, self.process):
                sentence = f"process {end.process} failed: {sentence}"
            if end.process is None and end.code == 1:
                remedy = f"run the same command on all processes again to go on (logs in {self.run.logs})"
                sentence = f"{sentence}; {self._kept()}; {remedy}"
            os.write(2, f"error: {sentence}\n".encode() if self.process else b"\n")  # there, after the progress bar
            self.tell(f"error: {sentence}")
            for child in multiprocessing.active_children():  # the data's workers
                child.kill()
            os._exit(end.code)

    def catch_aborts(self) -> None:
        """Ends this process with a sentence where C++ aborts it.

        When process 0 dies, JAX aborts the others within a millisecond from a thread of its own, often before the line
        has been read. The line knows more, and therefore gets the first word.
        """

        def on_abort(number: int) -> None:
            time.sleep(2)
            self.end(End(f"process {self.process} was aborted; its last lines may say why"))

        self.on_abort = _ON_ABORT(on_abort)  # kept, because C does not count references
        ctypes.CDLL(None).signal(signal.SIGABRT, self.on_abort)

    def _kept(self) -> str:
        """Which checkpoint a next start continues from; Orbax renames a folder to its step when it is complete."""
        steps = [int(folder.name) for folder in self.run.checkpoints.glob("*") if folder.name.isdigit()]
        return f"checkpoints up to step {max(steps)} are kept" if steps else "nothing was saved yet"
