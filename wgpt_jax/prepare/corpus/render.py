"""Renders the planned documents that are missing, and writes what a preparation reads: the manifest."""

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from wgpt_jax.errors import WorkError
from wgpt_jax.prepare.corpus.files import check_folder, run_jobs, write_flac, write_text
from wgpt_jax.prepare.corpus.holdout import Document
from wgpt_jax.prepare.progress import show_made

MANIFEST = "manifest.jsonl"

Render = Callable[[Any], np.ndarray]
"""From a recipe to float32 mono ``[n]`` at 24 kHz."""


def render_documents(
    out: Path, documents: Sequence[Document], render: Render, workers: int | None, progress: bool = True
) -> int:
    """Makes the files of ``documents`` that are not there yet; returns how many.

    Args:
        out: folder of the corpus, made if missing.
        documents: what the corpus holds.
        render: makes the samples of a recipe; louder ones than full scale are made quieter.
        workers: processes; all cores by default, 1 works in this process.
        progress: whether to show a bar of hours on stderr.

    Raises:
        RequestError: ``out`` is a file.
        WorkError: a document could not be made, or came out silent.
    """
    check_folder(out)
    missing = [document for document in documents if not (out / document.path).is_file()]
    total, left = (sum(document.seconds for document in some) / 3600 for some in (documents, missing))
    with show_made(total, total - left, "h", 2, progress) as note:
        for hours in run_jobs(functools.partial(_make, out, render), missing, workers):
            note(hours)
    return len(missing)


def _make(out: Path, render: Render, document: Document) -> float:
    """Renders and writes one document; returns its planned hours."""
    audio = render(document.recipe)
    peak = float(np.abs(audio).max(initial=0.0))
    if peak <= 1e-4:
        raise WorkError(f"{document.path} came out silent")
    write_flac(out / document.path, audio * min(1.0, 0.98 / peak))
    return document.seconds / 3600


def write_manifest(out: Path, documents: Sequence[Document], about: str) -> dict[str, float]:
    """Writes ``manifest.jsonl``, which ``tools/prepare_audio.py`` takes, and ``README.md``, which says ``about``.

    Returns:
        path -> seconds of the file that lies there.
    """
    seconds = {document.path: soundfile.info(out / document.path).duration for document in documents}
    rows = [
        {
            "path": document.path,
            "split": document.split,
            **document.columns,
            "seconds": round(seconds[document.path], 3),
        }
        for document in sorted(documents, key=lambda document: document.path)
    ]
    write_text(out / "README.md", about)
    write_text(out / MANIFEST, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return seconds
