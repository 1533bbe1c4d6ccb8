"""Signals: one asks training to stop after its step, a second one ends it at once."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any


class Interrupt:
    """Turns the first SIGINT or SIGTERM into a request to stop; the next one has its usual effect.

    Outside the main thread (a notebook's executor, say) signals cannot be caught: the caller's handlers stay.
    """

    requested: bool = False
    """Whether a signal came."""

    def __enter__(self) -> "Interrupt":
        self._previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._request)
        return self

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(number, signal.SIG_DFL)
        print("\nstopping after this step; once more ends at once", flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Ignores SIGINT inside; processes started there ignore it for good (an ignored signal is inherited)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
