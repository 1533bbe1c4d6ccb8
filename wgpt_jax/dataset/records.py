"""The records of one shard, one at a time, as far as they can be read; needs nothing that preparing does."""

from pathlib import Path

from array_record.python.array_record_module import ArrayRecordReader

from wgpt_jax.data.records import Record, decode_record
from wgpt_jax.errors import RequestError


class UnreadableError(Exception):
    """A shard or a record cannot be read; the message says why in a few words."""


class ShardReader:
    """Random access to a shard; a context manager."""

    def __init__(self, path: Path):
        """Opens a shard; UnreadableError if that cannot be."""
        try:
            if not path.is_file():
                raise UnreadableError("it is not there")
            self._reader = ArrayRecordReader(str(path))
            self._count = self._reader.num_records()
        except (RuntimeError, OSError, ValueError) as error:
            raise UnreadableError(f"it cannot be opened ({_brief(error)})") from error

    def __enter__(self) -> "ShardReader":
        return self

    def __exit__(self, *failure) -> None:
        try:
            self._reader.close()  # which tells of a file that was cut
        except (RuntimeError, OSError, ValueError) as error:
            if failure[0] is None:
                raise UnreadableError(f"it ends too early ({_brief(error)})") from error

    def __len__(self) -> int:
        return self._count

    def read(self, number: int) -> Record:
        """Record ``number``; UnreadableError if it cannot be read or decoded."""
        try:
            return decode_record(self._reader.read([number])[0])
        except (RuntimeError, OSError, ValueError, IndexError, RequestError) as error:
            raise UnreadableError(_brief(error).removesuffix("; prepare the data again")) from error


def _brief(error: Exception) -> str:
    """ArrayRecord's messages go on with numbers and addresses behind the first clause."""
    lines = str(error).split(";")[0].split(" (computed")[0].splitlines()
    return lines[0] if lines else "its bytes are no ArrayRecord"
