"""Who made a row: machine, commit, versions and command, by a number that tables refer to."""

import json
from collections.abc import Sequence

from wgpt_jax.report.numbers import listed, table
from wgpt_jax.report.rows import Row

_KEYS = ("machine", "commit", "versions", "command")
UNKNOWN = "not recorded"


class Provenance:
    """Numbers for the different origins of rows, in the order of the rows."""

    def __init__(self, rows: Sequence[Row]):
        """Of all rows of a report."""
        self._origins: dict[str, int] = {}
        self._counts: dict[int, int] = {}
        self._rows: dict[int, Row] = {}
        for row in rows:
            number = self._origins.setdefault(_origin(row), len(self._origins) + 1)
            self._rows.setdefault(number, row)
            self._counts[number] = self._counts.get(number, 0) + 1

    def made_by(self, rows: Sequence[Row]) -> list[str]:
        """A line that says by which origins some rows were made, and a line's space."""
        numbers = sorted({self._origins[_origin(row)] for row in rows})
        spans: list[list[int]] = []
        for number in numbers:
            if spans and spans[-1][-1] == number - 1:
                spans[-1].append(number)
            else:
                spans.append([number])
        names = [f"{span[0]} to {span[-1]}" if len(span) > 2 else ", ".join(map(str, span)) for span in spans]
        return ["", f"Rows made by {listed(names)} of the table of commands.", ""]

    def lines(self) -> list[str]:
        """The table of origins, and the versions that its letters stand for."""
        heads = ("", "rows", "machine", "commit", "versions", "command")
        rows, letters = [], {}
        for number, row in self._rows.items():
            versions = ", ".join(f"{name} {value}" for name, value in (row.get("versions") or {}).items())
            mark = versions and letters.setdefault(versions, _letter(len(letters)))
            told = [row.get("machine"), row.get("commit"), mark, row.get("command") and f"`{row['command']}`"]
            rows.append([str(number), str(self._counts[number]), *(cell or UNKNOWN for cell in told)])
        notes = [f"Versions {letter}: {versions}." for versions, letter in letters.items()]
        return [*table(heads, rows), *(part for note in notes for part in ("", note))]


def _letter(number: int) -> str:
    """A to Z, then A1 and so on."""
    return chr(ord("A") + number % 26) + (str(number // 26) if number >= 26 else "")


def _origin(row: Row) -> str:
    return json.dumps([row.get(key) for key in _KEYS], sort_keys=True)
