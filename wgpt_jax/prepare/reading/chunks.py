"""Whether the audio that the header of a chunked file announces is there: libsndfile reads a cut WAV in silence.

Sources: RIFF and WAVE (IBM and Microsoft 1991), RF64 (EBU Tech 3306), AIFF-C (Apple 1991), Sony Wave64, Core Audio
Format (Apple), Sun AU.
"""

import dataclasses
import struct
from pathlib import Path
from typing import BinaryIO

_TOLERANCE = 64  # bytes: some writers count their header as audio
_MOST_CHUNKS = 1000  # before the audio; a file of zeros would have hundreds of millions
_UNKNOWN = range(0x7FF00000, 0x80000001)  # what a writer into a pipe states, as well as the largest number


@dataclasses.dataclass(frozen=True)
class _Layout:
    """How the chunks of a format are written."""

    first: int
    """Byte at which the first chunk begins."""
    header: str
    """Identifier and size, as ``struct`` reads them."""
    audio: bytes
    """Identifier of the chunk that holds the samples."""
    align: int = 2
    inclusive: bool = False
    """The size counts the chunk's own header."""


_LAYOUTS = {
    b"RIFF": _Layout(12, "<4sI", b"data"),
    b"RF64": _Layout(12, "<4sI", b"data"),
    b"BW64": _Layout(12, "<4sI", b"data"),
    b"RIFX": _Layout(12, ">4sI", b"data"),
    b"FORM": _Layout(12, ">4sI", b"SSND"),
    b"caff": _Layout(8, ">4sq", b"data", align=1),
    b"riff": _Layout(40, "<16sq", b"data", align=8, inclusive=True),
}


def missing_audio(path: Path) -> str | None:
    """Says how much is missing at the end of a WAV, AIFF, CAF, Wave64, AU or AVI file; None if nothing is."""
    with open(path, "rb") as file:
        magic = file.read(4)
        stated = _au_audio(file) if magic == b".snd" else _chunked_audio(file, magic)
        if stated is None:
            return None
        begin, size = stated
        missing = begin + size - path.stat().st_size
    return f"truncated: {min(missing, size)} of {size} bytes are missing" if missing > _TOLERANCE else None


def _chunked_audio(file: BinaryIO, magic: bytes) -> tuple[int, int] | None:
    """Where the samples begin and how many bytes they take, both as stated; None if that is not stated."""
    if (layout := _LAYOUTS.get(magic)) is None:
        return None
    if magic == b"RIFF" and (form := file.read(8))[4:] == b"AVI ":
        return 8, struct.unpack("<I", form[:4])[0]
    length, position, long_size = struct.calcsize(layout.header), layout.first, None
    for _ in range(_MOST_CHUNKS):
        file.seek(position)
        if len(header := file.read(length)) < length:
            return None
        name, size = struct.unpack(layout.header, header)
        size -= length if layout.inclusive else 0
        if name == b"ds64" and len(sizes := file.read(16)) == 16:
            long_size = struct.unpack("<8xQ", sizes)[0]
        if name[:4] == layout.audio:
            if size == 0xFFFFFFFF and long_size:
                size = long_size
            is_stated = size > 0 and size != 0xFFFFFFFF and size not in _UNKNOWN and size < 1 << 62
            return (position + length, size) if is_stated else None
        if size < 0:
            return None
        position += length + size + -size % layout.align
    return None


def _au_audio(file: BinaryIO) -> tuple[int, int] | None:
    if len(header := file.read(8)) < 8:
        return None
    begin, size = struct.unpack(">2I", header)
    return (begin, size) if size not in (0, 0xFFFFFFFF) else None
