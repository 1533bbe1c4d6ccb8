"""Any audio file as a sound, or the reason why it is none."""

import contextlib
import dataclasses
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from wgpt_jax.prepare.items import SourceError
from wgpt_jax.prepare.reading import ffmpeg, libsndfile
from wgpt_jax.prepare.reading.chunks import missing_audio
from wgpt_jax.prepare.reading.sound import Sound

READABLE = (
    *(".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2"),
    *(".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".sph"),
)
"""Suffixes of what libsndfile decodes."""
BY_FFMPEG = (
    *(".m4a", ".m4b", ".m4v", ".aac", ".mp4", ".mov", ".3gp", ".mkv", ".mka", ".webm", ".wma", ".wmv", ".asf"),
    *(".avi", ".flv", ".mpg", ".mpeg", ".vob", ".mts", ".m2ts", ".amr", ".ac3", ".eac3", ".dts", ".ape", ".wv"),
    *(".tta", ".tak", ".mpc", ".spx", ".rm"),
)
"""Suffixes of what the ``ffmpeg`` program decodes."""
AUDIO_SUFFIXES = READABLE + BY_FFMPEG

_RATES = (2_000, 800_000)  # Hz; outside, the header is damaged
_OVERHANG = 0.1  # seconds by which a part may end after its file
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@contextlib.contextmanager
def open_sound(path: Path, start: float = 0.0, end: float | None = None) -> Iterator[Sound]:
    """Opens a file, or the part of it from ``start`` to ``end`` seconds: sample frames round(start * rate) on.

    Yields:
        The sound; reading all its blocks takes as much memory for 10 hours as for 10 minutes. libsndfile decodes what
        it can; what has a suffix of ``BY_FFMPEG``, and what libsndfile would read only in part, the ``ffmpeg`` program.

    Raises:
        SourceError: here or while the blocks are read, if the file is not whole, not audio, changes, or is shorter
            than the part asked for.
    """
    if not (0 <= start < math.inf and (end is None or start < end < math.inf)):
        raise SourceError(f"there is no segment from {start} to {end} seconds")
    status = _regular_file(path)
    with contextlib.ExitStack() as stack:
        with _system_errors():
            sound, first = _opened(stack, path, start)
        if not _RATES[0] <= sound.rate <= _RATES[1]:
            raise SourceError(f"a sample rate of {sound.rate} Hz")
        blocks = _unchanged(path, status, _part(sound, first, start, end))
        yield dataclasses.replace(sound, blocks=blocks)


def _opened(stack: contextlib.ExitStack, path: Path, start: float) -> tuple[Sound, int]:
    """The sound, and the number of its first sample frame in the file."""
    if reason := missing_audio(path):
        raise SourceError(reason)
    if path.suffix.lower() in BY_FFMPEG:
        return stack.enter_context(ffmpeg.opened(path)), 0
    try:
        return stack.enter_context(libsndfile.opened(path.absolute(), start))
    except libsndfile.PartlyReadError as error:
        if ffmpeg.program() is None:
            raise SourceError(f"{error}; the ffmpeg program, which reads all, is not installed") from error
        return stack.enter_context(ffmpeg.opened(path)), 0


def _regular_file(path: Path) -> os.stat_result:
    """The file's state; SourceError unless it is a file with something in it that may be read. Never waits."""
    try:
        path.as_posix().encode()
    except UnicodeEncodeError:
        raise SourceError("the file name is not valid UTF-8; rename it") from None
    if "\0" in str(path):
        raise SourceError("the file name holds a NUL character")
    with _system_errors():
        if path.is_symlink() and not path.exists():
            raise SourceError("a link to nothing")
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise SourceError(f"{_KINDS.get(stat.S_IFMT(status.st_mode), 'a special file')}, not a file")
        path.open("rb").close()
    if status.st_size == 0:
        raise SourceError("the file is empty")
    return status


def _part(sound: Sound, position: int, start: float, end: float | None) -> Iterator[np.ndarray]:
    first = round(start * sound.rate)
    last = math.inf if end is None else round(end * sound.rate)
    for block in sound.blocks:
        piece = block[max(first - position, 0) : int(min(max(last - position, 0), len(block)))]
        position += len(block)
        if len(piece):
            yield piece
        if position >= last:
            return
    seconds = position / sound.rate
    if position == 0:
        raise SourceError("no samples in it")
    if position <= first:
        raise SourceError(f"ends at {seconds:.2f} s, the segment starts at {start:.2f} s")
    if end is not None and last - position > _OVERHANG * sound.rate:
        raise SourceError(f"ends at {seconds:.2f} s, the segment asks for {end:.2f} s")


def _unchanged(path: Path, before: os.stat_result, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The same blocks; SourceError at their end if the file is not the one that was opened."""
    with _system_errors():
        yield from blocks
        if not path.exists():
            raise SourceError("it vanished while it was read")
        after = path.stat()
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise SourceError("it changed while it was read")


@contextlib.contextmanager
def _system_errors() -> Iterator[None]:
    """Turns errors of the operating system into reasons."""
    try:
        yield
    except FileNotFoundError:
        raise SourceError("no such file") from None
    except OSError as error:
        raise SourceError((error.strerror or str(error)).lower()) from error
