"""How every corpus comes to be on disk: jobs on all cores, files that appear only when they are complete."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile

from wgpt_jax.errors import RequestError

SAMPLE_RATE = 24_000
"""Hz, of all files."""

Job = TypeVar("Job")


def check_folder(out: Path) -> None:
    """Refuses a corpus where a file is.

    Raises:
        RequestError: ``out`` is one.
    """
    if out.exists() and not out.is_dir():
        raise RequestError(f"{out} is a file; the corpus needs a folder")


def run_jobs(work: Callable[[Job], float], jobs: Sequence[Job], workers: int | None, chunk: int = 1) -> Iterator[float]:
    """Does ``work`` on every job, in order.

    Args:
        work: in a module's own name (or a partial of such), since it travels to other processes.
        jobs: what it is given.
        workers: processes; all cores by default, 1 works in this process.
        chunk: jobs that a process takes at once.

    Yields:
        what ``work`` returns.
    """
    workers = min(workers or len(os.sched_getaffinity(0)), max(1, len(jobs)))
    if workers == 1:
        yield from map(work, jobs)
        return
    with ProcessPoolExecutor(workers) as pool:
        try:
            yield from pool.map(work, jobs, chunksize=chunk)
        finally:
            pool.shutdown(cancel_futures=True)


def write_flac(target: Path, audio: np.ndarray) -> None:
    """Writes float32 mono ``[n]`` at 24 kHz as 16-bit FLAC, under its final name only when it is complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    soundfile.write(partial, audio, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    partial.replace(target)


def write_text(target: Path, text: str) -> None:
    """Writes a text file, under its final name only when it is complete."""
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(target)
