"""How long an MP3 says it is, and how long it is: libsndfile believes the first frame and reads no further.

Sources: ISO/IEC 11172-3 2.4.1 (frames), the Xing, Info and VBRI headers as LAME and Fraunhofer write them, ID3v2.4.
"""

import dataclasses
import functools
import struct
from pathlib import Path
from typing import BinaryIO

_KBITS = {  # by MPEG version 1 or not, and layer
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # by the bits of the version
_SEARCH = 1 << 16  # bytes before the first frame that are looked at


@dataclasses.dataclass(frozen=True)
class Mp3Length:
    """What is known of an MP3's length."""

    is_stated: bool
    """Its first frame states how many follow."""
    seconds: float
    """Of the frames found in a row; where the length is stated, of those found after the stated end."""


@functools.lru_cache(maxsize=64)
def mp3_length(path: Path, size: int, changed_ns: int) -> Mp3Length:
    """Reads the header that states a length, and walks through the frames that it does not cover.

    ``size`` and ``changed_ns`` (its time of modification) tell versions of the file apart: the parts of one recording
    are read one by one, and one walk is enough.
    """
    with open(path, "rb", buffering=1 << 20) as file:
        first = _first_frame(file)
        file.seek(first)
        stated, audio_bytes = _stated(file.read(512))
        if not stated:
            return Mp3Length(False, _seconds_from(file, first))
        if not audio_bytes:
            return Mp3Length(True, 0.0)
        return Mp3Length(True, _seconds_from(file, _after_tags(file, first + audio_bytes)))


def _stated(frame: bytes) -> tuple[bool, int]:
    """Whether the number of frames is stated, and their bytes (0 if that is not)."""
    for mark in (b"Xing", b"Info"):
        if 0 <= (at := frame.find(mark)) <= len(frame) - 16:
            flags, *fields = struct.unpack_from(">3I", frame, at + 4)
            return bool(flags & 1), (fields[flags & 1] if flags & 2 else 0)
    if 0 <= (at := frame.find(b"VBRI")) <= len(frame) - 18:
        return True, struct.unpack_from(">I", frame, at + 10)[0]
    return False, 0


def _first_frame(file: BinaryIO) -> int:
    begin = _after_tags(file, 0)
    file.seek(begin)
    head = file.read(_SEARCH)
    at = head.find(b"\xff")
    while at >= 0:
        if (frame := _frame(head[at : at + 4])) and _frame(head[at + frame[0] : at + frame[0] + 4]):
            return begin + at
        at = head.find(b"\xff", at + 1)
    return begin


def _after_tags(file: BinaryIO, position: int) -> int:
    """The first byte after ID3 tags of both kinds."""
    while True:
        file.seek(position)
        head = file.read(10)
        if head[:3] == b"ID3" and len(head) == 10:  # the tag's size: four bytes of seven bits
            position += 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        elif head[:3] == b"TAG":
            position += 128
        else:
            return position


def _seconds_from(file: BinaryIO, position: int) -> float:
    seconds = 0.0
    file.seek(position)
    while frame := _frame(file.read(4)):
        position += frame[0]
        seconds += frame[1]
        file.seek(position)
    return seconds


@functools.lru_cache(maxsize=1 << 12)
def _frame(header: bytes) -> tuple[int, float] | None:
    """Bytes and seconds of the frame with this header of 4 bytes; None if it is none."""
    bits = int.from_bytes(header, "big")
    version, layer, kbits, rate = bits >> 19 & 3, 4 - (bits >> 17 & 3), bits >> 12 & 15, bits >> 10 & 3
    if len(header) < 4 or bits >> 21 != 0x7FF or version == 1 or layer == 4 or kbits in (0, 15) or rate == 3:
        return None
    hertz, padding = _RATES[version][rate], bits >> 9 & 1
    bits_per_second = 1000 * _KBITS[version == 3, layer][kbits]
    if layer == 1:
        return 4 * (12 * bits_per_second // hertz + padding), 384 / hertz
    samples = 1152 if version == 3 or layer == 2 else 576
    return samples // 8 * bits_per_second // hertz + padding, samples / hertz
