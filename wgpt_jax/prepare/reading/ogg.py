"""Whether an Ogg file is whole: libsndfile passes over lost pages in silence, and reads only the first of its streams.

Source: RFC 3533.
"""

import functools
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

_BEGINS, _ENDS = 2, 4  # flags of a page
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class OggDamage(Exception):
    """Pages are missing or damaged; the message says which."""


@functools.lru_cache(maxsize=64)
def is_chained(path: Path, size: int, changed_ns: int) -> bool:
    """True if several streams follow one another in the file; False also if it is no Ogg file.

    ``size`` and ``changed_ns`` (its time of modification) tell versions of the file apart: the parts of one recording
    are read one by one, and a look at all its pages is enough.

    Raises:
        OggDamage: if a page is damaged, missing or cut short.
    """
    with open(path, "rb") as file:
        if file.read(4) != b"OggS":
            return False
        file.seek(0)
        return _walk(file)


def _walk(file: BinaryIO) -> bool:
    numbers, audio_began, ended, position = {}, False, False, 0
    while page := _page(file, position, ended):
        flags, serial, number = page[5], page[14:18], struct.unpack_from("<I", page, 18)[0]
        if flags & _BEGINS:
            if audio_began:
                return True
        elif number != numbers.get(serial, number - 1) + 1:
            raise OggDamage(f"damaged: an Ogg page is missing before byte {position}")
        audio_began = audio_began or not flags & _BEGINS
        ended = bool(flags & _ENDS)
        numbers[serial] = number
        position += len(page)
    return False


def _page(file: BinaryIO, position: int, ended: bool) -> bytes:
    """The next page; empty at the end of the file, or where something else follows the last page of the stream."""
    header = file.read(27)
    if not header or (header[:4] != b"OggS" and ended):
        return b""
    if header[:4] != b"OggS"[: len(header)]:
        raise OggDamage(f"damaged: no Ogg page at byte {position}")
    lengths = file.read(header[26]) if len(header) == 27 else b""
    body = file.read(sum(lengths))
    if len(header) < 27 or len(lengths) < header[26] or len(body) < sum(lengths):
        raise OggDamage("truncated: its last Ogg page is cut short")
    if _checksum(header[:22] + bytes(4) + header[26:] + lengths + body) != struct.unpack_from("<I", header, 22)[0]:
        raise OggDamage(f"damaged: the Ogg page at byte {position} has a wrong checksum")
    return header + lengths + body


def _checksum(page: bytes) -> int:
    """CRC-32 with the highest bit first and no inversion, from zlib's, which has the lowest first and inverts."""
    crc = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)
