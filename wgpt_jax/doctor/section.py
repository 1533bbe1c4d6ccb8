"""What ``wgpt doctor`` finds out, in parts: facts for scripts, rows for people, and what is wrong."""

import dataclasses
from typing import Any

_GIB, _MIB = 2**30, 2**20


def in_bytes(size: float) -> str:
    """A number of bytes for people."""
    return f"{size / _GIB:.2f} GiB" if size >= 0.1 * _GIB else f"{size / _MIB:.2f} MiB"


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something missing or wrong, with its remedy."""

    text: str
    stops_training: bool


@dataclasses.dataclass
class Section:
    """One part of the report."""

    name: str
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What ``--json`` prints."""
    rows: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    """Label and text of each line."""
    problems: list[Problem] = dataclasses.field(default_factory=list)

    @property
    def stops_training(self) -> bool:
        """Whether anything here does."""
        return any(problem.stops_training for problem in self.problems)

    def say(self, label: str, text: str, **facts: Any) -> None:
        """Adds a row, and the facts that it tells."""
        self.rows.append((label, text))
        self.facts.update(facts)

    def stop(self, problem: object) -> None:
        """Adds something that stops training: a sentence, or the error that training would end with."""
        self.problems.append(Problem(str(problem), True))

    def warn(self, text: str) -> None:
        """Adds something that may be wrong."""
        self.problems.append(Problem(text, False))
