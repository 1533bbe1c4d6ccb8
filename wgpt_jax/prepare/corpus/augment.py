"""What a room and a microphone do to a clip: tilt, reverberation, a noise floor, a gain."""

import numpy as np
import scipy.signal


def augment(audio: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Applies a random tilt EQ, sometimes a reverb, a faint noise floor and a random level.

    Args:
        audio: float32 mono ``[n]``, not silent.
        rate: sampling rate in Hz.
        rng: every draw comes from it.

    Returns:
        float32 ``[n]``, its RMS between -32 and -16 dB of full scale, its peak below 1.
    """
    out = tilt(audio.astype(np.float32), rng.uniform(-3, 3), rate)
    if rng.random() < 0.35:
        out = reverb(out, rate, rng)
    out = out / (np.sqrt(np.mean(out**2)) + 1e-9)
    noise = rng.standard_normal(len(out)).astype(np.float32) * 10 ** (rng.uniform(-75, -45) / 20)
    out = (out + noise) * 10 ** (rng.uniform(-32, -16) / 20)
    peak = np.abs(out).max()
    return (out * min(1.0, 0.98 / peak)).astype(np.float32)


def tilt(audio: np.ndarray, decibels_per_octave: float, rate: int) -> np.ndarray:
    """First-order shelves that tilt the spectrum about 1 kHz by roughly the given slope (in all about 4 octaves)."""
    gain = 10 ** (-decibels_per_octave * 2 / 20)
    pole, zero = np.exp(-2 * np.pi * 1000 / rate / gain), np.exp(-2 * np.pi * 1000 / rate * gain)
    b, a = np.array([1.0, -zero]), np.array([1.0, -pole])
    return scipy.signal.lfilter(b * (1 - pole) / max(1 - zero, 1e-6), a, audio).astype(np.float32)


def reverb(audio: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Convolution with an exponentially decaying noise tail (0.15 to 1.2 s to -60 dB), mixed under the dry sound."""
    decay = float(rng.uniform(0.15, 1.2))
    t = np.arange(round(decay * rate)) / rate
    impulse = rng.standard_normal(len(t)) * 10 ** (-3 * t / decay)
    impulse[: round(0.004 * rate)] = 0
    wet = scipy.signal.fftconvolve(audio, impulse / np.sqrt(np.sum(impulse**2)))[: len(audio)]
    return (audio + rng.uniform(0.1, 0.5) * wet).astype(np.float32)
