"""What a worker process has that its tasks do not carry: the device it works on, and where it says how far it is."""

import fcntl
import itertools
import os
from collections.abc import Sequence
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

_place = {"number": 0, "seconds": None}


def enter_workplace(seats: Path, seconds: Synchronized) -> None:
    """Makes this process a worker: run once, when it starts.

    Args:
        seats: a folder; a worker holds a lock on one file in it, so that one which follows a dead worker gets its
            number, and with it its device.
        seconds: shared by all; seconds of audio that are done.
    """
    for number in itertools.count():
        seat = os.open(seats / f"{number}", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(seat, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            os.close(seat)
    _place.update(number=number, seconds=seconds)


def device_of_worker(devices: Sequence[str]) -> str:
    """The device of this process: workers are dealt out over ``devices`` in turn."""
    return devices[_place["number"] % len(devices)]


def note_progress(seconds: float) -> None:
    """Adds seconds of audio to what is done, for the progress bar."""
    if _place["seconds"] is not None:
        with _place["seconds"].get_lock():
            _place["seconds"].value += seconds
