"""Audio files: finding them, holding some out, reading them at any rate."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from wgpt_jax.errors import RequestError

SUFFIXES = {f".{name.lower()}" for name in soundfile.available_formats()} | {".opus", ".oga", ".aif", ".mp3"}
HELD_OUT = 0.04  # share of the folders kept for validation


@dataclass(frozen=True)
class AudioFile:
    """A readable file: its path, native sampling rate in Hz, number of samples, and domain (top folder)."""

    path: Path
    rate: int
    samples: int
    domain: str

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return self.samples / self.rate


def find_audio(folder: Path) -> list[AudioFile]:
    """Every audio file under ``folder`` that soundfile can read and that lasts a quarter of a second or more.

    A file's domain is ``speech`` or ``music`` where a folder above it is called that, and ``audio`` otherwise.

    Raises:
        RequestError: the folder is missing or holds no such file.
    """
    if not folder.is_dir():
        raise RequestError(f"--audio {folder}: no such folder")
    files = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        try:
            info = soundfile.info(path)
        except soundfile.SoundFileError:
            continue
        if info.frames >= info.samplerate // 4:
            parents = path.relative_to(folder).parts[:-1]
            domain = next((part for part in parents if part in ("speech", "music")), "audio")
            files.append(AudioFile(path, info.samplerate, info.frames, domain))
    if not files:
        raise RequestError(f"--audio {folder}: no audio file there that can be read (WAV, FLAC, OGG, MP3, ...)")
    return files


def split_held_out(files: list[AudioFile], root: Path) -> tuple[list[AudioFile], list[AudioFile]]:
    """Training and held-out files; whole folders (a speaker, a composer) are held out, by a hash of their path.

    Where there are few folders, single files are held out. Every domain gives at least one file; a lone file of a
    domain is in both parts.
    """
    few_folders = len({file.path.parent for file in files}) < 8

    def rank(file: AudioFile) -> float:
        unit = file.path if few_folders else file.path.parent
        return int(hashlib.sha256(str(unit.relative_to(root)).encode()).hexdigest()[:8], 16) / 2**32

    training: list[AudioFile] = []
    held_out: list[AudioFile] = []
    for domain in sorted({file.domain for file in files}):
        ranked = [(rank(file), file) for file in files if file.domain == domain]
        limit = max(HELD_OUT, min(r for r, _ in ranked) + 1e-12)
        held_out += [file for r, file in ranked if r < limit]
        training += [file for r, file in ranked if r >= limit] or [file for _, file in ranked]
    return training, held_out


def read_audio(file: AudioFile, rate: int, start: int = 0, samples: int = -1) -> np.ndarray:
    """Native samples ``[start, start + samples)`` mixed to mono and resampled to ``rate`` Hz: float32 ``[n]``."""
    audio, native = soundfile.read(file.path, start=start, frames=samples, dtype="float32", always_2d=True)
    mono = audio.mean(axis=1)
    return mono if native == rate else soxr.resample(mono, native, rate, quality="HQ")


def held_out_clips(
    files: list[AudioFile], rate: int, clips: int = 8, seconds: float = 6.0
) -> dict[str, list[np.ndarray]]:
    """Up to ``clips`` beginnings of ``seconds`` seconds for every domain, of files spread evenly over the list."""
    result = {}
    for domain in sorted({file.domain for file in files}):
        group = [file for file in files if file.domain == domain]
        longer = [file for file in group if file.seconds >= seconds] or group
        chosen = [longer[i] for i in np.unique(np.linspace(0, len(longer) - 1, clips).astype(int))]
        result[domain] = [read_audio(file, rate, 0, int(seconds * file.rate)) for file in chosen]
    return result
