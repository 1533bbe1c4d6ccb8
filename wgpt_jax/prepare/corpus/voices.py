"""Speech through espeak-ng and, where it is installed, flite: text in by stdin or a file, a waveform out."""

import io
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.signal
import soundfile

from wgpt_jax.errors import WorkError

ACCENTS = ["en-us", "en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029"]
# Voices for other languages read the English text with their own sounds: more phonemes for a codec to know.
FOREIGN = ["de", "fr-fr", "it", "es", "nl", "sv", "da", "pl", "pt", "fi", "cs", "tr"]
# Voices that sound like people: no robots, whispers or croaks.
VARIANTS = [
    "m1",
    "m2",
    "m3",
    "m4",
    "m5",
    "m6",
    "m7",
    "m8",
    "f1",
    "f2",
    "f3",
    "f4",
    "f5",
    "klatt",
    "klatt2",
    "klatt3",
    "klatt4",
    "adam",
    "Alex",
    "Alicia",
    "Andrea",
    "Andy",
    "Annie",
    "antonio",
    "aunty",
    "belinda",
    "benjamin",
    "boris",
    "caleb",
    "david",
    "Denis",
    "Diogo",
    "ed",
    "edward",
    "Gene",
    "gustave",
    "Henrique",
    "Hugo",
    "iven",
    "Jacky",
    "john",
    "Lee",
    "linda",
    "marcelo",
    "Marco",
    "Mario",
    "max",
    "Michael",
    "michel",
    "miguel",
    "pablo",
    "paul",
    "pedro",
    "quincy",
    "rob",
    "robert",
    "steph",
    "steph2",
    "zac",
    "anika",
    "grandpa",
    "grandma",
    "norbert",
    "sandro",
    "shelby",
    "travis",
    "victor",
]
FLITE_VOICES = ["rms", "slt", "awb", "kal16"]
CHARACTERS_PER_SECOND = 15.0


@dataclass(frozen=True)
class Voice:
    """A speaker: program, voice name, words a minute (espeak-ng), pitch 0..99 (espeak-ng) or Hz (flite), stretch."""

    program: str
    name: str
    speed: int
    pitch: int

    @property
    def folder(self) -> str:
        """The folder of this speaker's clips."""
        return f"{self.program}-{self.name}-s{self.speed}-p{self.pitch}".replace("+", "-").lower()

    @classmethod
    def draw(cls, rng: np.random.Generator, flite: bool, variants: Sequence[str] = VARIANTS) -> "Voice":
        """Draws a speaker among espeak-ng's ``variants``; ``flite`` allows that program's recorded voices."""
        if flite and rng.random() < 0.4:
            name = str(rng.choice(FLITE_VOICES))
            base = {"rms": 100, "slt": 170, "awb": 125, "kal16": 105}[name]
            return cls("flite", name, int(rng.integers(125, 200)), int(base * rng.uniform(0.8, 1.25)))
        language = str(rng.choice(FOREIGN if rng.random() < 0.2 else ACCENTS))
        return cls(
            "espeak", f"{language}+{rng.choice(variants)}", int(rng.integers(120, 210)), int(rng.integers(25, 80))
        )


def speak(voice: Voice, text: str, rate: int, amplitude: int = 100) -> np.ndarray:
    """Reads ``text`` aloud; returns float32 mono ``[n]`` at ``rate`` Hz, its peak at or below 1.

    Args:
        voice: who reads.
        text: what.
        rate: sampling rate in Hz.
        amplitude: espeak-ng's, of 200; at its default some voices are clipped.

    Raises:
        WorkError: the program failed or stayed silent.
    """
    audio, native = _flite(voice, text) if voice.program == "flite" else _espeak(voice, text, amplitude)
    if len(audio) < native // 4 or not np.abs(audio).max() > 0:
        raise WorkError(f"{voice.program} said nothing with voice {voice.name}; is that voice installed?")
    common = np.gcd(rate, native)
    return scipy.signal.resample_poly(audio, rate // common, native // common).astype(np.float32)


def _espeak(voice: Voice, text: str, amplitude: int) -> tuple[np.ndarray, int]:
    # The text goes in by stdin: as an argument, one that starts with "-" would be taken for a flag.
    command = ["espeak-ng", "--stdin", "--stdout", "-v", voice.name, "-s", str(voice.speed), "-p", str(voice.pitch)]
    command += ["-a", str(amplitude)]
    wave = subprocess.run(command, input=text.encode(), capture_output=True).stdout
    if len(wave) <= 44:
        return np.zeros(0, np.float32), 22050
    # A header written to a pipe states false lengths, so only its sampling rate is read.
    rate = int.from_bytes(wave[24:28], "little")
    samples = np.frombuffer(wave[44 : 44 + (len(wave) - 44) // 2 * 2], "<i2")
    return samples.astype(np.float32) / 32768, rate


def _flite(voice: Voice, text: str) -> tuple[np.ndarray, int]:
    with tempfile.TemporaryDirectory() as folder:
        source, wave = Path(folder) / "text.txt", Path(folder) / "speech.wav"
        source.write_text(text, encoding="ascii", errors="ignore")
        settings = [f"duration_stretch={165 / voice.speed:.3f}", f"int_f0_target_mean={voice.pitch}"]
        command = ["flite", "-voice", voice.name, "-f", str(source), "-o", str(wave)]
        for setting in settings:
            command += ["--setf", setting]
        subprocess.run(command, capture_output=True)
        if not wave.is_file():
            return np.zeros(0, np.float32), 16000
        audio, rate = soundfile.read(io.BytesIO(wave.read_bytes()), dtype="float32", always_2d=True)
    return audio[:, 0], rate


def espeak_available() -> bool:
    """Whether espeak-ng is installed."""
    return shutil.which("espeak-ng") is not None


def flite_available() -> bool:
    """Whether flite is installed."""
    return shutil.which("flite") is not None
