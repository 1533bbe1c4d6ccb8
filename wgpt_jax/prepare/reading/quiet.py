"""Silence for C libraries that write to the terminal."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

_ONE_AT_A_TIME = threading.RLock()  # two threads that swap descriptor 2 would lose the real one


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Sends what C libraries write to stderr (mpg123's warnings) nowhere; they know no other way to be quiet."""
    with _ONE_AT_A_TIME:
        sys.stderr.flush()
        saved = os.dup(2)
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
