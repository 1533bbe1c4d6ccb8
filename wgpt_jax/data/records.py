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


def pack_documents(documents: Iterable[Document], max_frames: int = MAX_FRAMES) -> Iterator[Record]:
    """Packs documents into records of at most ``max_frames`` frames, in order, nothing lost.

    A document that fits into what is left of the open record is put there whole; else the record is closed. A
    document longer than a record is cut, each later piece led by one frame of context.
    """
    open_pieces: list[tuple[Segment, Document]] = []
    room = max_frames
    for document in documents:
        for segment in _cut(document, max_frames):
            if segment.length > room:
                yield _join(open_pieces)
                open_pieces, room = [], max_frames
            open_pieces.append((segment, document))
            room -= segment.length
    if open_pieces:
        yield _join(open_pieces)


def _cut(document: Document, max_frames: int) -> Iterator[Segment]:
    n, done = len(document.tokens), 0
    while done < n:
        context = 1 if done else 0
        length = min(n - done + context, max_frames)
        yield Segment(document.name, document.domain, done - context, length, context)
        done += length - context


def _join(pieces: list[tuple[Segment, Document]]) -> Record:
    cuts = [(document, slice(seg.start, seg.start + seg.length)) for seg, document in pieces]
    return Record(
        tokens=np.concatenate([document.tokens[cut] for document, cut in cuts]),
        mel=np.concatenate([document.mel[:, cut] for document, cut in cuts], axis=1),
        segments=tuple(segment for segment, _ in pieces),
    )
