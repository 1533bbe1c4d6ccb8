"""A JSON-lines manifest as a source: one line per utterance, with whatever is known of it."""

import contextlib
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from wgpt_jax.data.index import SPLITS
from wgpt_jax.errors import RequestError
from wgpt_jax.prepare.items import DEFAULT_DOMAIN, Item
from wgpt_jax.prepare.reading.sound import Sound
from wgpt_jax.prepare.sources.folder import open_item
from wgpt_jax.prepare.storage import has_scheme, local_copy

SUFFIXES = (".jsonl", ".ndjson")
"""What tells a manifest from a folder."""

_COLUMNS = ("path", "name", "start", "end", "split", "domain", "speaker")
_SPLIT_NAMES = {name: name for name in SPLITS} | {"dev": "validation", "valid": "validation", "eval": "test"}


@dataclasses.dataclass(frozen=True)
class ManifestSource:
    """The lines of a manifest."""

    manifest: str
    """The file; with a scheme (``gs://``) if Beam's file systems are to read it."""
    root: str
    """What its paths are relative to: the folder that it lies in."""
    resplit: bool = False
    """Whether its ``split`` column is ignored."""

    def items(self) -> list[Item]:
        """One item per line, sorted by name.

        Raises:
            RequestError: if a line is not as :func:`parse_line` wants it, or two have one name, naming the lines.
        """
        items: dict[str, Item] = {}
        numbers: dict[str, int] = {}
        for number, line in enumerate(self._lines(), 1):
            if not line.strip():
                continue
            where = f"{self.manifest}, line {number}"
            item = parse_line(line, where)
            if item.name in items:
                raise RequestError(
                    f"{where}: {item.name} is the name of line {numbers[item.name]} already; give each its own"
                )
            items[item.name] = dataclasses.replace(item, split=None) if self.resplit else item
            numbers[item.name] = number
        return [items[name] for name in sorted(items)]

    def _lines(self) -> list[str]:
        try:
            with local_copy(self.manifest) as path:
                return path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeError) as error:
            raise RequestError(f"cannot read the manifest {self.manifest} ({error})") from error

    def open(self, item: Item) -> contextlib.AbstractContextManager[Sound]:
        """Opens an item's audio; SourceError if that cannot be."""
        return open_item(self.root, item)

    def describe(self, item: Item) -> Item:
        """The item itself: its line has said everything."""
        return item


def open_manifest(path: str, resplit: bool) -> ManifestSource:
    """A manifest as a source.

    Raises:
        RequestError: if there is no such file.
    """
    if not has_scheme(path):
        if not Path(path).is_file():
            raise RequestError(f"there is no manifest {path}")
        path = Path(path).resolve().as_posix()
    return ManifestSource(path, path.rpartition("/")[0], resplit)


def parse_line(line: str, where: str) -> Item:
    """An item from a line of a manifest.

    ``path`` is needed; ``name`` (by default the path, with the seconds for a part of a file), ``start`` and ``end`` in
    seconds, ``split``, ``domain`` and ``speaker`` are known; all else is metadata.

    Args:
        line: a JSON object.
        where: names it in errors.

    Raises:
        RequestError: if it is no object, a known column has a value that it cannot have, or ``path`` is missing.
    """
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise RequestError(f"{where}: not JSON ({error})") from error
    if not isinstance(fields, dict):
        raise RequestError(f'{where}: not a JSON object; each line is like {{"path": "a.wav", "speaker": "ann"}}')
    path = _text(fields, "path", where)
    if not path:
        raise RequestError(f'{where}: no "path", the audio file')
    start, end = _seconds(fields, "start", where), _seconds(fields, "end", where)
    if end is not None and end <= (start or 0.0):
        raise RequestError(f"{where}: end {end:g} is not after start {start or 0.0:g}")
    part = start is not None or end is not None
    default = f"{path}@{start or 0.0:g}-{'' if end is None else f'{end:g}'}" if part else path
    split = _text(fields, "split", where)
    if split and split not in _SPLIT_NAMES:
        raise RequestError(f"{where}: split {split!r} is none of {', '.join(SPLITS)} (or dev, valid, eval)")
    return Item(
        name=_text(fields, "name", where) or default,
        path=path,
        start=start or 0.0,
        end=end,
        split=_SPLIT_NAMES[split] if split else None,
        domain=_text(fields, "domain", where) or DEFAULT_DOMAIN,
        speaker=_text(fields, "speaker", where),
        metadata={key: value for key, value in fields.items() if key not in _COLUMNS},
    )


def _text(fields: dict[str, Any], key: str, where: str) -> str:
    value = fields.get(key)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RequestError(f"{where}: {key} is {json.dumps(value)[:60]}, not a text")
    return str(value)


def _seconds(fields: dict[str, Any], key: str, where: str) -> float | None:
    value = fields.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise RequestError(f"{where}: {key} is {json.dumps(value)[:60]}, not a number of seconds")
    return float(value)
