"""One shard looked through, record by record: what is in it, and all that is wrong with it by itself."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wgpt_jax.audio.mel import MelConfig
from wgpt_jax.data.index import DataIndex, file_sha256
from wgpt_jax.data.records import MAX_FRAMES, Record, Segment
from wgpt_jax.data.statistics import Statistics
from wgpt_jax.dataset.folder import printable
from wgpt_jax.dataset.records import ShardReader, UnreadableError
from wgpt_jax.mel_sources import LATENT, ORIGINAL

_PROBLEMS = 20  # told per shard
_LOUDEST = 1000.0  # times full scale: a mel above that of such a tone is no audio's
_ROUNDING = 0.01  # of float16


@dataclasses.dataclass(frozen=True)
class Shape:
    """What the arrays of every record of a data set are."""

    codebooks: int
    codebook_size: int
    mel_sources: tuple[str, ...]
    bands: int
    lowest: float
    """The normalised mel of silence; none is lower. A latent may be."""
    highest: float

    @classmethod
    def of_index(cls, index: DataIndex) -> "Shape":
        """As the index says."""
        return cls(
            index.codebooks, index.codec.codebook_size, index.mel_sources, index.mel.bands, *mel_range(index.mel)
        )

    @classmethod
    def of_plan(cls, options: Mapping[str, Any], codebook_size: int) -> "Shape":
        """As the options of a plan say, which do not tell the size of a codebook.

        Raises:
            KeyError, TypeError: if they are those of another version.
        """
        prefix = "mel."
        mel = MelConfig(**{k.removeprefix(prefix): v for k, v in options.items() if k.startswith(prefix)})
        sources = tuple(options.get("mel_sources", ORIGINAL).split(","))
        return cls(options["num_codebooks"], codebook_size, sources, mel.bands, *mel_range(mel))


def mel_range(mel: MelConfig) -> tuple[float, float]:
    """The lowest and the highest value that a slice of any audio can have."""
    loudest = (2 * np.log(_LOUDEST * mel.n_fft) - mel.mean) / mel.std
    return mel.silence - _ROUNDING, float(loudest)


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """A shard to look through."""

    path: Path
    split: str
    shape: Shape


@dataclasses.dataclass(frozen=True)
class Findings:
    """What is in a shard."""

    sha256: str = ""
    """Empty if the file is not there."""
    size: int = 0
    """Bytes."""
    records: int = 0
    """Records that its footer tells of."""
    documents: dict[str, tuple[int, str]] = dataclasses.field(default_factory=dict)
    """Name -> predicted frames, and domain."""
    statistics: Statistics | None = None
    """Of its records; None if not all could be counted."""
    problems: tuple[tuple[str, str], ...] = ()
    """Kind of check and a sentence."""

    @property
    def frames(self) -> int:
        """Predicted frames."""
        return sum(frames for frames, _ in self.documents.values())


def examine_shard(task: ShardTask) -> Findings:
    """Hashes a shard, decodes its records one by one, and compares them with its stored statistics."""
    path, shape = task.path, task.shape
    problems: list[tuple[str, str]] = []
    try:
        sha256, size = file_sha256(path), path.stat().st_size
    except OSError as error:
        what = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror or error}"
        return Findings(problems=(("shards", f"{path.name} {what}"),))
    look = _Look(path.name, shape, problems)
    count = 0
    try:
        with ShardReader(path) as reader:
            count = len(reader)
            for number in range(count):
                try:
                    record = reader.read(number)
                except UnreadableError as error:
                    look.lose()
                    problems.append(("records", f"record {number} of {path.name} cannot be read: {error}"))
                else:
                    look.take(number, record)
    except UnreadableError as error:
        look.lose()
        problems.append(("records", f"{path.name} cannot be read: {error}"))
    statistics = look.statistics if look.whole else None
    if statistics is not None:
        problems += _stored_statistics(path, statistics)
    return Findings(sha256, size, count, look.documents, statistics, _shortened(problems))


class _Look:
    """Takes in the records of a shard, in order."""

    def __init__(self, file: str, shape: Shape, problems: list[tuple[str, str]]):
        self._file, self._shape, self._problems = file, shape, problems
        self.documents: dict[str, tuple[int, str]] = {}
        self.statistics = Statistics.empty(shape.codebooks, shape.codebook_size, len(shape.mel_sources), shape.bands)
        self.whole = True
        """Whether all records could be counted."""
        self._last: tuple[str, np.ndarray, np.ndarray] | None = None  # document, tokens and mel of the frame before

    def lose(self) -> None:
        """A record cannot be counted; frames that the next ones miss may be in it."""
        self.whole, self._last = False, None

    def take(self, number: int, record: Record) -> None:
        where = f"record {number} of {self._file}"
        wrong = _arrays(record, self._shape)
        if wrong is None:
            try:
                self._segments(where, record)
                self.statistics.add_record(record)
                return
            except (TypeError, ValueError, IndexError, AttributeError) as error:
                wrong = "records", f"its segments are damaged ({error})"
        self.lose()
        self._problems.append((wrong[0], f"{where}: {wrong[1]}"))

    def _segments(self, where: str, record: Record) -> None:
        offset = 0
        for segment in record.segments:
            name, shown = segment.document, printable(segment.document)
            done, domain = self.documents.get(name, (0, segment.domain))
            if not self.whole:
                done = max(done, segment.start + segment.context)
            if wrong := _segment(segment, done, domain):
                self._problems.append(("documents", f"{where}: {shown}, frame {segment.start}: {wrong}"))
            first, after = offset, offset + segment.length
            if segment.context and not self._continues(name, record, first):
                self._problems.append(("documents", f"{where}: {shown}: its context is not the frame before"))
            self.documents[name] = max(done, segment.start + segment.length), domain
            self._last = name, record.tokens[after - 1].copy(), record.mel[:, after - 1].copy()
            offset = after

    def _continues(self, name: str, record: Record, first: int) -> bool:
        if self._last is None or self._last[0] != name:
            return not self.whole
        _, tokens, mel = self._last
        return np.array_equal(record.tokens[first], tokens) and np.array_equal(record.mel[:, first], mel)


def _arrays(record: Record, shape: Shape) -> tuple[str, str] | None:
    """What is wrong with a record's arrays, by the kind of check; None if nothing is."""
    tokens, mel, n = record.tokens, record.mel, len(record.tokens)
    if not 1 <= n <= MAX_FRAMES:
        return "records", f"it has {n:,} frames; 1 to {MAX_FRAMES:,} can be"
    if tokens.shape[1] != shape.codebooks:
        return "records", f"it has {tokens.shape[1]} codebooks; the data set has {shape.codebooks}"
    sources = len(shape.mel_sources)
    if (mel.shape[0], mel.shape[2]) != (sources, shape.bands):
        return (
            "records",
            f"it has {mel.shape[0]} mels of {mel.shape[2]} bands; the data set has {sources} of {shape.bands}",
        )
    if tokens.min() < 0 or tokens.max() >= shape.codebook_size:
        return "values", f"tokens from {tokens.min()} to {tokens.max()}; they are 0 to {shape.codebook_size - 1}"
    if not np.isfinite(mel).all():
        return "values", "a mel is not finite"
    mel = mel[[name != LATENT for name in shape.mel_sources]]
    if mel.size and (mel.min() < shape.lowest or mel.max() > shape.highest):
        span = f"{mel.min():.2f} to {mel.max():.2f}"
        return "values", f"mel from {span}; no audio leaves {shape.lowest:.2f} to {shape.highest:.2f}"
    return None


def _segment(segment: Segment, done: int, domain: str) -> str | None:
    """What is wrong with a segment behind ``done`` predicted frames of its document; None if nothing is."""
    if segment.length <= segment.context or segment.context != (segment.start > 0):
        return f"{segment.length} frames, {segment.context} of them context"
    if segment.start + segment.context > done:
        return f"the frames from {done} on are missing"
    if segment.start + segment.context < done:
        return "it is stored twice"
    return None if segment.domain == domain else f"domain {segment.domain}, before {domain}"


def _stored_statistics(path: Path, counted: Statistics) -> list[tuple[str, str]]:
    """Compares the statistics beside a shard, from which the index is made, with its records."""
    file = path.with_suffix(".statistics.npz")
    try:
        stored = Statistics.from_bytes(file.read_bytes())
    except Exception as error:  # zipfile and NumPy raise anything on damaged bytes
        return [("statistics", f"{file.name} cannot be read ({type(error).__name__})")]
    same = stored.frames == counted.frames
    for name in ("histogram", "pairs"):
        same &= np.array_equal(getattr(stored, name), getattr(counted, name))
    for name in ("mel_sum", "mel_square"):  # another machine may add in another order
        there, here = getattr(stored, name), getattr(counted, name)
        same &= there.shape == here.shape and np.allclose(there, here, rtol=1e-6, atol=1e-3)
    return [] if same else [("statistics", f"{file.name} is not of the records of {path.name}")]


def _shortened(problems: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """At most so many of each kind, and how many more there are."""
    counts: Counter[str] = Counter()
    kept = []
    for kind, text in problems:
        counts[kind] += 1
        if counts[kind] <= _PROBLEMS:
            kept.append((kind, text))
    return (*kept, *((k, f"... and {n - _PROBLEMS:,} more like this") for k, n in counts.items() if n > _PROBLEMS))
