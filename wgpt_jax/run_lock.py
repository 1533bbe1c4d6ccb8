"""The lock of a run folder: one training at a time, and who holds it can be asked."""

from contextlib import AbstractContextManager

from wgpt_jax import folder_lock
from wgpt_jax.runs import RunFolder

LOCK_NAME = "training.lock"


def locked(run: RunFolder) -> AbstractContextManager[None]:
    """Makes a run folder and holds its lock (:func:`wgpt_jax.folder_lock.locked`)."""
    return folder_lock.locked(run.path, LOCK_NAME, "run folder", "trains in")


def holder(run: RunFolder) -> str | None:
    """Who trains in a run folder now, as ``process 123 on host``; None if nobody does."""
    return folder_lock.holder(run.path, LOCK_NAME)
