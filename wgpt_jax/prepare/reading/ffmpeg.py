"""Sounds that the ``ffmpeg`` program decodes, through a pipe: no temporary file, and no more memory for longer ones."""

import contextlib
import re
import shutil
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from wgpt_jax.prepare.items import SourceError
from wgpt_jax.prepare.reading.sound import BLOCK_SAMPLES, Sound

_FORMATS = (
    *("aac", "ac3", "aiff", "amr", "ape", "asf", "au", "avi", "caf", "dts", "eac3", "flac", "flv", "loas", "matroska"),
    *("mov", "mp3", "mpc", "mpc8", "mpeg", "mpegts", "ogg", "rm", "tak", "tta", "w64", "wav", "wv"),
)
"""Containers of sound and video alone: a playlist under a harmless name would have ffmpeg open what it lists."""

_ERROR_BYTES = 4096  # of what ffmpeg says, the beginning names the cause


def program() -> str | None:
    """Path of the ``ffmpeg`` program; None where there is none."""
    return shutil.which("ffmpeg")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Sound]:
    """Decodes the first audio stream of a file from its beginning, at its own rate and channels.

    A part further on costs the decoding of all before it (about 2000 times faster than it lasts): where ffmpeg seeks,
    it lands on time stamps, which count milliseconds in some containers and not samples.

    Raises:
        SourceError: if the program is missing, fails or complains.
    """
    executable = program()
    if executable is None:
        raise SourceError(f"reading {path.suffix.lower()} needs the ffmpeg program, which is not installed")
    command = [executable, "-nostdin", "-v", "error", "-xerror", "-format_whitelist", ",".join(_FORMATS)]
    # Time counted in samples: the stamps of streams that follow one another go back, at which ffmpeg gives up.
    command += ["-i", f"file:{path.absolute()}", "-map", "0:a:0", "-af", "asetpts=N/SR/TB"]
    command += ["-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    try:
        # Its own session: Ctrl-C in the terminal must not look like a damaged file.
        process = subprocess.Popen(command, **pipes, start_new_session=True)
    except OSError as error:
        raise SourceError(f"the ffmpeg program cannot be started: {error.strerror}") from error
    complaints = _Complaints(process.stderr)
    try:
        yield _sound(process, complaints, path)
    finally:
        process.kill()
        process.wait()
        complaints.join()
        process.stdout.close()
        process.stderr.close()


class _Complaints(threading.Thread):
    """Reads what the program says beside its work, so that it never waits for us; keeps the beginning."""

    def __init__(self, stream: BinaryIO):
        super().__init__(daemon=True)
        self._stream = stream
        self.text = ""
        self.start()

    def run(self) -> None:
        self.text = self._stream.read(_ERROR_BYTES).decode(errors="replace")
        while self._stream.read(1 << 16):
            pass


def _sound(process: subprocess.Popen, complaints: _Complaints, path: Path) -> Sound:
    header = process.stdout.read(24)
    if len(header) < 24:
        _check_end(process, complaints, path)
        raise SourceError("no samples in it")
    _, begin, _, _, rate, channels = struct.unpack(">4s5I", header)
    process.stdout.read(begin - 24)
    return Sound(rate, channels, _blocks(process, complaints, path, channels))


def _blocks(process: subprocess.Popen, complaints: _Complaints, path: Path, channels: int) -> Iterator[np.ndarray]:
    frame = 4 * channels
    size = max(BLOCK_SAMPLES // channels, 1) * frame
    while len(data := process.stdout.read(size)) >= frame:
        samples = np.frombuffer(data, ">f4", len(data) // frame * channels)
        yield samples.astype(np.float32).reshape(-1, channels)
    _check_end(process, complaints, path)


def _check_end(process: subprocess.Popen, complaints: _Complaints, path: Path) -> None:
    """Raises SourceError if the program failed, or reported an error and went on."""
    status = process.wait()
    complaints.join()
    if "matches no streams" in complaints.text:
        raise SourceError("no audio stream in it")
    if "not on whitelist" in complaints.text:
        raise SourceError("not recognised as audio")
    if lines := complaints.text.splitlines():
        said = re.sub(r"^(\[[^]]*] )+", "", lines[0]).replace(str(path.absolute()), "the file")
        raise SourceError("ffmpeg: " + "".join(filter(str.isprintable, said))[:200])
    if status != 0:
        raise SourceError(f"ffmpeg ended with status {status}")
