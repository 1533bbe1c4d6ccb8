"""The command behind ``tools/closed_loop_quality.py``."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import tyro

from wgpt_jax.closed_loop.quality import measure
from wgpt_jax.closed_loop.quality_table import format_quality
from wgpt_jax.closed_loop.request import SamplingConfig
from wgpt_jax.command import parse_step
from wgpt_jax.config import Weights
from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.provenance import provenance


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclasses.dataclass(frozen=True)
class QualityArgs:
    """Measures what a run generates against held-out documents of equal length.

    Drift of the tokens' statistics with time, repetition, and the Frechet distance in the codec's latent space, each
    beside what held-out audio scores against other held-out audio.
    """

    run: tyro.conf.Positional[Path]
    """Run folder made by `wgpt train`."""
    data: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Prepared data with the run's codec and mel."""
    split: str = "test"
    """Whose documents are the held-out audio; those that are too short are left out."""
    seconds: float = 20.0
    """Length that is measured, behind the prompt."""
    num_samples: int = 16
    """Samples, each with its own seed."""
    prompt_seconds: float = 0.0
    """Beginning of a held-out document that each sample continues; 0 for none. One after the other: slower."""
    seed: int = 0
    """Seed of the first sample, and of how documents are drawn and divided."""
    window_seconds: float = 2.5
    """Width of the windows in time."""
    step: str = "latest"
    """Checkpoint: a step, `latest`, or `best` (lowest validation NLL while training)."""
    weights: Weights = "raw"
    """ema: the averaged weights of a run with --optimizer.ema."""
    sampling: Annotated[SamplingConfig, tyro.conf.arg(name="")] = dataclasses.field(default_factory=SamplingConfig)
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder for closed_loop.json and closed_loop.png, made if it is not there; nothing is written without it."""
    json: bool = False
    """Print one JSON object and nothing else."""


def main(args: QualityArgs) -> None:
    """Measures, writes and prints.

    Raises:
        RequestError, WorkError: as :func:`wgpt_jax.closed_loop.quality.measure`, or if the folder cannot be written.
    """
    step = parse_step(args.step)
    if args.out:
        try:
            args.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RequestError(f"cannot make --out {args.out}: {error.strerror}") from error
    try:
        row = measure(
            args.run,
            args.data,
            args.split,
            seconds=args.seconds,
            num_samples=args.num_samples,
            prompt_seconds=args.prompt_seconds,
            seed=args.seed,
            sampling=args.sampling,
            step=step,
            weights=args.weights,
            window_seconds=args.window_seconds,
            picture=args.out and args.out / "closed_loop.png",
            progress=not args.json,
        )
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt("interrupted: nothing was measured; the same command begins anew") from interrupt
    row |= provenance("tools/closed_loop_quality.py")
    text = json.dumps(row)
    if args.out:
        try:
            (args.out / "closed_loop.json").write_text(text + "\n")
        except OSError as error:
            raise WorkError(f"cannot write into {args.out}: {error.strerror}") from error
    for warning in row["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    print(text if args.json else format_quality(row))
