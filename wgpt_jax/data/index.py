"""``index.json``: what a prepared data set is, checked before anything is read from it."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wgpt_jax.audio.clock import Clock
from wgpt_jax.audio.mel import MelConfig
from wgpt_jax.errors import RequestError

INDEX_VERSION = 3
INDEX_NAME = "index.json"
SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class CodecInfo:
    """Identity of the codec whose tokens are stored."""

    name: str
    """Name or folder it was loaded from (``bundled`` for the one in the package)."""
    fingerprint: str
    """Hash of its configuration and weights."""
    codebook_size: int
    """Entries per codebook, V."""
    causal: bool
    """False for codecs that look ahead, stored under an explicit flag only."""


@dataclasses.dataclass(frozen=True)
class ShardInfo:
    """One ArrayRecord file."""

    file: str
    """Name relative to the data folder."""
    split: str
    sha256: str
    records: int
    documents: int
    frames: int
    """Frames to predict: context frames are not counted twice."""


@dataclasses.dataclass(frozen=True)
class DataIndex:
    """Contents of ``index.json``."""

    clock: Clock
    codec: CodecInfo
    codebooks: int
    """Codebooks stored per frame, K."""
    mel: MelConfig
    mel_sources: tuple[str, ...]
    """Mels stored of every frame, in the records' order: ``original``, ``codecN`` (:mod:`wgpt_jax.mel_sources`)."""
    shards: tuple[ShardInfo, ...]
    domains: tuple[str, ...]
    """Domains that occur, sorted."""
    failed: tuple[dict[str, str], ...]
    """Inputs that could not be used, each with ``path`` and ``reason``."""
    options: dict[str, Any]
    """The preparation's request: source, splits, seed, and what the arrays are."""
    tool_version: str
    hours: dict[str, float] = dataclasses.field(default_factory=dict)
    """Hours of audio per split."""
    leaks: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    """Files, speakers and works that are in more than one split, by kind; empty lists if there are none."""
    statistics: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Of tokens and mel slices (:meth:`wgpt_jax.data.statistics.Statistics.summary`)."""
    version: int = INDEX_VERSION

    def split(self, name: str) -> tuple[ShardInfo, ...]:
        """Shards of a split.

        Raises:
            RequestError: if the split is unknown or empty.
        """
        if name not in SPLITS:
            raise RequestError(f"unknown split {name!r}; the splits are {', '.join(SPLITS)}")
        shards = tuple(shard for shard in self.shards if shard.split == name)
        if not shards:
            raise RequestError(
                f"the data set has no {name} split; prepare it into another folder with a larger --{name} fraction"
            )
        return shards

    def frames(self, split: str) -> int:
        """Frames to predict in a split; 0 if it is empty."""
        return sum(shard.frames for shard in self.shards if shard.split == split)

    def documents(self, split: str) -> int:
        """Documents in a split; 0 if it is empty."""
        return sum(shard.documents for shard in self.shards if shard.split == split)

    def fingerprint(self) -> dict[str, Any]:
        """What a model trained on this data depends on; equal for every data set it can be used with."""
        return {
            "sample_rate": self.clock.sample_rate,
            "hop": self.clock.hop,
            "codec": self.codec.fingerprint,
            "mel": self.mel.fingerprint(),
        }


def load_index(folder: str | os.PathLike) -> DataIndex:
    """Reads ``folder/index.json`` and looks whether its shards are there.

    Raises:
        RequestError: if there is no index, it is damaged or of another version, or a shard file is missing.
    """
    index = read_index(folder)
    for shard in index.shards:
        if not (Path(folder) / shard.file).is_file():
            raise RequestError(
                f"shard {shard.file} is missing from {folder} (sha256 {shard.sha256}); "
                "run the same tools/prepare_audio.py command again, it makes only what is missing"
            )
    return index


def read_index(folder: str | os.PathLike) -> DataIndex:
    """Reads ``folder/index.json``, whether its shards are there or not.

    Raises:
        RequestError: if there is no index, or it is damaged or of another version.
    """
    path = Path(folder) / INDEX_NAME
    if not path.is_file():
        raise RequestError(f"no prepared data in {folder} (no {INDEX_NAME}); make it with tools/prepare_audio.py")
    try:
        fields = json.loads(path.read_text())
        if fields["version"] != INDEX_VERSION:
            raise RequestError(
                f"{path} is of version {fields['version']}, this version reads {INDEX_VERSION}; "
                "prepare the data into another folder"
            )
        return DataIndex(
            clock=Clock(**fields["clock"]),
            codec=CodecInfo(**fields["codec"]),
            codebooks=fields["codebooks"],
            mel=MelConfig(**fields["mel"]),
            mel_sources=tuple(fields["mel_sources"]),
            shards=tuple(ShardInfo(**shard) for shard in fields["shards"]),
            domains=tuple(fields["domains"]),
            failed=tuple(fields["failed"]),
            options=fields["options"],
            tool_version=fields["tool_version"],
            hours=fields["hours"],
            leaks=fields["leaks"],
            statistics=fields["statistics"],
        )
    except (ValueError, TypeError, KeyError) as error:
        raise RequestError(f"{path} is damaged ({error!r}); run tools/prepare_audio.py again") from error


def load_inputs(folder: str | os.PathLike) -> list[dict[str, Any]]:
    """Every input of a prepared data set and its fate, as ``index.json`` lists them; :func:`load_index` checks it.

    Returns:
        per input ``path``, ``fate`` (``used``, ``skipped``, ``failed``), and ``reason``, or ``split``, ``shard``,
        ``seconds`` and ``frames``; ``name``, ``speaker``, ``domain`` and ``metadata`` where there are any.
    """
    return json.loads((Path(folder) / INDEX_NAME).read_text())["inputs"]


def index_text(index: DataIndex, inputs: Sequence[dict[str, Any]] = ()) -> str:
    """The text of ``index.json``."""
    return rows_text(dataclasses.asdict(index) | {"mel_hash": index.mel.fingerprint(), "inputs": list(inputs)})


def rows_text(fields: dict[str, Any]) -> str:
    """JSON that a person can read and ``diff``: a line per key, and a line per element of a list of objects."""
    lines = []
    for key, value in fields.items():
        rows = isinstance(value, list | tuple) and value and isinstance(value[0], dict)
        text = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]" if rows else json.dumps(value)
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def save_index(index: DataIndex, folder: str | os.PathLike) -> None:
    """Writes ``folder/index.json`` in one atomic step."""
    path = Path(folder) / INDEX_NAME
    temporary = path.with_suffix(".tmp")
    temporary.write_text(index_text(index))
    os.replace(temporary, path)


def file_sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
