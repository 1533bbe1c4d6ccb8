"""Speech-like sound from numpy and scipy alone: words of a lexicon, a glottal source, four gliding formants."""

from dataclasses import dataclass

import numpy as np
import scipy.ndimage
import scipy.signal

# Formants in Hz of an adult's vowels (after Peterson and Barney 1952; the fourth is set), by ARPAbet name.
VOWELS = {
    "iy": (270, 2290, 3010, 3700),
    "ih": (390, 1990, 2550, 3600),
    "eh": (530, 1840, 2480, 3600),
    "ae": (660, 1720, 2410, 3600),
    "aa": (730, 1090, 2440, 3500),
    "ao": (570, 840, 2410, 3400),
    "uh": (440, 1020, 2240, 3400),
    "uw": (300, 870, 2240, 3400),
    "ah": (640, 1190, 2390, 3500),
    "er": (490, 1350, 1690, 3300),
}
# Consonants: formant targets, voicing, seconds, and the centre (Hz) and level of their noise.
CONSONANTS = {
    "m": ((250, 1000, 2200, 3300), 0.5, 0.08, 0, 0.0),
    "n": ((250, 1500, 2500, 3400), 0.5, 0.07, 0, 0.0),
    "l": ((360, 1100, 2800, 3500), 0.7, 0.07, 0, 0.0),
    "w": ((300, 700, 2200, 3300), 0.7, 0.07, 0, 0.0),
    "s": ((300, 1700, 2600, 3600), 0.0, 0.11, 6500, 0.5),
    "sh": ((300, 1800, 2500, 3500), 0.0, 0.11, 3200, 0.5),
    "f": ((300, 1200, 2300, 3400), 0.0, 0.09, 5000, 0.15),
    "z": ((300, 1700, 2600, 3600), 0.4, 0.09, 6000, 0.25),
    "b": ((250, 800, 2200, 3300), 0.1, 0.06, 600, 0.2),
    "d": ((250, 1700, 2600, 3500), 0.1, 0.06, 3500, 0.3),
    "k": ((300, 1900, 2400, 3500), 0.0, 0.08, 1800, 0.5),
    "t": ((300, 1700, 2600, 3500), 0.0, 0.08, 4500, 0.5),
}
STOPS = ("b", "d", "k", "t")
BANDWIDTHS = (80.0, 100.0, 150.0, 250.0)
BLOCK = 120  # samples between two settings of the formant filters


@dataclass(frozen=True)
class Speaker:
    """What the clips of one voice share: median pitch in Hz, vocal-tract scale, rate of speech, lexicon."""

    pitch: float
    tract: float
    pace: float
    lexicon: tuple[tuple[str, ...], ...]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Speaker":
        """Draws a voice and its sixty words; the same generator state gives the same one."""
        pitch = float(np.exp(rng.uniform(np.log(85), np.log(250))))
        tract = float(np.clip(0.85 + 0.3 * (pitch - 85) / 165 + rng.normal(0, 0.04), 0.8, 1.25))
        vowels, consonants = list(VOWELS), list(CONSONANTS)
        words = []
        for _ in range(60):
            syllables = int(rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15]))
            word = [name for _ in range(syllables) for name in (str(rng.choice(consonants)), str(rng.choice(vowels)))]
            words.append(tuple(word + [str(rng.choice(consonants))] * int(rng.integers(0, 2))))
        return cls(pitch, tract, float(rng.uniform(0.85, 1.2)), tuple(words))


def babble(speaker_rng: np.random.Generator, rng: np.random.Generator, seconds: float, rate: int) -> np.ndarray:
    """Babbles phrases of a speaker's words, the frequent ones as frequent as in a language (Zipf's law).

    Args:
        speaker_rng: draws the voice.
        rng: draws what it says.
        seconds: duration.
        rate: sampling rate in Hz.

    Returns:
        float32 ``[seconds * rate]``, its RMS about 0.1.
    """
    speaker = Speaker.draw(speaker_rng)
    samples = round(seconds * rate)
    formants, voicing, noise_centre, noise_level, pitch = _tracks(speaker, rng, -(-samples // BLOCK), BLOCK / rate)
    source = _glottal_source(np.repeat(pitch, BLOCK), rate, rng) * np.repeat(_smooth(voicing), BLOCK)
    breath = rng.standard_normal(len(source))
    out = np.empty(len(source))
    state, hiss_state = np.zeros((len(BANDWIDTHS), 2)), np.zeros((1, 2))
    formants *= speaker.tract
    for block in range(len(voicing)):
        span = slice(block * BLOCK, (block + 1) * BLOCK)
        excitation = source[span] + 0.004 * breath[span]
        voiced, state = scipy.signal.sosfilt(_resonators(formants[block], BANDWIDTHS, rate), excitation, zi=state)
        centre = min(float(noise_centre[block]) * speaker.tract, 0.45 * rate)
        filters = _resonators(np.array([centre]), (0.35 * centre,), rate)
        hiss, hiss_state = scipy.signal.sosfilt(filters, breath[span], zi=hiss_state)
        out[span] = voiced + 0.2 * noise_level[block] * hiss
    out = out[:samples]
    return (0.1 * out / (np.sqrt(np.mean(out**2)) + 1e-9)).astype(np.float32)


def _tracks(speaker: Speaker, rng: np.random.Generator, blocks: int, step: float) -> tuple[np.ndarray, ...]:
    """Per block: formants ``[n, 4]`` in Hz, voicing, centre of the noise in Hz, its level, pitch in Hz."""
    odds = 1.0 / np.arange(1, len(speaker.lexicon) + 1)
    odds /= odds.sum()
    rows: list[tuple[tuple[float, ...], float, float, float, float]] = []
    rest = VOWELS["ah"]
    while len(rows) < blocks:
        words = int(rng.integers(2, 7))
        phonemes = [p for _ in range(words) for p in speaker.lexicon[rng.choice(len(odds), p=odds)]]
        peak = speaker.pitch * rng.uniform(1.1, 1.4)
        for index, name in enumerate(phonemes):
            declination = peak + (0.8 * speaker.pitch - peak) * index / len(phonemes)
            if name in VOWELS:
                length = round(rng.uniform(0.07, 0.18) / speaker.pace / step)
                rows += [(VOWELS[name], 1.0, 5000.0, 0.0, declination)] * length
            else:
                target, voiced, duration, centre, level = CONSONANTS[name]
                length = max(3, round(duration * rng.uniform(0.8, 1.2) / speaker.pace / step))
                # A stop is closed for most of its time, then its burst is heard.
                closed = int(length * 0.6) if name in STOPS else 0
                rows += [(target, 0.3 * voiced, centre or 5000.0, 0.0, declination)] * closed
                rows += [(target, voiced, centre or 5000.0, level, declination)] * (length - closed)
        rows += [(rest, 0.0, 5000.0, 0.0, 0.9 * speaker.pitch)] * round(rng.uniform(0.12, 0.45) / step)
    formants, voicing, centre, level, pitch = (
        np.array(column, dtype=float) for column in zip(*rows[:blocks], strict=True)
    )
    return _smooth(formants, 9), voicing, centre, _smooth(level, 3), _smooth(pitch, 15)


def _smooth(track: np.ndarray, width: int = 5) -> np.ndarray:
    """Moving average over blocks, along the first axis."""
    window = np.hanning(width + 2)[1:-1]
    return scipy.ndimage.convolve1d(track, window / window.sum(), axis=0, mode="nearest")


def _glottal_source(pitch: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """One low-passed pulse a period, with jitter; the slope of a voice, about -12 dB an octave."""
    jitter = 1 + 0.015 * np.repeat(rng.standard_normal(len(pitch) // BLOCK), BLOCK)
    phase = np.cumsum(pitch * jitter / rate)
    pulses = np.diff(np.floor(phase), prepend=0.0)
    return scipy.signal.lfilter([1.0, -1.0], np.poly([0.97, 0.88, 0.7]), pulses)


def _resonators(frequencies: np.ndarray, bandwidths: tuple[float, ...], rate: int) -> np.ndarray:
    """Second-order sections ``[n, 6]`` of two-pole resonators with unit gain at 0 Hz."""
    radius = np.exp(-np.pi * np.asarray(bandwidths) / rate)
    first = -2 * radius * np.cos(2 * np.pi * frequencies / rate)
    second = radius**2
    sections = np.zeros((len(radius), 6))
    sections[:, 0] = 1 + first + second
    sections[:, 3], sections[:, 4], sections[:, 5] = 1.0, first, second
    return sections
