"""Makes a corpus: plans the clips, renders the missing ones on all cores, writes them as FLAC."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.prepare.corpus import babble, synth, voices
from wgpt_jax.prepare.corpus.augment import augment
from wgpt_jax.prepare.corpus.composer import Composer, compose
from wgpt_jax.prepare.corpus.files import SAMPLE_RATE, check_folder, run_jobs, write_flac
from wgpt_jax.prepare.corpus.fluid import render_fluidsynth
from wgpt_jax.prepare.corpus.plan import Clip, choose_engines, draw_voice, plan_clips
from wgpt_jax.prepare.corpus.text import passage, read_sentences
from wgpt_jax.prepare.progress import show_made


@dataclass(frozen=True)
class CorpusSummary:
    """What a run of :func:`make_corpus` did: engine by kind, files in the corpus, files made now, hours now made."""

    engines: dict[str, str]
    files: int
    made: int
    hours_made: float


def make_corpus(
    out: Path,
    hours: float,
    kind: str = "both",
    engine: str = "auto",
    seed: int = 0,
    books: Path | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> CorpusSummary:
    """Makes ``hours`` of audio of each kind under ``out`` as 24 kHz mono 16-bit FLAC; existing files are kept.

    The layout is ``out/speech/<voice>/*.flac`` and ``out/music/<composer>/*.flac``. The same arguments give the same
    samples on the same machine; the numpy engine gives them from the seed alone.

    Args:
        out: folder of the corpus, made if missing.
        hours: hours of each kind (about: the length of speech follows the text).
        kind: ``speech``, ``music`` or ``both``.
        engine: ``system`` (espeak-ng, flite, fluidsynth), ``numpy`` (nothing but Python), or ``auto``.
        seed: seed of every draw.
        books: folder of ``*.txt`` for the system voices to read; generated sentences without it.
        workers: processes; all cores by default, 1 works in this process.
        progress: whether to show a progress bar on stderr.

    Raises:
        RequestError: an impossible request (see :func:`choose_engines`, :func:`read_sentences`).
        WorkError: a clip could not be made.
    """
    if not hours > 0:
        raise RequestError(f"--hours {hours}: it must be above 0")
    check_folder(out)
    engines = choose_engines(engine, kind)
    read_sentences(books)
    clips = [clip for name, chosen in engines.items() for clip in plan_clips(name, chosen, hours, seed)]
    missing = [clip for clip in clips if not (out / clip.path).is_file()]
    jobs = [(out, clip, books) for clip in missing]
    made = 0.0
    with show_made(len(clips), len(clips) - len(jobs), "clips", 0, progress) as note:
        for seconds in run_jobs(_make_clip, jobs, workers, chunk=4):
            made += seconds
            note(1)
    return CorpusSummary(engines, len(clips), len(missing), made / 3600)


def _make_clip(job: tuple[Path, Clip, Path | None]) -> float:
    """Renders and writes one clip; returns its seconds."""
    out, clip, books = job
    audio = render_clip(clip, books)
    write_flac(out / clip.path, audio)
    return len(audio) / SAMPLE_RATE


def render_clip(clip: Clip, books: Path | None = None) -> np.ndarray:
    """The samples of a planned clip: float32 mono ``[n]`` at 24 kHz, its peak below 1.

    Raises:
        WorkError: the engine failed or the clip came out silent.
    """
    rng = clip.rng()
    if clip.kind == "music":
        parts = compose(Composer.draw(clip.group_rng()), clip.seconds, rng)
        play = render_fluidsynth if clip.engine == "system" else synth.render_numpy
        audio = play(parts, clip.seconds, SAMPLE_RATE)
    elif clip.engine == "system":
        text = passage(_sentences(books), int(clip.seconds * voices.CHARACTERS_PER_SECOND), rng)
        audio = voices.speak(draw_voice(clip), text, SAMPLE_RATE)
    else:
        audio = babble.babble(clip.group_rng(), rng, clip.seconds, SAMPLE_RATE)
    if not np.abs(audio).max() > 1e-4:
        raise WorkError(f"{clip.path} came out silent")
    return augment(audio, SAMPLE_RATE, rng)


@cache
def _sentences(books: Path | None) -> list[str]:
    return read_sentences(books)
