"""Audio files of all formats for tests of reading, and a real ffmpeg program also where none is installed."""

import os
import subprocess
from pathlib import Path

import imageio_ffmpeg
import pytest

from wgpt_jax.prepare.items import SourceError
from wgpt_jax.prepare.reading.decode import decode_audio

RATE = 24000
FORMATS = {
    "wav": {"subtype": "FLOAT"},
    "flac": {},
    "aiff": {},
    "caf": {"subtype": "PCM_24"},
    "w64": {},
    "rf64": {"format": "RF64"},
    "au": {},
    "ogg": {"format": "OGG", "subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {"format": "MP3", "subtype": "MPEG_LAYER_III"},
}
"""What libsndfile writes, by suffix."""


def put_ffmpeg_on_path(folder: Path, monkeypatch) -> None:
    """Makes ``ffmpeg`` a program that the code under test and its child processes find."""
    folder.mkdir(exist_ok=True)
    (folder / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def encode(source: Path, target: Path, *options: str) -> Path:
    """Converts a file by its suffix."""
    return _ffmpeg("-i", source, *options, target)


def draw(target: Path, *options: str) -> Path:
    """Writes moving or still pictures without sound."""
    return _ffmpeg("-f", "lavfi", "-i", "testsrc=size=64x64:duration=0.2", *options, target)


def _ffmpeg(*arguments: str | Path) -> Path:
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-y", *arguments], check=True)
    return arguments[-1]


def reason_for(path: Path, **part: float) -> str:
    """What is wrong with a file, which must be one short line without its path."""
    with pytest.raises(SourceError) as caught:
        decode_audio(path, RATE, **part)
    reason = str(caught.value)
    assert reason and "\n" not in reason and len(reason) < 250 and str(path) not in reason
    return reason


def cut(path: Path) -> Path:
    """Leaves the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path
