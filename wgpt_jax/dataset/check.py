"""One check and its outcome, a line each."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Literal

_SHOWN = 10  # failures of one check


@dataclasses.dataclass(frozen=True)
class Check:
    """What was checked and how it went; ``note`` is for what could not be checked, and for what is no damage."""

    name: str
    outcome: Literal["ok", "FAILED", "note"]
    text: str

    def __str__(self) -> str:
        return f"{self.outcome:<6} {self.name}: {self.text}"


def passed_or_failed(name: str, failures: Iterable[str], passed: str) -> Iterator[Check]:
    """A line ``ok``, or one for each of the first failures and a last one that counts the others."""
    count = 0
    for failure in failures:
        count += 1
        if count <= _SHOWN:
            yield Check(name, "FAILED", failure)
    if count > _SHOWN:
        yield Check(name, "FAILED", f"... and {count - _SHOWN:,} more")
    if not count:
        yield Check(name, "ok", passed)
