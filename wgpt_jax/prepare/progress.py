"""How far a preparation is: a bar on a terminal, a line now and then elsewhere."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.sharedctypes import Synchronized

from tqdm import tqdm

_REDRAW, _LINE_EVERY = 0.5, 60.0  # seconds


@contextlib.contextmanager
def show_made(total: float, begun: float, unit: str, digits: int, shown: bool) -> Iterator[Callable[[float], None]]:
    """Shows how much of a corpus is made.

    Args:
        total: all there is to be, in ``unit``.
        begun: of it, what is there already.
        unit: what is counted, as ``h``.
        digits: behind the point.
        shown: False shows nothing.

    Yields:
        a function that is told how much more was made.
    """
    terminal, next_line = sys.stderr.isatty(), time.monotonic() + _LINE_EVERY
    layout = f"{{l_bar}}{{bar}}| {{n:.{digits}f}}/{{total:.{digits}f}} {unit} [{{elapsed}}<{{remaining}}]"

    def note(more: float) -> None:
        nonlocal begun, next_line
        begun = min(begun + more, total)  # rounding would take it past its end
        bar.update(begun - bar.n)
        if shown and not terminal and time.monotonic() > next_line:
            print(f"made {begun:.{digits}f} of {total:.{digits}f} {unit}", file=sys.stderr, flush=True)
            next_line += _LINE_EVERY

    with tqdm(total=total, initial=begun, bar_format=layout, disable=not (shown and terminal)) as bar:
        yield note


@contextlib.contextmanager
def show_progress(total: float, seconds: Synchronized) -> Iterator[Callable[[int], None]]:
    """Shows hours of audio done, the speed in x realtime, the time left, and failures.

    Args:
        total: seconds of audio to do; nothing is shown if there are none.
        seconds: done so far; a thread looks at it.

    Yields:
        a function that is told of further failures.
    """
    failures, done, begin = [0], threading.Event(), time.monotonic()
    layout = "{l_bar}{bar}| {n:.2f}/{total:.2f} h [{elapsed}<{remaining}{postfix}]"
    terminal = sys.stderr.isatty()
    next_line = begin + _LINE_EVERY

    def watch() -> None:
        nonlocal next_line
        while not done.wait(_REDRAW):
            if terminal:
                draw()
            elif time.monotonic() > next_line:
                print(_line(seconds.value, total, time.monotonic() - begin, failures[0]), file=sys.stderr, flush=True)
                next_line += _LINE_EVERY

    def draw() -> None:
        bar.n = min(seconds.value, total) / 3600
        speed = seconds.value / max(time.monotonic() - begin, 1e-3)
        bar.set_postfix_str(f"{speed:.0f}x realtime, {failures[0]} failed")

    def note(count: int) -> None:
        failures[0] += count

    with tqdm(total=total / 3600, bar_format=layout, disable=not (terminal and total), file=sys.stderr) as bar:
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield note
        finally:
            done.set()
            watcher.join()
            draw()


def _line(done: float, total: float, elapsed: float, failures: int) -> str:
    speed = done / elapsed
    left = f"{(total - done) / speed / 60:.0f} minutes left" if done else "no estimate yet"
    return (
        f"prepared {done / 3600:.2f} of {total / 3600:.2f} h, {speed:.0f}x realtime, {left}"
        + (f", {failures} failed" if failures else "")
    )  # fmt: skip
