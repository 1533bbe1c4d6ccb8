"""Makes a corpus of speech-like and musical audio on this machine, for trying things out and for training a codec."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from wgpt_jax.command import run_command
from wgpt_jax.prepare.corpus import make_corpus


@dataclass
class Args:
    """Make a corpus of 24 kHz mono FLAC files under OUT: OUT/speech/<voice>/*.flac and OUT/music/<composer>/*.flac.

    The same command again makes only the files that are missing. The numpy engine needs nothing but Python; the system
    engine lets espeak-ng, flite (optional) and fluidsynth speak and play, and sounds far better.
    """

    out: Annotated[Path, tyro.conf.Positional]
    """Folder of the corpus."""
    hours: float = 2.0
    """Hours of each kind of audio."""
    kind: Literal["speech", "music", "both"] = "both"
    """What to make."""
    engine: Literal["auto", "numpy", "system"] = "auto"
    """Who makes it; auto takes the system's programs where they are installed."""
    seed: int = 0
    """Seed of every draw; another seed gives other voices and other pieces."""
    books: Path | None = None
    """Folder of *.txt files for the system voices to read; generated sentences without it."""
    workers: int | None = None
    """Processes; all cores by default."""


def main(args: Args) -> None:
    """Makes the corpus and says what was made, and by which engine."""
    summary = make_corpus(args.out, args.hours, args.kind, args.engine, args.seed, args.books, args.workers)
    engines = ", ".join(f"{kind} by the {engine} engine" for kind, engine in summary.engines.items())
    print(f"{args.out}: {summary.files} files ({engines}); {summary.made} made now, {summary.hours_made:.2f} hours")


if __name__ == "__main__":
    raise SystemExit(run_command(main, Args))
