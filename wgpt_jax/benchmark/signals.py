"""Audio to measure with: a synthetic signal or what the user gives, and files of it in every format."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from wgpt_jax.errors import RequestError
from wgpt_jax.prepare.items import SourceError
from wgpt_jax.prepare.reading.files import open_sound
from wgpt_jax.prepare.reading.mono import mono_blocks, resampled
from wgpt_jax.prepare.sources.folder import find_audio

RATE = 44_100
"""Hz of the signal."""
FORMATS = {
    "wav": {"format": "WAV", "subtype": "PCM_16"},
    "flac": {"format": "FLAC", "subtype": "PCM_16"},
    "mp3": {"format": "MP3", "subtype": "MPEG_LAYER_III"},
    "ogg": {"format": "OGG", "subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
}
"""What libsndfile is told for each suffix."""

_OPUS_RATE = 48_000  # Hz; Opus knows no 44,100
_BLOCK = 8192  # samples; libsndfile crashes on a long OGG in one call


def signal(audio: Path | None, seconds: float) -> np.ndarray:
    """The first ``seconds`` of the audio given, one file after the other, mixed down; a synthetic signal if None is.

    Returns:
        float32 [N] at 44.1 kHz; shorter if there is less audio.

    Raises:
        RequestError: if there is no such audio.
    """
    if audio is None:
        return _synthetic(seconds)
    paths = [audio / name for name in find_audio(audio)] if audio.is_dir() else [audio]
    parts, missing = [], round(seconds * RATE)
    with contextlib.closing(_blocks(paths)) as blocks:
        while missing and (block := next(blocks, None)) is not None:
            parts.append(block[:missing])
            missing -= len(parts[-1])
    if not parts:
        raise RequestError(f"no audio in {audio}")
    return np.concatenate(parts)


def _blocks(paths: Iterable[Path]) -> Iterator[np.ndarray]:
    for path in paths:
        try:
            with open_sound(path) as sound:
                yield from resampled(mono_blocks(sound, None), sound.rate, RATE)
        except SourceError as error:
            raise RequestError(f"cannot read {path} ({error})") from error


def _synthetic(seconds: float) -> np.ndarray:
    """A gliding tone with harmonics, in noise, with pauses."""
    rng = np.random.default_rng(0)
    time = np.arange(round(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(220 * (1 + 0.2 * np.sin(2 * np.pi * 0.7 * time))) / RATE
    voice = sum(np.sin(k * phase) / k for k in range(1, 6)) * (np.sin(2 * np.pi * 1.3 * time) > -0.5)
    return (0.2 * voice + 0.02 * rng.normal(size=len(time))).astype(np.float32)


def write_formats(folder: Path, samples: np.ndarray) -> dict[str, Path]:
    """Writes float32 [N] at 44.1 kHz once per format (Opus at 48 kHz); returns the files by format."""
    paths = {}
    for name, options in FORMATS.items():
        opus = name == "opus"
        paths[name] = folder / f"signal.{name}"
        _write(paths[name], [soxr.resample(samples, RATE, _OPUS_RATE) if opus else samples], options, opus=opus)
    return paths


def write_long(path: Path, samples: np.ndarray, seconds: float) -> None:
    """Writes a WAV of so many seconds, float32 [N] at 44.1 kHz again and again."""
    total = round(seconds * RATE)
    starts = range(0, total, len(samples))
    _write(path, (samples[: total - start] for start in starts), FORMATS["wav"], opus=False)


def _write(path: Path, parts: Iterable[np.ndarray], options: dict[str, str], *, opus: bool) -> None:
    with soundfile.SoundFile(path, "w", _OPUS_RATE if opus else RATE, 1, **options) as file:
        for part in parts:
            for start in range(0, len(part), _BLOCK):
                file.write(part[start : start + _BLOCK])
