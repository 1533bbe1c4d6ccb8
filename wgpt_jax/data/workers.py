"""Data workers: processes that do not outlive the one they read for, and whose deaths are explained.

Workers load this module first of all: it imports the standard library only.
"""

import multiprocessing
import os
import re
import signal
import threading
import time

_REST = 1.0  # seconds
_DEATH = re.compile(r"Worker process was terminated unexpectedly with exit code (-?\d+)")  # Grain's words
_CAUSES = {
    -signal.SIGKILL: "killed, most often because memory ran out",
    -signal.SIGBUS: "most often because /dev/shm is full; give a container more with --shm-size",
}


def end_with_parent(worker: int, workers: int) -> None:
    """Has this worker process end soon after its parent does, in whatever way that ends.

    Grain calls it in each worker before anything is read. Linux's PDEATHSIG would not do: it follows the thread that
    started the process, and Grain starts workers from threads that end.

    Args:
        worker: number of this worker, unused.
        workers: how many there are, unused.
    """
    threading.Thread(target=_end_after_parent, name="end-with-parent", daemon=True).start()


def _end_after_parent() -> None:
    multiprocessing.parent_process().join()
    # Shared memory is made first and then told to multiprocessing's resource tracker, which frees it when the last
    # worker is gone. An exit in between would leave it behind; but nobody empties the queues now, so workers come to
    # rest.
    time.sleep(_REST)
    os._exit(1)


def death_of_worker(error: Exception) -> str | None:
    """A sentence about the worker whose death ``error`` reports; None if it reports none."""
    found = _DEATH.search(str(error))
    if found is None:
        return None
    cause = _CAUSES.get(int(found[1]), "its last lines may say why")
    return (
        f"a data worker died with exit code {found[1]} ({cause}); run the same command again with fewer "
        "--data.workers, or 0 for threads"
    )
