"""The first look at every item: it is decoded once, before anything is planned, and what that finds is kept.

So a shard is planned from what can be decoded to its end, with its exact length, and duplicates are known before splits
are drawn. Decoding costs a hundredth of encoding.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from wgpt_jax.audio.clock import Clock
from wgpt_jax.prepare.items import Item, SourceError
from wgpt_jax.prepare.reading.mono import mono_blocks
from wgpt_jax.prepare.sources.folder import located
from wgpt_jax.prepare.sources.opening import Source
from wgpt_jax.prepare.storage import Storage

LEDGER_NAME = "inspected.jsonl"


@dataclasses.dataclass(frozen=True)
class Inspected:
    """An item and what decoding it has shown."""

    item: Item
    stamp: tuple[int, ...]
    """Size and time of change (ns) of its file before it was read; empty if the file is remote or not there."""
    rate: int = 0
    """Hz."""
    samples: int = 0
    """Samples per channel, at its own rate."""
    frames: int = 0
    """Whole frames on the codec's clock, F."""
    content: str = ""
    """Hash of its samples, mixed down, as 16-bit integers: equal for copies, also in another lossless format."""
    reason: str = ""
    """Why it cannot be used; empty if it can."""

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.samples / self.rate if self.rate else 0.0


@dataclasses.dataclass(frozen=True)
class Inspector:
    """How items are inspected. It can be sent to other processes."""

    source: Source
    clock: Clock
    channel: int | None

    def __call__(self, items: Sequence[Item]) -> list[Inspected]:
        """Inspects items one after the other."""
        return [self.inspect(item) for item in items]

    def inspect(self, item: Item) -> Inspected:
        """Decodes an item to its end."""
        stamp = file_stamp(self.source.root, item)
        try:
            item = self.source.describe(item)
            with self.source.open(item) as sound:
                rate, samples, digest = sound.rate, 0, hashlib.sha256(f"{sound.rate}:".encode())
                for block in mono_blocks(sound, self.channel):
                    samples += len(block)
                    digest.update(np.clip(np.rint(block * 32768), -32768, 32767).astype("<i2").tobytes())
        except (SourceError, MemoryError) as error:
            return Inspected(item, stamp, reason=str(error) or "needs more memory than there is")
        # As soxr rounds: test_reading compares.
        frames = self.clock.frames(int(samples * self.clock.sample_rate / rate + 0.5))
        reason = "" if frames else f"shorter than one frame ({1000 * self.clock.seconds(1):.1f} ms)"
        if file_stamp(self.source.root, item) != stamp:
            reason = "it changed while it was read; run the same command again"
        return Inspected(item, stamp, rate, samples, frames, digest.hexdigest()[:32], reason)


def file_stamp(root: str, item: Item) -> tuple[int, ...]:
    """Size and time of the last change of an item's file; empty if it is remote, or gone."""
    try:
        status = os.stat(located(root, item.path))
    except (OSError, ValueError):
        return ()
    return status.st_size, status.st_mtime_ns


class Ledger:
    """``inspected.jsonl``: what inspection has found, so that no file is inspected twice."""

    def __init__(self, storage: Storage):
        """Reads the ledger of a data set; a missing one is empty, damaged lines are inspected again."""
        self._storage = storage
        self._lines: dict[str, dict[str, Any]] = {}
        for line in (storage.read(LEDGER_NAME) or b"").splitlines():
            try:
                fields = json.loads(line)
                self._lines[fields["name"]] = fields
            except (ValueError, TypeError, KeyError):
                continue

    def get(self, item: Item, root: str) -> Inspected | None:
        """What is known of an item; None if it is new, or is another part of a file or another file than it was."""
        try:
            fields = self._lines[item.name]
            if fields["where"] != _where(item) or tuple(fields["stamp"]) != file_stamp(root, item):
                return None
            item = dataclasses.replace(item, **fields["said"])
            return Inspected(item, tuple(fields["stamp"]), *(fields[key] for key in _FOUND))
        except (KeyError, TypeError):
            return None

    def add(self, listed: Iterable[Item], inspected: Iterable[Inspected]) -> None:
        """Takes in what inspection has found of ``listed``."""
        for before, found in zip(listed, inspected, strict=True):
            said = {key: getattr(found.item, key) for key in ("speaker", "metadata")}
            said = {key: value for key, value in said.items() if value != getattr(before, key)}
            fields = {"name": before.name, "where": _where(before), "stamp": found.stamp, "said": said}
            self._lines[before.name] = fields | {key: getattr(found, key) for key in _FOUND}

    def save(self) -> None:
        """Writes the ledger in one atomic step."""
        text = "".join(f"{json.dumps(self._lines[name])}\n" for name in sorted(self._lines))
        self._storage.write(LEDGER_NAME, text.encode())


_FOUND = ("rate", "samples", "frames", "content", "reason")


def _where(item: Item) -> list[Any]:
    return [item.path, item.start, item.end, item.record]
