import multiprocessing
import os
import signal

import pytest

from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.prepare.engine import run_tasks


def square(number: int) -> int:
    return number * number


def fail_at_two(number: int) -> int:
    if number == 2:
        raise RequestError("two is refused")
    return number


def die_at_two(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_is_done_once(workers):
    assert sorted(run_tasks(square, range(6), workers)) == [0, 1, 4, 9, 16, 25]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_explained_failure_passes_through(workers):
    with pytest.raises(RequestError, match="two is refused"):
        list(run_tasks(fail_at_two, range(4), workers))


def test_a_killed_worker_is_one_sentence():
    with pytest.raises(WorkError, match="same command continues"):
        list(run_tasks(die_at_two, range(4), 2))


def test_no_process_outlives_an_abandoned_run():
    before = set(multiprocessing.active_children())  # other tests' data workers may still be on their way out
    tasks = run_tasks(square, range(50), 2)
    next(tasks)
    assert set(multiprocessing.active_children()) - before
    tasks.close()
    assert not set(multiprocessing.active_children()) - before
