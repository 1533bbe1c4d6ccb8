"""The rows that a report is made of: read, and refused where they could not stand in a document."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from wgpt_jax.ablation.results import read_rows
from wgpt_jax.errors import RequestError

Row = dict[str, Any]
KINDS = ("run", "failed", "baseline", "markov", "closed_loop", "data")
_ABSOLUTE = re.compile(r"(?:^|[\s=:'\"(,])(/[\w.-]+(?:/[\w.-]+)*)")
"""A folder of some machine: a path from the root, which no other machine has."""


def load_rows(paths: Sequence[Path]) -> list[Row]:
    """The rows of some files, in their order; rows that are equal in everything count once.

    Raises:
        RequestError: if there is no file, one cannot be read, or a row has an unknown kind or names a folder of the
            machine that made it.
    """
    if not paths:
        raise RequestError("there are no rows: collect some with tools/collect_results.py")
    rows: list[Row] = []
    for path in paths:
        for number, row in enumerate(read_rows(path), start=1):
            if row["kind"] not in KINDS:
                raise RequestError(f"{path}: row {number} is of the unknown kind {row['kind']!r}; delete it")
            if found := next(machine_paths(row), None):
                raise RequestError(
                    f"{path}: row {number} names a folder of one machine, {found[1]}, in its {found[0]}; collect it "
                    "with tools/collect_results.py --name FOLDER=NAME"
                )
            if row not in rows:
                rows.append(row)
    return rows


def machine_paths(value: Any, key: str = "row") -> Iterator[tuple[str, str]]:
    """Every (key, absolute path) in the strings of a row."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from machine_paths(part, name)
    elif isinstance(value, list):
        for part in value:
            yield from machine_paths(part, key)
    elif isinstance(value, str):
        yield from ((key, found[1]) for found in _ABSOLUTE.finditer(value))


def of_kind(rows: Sequence[Row], kind: str) -> list[Row]:
    """The rows of a kind."""
    return [row for row in rows if row["kind"] == kind]
