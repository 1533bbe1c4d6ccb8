"""Audio files in a folder: finding them, and decoding one to mono samples on the clock or a reason why not."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

READABLE = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff")
"""Suffixes of what libsndfile decodes."""
UNREADABLE = (".m4a", ".aac", ".mp4", ".wma", ".webm", ".mka", ".amr", ".ac3", ".ape")
"""Suffixes of audio that needs another decoder first: reported, never skipped in silence."""

_BLOCK = 1 << 17  # input samples per channel decoded at once
_RATES = (2_000, 800_000)  # Hz; outside, the header is damaged
_LOUDEST = 10.0  # 20 dB over full scale; beyond it the samples are integers in a float file, or noise


class SourceError(Exception):
    """One file cannot be used; the message says why in a few words, without the path."""


def find_audio(root: Path) -> list[str]:
    """Paths below ``root``, with forward slashes, of everything that has an audio suffix, sorted.

    Hidden files and folders are left out; links to folders are followed, each folder once.
    """
    found, seen = [], set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in files:
            if not name.startswith(".") and name.lower().endswith(READABLE + UNREADABLE):
                found.append(Path(folder, name).relative_to(root).as_posix())
    return sorted(found)


def probe_seconds(path: Path) -> float:
    """Duration that the file's header claims; 0 if it cannot be opened."""
    try:
        with _quiet_libraries():
            info = soundfile.info(path)
        return info.frames / info.samplerate
    except (OSError, UnicodeError, soundfile.SoundFileError):
        return 0.0


def decode_audio(path: Path, sample_rate: int) -> np.ndarray:
    """Decodes, mixes down to mono and resamples (soxr HQ), in blocks.

    Returns:
        float32 [N], N = round(samples * sample_rate / rate of the file), full scale 1.

    Raises:
        SourceError: if the file cannot be decoded to its end or holds no usable audio.
    """
    if path.suffix.lower() in UNREADABLE:
        raise SourceError(f"libsndfile does not read {path.suffix}; convert it with ffmpeg to flac or wav")
    try:
        path.as_posix().encode()
    except UnicodeEncodeError:
        raise SourceError("the file name is not valid UTF-8; rename it") from None
    if not path.is_file():
        raise SourceError("no such file")
    if path.stat().st_size == 0:
        raise SourceError("the file is empty")
    try:
        with _quiet_libraries(), soundfile.SoundFile(path) as file:
            samples = _read(file, sample_rate, length_known=_states_its_length(path))
    except soundfile.LibsndfileError as error:
        reason = error.error_string.rstrip(".")
        # libsndfile says of a text named .mp3 that it does not exist.
        raise SourceError("not recognised as audio" if "does not exist" in reason else reason) from error
    except (OSError, soundfile.SoundFileError) as error:
        raise SourceError(str(error)) from error
    return samples


def _read(file: soundfile.SoundFile, sample_rate: int, length_known: bool) -> np.ndarray:
    if file.frames == 0:
        raise SourceError("no samples in it")
    if not _RATES[0] <= file.samplerate <= _RATES[1]:
        raise SourceError(f"a sample rate of {file.samplerate} Hz")
    resampler = None
    if file.samplerate != sample_rate:
        resampler = soxr.ResampleStream(file.samplerate, sample_rate, num_channels=1, dtype="float32", quality="HQ")
    blocks, decoded = [], 0
    while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
        mono = block.mean(axis=1)
        _check_samples(mono, decoded, file.samplerate)
        decoded += len(block)
        blocks.append(mono if resampler is None else resampler.resample_chunk(mono))
    if length_known and decoded < file.frames:
        seconds, claimed = decoded / file.samplerate, file.frames / file.samplerate
        raise SourceError(f"truncated: {seconds:.2f} of {claimed:.2f} seconds could be decoded")
    if resampler is not None:
        blocks.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def _check_samples(mono: np.ndarray, offset: int, rate: int) -> None:
    peak = np.abs(mono).max()
    if not np.isfinite(peak):
        second = (offset + np.isfinite(mono).argmin()) / rate
        raise SourceError(f"non-finite samples (NaN or infinity) at {second:.2f} seconds")
    if peak > _LOUDEST:
        raise SourceError(f"samples reach {peak:.3g} where full scale is 1")


def _states_its_length(path: Path) -> bool:
    """False for an MP3 without a Xing, Info or VBRI header: its length is then a guess from the first bit rate."""
    if path.suffix.lower() != ".mp3":
        return True
    with open(path, "rb") as file:
        head = file.read(10)
        if head[:3] == b"ID3":  # the tag's size: four bytes of seven bits
            file.seek(10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=False)))
        else:
            file.seek(0)
        frame = file.read(512)
    return any(mark in frame for mark in (b"Xing", b"Info", b"VBRI"))


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Sends what C libraries write to stderr (mpg123's warnings) nowhere; they know no other way to be quiet."""
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
