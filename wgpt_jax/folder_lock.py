"""The lock of a folder that one process at a time works in, and who holds it can be asked."""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from wgpt_jax.errors import RequestError

_GLANCE = 1.0
"""Seconds that a process which only asks who holds the lock may hold it at most."""


@contextlib.contextmanager
def locked(folder: Path, name: str, what: str, activity: str) -> Iterator[None]:
    """Makes a folder and holds its lock, which falls when the process ends, however it does.

    A file system that has no locks (some network and bucket mounts) is used without.

    Args:
        folder: made if it is not there.
        name: of the lock's file in it.
        what: what the folder is: ``run folder``.
        activity: what the holder does, for the one who is refused: ``trains in``.

    Raises:
        RequestError: if another process holds it, naming that, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise RequestError(f"cannot write to the {what} {folder}: {error.strerror}") from error
    try:
        patience = time.monotonic() + _GLANCE
        while not (ours := _take(descriptor)) and time.monotonic() < patience:
            time.sleep(0.05)
        if not ours:
            who = holder(folder, name) or "another process"
            raise RequestError(f"{who} {activity} {folder}; wait for it, or stop it")
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
        except OSError as error:
            raise RequestError(f"cannot write to the {what} {folder}: {error.strerror}") from error
        yield
    finally:
        os.close(descriptor)


def holder(folder: Path, name: str) -> str | None:
    """Who holds a folder's lock now, as ``process 123 on host``; None if nobody does."""
    file = folder / name
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
