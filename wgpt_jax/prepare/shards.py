"""One shard: its documents converted and written, and its report, which marks it as finished."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from wgpt_jax.data.index import ShardInfo, file_sha256
from wgpt_jax.data.records import (
    WRITER_OPTIONS,
    Document,
    Record,
    decode_record,
    encode_record,
    pack_documents,
)
from wgpt_jax.errors import WorkError
from wgpt_jax.prepare.convert import Conversion, convert_file
from wgpt_jax.prepare.plan import ShardPlan
from wgpt_jax.prepare.sources import SourceError
from wgpt_jax.prepare.splits import speaker_of

_SUFFIX = ".array_record"


@dataclasses.dataclass(frozen=True)
class ShardReport:
    """What became of the files of one shard (``train-00000.json`` beside ``train-00000.array_record``)."""

    shard: ShardInfo
    documents: list[dict[str, Any]]
    """Per document ``name``, ``domain``, ``speaker``, ``frames``, ``seconds``."""
    failed: list[dict[str, Any]]
    """Per file that failed ``path``, ``reason``, and ``stamp``: its size and time of change, to see a repair."""

    @property
    def name(self) -> str:
        """The shard's name in the plan."""
        return self.shard.file.removesuffix(_SUFFIX)


def write_shard(plan: ShardPlan, root: Path, out: Path, conversion: Conversion) -> ShardReport:
    """Converts the files of a shard and writes it: first to a temporary file, then in one atomic step.

    A shard none of whose files can be used has a report and no ArrayRecord file.

    Raises:
        WorkError: if the shard cannot be written (the disk is full).
    """
    path = out / f"{plan.name}{_SUFFIX}"
    temporary = path.with_suffix(".tmp")
    documents: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []

    def convert_all() -> Iterator[Document]:
        for name in plan.files:
            try:
                document = convert_file(name, root, conversion)
            except (SourceError, MemoryError) as error:
                reason = str(error) or "needs more memory than there is"
                failed.append({"path": name, "reason": reason, "stamp": file_stamp(root / name)})
                continue
            documents.append(
                {
                    "name": name,
                    "domain": document.domain,
                    "speaker": speaker_of(name, conversion.domains),
                    "frames": len(document.tokens),
                    "seconds": round(conversion.clock.seconds(len(document.tokens)), 3),
                }
            )
            yield document

    try:
        records = _write_records(temporary, pack_documents(convert_all()))
        if documents:
            os.replace(temporary, path)
        sha256 = file_sha256(path) if documents else ""
        info = ShardInfo(path.name, plan.split, sha256, records, len(documents), sum(d["frames"] for d in documents))
        report = ShardReport(info, documents, failed)
        _save_report(report, out / f"{plan.name}.json")
    except OSError as error:
        raise WorkError(f"cannot write {path} ({error}); free some space, the same command continues") from error
    finally:
        temporary.unlink(missing_ok=True)
    return report


def finished(plan: ShardPlan, out: Path) -> ShardReport | None:
    """The report of a finished shard; None if it is to be made (again): missing, or not the bytes that were written."""
    report = load_report(out / f"{plan.name}.json")
    if report is None or not report.documents:
        return report
    path = out / report.shard.file
    return report if path.is_file() and file_sha256(path) == report.shard.sha256 else None


def load_report(path: Path) -> ShardReport | None:
    """Reads a report; None if there is none, or a damaged one."""
    try:
        fields = json.loads(path.read_text())
        return ShardReport(ShardInfo(**fields["shard"]), fields["documents"], fields["failed"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def read_records(path: Path) -> Iterator[Record]:
    """Records of a shard, in order."""
    reader = ArrayRecordReader(str(path))
    try:
        for i in range(reader.num_records()):
            yield decode_record(reader.read([i])[0])
    finally:
        reader.close()


def file_stamp(path: Path) -> list[int]:
    """Size and time of the last change; empty if the file is gone."""
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def _write_records(path: Path, records: Iterator[Record]) -> int:
    with _runtime_as_os_error():
        writer = ArrayRecordWriter(str(path), WRITER_OPTIONS)
    count = 0
    try:
        for record in records:
            with _runtime_as_os_error():
                writer.write(encode_record(record))
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


def _save_report(report: ShardReport, path: Path) -> None:
    temporary = path.with_suffix(".json.tmp")
    temporary.write_text(json.dumps(dataclasses.asdict(report), indent=1) + "\n")
    os.replace(temporary, path)
