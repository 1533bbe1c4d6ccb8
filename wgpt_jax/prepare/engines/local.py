"""The local engine: tasks over processes of this machine. A process that dies takes no other task with it."""

import collections
import contextlib
import multiprocessing
import pickle
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection, resource_tracker
from typing import Any

from wgpt_jax.errors import WorkError
from wgpt_jax.prepare.engines.outcome import Outcome, Result, Task
from wgpt_jax.prepare.engines.worker import Raised, Returned, Started, serve

_FAREWELL = 5.0
"""Seconds from the end of a process's pipe to its own, which tells its exit code."""


def run_tasks(
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: int,
    *,
    timeout: float | None = None,
    initializer: Callable[..., None] | None = None,
    initargs: tuple = (),
    isolate: bool = False,
) -> Iterator[Outcome[Task, Result]]:
    """Yields the outcome of every task as it is done.

    One worker, or one task, is done in this process. More are spawned; they end with this process, also when it is
    interrupted or killed, and when the iterator is closed.

    Args:
        work: a picklable function.
        tasks: picklable arguments.
        workers: number of processes.
        timeout: seconds a task may take; a process that takes longer is killed. In this process none is.
        initializer: called in each process before its first task.
        initargs: its arguments.
        isolate: work in another process even if one is enough, so that this one survives whatever happens there.

    Raises:
        WorkError: if processes die before they take up a task, again and again.
        Exception: what ``work`` or ``initializer`` raises, of the same type.
    """
    if (workers == 1 or len(tasks) <= 1) and not isolate:
        if tasks and initializer is not None:
            initializer(*initargs)
        for task in tasks:
            yield Outcome(task, work(task))
        return
    waiting = collections.deque(tasks)
    crew: list[_Worker] = []
    stillborn = 0
    try:
        while waiting or crew:
            while waiting and len(crew) < workers:
                crew.append(_Worker(work, initializer, initargs, timeout))
                crew[-1].give(waiting.popleft())
            for worker in _stirring(crew):
                task = worker.task
                match worker.receive():
                    case Started():
                        stillborn = 0
                    case Raised(error):
                        raise error
                    case Returned(result):
                        if waiting:
                            worker.give(waiting.popleft())
                        else:
                            crew.remove(worker)
                            worker.end()
                        yield Outcome(task, result)
                    case str(died):
                        crew.remove(worker)
                        if worker.started:
                            yield Outcome(task, None, died)
                            continue
                        # Killed with nothing to do, or while it started: that is not the task's fault.
                        waiting.appendleft(task)
                        stillborn += 1
                        if stillborn > 2 * workers:
                            raise WorkError(f"worker processes end before they begin ({died}); try fewer --workers")
    finally:
        for worker in crew:
            worker.end()


class _Worker:
    """A process, the pipe to it, and the task it has."""

    def __init__(self, work: Callable, initializer: Callable | None, initargs: tuple, timeout: float | None):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        arguments = (theirs, work, initializer, initargs)
        self._process = context.Process(target=serve, args=arguments, daemon=True)
        with _sigint_blocked():
            self._process.start()
        theirs.close()  # so that this end sees the end of the process
        self._timeout = timeout
        self.task: Any = None
        self.started = False
        """Whether it has taken up its task."""
        self.deadline: float | None = None
        """When its task has taken too long, on the monotonic clock."""

    def give(self, task: Any) -> None:
        self.task, self.started, self.deadline = task, False, None
        packed = pickle.dumps(task)
        with contextlib.suppress(OSError):  # it is dead; receive() will say so
            self.pipe.send_bytes(packed)

    def receive(self) -> Started | Returned | Raised | str:
        """Its message, or how it ended if it is dead or late."""
        if not self.pipe.poll():
            self.end()
            return f"took longer than {self._timeout:g} s"
        try:
            message = pickle.loads(self.pipe.recv_bytes())
        except (EOFError, OSError):
            self._process.join(_FAREWELL)
            self.end()
            return _ending(self._process.exitcode)
        if isinstance(message, Started):
            self.started = True
            self.deadline = None if self._timeout is None else time.monotonic() + self._timeout
        return message

    def end(self) -> None:
        """Kills it, if it is not dead yet."""
        self.pipe.close()
        self._process.kill()
        self._process.join()


def _stirring(crew: Sequence[_Worker]) -> list[_Worker]:
    """Waits for messages and deaths. Returns the workers with one, and those whose time is over."""
    deadlines = [worker.deadline for worker in crew if worker.deadline is not None]
    pause = max(min(deadlines) - time.monotonic(), 0) if deadlines else None
    ready = connection.wait([worker.pipe for worker in crew], pause)
    now = time.monotonic()
    return [w for w in crew if w.pipe in ready or (w.deadline is not None and w.deadline <= now)]


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


@contextlib.contextmanager
def _sigint_blocked() -> Iterator[None]:
    """A process that starts here is born deaf to Ctrl-C, which would otherwise meet it while it imports."""
    resource_tracker.ensure_running()  # starting it would unblock
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
