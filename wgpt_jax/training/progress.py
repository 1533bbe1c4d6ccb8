"""Progress on a terminal as a bar, in a log file or a notebook as a line now and then."""

import sys
import time

from tqdm import tqdm

_SECONDS = 10.0
"""Between two lines where there is no terminal."""


class Progress:
    """How far a run is."""

    def __init__(self, step: int, steps: int):
        """Begins at ``step`` of ``steps``."""
        self.step, self.steps, self._text = step, steps, ""
        self._told_at, self._told_step = 0.0, step
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=steps, initial=step, unit="step", dynamic_ncols=True, mininterval=0.5)

    def describe(self, text: str) -> None:
        """What to say of the step that the next :meth:`advance` reaches."""
        self._text = text
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)

    def advance(self, step: int) -> None:
        """Moves to a step that the host has waited for: what is only dispatched is not done."""
        self.step = step
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
        elif self._text and (step == self.steps or time.monotonic() - self._told_at >= _SECONDS):
            self._tell()

    def say(self, message: str) -> None:
        """Prints a line, above the bar if there is one."""
        if self._bar is not None:
            tqdm.write(message)
        else:
            print(message, flush=True)

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()
        elif self._text and self.step > self._told_step:
            self._tell()

    def _tell(self) -> None:
        if self.step > self._told_step:
            self._told_at, self._told_step = time.monotonic(), self.step
            print(f"step {self.step:,} of {self.steps:,}: {self._text}", flush=True)
