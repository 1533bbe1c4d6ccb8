"""Makes a corpus on this machine: audio from nothing, piano music from MIDI files, or books that are read aloud."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from wgpt_jax.command import run_command
from wgpt_jax.errors import RequestError
from wgpt_jax.prepare.corpus import make_corpus, make_experiment_corpus


@dataclass
class Args:
    """Make a corpus of 24 kHz mono FLAC files under OUT.

    speech, music, both: OUT/speech/<voice>/*.flac and OUT/music/<composer>/*.flac, from nothing. The numpy engine needs
    nothing but Python; the system engine lets espeak-ng, flite (optional) and fluidsynth speak and play, and sounds far
    better.

    piano, reading: the corpora of the experiment, with OUT/manifest.jsonl for tools/prepare_audio.py. piano plays
    excerpts of recorded performances (--midi, fluidsynth), whole works held out; reading reads passages of books
    (--books, espeak-ng), whole voices and chapters held out. Fewer hours are a part of more, split by split.

    The same command again makes only the files that are missing.
    """

    out: Annotated[Path, tyro.conf.Positional]
    """Folder of the corpus."""
    hours: float = 2.0
    """Hours of each kind of audio; for piano and reading of all splits together."""
    kind: Literal["speech", "music", "both", "piano", "reading"] = "both"
    """What to make."""
    engine: Literal["auto", "numpy", "system"] = "auto"
    """Who makes speech and music; auto takes the system's programs where they are installed."""
    seed: int = 0
    """Seed of every draw; another seed gives other voices and other pieces, and holds out others."""
    midi: Path | None = None
    """For piano: a tar archive, or a folder, of composer/collection/piece/performance.mid."""
    books: Path | None = None
    """Folder of *.txt files to read; without it the system voices of speech read generated sentences."""
    longest: float | None = None
    """Seconds of a document at most, for piano (60 by default) and reading (30)."""
    workers: int | None = None
    """Processes; all cores by default."""


def main(args: Args) -> None:
    """Makes the corpus and says what was made."""
    if args.kind in ("piano", "reading"):
        _make_for_experiment(args)
        return
    for flag in ("midi", "longest"):
        if getattr(args, flag) is not None:
            raise RequestError(f"--{flag} is for --kind piano{' or reading' if flag == 'longest' else ''} only")
    summary = make_corpus(args.out, args.hours, args.kind, args.engine, args.seed, args.books, args.workers)
    engines = ", ".join(f"{kind} by the {engine} engine" for kind, engine in summary.engines.items())
    print(f"{args.out}: {summary.files} files ({engines}); {summary.made} made now, {summary.hours_made:.2f} hours")


def _make_for_experiment(args: Args) -> None:
    material, foreign = (args.midi, "books") if args.kind == "piano" else (args.books, "midi")
    if getattr(args, foreign) is not None:
        raise RequestError(f"--{foreign} is not for --kind {args.kind}")
    if args.engine != "auto":
        raise RequestError(f"--engine {args.engine}: --kind {args.kind} has one engine only; leave the flag away")
    summary = make_experiment_corpus(args.out, args.kind, material, args.hours, args.longest, args.seed, args.workers)
    for split, (documents, hours) in summary.splits.items():
        print(f"{split:<11}{documents:6d} documents {hours:8.2f} hours")
    print(f"{summary.manifest}: {sum(n for n, _ in summary.splits.values())} documents; {summary.made} made now")


if __name__ == "__main__":
    raise SystemExit(run_command(main, Args))
