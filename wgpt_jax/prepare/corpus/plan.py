"""Which clips a corpus has: a list that depends on the request alone, so that a second run finds what is missing."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wgpt_jax.errors import RequestError
from wgpt_jax.prepare.corpus.composer import Composer
from wgpt_jax.prepare.corpus.fluid import fluidsynth_available
from wgpt_jax.prepare.corpus.voices import Voice, espeak_available, flite_available

CLIPS_PER_GROUP = 6  # clips of one voice, pieces of one composer
KINDS = {"speech": ("speech",), "music": ("music",), "both": ("speech", "music")}
KIND_CODE = {"speech": 1, "music": 2}


@dataclass(frozen=True)
class Clip:
    """One file to make: its kind, engine, seed, running number, nominal length in seconds and relative path."""

    kind: str
    engine: str
    seed: int
    number: int
    seconds: float
    path: Path

    @property
    def group(self) -> int:
        """Number of the voice or composer."""
        return self.number // CLIPS_PER_GROUP

    def rng(self) -> np.random.Generator:
        """The generator of everything in this clip."""
        return np.random.default_rng([self.seed, KIND_CODE[self.kind], 1, self.number])

    def group_rng(self) -> np.random.Generator:
        """The generator of what the clips of one group share."""
        return np.random.default_rng([self.seed, KIND_CODE[self.kind], 0, self.group])


def choose_engines(engine: str, kind: str) -> dict[str, str]:
    """The engine for each kind of audio asked for.

    Args:
        engine: ``auto``, ``numpy`` or ``system``.
        kind: ``speech``, ``music`` or ``both``.

    Raises:
        RequestError: an unknown name, or ``system`` without the program it needs.
    """
    if kind not in KINDS:
        raise RequestError(f"--kind {kind}: it is one of {', '.join(KINDS)}")
    if engine not in ("auto", "numpy", "system"):
        raise RequestError(f"--engine {engine}: it is one of auto, numpy, system")
    available = {"speech": espeak_available(), "music": fluidsynth_available()}
    package = {"speech": "espeak-ng", "music": "fluidsynth fluid-soundfont-gm"}
    chosen = {}
    for name in KINDS[kind]:
        if engine == "system" and not available[name]:
            raise RequestError(
                f"--engine system needs a program for {name}: apt-get install --no-install-recommends {package[name]} "
                "(or take --engine numpy)"
            )
        chosen[name] = "numpy" if engine == "numpy" or not available[name] else "system"
    return chosen


def plan_clips(kind: str, engine: str, hours: float, seed: int) -> list[Clip]:
    """The clips of one kind that make up ``hours`` of audio, in order; the list for fewer hours is its beginning."""
    rng = np.random.default_rng([seed, KIND_CODE[kind]])
    longest = {"numpy": 12.0, "system": 16.0 if kind == "speech" else 30.0}[engine]
    clips: list[Clip] = []
    total = 0.0
    while total < hours * 3600:
        seconds = float(rng.uniform(longest / 4, longest))
        number = len(clips)
        clip = Clip(kind, engine, seed, number, seconds, Path())
        name = f"{number % CLIPS_PER_GROUP:02d}.flac"
        clips.append(Clip(kind, engine, seed, number, seconds, Path(kind) / group_name(clip) / name))
        total += seconds
    return clips


def group_name(clip: Clip) -> str:
    """The folder of a clip: its voice or its composer, with the seed so that corpora can be merged."""
    if clip.kind == "speech":
        voice = "babble" if clip.engine == "numpy" else draw_voice(clip).folder
        return f"{voice}-{clip.seed}-{clip.group:04d}"
    return f"{Composer.draw(clip.group_rng()).ensemble}-{clip.engine}-{clip.seed}-{clip.group:04d}"


def draw_voice(clip: Clip) -> Voice:
    """The voice of a speech clip of the system engine."""
    return Voice.draw(clip.group_rng(), flite_available())
