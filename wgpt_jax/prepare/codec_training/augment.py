"""Random changes of a training segment: what microphones, rooms, codecs and volume knobs do to audio in the world."""

import numpy as np
import scipy.fft


def draw_speed(rng: np.random.Generator) -> float:
    """A playback speed: 1 for half of the segments, else between 0.8 and 1.25 (pitch and tempo together)."""
    return 1.0 if rng.random() < 0.5 else float(np.exp(rng.uniform(np.log(0.8), np.log(1.25))))


def augment_segment(audio: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Tilts, band-limits, reverberates, adds noise and scales a segment, each by chance.

    * tilt about 1 kHz by -4 to +4 dB an octave (half of the segments, at most 12 dB either way);
    * low-pass between 3.4 and 8 kHz (three in ten): much recorded speech has nothing above;
    * reverberation of 0.1 to 0.8 s (one in ten);
    * white to pink noise 15 to 50 dB below (one in seven);
    * level between -12 and +6 dB, a quarter of the segments between -30 and +10 dB; the peak stays below 1.

    Args:
        audio: float32 ``[N]``.
        rate: sampling rate in Hz.
        rng: every draw comes from it.

    Returns:
        float32 ``[N]``.
    """
    size = scipy.fft.next_fast_len(len(audio) + rate // 2, real=True)
    spectrum = scipy.fft.rfft(audio, size)
    frequency = np.arange(len(spectrum)) * (rate / size)
    if rng.random() < 0.5:
        octaves = np.log2(np.maximum(frequency, 60.0) / 1000.0)
        spectrum *= 10 ** (np.clip(rng.uniform(-4, 4) * octaves, -12, 12) / 20)
    if rng.random() < 0.1:
        spectrum *= scipy.fft.rfft(_impulse_response(rate, rng), size)
    if rng.random() < 0.3:
        cutoff = rng.uniform(3400, 8000)
        spectrum *= 1 / np.sqrt(1 + (frequency / cutoff) ** rng.choice([12, 40, 120]))
    out = scipy.fft.irfft(spectrum, size)[: len(audio)]
    if rng.random() < 0.15:
        shape = np.maximum(frequency, 60.0) ** (-0.5 * rng.uniform(0, 1))
        noise = scipy.fft.irfft(shape * np.exp(2j * np.pi * rng.random(len(shape))), size)[: len(audio)]
        out += noise * np.sqrt(np.mean(out**2) / np.mean(noise**2)) * 10 ** (rng.uniform(-50, -15) / 20)
    out *= 10 ** (rng.uniform(*((-30, 10) if rng.random() < 0.25 else (-12, 6))) / 20)
    return (out * min(1.0, 0.98 / (np.abs(out).max() + 1e-9))).astype(np.float32)


def _impulse_response(rate: int, rng: np.random.Generator) -> np.ndarray:
    decay = rng.uniform(0.1, 0.8)
    t = np.arange(rate // 2) / rate
    tail = rng.standard_normal(len(t)) * 10 ** (-3 * t / decay) * (t > 0.003)
    tail *= rng.uniform(0.15, 0.6) / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    return tail
