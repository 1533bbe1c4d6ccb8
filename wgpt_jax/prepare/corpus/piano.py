"""Piano music: excerpts of recorded performances (MIDI), played by FluidSynth, whole works held out."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import scipy.signal

from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.prepare.corpus.files import SAMPLE_RATE
from wgpt_jax.prepare.corpus.fluid import fluidsynth_available, play_midi
from wgpt_jax.prepare.corpus.holdout import SHARES, Document, choose, divide, generator
from wgpt_jax.prepare.corpus.midi import Performance, read_midi
from wgpt_jax.prepare.corpus.performances import Source, find_performances
from wgpt_jax.prepare.splits import hash_fraction

LONGEST = 60.0
"""Seconds of an excerpt, at most."""
LEAD = 8.0
"""Seconds played before an excerpt and cut off again, so that what sounds at its beginning is there."""
_PAUSE = 4.0  # seconds without a stroke that an excerpt avoids
_RENDER_RATE = 48_000  # above the piano's partials, so that resampling and not aliasing removes what is beyond 12 kHz
_GAIN = 1.5  # the loudest chords stay below full scale

ABOUT = """# Piano music

Excerpts of performances recorded as MIDI, played by FluidSynth: 24 kHz mono FLAC. Whole works are held out: all
performances of a piece, and all movements of a sonata, are in one split (`manifest.jsonl`).

Where the MIDI files are those of the ASAP data set (Foscarin et al., ISMIR 2020), they are under CC BY-NC-SA 4.0, and
this audio with them: measure with it, ship nothing made from it.
"""


@dataclass(frozen=True)
class Excerpt:
    """What FluidSynth plays: a MIDI file of :data:`LEAD` seconds and then ``seconds`` more."""

    midi: bytes
    seconds: float


def plan_piano(midi: Path, hours: float, seed: int, longest: float) -> list[Document]:
    """The excerpts that make up ``hours`` hours: first one performance of each piece, then second ones.

    Args:
        midi: tar archive or folder with composer/collection/piece/performance.mid.
        hours: of all splits.
        seed: of every draw.
        longest: seconds of an excerpt at most; half of that at least, where the performance is as long.

    Raises:
        RequestError: no fluidsynth, no archive, an unreadable performance, or too little material.
    """
    if not fluidsynth_available():
        raise RequestError(
            "--kind piano needs fluidsynth and a sound font: "
            "apt-get install --no-install-recommends fluidsynth fluid-soundfont-gm"
        )
    queues = queue_performances(find_performances(midi), seed)
    return choose({split: _documents(queues[split], split, seed, longest) for split in SHARES}, hours)


def queue_performances(sources: list[Source], seed: int) -> dict[str, list[Source]]:
    """Split -> performances of its works; first one of each piece in a drawn order, then the second ones, and so on."""
    pieces: dict[str, list[Source]] = defaultdict(list)
    weights: dict[str, float] = defaultdict(float)
    for source in sources:
        pieces[source.piece].append(source)
    for same in pieces.values():
        # Not by performances: a work with very many would fill a split alone.
        weights[same[0].work] += 1
    splits = divide(weights, seed)
    queues: dict[str, list[tuple[int, float, Source]]] = {split: [] for split in SHARES}
    for same in pieces.values():
        drawn = sorted((hash_fraction(source.name, seed), source.name, source) for source in same)
        for turn, (fraction, _, source) in enumerate(drawn):
            queues[splits[source.work]].append((turn, hash_fraction(f"{fraction}", seed), source))
    return {
        split: [source for _, _, source in sorted(queue, key=lambda entry: (*entry[:2], entry[2].name))]
        for split, queue in queues.items()
    }


def _documents(queue: list[Source], split: str, seed: int, longest: float) -> Iterator[Document]:
    for source in queue:
        try:
            performance = read_midi(source.data)
        except ValueError as error:
            raise RequestError(f"{source.name} cannot be read as MIDI: {error}; remove it") from error
        stretch = draw_stretch(performance, generator(seed, source.name), longest)
        if stretch is None:
            continue
        begin, seconds = stretch
        path = PurePosixPath(source.name).with_suffix("")
        columns = {
            "domain": "music",
            "composer": source.composer,
            "work": source.work,
            "piece": source.piece,
            "performance": path.name,
            "from": begin,
        }
        excerpt = Excerpt(performance.cut(begin - LEAD, begin + seconds + 0.5), seconds)
        yield Document(f"{path}_{begin:.2f}_{seconds:.2f}.flac", split, seconds, columns, excerpt)


def draw_stretch(performance: Performance, rng: np.random.Generator, longest: float) -> tuple[float, float] | None:
    """Where an excerpt begins, at a stroke, and how long it is, both in seconds with two decimals.

    Stretches with a long pause are avoided if there are others; None if the performance is shorter than 10 seconds, or
    than half of ``longest`` if that is less.
    """
    onsets, end = performance.onsets, performance.end
    available = end - onsets[0] if len(onsets) else 0.0
    if available < min(10.0, longest / 2):
        return None
    seconds = np.floor(min(rng.uniform(longest / 2, longest), available) * 100) / 100
    begins = np.unique(onsets[onsets <= end - seconds + 0.01])
    pauses = onsets[1:][np.diff(onsets) > _PAUSE]  # where each long pause ends
    cut = np.searchsorted(pauses, begins, side="right") != np.searchsorted(pauses, begins + seconds, side="right")
    begin = rng.choice(begins[~cut] if not cut.all() else begins)
    return round(float(begin), 2), float(seconds)


def render_excerpt(excerpt: Excerpt) -> np.ndarray:
    """Plays an excerpt: float32 mono ``[n]`` at 24 kHz.

    Raises:
        WorkError: FluidSynth failed or ended too early.
    """
    audio = play_midi(excerpt.midi, _RENDER_RATE, _GAIN)
    audio = scipy.signal.resample_poly(audio, SAMPLE_RATE, _RENDER_RATE).astype(np.float32)
    first, length = round(LEAD * SAMPLE_RATE), round(excerpt.seconds * SAMPLE_RATE)
    if len(audio) < first + length:
        raise WorkError(f"fluidsynth played {len(audio) / SAMPLE_RATE:.1f} s of {LEAD + excerpt.seconds:.1f} s")
    return audio[first : first + length]
