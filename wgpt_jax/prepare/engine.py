"""The local engine: tasks over a pool of processes, each task done in one process from start to end."""

import concurrent.futures
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from wgpt_jax.errors import WorkError

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_tasks(work: Callable[[Task], Result], tasks: Sequence[Task], workers: int) -> Iterator[Result]:
    """Yields ``work(task)`` of every task as it is done.

    One worker is this process. More are spawned; they end with this process, also when it is interrupted or killed.

    Args:
        work: a picklable function.
        tasks: picklable arguments.
        workers: number of processes.

    Raises:
        WorkError: if a worker was killed. What ``work`` raises is raised here.
    """
    if workers == 1 or len(tasks) <= 1:
        yield from map(work, tasks)
        return
    others = set(multiprocessing.active_children())
    pool = concurrent.futures.ProcessPoolExecutor(
        min(workers, len(tasks)), multiprocessing.get_context("spawn"), initializer=_start_worker
    )
    try:
        for future in concurrent.futures.as_completed([pool.submit(work, task) for task in tasks]):
            yield future.result()
        pool.shutdown()
    except BrokenProcessPool as error:
        raise WorkError(
            "a worker process was killed (out of memory? fewer --workers need less); "
            "what was finished is kept, the same command continues"
        ) from error
    finally:
        for child in set(multiprocessing.active_children()) - others:
            child.kill()
        pool.shutdown(cancel_futures=True)  # waits: its own thread collects the processes, and two would race


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start_worker() -> None:
    """Leaves Ctrl-C to the parent, and ends when the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
