"""One shard: its documents converted and written, and its report, which marks it as finished."""

import contextlib
import dataclasses
import json
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from wgpt_jax.data.index import ShardInfo, file_sha256, rows_text
from wgpt_jax.data.records import WRITER_OPTIONS, Record, decode_record, encode_record, pack_streams
from wgpt_jax.data.statistics import Statistics
from wgpt_jax.errors import WorkError
from wgpt_jax.prepare.convert import CHANGED, Conversion, ItemFailed, convert
from wgpt_jax.prepare.inspection import Inspected, file_stamp
from wgpt_jax.prepare.items import Item
from wgpt_jax.prepare.sources.opening import Source
from wgpt_jax.prepare.storage import Storage
from wgpt_jax.prepare.workplace import note_progress

SHARD_SUFFIX, _STATISTICS_SUFFIX = ".array_record", ".statistics.npz"
_REPORT_VERSION = 1


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """A shard to make."""

    name: str
    """Its split and number: ``train-00000``."""
    split: str
    inputs: tuple[Inspected, ...]
    """What goes into it, in order."""


@dataclasses.dataclass(frozen=True)
class StoredDocument:
    """A document of a shard and where it came from."""

    item: Item
    content: str
    """Hash of its audio (:class:`wgpt_jax.prepare.inspection.Inspected`)."""
    frames: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class FailedItem:
    """An item that could be read when it was inspected, and not when its shard was made."""

    item: Item
    reason: str
    stamp: tuple[int, ...]
    """Its file's when it was inspected: it is tried again once that is another."""


@dataclasses.dataclass(frozen=True)
class ShardReport:
    """What became of the items of one shard (``train-00000.json`` beside ``train-00000.array_record``)."""

    shard: ShardInfo
    stamp: tuple[int, int]
    """Size and time of change of the shard's file: while they are these, it needs not be hashed."""
    documents: tuple[StoredDocument, ...]
    failed: tuple[FailedItem, ...]
    version: int = _REPORT_VERSION

    @property
    def name(self) -> str:
        """The shard's name in the plan."""
        return self.shard.file.removesuffix(SHARD_SUFFIX)


@dataclasses.dataclass(frozen=True)
class ShardMaker:
    """Makes shards. It can be sent to other processes."""

    source: Source
    storage: Storage
    conversion: Conversion
    codebook_size: int

    def __call__(self, task: ShardTask) -> ShardReport:
        """Converts the items of a shard and writes it, its statistics and last its report, each in one atomic step.

        If an item cannot be read as it was inspected, the shard is begun again without it. A shard none of whose
        items can be used has a report and nothing else.

        Raises:
            WorkError: if it cannot be written (the disk is full).
        """
        failed: list[FailedItem] = []
        inputs = list(task.inputs)
        while True:
            for entry in tuple(inputs):
                changed = file_stamp(self.source.root, entry.item) != entry.stamp
                if reason := entry.reason or (CHANGED if changed else ""):
                    inputs.remove(entry)
                    failed.append(_failed(entry, reason))
            try:
                return self._make(task, inputs, failed)
            except ItemFailed as error:
                entry = next(entry for entry in inputs if entry.item.name == error.name)
                inputs.remove(entry)
                failed.append(_failed(entry, error.reason))
            except OSError as error:
                raise WorkError(
                    f"cannot write {self.storage.root}/{task.name}{SHARD_SUFFIX} ({error}); free some space, "
                    "the same command continues"
                ) from error

    def _make(self, task: ShardTask, inputs: Sequence[Inspected], failed: Sequence[FailedItem]) -> ShardReport:
        conversion, storage, file = self.conversion, self.storage, task.name + SHARD_SUFFIX
        statistics = Statistics.empty(
            conversion.codebooks, self.codebook_size, len(conversion.mel_sources), conversion.mel.bands
        )
        records, sha256, stamp = 0, "", (0, 0)
        if inputs:
            with storage.scratch(file) as scratch:
                with contextlib.closing(convert(inputs, self.source, conversion)) as documents:
                    records = _write_records(scratch, pack_streams(documents), statistics)
                sha256 = file_sha256(scratch)
                storage.write(task.name + _STATISTICS_SUFFIX, statistics.to_bytes())
                storage.publish(scratch, file)
            stamp = storage.stamp(file) or stamp
        documents = tuple(
            StoredDocument(e.item, e.content, e.frames, round(conversion.clock.seconds(e.frames), 3)) for e in inputs
        )
        info = ShardInfo(file, task.split, sha256, records, len(documents), statistics.frames)
        report = ShardReport(info, stamp, documents, tuple(failed))
        storage.write(f"{task.name}.json", rows_text(dataclasses.asdict(report)).encode())
        return report


def _failed(entry: Inspected, reason: str) -> FailedItem:
    note_progress(entry.seconds)
    return FailedItem(entry.item, reason, entry.stamp)


def is_intact(report: ShardReport, storage: Storage, *, hashed: bool = False) -> bool:
    """Whether a reported shard is there as it was written.

    Args:
        report: of the shard.
        storage: where it is.
        hashed: compare its sha256 even if its size and time of change are as they were.
    """
    if not report.documents:
        return True
    stamp = storage.stamp(report.shard.file)
    if stamp is None or stamp[0] != report.stamp[0] or load_statistics(report, storage) is None:
        return False
    if stamp == report.stamp and not hashed:
        return True
    with storage.fetch(report.shard.file) as path:
        return file_sha256(path) == report.shard.sha256


def load_report(name: str, storage: Storage) -> ShardReport | None:
    """Reads the report of a shard; None if there is none, or a damaged one."""
    try:
        return report_from_json(storage.read(f"{name}.json") or b"")
    except (ValueError, TypeError, KeyError):
        return None


def report_from_json(text: bytes) -> ShardReport:
    """Reads a report's text; ValueError, TypeError or KeyError if it is none."""
    fields: dict[str, Any] = json.loads(text)
    if fields["version"] != _REPORT_VERSION:
        raise ValueError("of another version")
    return ShardReport(
        shard=ShardInfo(**fields["shard"]),
        stamp=tuple(fields["stamp"]),
        documents=tuple(StoredDocument(**d | {"item": Item(**d["item"])}) for d in fields["documents"]),
        failed=tuple(FailedItem(Item(**f["item"]), f["reason"], tuple(f["stamp"])) for f in fields["failed"]),
    )


def load_statistics(report: ShardReport, storage: Storage) -> Statistics | None:
    """Reads the statistics of a shard; None if they are missing or damaged."""
    data = storage.read(report.name + _STATISTICS_SUFFIX)
    try:
        return None if data is None else Statistics.from_bytes(data)
    except (ValueError, KeyError, OSError, EOFError, IndexError, zipfile.BadZipFile, zlib.error):
        return None


def read_records(path: Path) -> Iterator[Record]:
    """Records of a shard, in order."""
    reader = ArrayRecordReader(str(path))
    try:
        for i in range(reader.num_records()):
            yield decode_record(reader.read([i])[0])
    finally:
        reader.close()


def _write_records(path: Path, records: Iterator[Record], statistics: Statistics) -> int:
    with _runtime_as_os_error():
        writer = ArrayRecordWriter(str(path), WRITER_OPTIONS)
    count = 0
    try:
        for record in records:
            with _runtime_as_os_error():
                writer.write(encode_record(record))
            statistics.add_record(record)
            count += 1
    finally:
        with _runtime_as_os_error():
            writer.close()
    return count


@contextlib.contextmanager
def _runtime_as_os_error() -> Iterator[None]:
    """ArrayRecord reports a full disk as a RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(str(error).split(";")[0]) from error
