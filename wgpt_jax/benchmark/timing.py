"""Arms that are timed in turn, round by round in one run: machines are shared and noisy, read the ratios."""

import contextlib
import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from wgpt_jax.errors import WorkError
from wgpt_jax.prepare.engines.local import run_tasks

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of an arm."""

    units: float
    """What it did: seconds of audio, or frames."""
    seconds: float
    """By the clock."""
    cpu_seconds: float
    """Of processor time, over all threads and processes that worked."""


@dataclasses.dataclass(frozen=True)
class Speed:
    """Units per second of several runs of an arm."""

    median: float
    slowest: float
    fastest: float
    per_core: float
    """Median of units per second of processor time: what the arm would do with a core of its own."""


def timed(units: float, work: Callable[[], object]) -> Run:
    """Does ``work`` once, in this process; ``units`` is what that achieves."""
    cpu, begin = time.process_time(), time.perf_counter()
    work()
    return Run(units, time.perf_counter() - begin, time.process_time() - cpu)


def in_turn(arms: Mapping[str, Callable[[], Run]], rounds: int) -> dict[str, list[Run]]:
    """Runs each arm once in each of ``rounds`` rounds; what only a first run takes, the arms have behind them."""
    runs: dict[str, list[Run]] = {name: [] for name in arms}
    for _ in range(rounds):
        for name, arm in arms.items():
            runs[name].append(arm())
    return runs


def speed(runs: Sequence[Run]) -> Speed:
    """Speed of an arm over its runs."""
    speeds = [run.units / run.seconds for run in runs]
    per_core = statistics.median(run.units / max(run.cpu_seconds, 1e-9) for run in runs)
    return Speed(statistics.median(speeds), min(speeds), max(speeds), per_core)


def ratio(of: Sequence[Run], to: Sequence[Run], *, cpu: bool = False) -> float:
    """Time per unit of one arm over that of another: the median over rounds, whose runs were made one after the other.

    Args:
        of: runs of the one, a round each.
        to: runs of the other.
        cpu: compare processor time.
    """

    def each(run: Run) -> float:
        return (run.cpu_seconds if cpu else run.seconds) / run.units

    return statistics.median(each(one) / each(other) for one, other in zip(of, to, strict=True))


def in_own_process(work: Callable[[Any], Any], task: Any) -> Any:
    """``work(task)`` in a process that has done nothing else.

    Raises:
        WorkError: if it dies.
    """
    (outcome,) = run_tasks(work, [task], 1, isolate=True)
    if outcome.died is not None:
        raise WorkError(f"the measuring process died ({outcome.died}); out of memory? try fewer --seconds")
    return outcome.result


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Processes that start here compute with one thread: NumPy's products would take all cores."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
