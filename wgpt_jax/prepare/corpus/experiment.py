"""The two corpora of the experiment, piano and reading: planned, rendered, and written down in a manifest."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wgpt_jax.errors import RequestError
from wgpt_jax.prepare.corpus import piano, reading
from wgpt_jax.prepare.corpus.holdout import Document, hours_by_split
from wgpt_jax.prepare.corpus.render import MANIFEST, Render, render_documents, write_manifest

SHORTEST = 4.0
"""Seconds: the least that the longest document may be."""


@dataclass(frozen=True)
class ExperimentSummary:
    """What a run of :func:`make_experiment_corpus` did."""

    manifest: Path
    """What ``tools/prepare_audio.py`` takes."""
    splits: dict[str, tuple[int, float]]
    """Split -> documents, hours."""
    made: int
    """Files made now."""


@dataclass(frozen=True)
class _Maker:
    """What distinguishes one kind from the other."""

    material: str
    """The flag that names what it is made from, and what that is."""
    longest: float
    plan: Callable[[Path, float, int, float], list[Document]]
    render: Render
    about: str


_MAKERS = {
    "piano": _Maker(
        "--midi, an archive or folder of MIDI files",
        piano.LONGEST,
        piano.plan_piano,
        piano.render_excerpt,
        piano.ABOUT,
    ),
    "reading": _Maker(
        "--books, a folder of .txt files",
        reading.LONGEST,
        reading.plan_reading,
        reading.render_passage,
        reading.ABOUT,
    ),
}


def make_experiment_corpus(
    out: Path,
    kind: str,
    material: Path | None,
    hours: float,
    longest: float | None = None,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
) -> ExperimentSummary:
    """Makes a corpus with held-out works or voices, as 24 kHz mono 16-bit FLAC under ``out``; existing files are kept.

    The manifest is written last. The corpus for fewer hours is a part of the one for more: no document moves between
    splits. 80 % of the hours are for training, 8 % for validation, 12 % for the test.

    Args:
        out: folder of the corpus, made if missing.
        kind: ``piano`` or ``reading``.
        material: the MIDI files (:func:`piano.plan_piano`) or the books (:func:`reading.plan_reading`).
        hours: of all splits.
        longest: seconds of a document at most; 60 for piano and 30 for reading by default.
        seed: of every draw.
        workers: processes; all cores by default.
        progress: whether to show a bar on stderr.

    Raises:
        RequestError: a missing program or material, or too little of it for ``hours``.
        WorkError: a document could not be made.
    """
    maker = _MAKERS[kind]
    if material is None:
        raise RequestError(f"--kind {kind} needs {maker.material}")
    longest = maker.longest if longest is None else longest
    if not longest >= SHORTEST:
        raise RequestError(f"--longest {longest:g}: it must be at least {SHORTEST:g} seconds")
    documents = maker.plan(material, hours, seed, longest)
    made = render_documents(out, documents, maker.render, workers, progress)
    seconds = write_manifest(out, documents, maker.about)
    return ExperimentSummary(out / MANIFEST, hours_by_split(documents, seconds), made)
