"""The record: at most 2048 frames of aligned tokens and mel slices, cut into segments of documents.

A record is one msgpack map of raw little-endian buffers (zero-copy to read) inside an ArrayRecord file written with
``group_size:1``. Short documents of one split share a record; a long document fills several. A segment that starts
inside its document carries one frame of context, the frame before, so that every frame of every document is
predicted exactly once and from the frame before it.
"""

import dataclasses
from collections.abc import Iterable, Iterator

import msgpack
import numpy as np

from wgpt_jax.errors import RequestError

SCHEMA_VERSION = 2
MAX_FRAMES = 2048
"""Frames in a record at most: there is no partial read inside a record."""
WRITER_OPTIONS = "group_size:1"
"""ArrayRecord options; any larger group makes random reads 10 to 90 times slower."""

_TOKENS, _MEL = np.dtype("<i2"), np.dtype("<f2")


@dataclasses.dataclass(frozen=True)
class Segment:
    """A run of frames of one document inside a record."""

    document: str
    """Identifier of the document: its path below the audio folder, with forward slashes."""
    domain: str
    """Domain of the document (speech, music, ...), for reports."""
    start: int
    """Index in the document of the first stored frame."""
    length: int
    """Stored frames, context included."""
    context: int
    """Leading frames that are input only, already predicted in an earlier segment: 0 or 1."""


@dataclasses.dataclass(frozen=True)
class Record:
    """Aligned arrays of several segments, one after the other."""

    tokens: np.ndarray
    """int16 [n, K]; codebook 0 is the coarse token."""
    mel: np.ndarray
    """float16 [S, n, M], normalised log-mel of each mel source, in the order of the index's ``mel_sources``."""
    segments: tuple[Segment, ...]
    """Segments in order; their lengths add up to n."""

    def __post_init__(self):
        n = sum(segment.length for segment in self.segments)
        if not len(self.tokens) == self.mel.shape[1] == n:
            raise ValueError(f"{len(self.tokens)} token frames, {self.mel.shape[1]} mel frames, {n} frames in segments")


def encode_record(record: Record) -> bytes:
    """Packs a record into bytes."""
    return msgpack.packb(
        {
            "v": SCHEMA_VERSION,
            "codebooks": record.tokens.shape[1],
            "sources": record.mel.shape[0],
            "bands": record.mel.shape[2],
            "tokens": np.ascontiguousarray(record.tokens, _TOKENS).tobytes(),
            "mel": np.ascontiguousarray(record.mel, _MEL).tobytes(),
            "segments": [dataclasses.astuple(segment) for segment in record.segments],
        }
    )


def decode_record(data: bytes) -> Record:
    """Unpacks a record; the arrays are read-only views of ``data``.

    Raises:
        RequestError: if the bytes are no record of this schema.
    """
    try:
        fields = msgpack.unpackb(data)
        version = fields["v"]
    except (ValueError, TypeError, KeyError, msgpack.exceptions.UnpackException) as error:
        raise RequestError(f"not a wgpt_jax record ({error}); prepare the data again") from error
    if version != SCHEMA_VERSION:
        raise RequestError(f"record of schema {version}, this version reads {SCHEMA_VERSION}; prepare the data again")
    try:
        tokens = np.frombuffer(fields["tokens"], _TOKENS).reshape(-1, fields["codebooks"])
        return Record(
            tokens=tokens,
            mel=np.frombuffer(fields["mel"], _MEL).reshape(fields["sources"], len(tokens), fields["bands"]),
            segments=tuple(Segment(*segment) for segment in fields["segments"]),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise RequestError(f"damaged record ({error}); prepare the data again") from error


@dataclasses.dataclass(frozen=True)
class Document:
    """One audio file's aligned arrays, before it is cut into segments."""

    name: str
    domain: str
    tokens: np.ndarray
    """int16 [n, K]."""
    mel: np.ndarray
    """float16 [S, n, M], one row per mel source."""


@dataclasses.dataclass(frozen=True)
class DocumentStream:
    """A document whose arrays come piece by piece, so that it needs not fit into memory."""

    name: str
    domain: str
    frames: int
    """Frames of all pieces together."""
    pieces: Iterable[tuple[np.ndarray, np.ndarray]]
    """Tokens int16 [n, K] and mel float16 [S, n, M] of the next n frames."""


def pack_documents(documents: Iterable[Document], max_frames: int = MAX_FRAMES) -> Iterator[Record]:
    """Packs whole documents, as :func:`pack_streams` does."""
    streams = (DocumentStream(d.name, d.domain, len(d.tokens), [(d.tokens, d.mel)]) for d in documents)
    return pack_streams(streams, max_frames)


def pack_streams(documents: Iterable[DocumentStream], max_frames: int = MAX_FRAMES) -> Iterator[Record]:
    """Packs documents into records of at most ``max_frames`` frames, in order, nothing lost.

    A document that fits into what is left of the open record is put there whole; else the record is closed. A
    document longer than a record is cut, each later piece led by one frame of context.
    """
    packed: list[tuple[Segment, np.ndarray, np.ndarray]] = []
    room = max_frames
    for document in documents:
        frames = _Frames(document.pieces)
        for segment in _cut(document, max_frames):
            if segment.length > room:
                yield _join(packed)
                packed, room = [], max_frames
            packed.append((segment, *frames.take(segment.start, segment.length)))
            room -= segment.length
        frames.finish()
    if packed:
        yield _join(packed)


class _Frames:
    """Frames of a stream, taken from left to right; what lies before the last ones taken is forgotten."""

    def __init__(self, pieces: Iterable[tuple[np.ndarray, np.ndarray]]):
        self._pieces = iter(pieces)
        self._held: list[tuple[np.ndarray, np.ndarray]] = []
        self._first = 0  # frame that the held pieces begin with

    def take(self, start: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens [length, K] and mel [S, length, M] from frame ``start`` on."""
        while sum(len(tokens) for tokens, _ in self._held) < start - self._first + length:
            self._held.append(next(self._pieces))
        tokens = np.concatenate([tokens for tokens, _ in self._held])
        mel = np.concatenate([mel for _, mel in self._held], axis=1)
        where = slice(start - self._first, start - self._first + length)
        keep = where.stop - 1  # the last frame taken may be the context of what follows
        self._held, self._first = [(tokens[keep:], mel[:, keep:])], self._first + keep
        return tokens[where], mel[:, where]

    def finish(self) -> None:
        """Lets the stream come to its end, where it may yet find that something is wrong."""
        if next(self._pieces, None) is not None:
            raise ValueError("the document has more frames than it said")


def _cut(document: DocumentStream, max_frames: int) -> Iterator[Segment]:
    n, done = document.frames, 0
    while done < n:
        context = 1 if done else 0
        length = min(n - done + context, max_frames)
        yield Segment(document.name, document.domain, done - context, length, context)
        done += length - context


def _join(packed: list[tuple[Segment, np.ndarray, np.ndarray]]) -> Record:
    return Record(
        tokens=np.concatenate([tokens for _, tokens, _ in packed]),
        mel=np.concatenate([mel for _, _, mel in packed], axis=1),
        segments=tuple(segment for segment, _, _ in packed),
    )
