"""A profiler trace of a window of steps: ``wgpt train --profile START:STOP``."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from wgpt_jax.errors import RequestError


def parse_window(text: str, steps: int) -> tuple[int, int]:
    """``START:STOP``: the trace begins when START steps of the run are done, and ends when STOP are.

    Args:
        text: what the user asked for.
        steps: of the whole run.

    Raises:
        RequestError: if these are not two integers, if no step lies between them, or if the run is shorter.
    """
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if not match:
        raise RequestError(f"--profile {text!r} is no window of steps; give START:STOP, as in 100:110")
    start, stop = int(match[1]), int(match[2])
    if stop <= start:
        raise RequestError(f"--profile {text}: no step lies between {start} and {stop}; STOP must be above START")
    if stop > steps:
        raise RequestError(f"--profile {text}: the run ends at step {steps} (--training.steps)")
    return start, stop


class Profile:
    """Traces whole executed steps: the host waits for the device where the window begins and where it ends.

    Process 0 traces its own devices: all devices run one program, and JAX names a trace's files after the host alone.
    A trace that cannot be made is said, and training goes on.
    """

    def __init__(self, window: tuple[int, int] | None, folder: Path, say: Callable[[str], None]):
        """Profiles steps ``window[0] + 1`` to ``window[1]`` of the run into ``folder``; nothing without a window."""
        self.window = window if jax.process_index() == 0 else None
        self.folder, self.say = folder, say
        self.tracing = False

    def begin(self, step: int, state: Any) -> bool:
        """Before the step after ``step``: begins the trace, if that is where; says whether it waited for ``state``."""
        if self.window is None or step != self.window[0]:
            return False
        jax.block_until_ready(state)
        self.tracing = self._works(self._start)
        if not self.tracing:
            self.window = None
        return True

    def end(self, step: int, state: Any) -> bool:
        """After ``step``: ends the trace, if that is where; says whether it waited for ``state``."""
        if not self.tracing or step != self.window[1]:
            return False
        jax.block_until_ready(state)
        self._stop(step)
        return True

    def close(self, step: int) -> None:
        """After the last step, ``step``, or a failure: ends a trace that was cut short; says if there is none."""
        if self.tracing:
            self._stop(step)
        elif self.window is not None:
            first = self.window[0] + 1
            self.say(f"nothing was profiled: step {first}, with which --profile begins, was not among the steps taken")

    def _start(self) -> None:
        self.folder.mkdir(exist_ok=True)  # now, not after the steps
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # it would slow the host, which small models wait for
        jax.profiler.start_trace(self.folder, create_perfetto_trace=True, profiler_options=options)

    def _stop(self, step: int) -> None:
        if self._works(jax.profiler.stop_trace):
            self.say(
                f"profile of steps {self.window[0] + 1} to {step} in {self.folder}: to see it, pip install xprof and "
                f"run xprof --logdir {self.folder}, or open its perfetto_trace.json.gz at https://ui.perfetto.dev"
            )
        self.tracing, self.window = False, None

    def _works(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except (OSError, RuntimeError, ValueError) as error:
            self.say(f"warning: no profile could be written to {self.folder}: {error}")
            return False
        return True
