"""What runs in a process of the local engine: tasks from a pipe, one at a time, answers into it."""

import dataclasses
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


@dataclasses.dataclass(frozen=True)
class Started:
    """The process has taken up its task: what happens to it from here on may be the task's doing."""


@dataclasses.dataclass(frozen=True)
class Returned:
    """The task is done."""

    result: Any


@dataclasses.dataclass(frozen=True)
class Raised:
    """The task, or the initializer, raised."""

    error: Exception


def start_worker() -> None:
    """Leaves Ctrl-C to the parent, and ends when the parent is gone, however it went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # the parent blocks it until here
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def serve(
    pipe: Connection, work: Callable[[Any], Any], initializer: Callable[..., None] | None, initargs: tuple
) -> None:
    """Answers every task with ``Started``, then ``Returned`` or ``Raised``, until the pipe is closed.

    Each process has a pipe of its own and no lock is shared: one that is killed, in the middle of an answer even,
    leaves nothing behind that the others wait for.
    """
    start_worker()
    try:
        if initializer is not None:
            try:
                initializer(*initargs)
            except Exception as error:
                pipe.send_bytes(_packed(error))
                return
        while True:
            task = pipe.recv_bytes()
            pipe.send_bytes(pickle.dumps(Started()))
            pipe.send_bytes(_answer(work, task))
    except (EOFError, OSError):  # the parent closed the pipe, or is gone
        return


def _answer(work: Callable[[Any], Any], task: bytes) -> bytes:
    try:
        return pickle.dumps(Returned(work(pickle.loads(task))))
    except Exception as error:
        return _packed(error)


def _packed(error: Exception) -> bytes:
    """The error for the parent, with where it came from; what cannot be pickled goes as its text."""
    error.add_note("in a worker process:\n" + "".join(traceback.format_exception(error)))
    try:
        packed = pickle.dumps(Raised(error))
        pickle.loads(packed)
    except Exception:
        return pickle.dumps(Raised(RuntimeError(f"{type(error).__name__}: {error}")))
    return packed
