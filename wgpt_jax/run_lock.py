"""The lock of a run folder: one training at a time, and who holds it can be asked."""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator

from wgpt_jax.errors import RequestError
from wgpt_jax.runs import RunFolder

LOCK_NAME = "training.lock"
_GLANCE = 1.0
"""Seconds that a process which only asks who holds the lock may hold it at most."""


@contextlib.contextmanager
def locked(run: RunFolder) -> Iterator[None]:
    """Makes a run folder and holds its lock, which falls when the process ends, however it does.

    A file system that has no locks (some network and bucket mounts) is used without.

    Raises:
        RequestError: if another process holds it, naming that, or the folder cannot be written.
    """
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(run.path / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise RequestError(f"cannot write to the run folder {run.path}: {error.strerror}") from error
    try:
        patience = time.monotonic() + _GLANCE
        while not (ours := _take(descriptor)) and time.monotonic() < patience:
            time.sleep(0.05)
        if not ours:
            raise RequestError(f"{holder(run) or 'another process'} trains in {run.path}; wait for it, or stop it")
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
        except OSError as error:
            raise RequestError(f"cannot write to the run folder {run.path}: {error.strerror}") from error
        yield
    finally:
        os.close(descriptor)


def holder(run: RunFolder) -> str | None:
    """Who trains in a run folder now, as ``process 123 on host``; None if nobody does."""
    file = run.path / LOCK_NAME
    if not file.exists():
        return None
    descriptor = os.open(file, os.O_RDONLY)
    try:
        if _take(descriptor, shared=True):
            return None
        text = os.read(descriptor, 1 << 12).decode(errors="replace")
    finally:
        os.close(descriptor)
    try:
        fields = json.loads(text)
        return f"process {fields['pid']} on {fields['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def _take(descriptor: int, *, shared: bool = False) -> bool:
    """Takes the lock, if nobody holds it; whether the file system has locks at all does not matter."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
