"""The records of a split, whichever shard they lie in, and what to say of a shard that is damaged."""

import bisect
import itertools
import os
import sys
from pathlib import Path

from grain.sources import ArrayRecordDataSource

from wgpt_jax.data.index import DataIndex, file_sha256
from wgpt_jax.data.records import Record, decode_record
from wgpt_jax.data.workers import death_of_worker
from wgpt_jax.errors import RequestError, WorkError

_SEARCH_IS_LONG = 10**9  # bytes to hash, from which on the search is announced
_REMEDY = "run the same tools/prepare_audio.py command again, it makes damaged shards anew"


class UnreadableRecord(RuntimeError):
    """A record that cannot be read or decoded; the message begins with the path of its shard."""


class SplitRecords:
    """Random access to the records of a split. It can be sent to other processes, and so can what it raises."""

    def __init__(self, folder: str | os.PathLike, index: DataIndex, split: str):
        """Opens the shards of ``split``.

        Raises:
            RequestError: if the split is empty.
            WorkError: if a shard cannot be opened, or holds more or fewer records than the index says.
        """
        shards = index.split(split)
        self._stored = open_split(folder, index, split)
        self._paths = [Path(folder) / shard.file for shard in shards]
        self._ends = list(itertools.accumulate(shard.records for shard in shards))
        if len(self._stored) != self._ends[-1]:
            for path, shard in zip(self._paths, shards, strict=True):
                found = _count_records(path)
                if found != shard.records:
                    raise WorkError(f"shard {path} holds {found} records, the index says {shard.records}; {_REMEDY}")

    def __len__(self) -> int:
        return len(self._stored)

    def __getitem__(self, key: int) -> Record:
        """Record ``key``, counted over all shards.

        Raises:
            UnreadableRecord: if it cannot be read, or is none.
        """
        try:
            return decode_record(self._stored[key])
        except (RuntimeError, OSError, ValueError, RequestError) as error:
            path = self._paths[bisect.bisect_right(self._ends, key)]
            raise UnreadableRecord(f"{path}: {_first_line(error)}") from error


def open_split(folder: str | os.PathLike, index: DataIndex, split: str) -> ArrayRecordDataSource:
    """Random access to the records of a split, as bytes.

    Raises:
        RequestError: if the split is empty.
        WorkError: if a shard cannot be opened.
    """
    paths = [str(Path(folder) / shard.file) for shard in index.split(split)]
    try:
        return ArrayRecordDataSource(paths)
    except (RuntimeError, OSError, ValueError) as error:
        raise WorkError(describe_damage(folder, index, split, error)) from error


def describe_damage(folder: str | os.PathLike, index: DataIndex, split: str, error: Exception) -> str:
    """A sentence about batches or records that did not come: why not, and the remedy.

    If ``error`` names a shard, as :class:`UnreadableRecord` does, only that one is compared with its sha256 in the
    index; if it tells of a worker's death or of the system's limits, none. Otherwise all are until one differs, first
    those that do not open or do not hold as many records as the index says; a line on stderr says so if that is more
    than a gigabyte.

    Args:
        folder: prepared data.
        index: its index.
        split: which split was being read.
        error: what reading raised.
    """
    death = death_of_worker(error)
    if death is not None:
        return death
    shards = [(Path(folder) / shard.file, shard) for shard in index.split(split)]
    suspects = [(path, shard) for path, shard in shards if str(path) in str(error)]
    if not suspects and not isinstance(error, OSError):  # those are of processes and queues: ArrayRecord raises others
        suspects = shards
    size = sum(path.stat().st_size for path, _ in suspects if path.is_file())
    if size > _SEARCH_IS_LONG:
        count = f"{len(suspects)} file{'s' if len(suspects) > 1 else ''}"
        print(f"looking for the damaged shard: hashing {count}, {size / 1e9:.1f} GB", file=sys.stderr, flush=True)
    if len(suspects) > 1:
        suspects = sorted(suspects, key=lambda pair: _count_records(pair[0]) == pair[1].records)
    for path, shard in suspects:
        if not _is_as_written(path, shard.sha256):
            return f"shard {path} is damaged (its sha256 is not {shard.sha256}); {_REMEDY}"
    return f"cannot read the {split} shards in {folder}: {_first_line(error)}"


def _count_records(path: Path) -> int | None:
    """Records in a shard by its footer, which is quick to read; None if that cannot be read."""
    try:
        return len(ArrayRecordDataSource([str(path)]))
    except (RuntimeError, OSError, ValueError):
        return None


def _is_as_written(path: Path, sha256: str) -> bool:
    try:
        return file_sha256(path) == sha256
    except OSError:
        return False


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
