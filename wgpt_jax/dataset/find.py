"""A document of a prepared data set by what a person remembers of its name."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from wgpt_jax.dataset.folder import Prepared, name_of, printable
from wgpt_jax.errors import RequestError

_LISTED = 8


def find_document(prepared: Prepared, wanted: str) -> dict[str, Any]:
    """The input that is meant: by its name, else the id in its metadata, else how its name ends, else a part of it.

    Raises:
        RequestError: if there is none, more than one, or it was not used; with the names that are nearest.
    """
    used = prepared.used()
    if wanted in used:
        return used[wanted]
    names: Sequence[str] = [name for name, row in used.items() if _id(row) == wanted]
    names = names or [name for name in used if name.endswith(wanted)]
    names = names or [name for name in used if wanted.lower() in name.lower()]
    if len(names) == 1:
        return used[names[0]]
    if names:
        raise RequestError(f"--utt {wanted!r} is one of {len(names):,} documents: {_listed(sorted(names))}")
    for row in prepared.inputs:
        if name_of(row) == wanted:
            raise RequestError(f"{printable(wanted)} was not used ({row['fate']}: {row['reason']})")
    near = difflib.get_close_matches(wanted, used, n=3, cutoff=0.5)
    if not near:  # a name without its folders, or without its suffix, is far from the whole
        short = {name.rsplit("/", 1)[-1]: name for name in used}
        near = [short[name] for name in difflib.get_close_matches(wanted, short, n=3, cutoff=0.5)]
    hint = f"did you mean {_listed(near)}?" if near else f"there are {_listed(sorted(used))}"
    raise RequestError(f"no document {wanted!r}; {hint}")


def _id(row: dict[str, Any]) -> str | None:
    metadata = row.get("metadata")
    return str(metadata["id"]) if isinstance(metadata, dict) and "id" in metadata else None


def _listed(names: Iterable[str]) -> str:
    names = [printable(name) for name in names]
    return ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
