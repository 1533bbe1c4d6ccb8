"""Sounds that libsndfile decodes."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from wgpt_jax.prepare.items import SourceError
from wgpt_jax.prepare.reading.mpeg import mp3_length
from wgpt_jax.prepare.reading.ogg import OggDamage, is_chained
from wgpt_jax.prepare.reading.quiet import quiet_libraries
from wgpt_jax.prepare.reading.sound import BLOCK_SAMPLES, Sound

_PREROLL = 1 << 14  # frames decoded before a part, so that a codec with a memory is where one pass would be
_UNKNOWN = 1 << 62  # frames: libsndfile's largest number where a FLAC from a pipe does not state its length
_UNRECOGNISED = "not recognised as audio"
_SHORT = 0.1  # seconds that an estimated length may be short


class PartlyReadError(SourceError):
    """Libsndfile would read only the beginning, without an error."""


class _File(soundfile.SoundFile):
    """A file that is read through.

    To the base class it is not seekable: else it seeks after each read to where it already is, from where libsndfile's
    MP3 decoder starts afresh (a seam in the samples), and reserves memory for as many samples as the header claims.
    """

    def seekable(self) -> bool:
        return False

    def can_seek(self) -> bool:
        return super().seekable()


@contextlib.contextmanager
def opened(path: Path, start: float) -> Iterator[tuple[Sound, int]]:
    """Opens a file a little before ``start`` seconds.

    Yields:
        The sound from there on, and the number of its first sample frame in the file. A part of an MP3 differs from
        the same part of the whole by rounding (1e-7): where the decoder starts decides about the order of its sums.

    Raises:
        PartlyReadError: if libsndfile would not come to the end.
        SourceError: if it cannot be opened or does not hold what its header announces.
    """
    _check_ogg(path)
    with _reasons():
        file = _File(path)
    with file:
        if file.format == "RAW":  # a guess from the suffix alone: any text named .au is telephone speech to libsndfile
            raise SourceError(_UNRECOGNISED)
        length_known = file.format != "MP3" or _check_mp3(path, file.frames / max(file.samplerate, 1))
        first = 0
        if file.can_seek() and file.frames < _UNKNOWN:
            first = min(max(round(start * file.samplerate) - _PREROLL, 0), file.frames)
        if first > 0:
            with _reasons():
                file.seek(first)
        yield Sound(file.samplerate, file.channels, _blocks(file, first, length_known)), first


def _blocks(file: soundfile.SoundFile, position: int, length_known: bool) -> Iterator[np.ndarray]:
    size = max(BLOCK_SAMPLES // file.channels, 1)
    while True:
        with _reasons():
            block = file.read(size, dtype="float32", always_2d=True)
        if not len(block):
            break
        position += len(block)
        yield block
    if length_known and position < file.frames < _UNKNOWN:
        seconds, claimed = position / file.samplerate, file.frames / file.samplerate
        raise SourceError(f"truncated: {seconds:.2f} of {claimed:.2f} seconds could be decoded")


def _check_ogg(path: Path) -> None:
    status = path.stat()
    try:
        if is_chained(path, status.st_size, status.st_mtime_ns):
            raise PartlyReadError("several Ogg streams one after another, of which libsndfile reads only the first")
    except OggDamage as damage:
        raise SourceError(str(damage)) from damage


def _check_mp3(path: Path, claimed: float) -> bool:
    """Whether its length is stated, not estimated; PartlyReadError where more follows than ``claimed`` seconds."""
    status = path.stat()
    length = mp3_length(path, status.st_size, status.st_mtime_ns)
    if length.is_stated and length.seconds > _SHORT:
        raise PartlyReadError("several MP3 files one after another, of which libsndfile reads only the first")
    if not length.is_stated and length.seconds > claimed + _SHORT:
        parts = f"{claimed:.2f} of {length.seconds:.2f} seconds"
        raise PartlyReadError(f"an MP3 that does not state its length, of which libsndfile reads {parts}")
    return length.is_stated


@contextlib.contextmanager
def _reasons() -> Iterator[None]:
    """Turns the library's errors into reasons, and keeps it quiet."""
    try:
        with quiet_libraries():
            yield
    except soundfile.LibsndfileError as error:
        reason = error.error_string.removeprefix("Error : ").rstrip(".")
        # libsndfile says of a text named .mp3 that it does not exist.
        unknown = "does not exist" in reason or reason == "Format not recognised"
        raise SourceError(_UNRECOGNISED if unknown else f"libsndfile: {reason}") from error
    except soundfile.SoundFileError as error:
        raise SourceError(str(error)) from error
