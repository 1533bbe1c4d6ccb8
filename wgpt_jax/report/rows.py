"""The rows that a report is made of: read, and refused where they could not stand in a document."""

import math
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
        RequestError: if there is no file, one cannot be read or has no rows, or a row has an unknown kind, contradicts
            itself or names a folder of the machine that made it.
    """
    if not paths:
        raise RequestError("there are no rows: collect some with tools/collect_results.py")
    rows: list[Row] = []
    for path in paths:
        for number, row in enumerate(whole_rows(path), start=1):
            if row["kind"] not in KINDS:
                raise RequestError(f"{path}: row {number} is of the unknown kind {row['kind']!r}; delete it")
            if row["kind"] == "run" and (wrong := _wrong(row)):
                raise RequestError(f"{path}: row {number} {wrong}; make the run again, or delete the row")
            if found := next(machine_paths(row), None):
                raise RequestError(
                    f"{path}: row {number} names a folder of one machine, {found[1]}, in its {found[0]}; collect it "
                    "with tools/collect_results.py --name FOLDER=NAME"
                )
            if row not in rows:
                rows.append(row)
    if not rows:
        raise RequestError(f"{', '.join(map(str, paths))}: no rows; collect some with tools/collect_results.py")
    return rows


def whole_rows(path: Path) -> list[Row]:
    """The rows of a file that nobody is writing to.

    Raises:
        RequestError: if it cannot be read, a line is no row, or the last one has no end: a part of it may be missing.
    """
    rows = read_rows(path)
    if not path.read_bytes().endswith(b"\n") and path.stat().st_size:
        raise RequestError(f"{path}: the last line has no end; give it one if it is whole, or copy the file again")
    return rows


def _wrong(row: Row) -> str | None:
    """What contradicts itself in a run's row: its documents must make its NLL."""
    try:
        frames = sum(document[1] for document in row["documents"])
        nll, total = (sum(document[part] for document in row["documents"]) / frames for part in (2, 3))
        said = row["evaluation"]["nll"], row["evaluation"]["total_nll"]
    except (KeyError, TypeError, IndexError, ZeroDivisionError) as error:
        return f"lacks something ({error!r})"
    if not all(math.isclose(ours, theirs, rel_tol=1e-6) for ours, theirs in zip((nll, total), said, strict=True)):
        return f"says NLL {said[0]} (all codebooks {said[1]}), its documents say {nll} ({total})"
    return None


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
