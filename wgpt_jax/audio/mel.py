"""The causal log-mel spectrogram, by NumPy; ``mel_jax`` computes the same slices on the device.

Each slice is an STFT frame whose window ends with the frame's last sample: ``n_fft - hop`` zeros stand before the
clip and there is no centring, so slice ``t`` is a function of samples before ``(t + 1) * hop``. The normalisation is
one fixed affine map, never a statistic of the clip.
"""

import dataclasses
import functools
import hashlib
import json

import numpy as np

from wgpt_jax.audio.clock import Clock

_BLOCK = 768
"""Frames per matrix product, filled up with zeros: its rounding depends on its shape, a slice must not."""


@dataclasses.dataclass(frozen=True)
class MelConfig:
    """Definition of a log-mel slice.

    The window is a periodic Hann window of ``n_fft`` samples, the filters are Slaney's triangles with unit area
    (librosa's default), the value is ``(log(max(power, floor)) - mean) / std``.
    """

    bands: int = 64
    """Mel bands M."""
    n_fft: int = 1024
    """Window and FFT length in samples."""
    fmin: float = 0.0
    """Lower edge of the first filter in Hz."""
    fmax: float | None = None
    """Upper edge of the last filter in Hz; half the sample rate if not given."""
    floor: float = 1e-5
    """Power below which a band counts as silent."""
    mean: float = -6.0
    """Subtracted from the natural log of the power; a constant of the data set, not of the clip."""
    std: float = 4.0
    """Divides what is left; a constant of the data set, not of the clip."""

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change whenever a slice would."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def silence(self) -> float:
        """The value of every band in digital silence."""
        return float((np.log(self.floor) - self.mean) / self.std)


def _hz_to_mel(hz: np.ndarray) -> np.ndarray:
    """Slaney's mel scale: linear below 1 kHz, logarithmic above (Auditory Toolbox, 1998)."""
    step = np.log(6.4) / 27.0
    return np.where(hz < 1000.0, 3.0 * hz / 200.0, 15.0 + np.log(np.maximum(hz, 1000.0) / 1000.0) / step)


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    step = np.log(6.4) / 27.0
    return np.where(mel < 15.0, 200.0 * mel / 3.0, 1000.0 * np.exp(step * (mel - 15.0)))


@functools.lru_cache
def mel_filterbank(config: MelConfig, sample_rate: int) -> np.ndarray:
    """Triangular mel filters of unit area, equal to ``librosa.filters.mel``'s defaults.

    Returns:
        float32 [n_fft // 2 + 1, M], read-only.
    """
    fmax = config.fmax if config.fmax is not None else sample_rate / 2
    ends = _hz_to_mel(np.array([config.fmin, fmax]))
    edges = _mel_to_hz(np.linspace(ends[0], ends[1], config.bands + 2))
    bins = np.fft.rfftfreq(config.n_fft, 1.0 / sample_rate)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    bank = np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges[2:] - edges[:-2]))
    bank = bank.astype(np.float32)
    bank.setflags(write=False)
    return bank


@functools.lru_cache
def hann_window(n_fft: int) -> np.ndarray:
    """Periodic Hann window, float32 [n_fft]."""
    return (0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)


def log_mel(samples: np.ndarray, config: MelConfig, clock: Clock, before: np.ndarray | None = None) -> np.ndarray:
    """Causal log-mel slices of a clip or of a part of one, by NumPy; parts give the bits of the whole.

    Args:
        samples: float [N], mono at ``clock.sample_rate``, full scale 1.0.
        config: definition of the slice.
        clock: sample rate and hop.
        before: float [n_fft - hop], what comes before ``samples``; nothing, as at the start of a clip, if not given.

    Returns:
        float32 [N // hop, M]; slice t depends on samples before (t + 1) * hop only.
    """
    frames = clock.frames(len(samples))
    if frames == 0:
        return np.zeros((0, config.bands), np.float32)
    lead = config.n_fft - clock.hop
    padded = np.zeros(lead + clock.samples(frames), np.float32)
    if before is not None:
        padded[:lead] = before
    padded[lead:] = samples[: clock.samples(frames)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, config.n_fft)[:: clock.hop]
    bank, taper = mel_filterbank(config, clock.sample_rate), hann_window(config.n_fft)
    power = np.zeros((_BLOCK, len(bank)), np.float32)
    out = np.empty((frames, config.bands), np.float32)
    for start in range(0, frames, _BLOCK):
        spectrum = np.fft.rfft(windows[start : start + _BLOCK] * taper, axis=-1)
        power[: len(spectrum)] = spectrum.real**2 + spectrum.imag**2
        out[start : start + _BLOCK] = np.log(np.maximum(power @ bank, np.float32(config.floor)))[: len(spectrum)]
    return (out - np.float32(config.mean)) / np.float32(config.std)
