"""Trains a small causal ENCODEC on a folder of audio, or scores one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import torch
from transformers.utils import logging

from wgpt_jax.command import run_command
from wgpt_jax.errors import RequestError
from wgpt_jax.prepare.codec_training.config import Recipe
from wgpt_jax.prepare.codec_training.evaluation import evaluate_codec, evaluation_clips, open_codec
from wgpt_jax.prepare.codec_training.files import find_audio, split_held_out
from wgpt_jax.prepare.codec_training.loop import train
from wgpt_jax.prepare.codec_training.report import format_scores, write_curves, write_figure, write_samples
from wgpt_jax.prepare.codec_training.trainer import Budget, Trainer

Number = TypeVar("Number", int, float)


@dataclass
class Args:
    """Train a small causal ENCODEC on your own audio: --audio DIR --out RUN; the same command again continues a run.

    RUN/codec is the result, ready for transformers' EncodecModel.from_pretrained, RUN/loss.png and RUN/samples are to
    be looked at and listened to. Score any codec with --evaluate CODEC_DIR --audio DIR.
    """

    audio: Path
    """Folder of audio files, searched in depth; any format and sampling rate that soundfile reads."""
    out: Path | None = None
    """Run folder: checkpoint.pt, metrics.jsonl, loss.png, samples/ and the exported codec/."""
    minutes: float = 120.0
    """Minutes of training in all; the schedules stretch over them."""
    steps: int | None = None
    """Steps instead of minutes."""
    filters: int = Recipe.filters
    """Channels of the first convolution; every stage doubles them."""
    codebooks: int = Recipe.codebooks
    """Codebooks of 1,024 codes, 0.75 kbps each; 1 to 8."""
    batch: int = Recipe.batch
    """Segments of one second in a batch."""
    learning_rate: float = Recipe.learning_rate
    """Peak learning rate."""
    seed: int = Recipe.seed
    """Seed of the weights, the crops and the codebooks."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes the GPU if there is one."""
    threads: int | None = None
    """CPU threads of torch; all cores by default."""
    evaluate: Path | None = None
    """Folder of an exported codec to score on --audio instead of training one."""
    held_out: bool = False
    """Score the files that training on --audio leaves out: 8 clips of 6 s of each domain."""
    clip_seconds: float = 30.0
    """How much of each file is scored, without --held-out."""
    json: bool = False
    """Print the scores as one JSON object."""
    markdown: bool = False
    """Print the scores as a Markdown table."""
    figure: Path | None = None
    """With --evaluate RUN/codec: draw the run's curves and spectrograms of the first clip to this PNG."""


def main(args: Args) -> None:
    """Trains, or scores."""
    if args.threads is not None:
        torch.set_num_threads(positive("--threads", args.threads))
    if args.device == "cuda" and not torch.cuda.is_available():
        raise RequestError("--device cuda: torch sees no CUDA device here")
    device = ("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device
    if args.evaluate:
        score(args, device)
    elif args.out:
        train_codec(args, args.out, device)
    else:
        raise RequestError("--out RUN is missing: the folder that the training run goes to (or --evaluate CODEC_DIR)")


def train_codec(args: Args, out: Path, device: str) -> None:
    """Trains or continues a run and says where the codec lies."""
    if out.exists() and not out.is_dir():
        raise RequestError(f"--out {out} is a file; a run needs a folder")
    if not 1 <= args.codebooks <= 8:
        raise RequestError(f"--codebooks {args.codebooks}: it must be between 1 and 8")
    budget = Budget(60 * positive("--minutes", args.minutes), args.steps and positive("--steps", args.steps))
    recipe = Recipe(
        filters=positive("--filters", args.filters),
        codebooks=args.codebooks,
        seed=args.seed,
        batch=positive("--batch", args.batch),
        learning_rate=positive("--learning-rate", args.learning_rate),
    )
    training, held_out = split_held_out(find_audio(args.audio), args.audio)
    hours = [sum(file.seconds for file in files) / 3600 for files in (training, held_out)]
    print(
        f"{len(training)} files to train on ({hours[0]:.2f} h), {len(held_out)} held out ({hours[1]:.2f} h), {device}"
    )
    trainer = Trainer(recipe, budget, training, held_out, out, device)
    trainer.start()

    def report() -> None:
        write_curves(out)
        write_samples(trainer.model, trainer.held_out, out / "samples")

    train(trainer, on_save=report)
    print(f"{out / 'codec'}: {trainer.progress.step} steps, {trainer.progress.seconds / 60:.1f} minutes")


def score(args: Args, device: str) -> None:
    """Prints the scores of a codec, and draws them where a figure is wanted."""
    logging.disable_progress_bar()
    model = open_codec(args.evaluate, device)
    seconds = positive("--clip-seconds", args.clip_seconds)
    clips = evaluation_clips(args.audio, model.config.sampling_rate, args.held_out, seconds)
    style = "json" if args.json else "markdown" if args.markdown else "text"
    print(format_scores(evaluate_codec(model, clips), style))
    if args.figure:
        run = args.evaluate.resolve().parent
        if not (run / "metrics.jsonl").is_file():
            raise RequestError(f"--figure needs the run that {args.evaluate} came from: no metrics.jsonl in {run}")
        group, members = next(iter(clips.items()))
        write_figure(model, members[0], group, run, args.figure)


def positive(flag: str, value: Number) -> Number:
    """The value, or the sentence that it must be above zero."""
    if not value > 0:
        raise RequestError(f"{flag} {value}: it must be above 0")
    return value


if __name__ == "__main__":
    raise SystemExit(run_command(main, Args))
