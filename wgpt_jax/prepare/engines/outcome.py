"""What an engine says of each task."""

import dataclasses
from typing import Generic, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Outcome(Generic[Task, Result]):
    """One task, and its result or why there is none."""

    task: Task
    result: Result | None
    """What the work returned; None if its process died."""
    died: str | None = None
    """Why its process ended before its time: ``killed by SIGKILL``, ``exit code 3``, ``took longer than 60 s``."""
