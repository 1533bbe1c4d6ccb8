"""Music from numpy and scipy alone: wavetables, plucked strings and drums play a composer's parts."""

from collections.abc import Sequence

import numpy as np
import scipy.signal

from wgpt_jax.prepare.corpus.composer import Note, Part

TABLE = 2048
PLUCKED = (*range(24, 40), 45, 46, 105, 106, 107)  # General MIDI guitars, basses, pizzicato, harp, ...
STRUCK = (*range(16), 47)  # pianos and mallets: decay from the stroke on
# Shares of odd and even harmonics and the slope in dB an octave, by General MIDI family of eight programs.
TIMBRES = {
    0: (1.0, 0.9, -9.0),
    1: (1.0, 0.25, -12.0),
    2: (1.0, 1.0, -5.0),
    5: (1.0, 0.8, -6.0),
    6: (0.8, 1.0, -8.0),
    7: (1.0, 0.9, -4.5),
    8: (1.0, 0.6, -6.0),
    9: (1.0, 0.15, -14.0),
}


def render_numpy(parts: Sequence[Part], seconds: float, rate: int) -> np.ndarray:
    """Plays ``parts``; returns the first ``seconds`` as float32 mono ``[n]`` at ``rate`` Hz, its peak at or below 1."""
    samples = round(seconds * rate)
    mix = np.zeros(samples + rate)
    for number, part in enumerate(parts):
        player = _Drums(rate) if part.drums else _Instrument(part, rate, number)
        for note in part.notes:
            start = round(note.start * rate)
            if start < samples:
                sound = player.play(note)[: len(mix) - start]
                mix[start : start + len(sound)] += sound * (note.velocity / 127) ** 1.5
    mix = mix[:samples]
    return (mix / max(1.0, np.abs(mix).max())).astype(np.float32)


class _Instrument:
    """A pitched instrument; tones are kept, since a piece repeats its keys."""

    def __init__(self, part: Part, rate: int, number: int) -> None:
        self.part, self.rate = part, rate
        self.rng = np.random.default_rng([part.program, number])
        self.strings: dict[int, np.ndarray] = {}
        self.tables: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def play(self, note: Note) -> np.ndarray:
        """The note's samples, with its release."""
        if self.part.program in PLUCKED:
            return self._pluck(note)
        return self._tone(note)

    def _pluck(self, note: Note) -> np.ndarray:
        """Karplus and Strong's string (1983): noise in a loop of one period with a two-point average."""
        length = round(min(note.duration + 0.3, 2.5) * self.rate)
        sound = self.strings.get(note.key)
        if sound is None or len(sound) < length:
            period = self.rate / hertz(note.key)
            loop = int(period - 0.5)
            # The fraction of a sample that the loop cannot hold tunes the average of the two taps.
            tap = period - 0.5 - loop
            noise = np.zeros(max(length, self.rate))
            noise[: loop + 1] = self.rng.uniform(-1, 1, loop + 1)
            noise = scipy.signal.lfilter([0.5, 0.5], [1.0], noise)
            feedback = np.zeros(loop + 3)
            feedback[0] = 1.0
            feedback[loop : loop + 3] = -0.996 * np.array([0.5 * (1 - tap), 0.5, 0.5 * tap])
            sound = 0.5 * scipy.signal.lfilter([1.0], feedback, noise)
            self.strings[note.key] = sound
        return sound[:length] * _release(length, round(0.25 * self.rate))

    def _tone(self, note: Note) -> np.ndarray:
        """Two wavetables, a dark one and a bright one whose share fades, under an envelope."""
        struck = self.part.program in STRUCK
        length = round((note.duration + (0.4 if struck else 0.08)) * self.rate)
        t = np.arange(length) / self.rate
        cents = 0.15 * self.part.vibrato * np.sin(2 * np.pi * 5.3 * t) * np.minimum(1, t / 0.4)
        if self.part.glide:
            cents = cents - 180 * np.exp(-t / 0.04)
        phase = np.cumsum(hertz(note.key) * 2 ** (cents / 1200)) * (TABLE / self.rate)
        index = phase.astype(np.int64) & (TABLE - 1)
        dark, bright = self._table(note.key)
        if struck:
            decay = 2.5 * 2 ** (-(note.key - 60) / 24)
            sound = np.exp(-t / decay) * (dark[index] + np.exp(-t * 4 / decay) * bright[index])
            return 0.35 * sound * _release(length, round(0.35 * self.rate))
        swell = np.minimum(1, t / 0.05) * (0.75 + 0.25 * np.exp(-t / 0.3))
        return 0.25 * swell * (dark[index] + swell * bright[index]) * _release(length, round(0.08 * self.rate))

    def _table(self, key: int) -> tuple[np.ndarray, np.ndarray]:
        if key not in self.tables:
            odd, even, slope = TIMBRES.get(self.part.program // 8, (1.0, 0.7, -7.0))
            orders = np.arange(1, max(2, min(40, int(0.45 * self.rate / hertz(key))) + 1))
            levels = np.where(orders % 2, odd, even) * 10 ** (slope * np.log2(orders) / 20)
            phases = np.random.default_rng([self.part.program, key]).uniform(0, 2 * np.pi, len(orders))
            cycle = np.arange(TABLE) * (2 * np.pi / TABLE)
            waves = np.sin(orders[:, None] * cycle + phases[:, None]) * levels[:, None]
            dark = waves * np.exp(-orders / 3)[:, None]
            self.tables[key] = dark.sum(0), (waves - dark).sum(0)
        return self.tables[key]


class _Drums:
    """Kick, snare, cymbals and toms, each made once."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.rng = np.random.default_rng(10)
        self.sounds: dict[int, np.ndarray] = {}

    def play(self, note: Note) -> np.ndarray:
        """The drum on a key of the General MIDI drum map."""
        if note.key not in self.sounds:
            self.sounds[note.key] = self._strike(note.key)
        return self.sounds[note.key]

    def _strike(self, key: int) -> np.ndarray:
        t = np.arange(round(0.9 * self.rate)) / self.rate
        noise = self.rng.standard_normal(len(t))
        if key == 36:
            return 0.9 * np.sin(2 * np.pi * (48 * t - 6 * np.exp(-t / 0.03))) * np.exp(-t / 0.12)
        if key == 38:
            return (0.3 * np.sin(2 * np.pi * 190 * t) + 0.25 * noise) * np.exp(-t / 0.07)
        if key in (42, 44, 46, 49, 51):
            decay = {42: 0.03, 44: 0.05, 46: 0.25, 49: 0.6, 51: 0.3}[key]
            high = scipy.signal.sosfilt(scipy.signal.butter(4, 6000, "high", fs=self.rate, output="sos"), noise)
            return 0.1 * high * np.exp(-t / decay)
        return 0.6 * np.sin(2 * np.pi * (30 + 2 * key) * t) * np.exp(-t / 0.15)


def hertz(key: int) -> float:
    """Frequency of a MIDI key in equal temperament, A4 = 440 Hz."""
    return 440.0 * 2 ** ((key - 69) / 12)


def _release(length: int, fade: int) -> np.ndarray:
    fade = min(fade, length)
    return np.concatenate([np.ones(length - fade), np.linspace(1, 0, fade)])
