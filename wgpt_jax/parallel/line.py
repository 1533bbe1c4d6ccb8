"""A process's own line to the hub in process 0 (``parallel/hub.py`` says what for), and the thread that reads it."""

import contextlib
import dataclasses
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from wgpt_jax.parallel.hub import BEATS, END, NOTICE, End


class Line(threading.Thread):
    """One process's connection to the hub; a thread reads it and ends the process when the hub says so."""

    def __init__(self, process: int, timeout: int, silence: float, on_end: Callable[[End], None]):
        """A line that is not yet connected.

        Args:
            process: this process.
            timeout: seconds that a wait lasts at most.
            silence: seconds without a sign of life after which process 0 counts as gone.
            on_end: called in the line's thread with why the run ends; must not return.
        """
        super().__init__(name="line", daemon=True)
        self.process, self.timeout, self.silence, self.on_end = process, timeout, silence, on_end
        self.changed = threading.Condition()
        self.sending = threading.Lock()
        self.answers: dict[str, Any] = {}
        self.limit: tuple[str, float] | None = None
        self.committed = 0
        self.frozen = self.asked = self.leaving = False
        self.stop_at: int | None = None

    def connect(self, address: tuple[str, int], count: int, say: Callable[[str], None]) -> None:
        """Connects to the hub, which may not be there yet, and starts the thread.

        Raises:
            TimeoutError: with the reason, if it did not answer in time.
        """
        start, notice = time.monotonic(), NOTICE
        while True:
            try:
                first = self._greet(address, count)
                break
            except (OSError, ValueError) as error:  # ValueError: something else answers, an earlier run perhaps
                waited = time.monotonic() - start
                if waited > self.timeout:
                    reason = (error.strerror or str(error)) if isinstance(error, OSError) else "something else answers"
                    raise TimeoutError(reason) from error
                if waited > notice:
                    notice = float("inf")
                    say(f"waiting for process 0 at {address[0]}:{address[1]}")
                time.sleep(0.2)
        if "end" in first:
            self.on_end(End(**first["end"]))
        self.start()
        threading.Thread(target=self._beat, name="beat", daemon=True).start()

    def _greet(self, address: tuple[str, int], count: int) -> dict[str, Any]:
        with contextlib.ExitStack() as stack:
            self.socket = stack.enter_context(socket.create_connection(address, timeout=self.silence))
            self.reader = stack.enter_context(self.socket.makefile("rb"))
            self._send({"hello": self.process, "of": count})
            first = json.loads(self.reader.readline())
            stack.pop_all()  # connected: both stay open
            return first

    def meet(self, name: str, value: Any = None, *, everyones: bool = False) -> Any:
        """Waits until every process is here; returns process 0's value, or a list of everyone's."""
        self._send({"at": name, "value": value, "all": everyones})
        with self.changed:
            if not self.changed.wait_for(lambda: name in self.answers, self.timeout):
                self._send({"late": name, "seconds": self.timeout})
                self.changed.wait_for(lambda: name in self.answers, self.silence)  # the answer ends this process
            return self.answers.pop(name)

    @contextlib.contextmanager
    def limited(self, name: str) -> Iterator[None]:
        """Ends the run if what is inside takes longer than the time-out."""
        self.limit = (name, time.monotonic() + self.timeout)
        try:
            yield
        finally:
            self.limit = None

    def stops_before(self, step: int, asked: bool) -> bool:
        """Whether all processes have agreed to stop with ``step`` steps done; called before each next step.

        When one is asked, the hub freezes all: no process begins a step, and each reports the steps it has begun. All
        then go on to the largest number reported. Nobody has begun more, because that number is read and the next step
        held back under one lock; and nobody waits for ever, because the reports come from the lines' threads, which
        need no collective to finish.

        Args:
            step: steps that this process has begun.
            asked: whether a signal asked this process to stop.
        """
        with self.changed:
            if asked and not self.asked:
                self.asked = True
                self._send({"stop": True})
            if self.frozen:
                self.changed.wait_for(lambda: self.stop_at is not None)
                return step >= self.stop_at
            self.committed = step + 1
            return False

    def fail(self, end: End) -> None:
        """Tells all processes why this one ends, itself included: does not return."""
        if self.is_alive():
            self._send({"failed": dataclasses.asdict(end)})
            time.sleep(5)  # the line's thread ends this process when the hub has told the others
        self.on_end(end)

    def run(self) -> None:
        """Reads what the hub says."""
        while True:
            try:
                line = self.reader.readline()
            except TimeoutError:
                return self._lost(f"has not answered for {self.silence:.0f} s")
            except OSError:
                line = b""
            if not line:
                return self._lost("went away: it was killed, it crashed or its machine is lost")
            self._handle(json.loads(line))

    def _handle(self, message: dict[str, Any]) -> None:
        with self.changed:
            match message:
                case {"go": name, "value": value}:
                    self.leaving = name == END
                    self.answers[name] = value
                case {"freeze": _}:
                    self.frozen = True
                    self._send({"step": self.committed})
                case {"stop_at": step}:
                    self.stop_at = step
                case {"end": end}:
                    self.on_end(End(**end))
            self.changed.notify_all()

    def _lost(self, how: str) -> None:
        if not self.leaving:
            self.on_end(End(f"process 0 {how}"))

    def _beat(self) -> None:
        while not self.leaving:
            self._send({})
            name, end = self.limit or ("", float("inf"))
            if time.monotonic() > end:
                sentence = f"process {self.process} did not finish {name} within {self.timeout} s (--timeout)"
                self.fail(End(sentence))
            time.sleep(self.silence / BEATS)

    def _send(self, message: dict[str, Any]) -> None:
        with self.sending, contextlib.suppress(OSError):  # a hub that is gone is noticed by the reading thread
            self.socket.sendall(json.dumps(message).encode() + b"\n")
