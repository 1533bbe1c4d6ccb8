"""``results.jsonl``: a row per run, each appended in one write, none made twice."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wgpt_jax.config import Config, config_from_dict, differences
from wgpt_jax.errors import RequestError, WorkError

RESULTS_NAME = "results.jsonl"
_FREE = ("data.workers", "model.attention", "model.remat", "training.microbatches", "training.max_skipped")
_FREE_GROUPS = ("checkpoint.", "logging.", "mesh.")
_OF_RUNS = ("experiment", "data", "arm", "size", "stage", "seed", "learning_rate", "embedding_std", "config")
"""What names a run in its row."""


class Results:
    """The rows of a work folder."""

    def __init__(self, workdir: Path):
        """Reads what is there; the part of a line that a kill or a full disk left is cut off.

        Raises:
            RequestError: if a line is no row.
        """
        self.path = workdir / RESULTS_NAME
        self.rows: list[dict[str, Any]] = read_rows(self.path) if self.path.exists() else []

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds a row, on the disk before it returns.

        Raises:
            WorkError: if it cannot be written.
        """
        line = (json.dumps(finite(row)) + "\n").encode()
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                whole = _whole(descriptor)
                os.ftruncate(descriptor, whole)
                if os.write(descriptor, line) < len(line):
                    os.ftruncate(descriptor, whole)
                    raise OSError(None, "the disk is full")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise WorkError(
                f"cannot write to {self.path}: {error.strerror}; once that is mended the same command continues"
            ) from error
        self.rows.append(json.loads(line))


def _whole(descriptor: int) -> int:
    """Bytes of a file up to its last line's end."""
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, 0).rfind(b"\n") + 1


def read_rows(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The rows of a results.jsonl; a last line that has no end is left out.

    Raises:
        RequestError: if the file cannot be read, or a line is no row.
    """
    try:
        lines = Path(path).read_text().split("\n")[:-1]
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"cannot read {path}: {error}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            for key in ("kind", *(_OF_RUNS if row["kind"] in ("run", "failed") else ())):
                row[key]
        except (ValueError, TypeError, KeyError) as error:
            raise RequestError(f"{path}: line {number} is no row ({error!r}); delete that line") from error
        rows.append(row)
    return rows


def finite(value: Any) -> Any:
    """The same with null for what is not finite, which JSON does not know."""
    if isinstance(value, Mapping):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def changes(old: Config, new: Config) -> str:
    """What two configurations of a run differ in, of all that its row depends on: empty if in nothing."""
    return ", ".join(
        f"{key} was {before} and is {now} now"
        for key, (before, now) in differences(old, new).items()
        if key not in _FREE and not key.startswith(_FREE_GROUPS)
    )


def check_unchanged(
    row: Mapping[str, Any], config: Config, fingerprints: Mapping[str, str], path: Path, name: str
) -> None:
    """Checks that a row is of the run that would be made now.

    Args:
        row: of ``results.jsonl``.
        config: what the run would train.
        fingerprints: of the splits of its data.
        path: of ``results.jsonl``.
        name: of the run.

    Raises:
        RequestError: naming what differs.
    """
    remedy = "give the same again, take another --workdir, or delete the rows that are no longer wanted"
    if changed := changes(config_from_dict(row["config"]), config):
        raise RequestError(f"{path} has {name} of another configuration: {changed}; {remedy}")
    for split, key in (("train", "data_fingerprint"), (row["split"], "scored_fingerprint")):
        if key not in row:
            raise RequestError(f"{path} has {name} of an earlier version: no {key} says what it was made on; {remedy}")
        if row[key] != fingerprints[split]:
            raise RequestError(
                f"{path} has {name} on other data ({split} shards {row[key]}, now {fingerprints[split]}; the same "
                f"audio prepared on another processor is rounded otherwise, and a report takes rows of both); {remedy}"
            )
