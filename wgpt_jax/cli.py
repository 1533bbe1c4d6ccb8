"""The ``wgpt`` command."""

import dataclasses
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from wgpt_jax.ablation.request import AblateArgs
from wgpt_jax.closed_loop.request import GenerateArgs
from wgpt_jax.command import guarded, parse_step, run_command, run_subcommand
from wgpt_jax.config import Config, Weights, read_config_file
from wgpt_jax.parallel.place import HostFlags


@dataclasses.dataclass(frozen=True)
class TrainArgs:
    """Trains a model, or continues a run: the same line again resumes where it stopped, bit for bit.

    CONFIG-FILE holds the experiment (see configs/); every key of it can be overridden by a flag.
    """

    config_file: tyro.conf.Positional[Path]
    """Python file that defines `config`, for example configs/demo_hybrid.py."""
    data: Path
    """Folder made by tools/prepare_audio.py."""
    workdir: Path
    """Run folder: checkpoints, metrics, plots. Made if it is not there."""
    config: Annotated[Config, tyro.conf.arg(name="")] = Config()  # noqa: RUF009 (frozen)
    hosts: Annotated[HostFlags, tyro.conf.arg(name="")] = HostFlags()  # noqa: RUF009
    fresh: bool = False
    """Delete the run that is in WORKDIR and start over."""
    start_from: Annotated[str | None, tyro.conf.arg(name="from", metavar="RUN[@STEP]")] = None
    """Begin a new run with the weights of another one (STEP is a number, latest or best) or of `wgpt export`."""
    profile: Annotated[str | None, tyro.conf.arg(metavar="START:STOP")] = None
    """Steps of the run to trace with JAX's profiler, into WORKDIR/profile."""


@dataclasses.dataclass(frozen=True)
class ExportArgs:
    """Writes the weights of a run: OUT/model.safetensors, and OUT/config.json with all that they depend on.

    `wgpt train --from OUT` begins with them again, bit for bit.
    """

    run: tyro.conf.Positional[Path]
    """Run folder made by `wgpt train`."""
    out: tyro.conf.Positional[Path]
    """Folder to make."""
    step: str = "latest"
    """Checkpoint: a step, `latest`, or `best` (lowest validation NLL while training)."""
    weights: Weights = "raw"
    """ema: the averaged weights of a run with --optimizer.ema."""


@dataclasses.dataclass(frozen=True)
class EvaluateArgs:
    """Scores a run on every document of a split: NLL, perplexity, accuracy, beside n-gram baselines."""

    run: tyro.conf.Positional[Path]
    """Run folder made by `wgpt train`."""
    data: Path
    """Folder made by tools/prepare_audio.py with the run's codec and mel."""
    split: Literal["train", "validation", "test"] = "validation"
    """Split to score."""
    step: str = "latest"
    """Checkpoint: a step, `latest`, or `best` (lowest validation NLL while training)."""
    weights: Weights = "raw"
    """ema: the averaged weights of a run with --optimizer.ema."""
    mel: str = "all"
    """Mel that a hybrid reads: a source of the data (original, codec1, ...), null for none, or all, one by one."""
    json: bool = False
    """Print one JSON object and nothing else."""
    hosts: Annotated[HostFlags, tyro.conf.arg(name="")] = HostFlags()  # noqa: RUF009 (frozen)


def train_command(argv: Sequence[str]) -> int:
    """``wgpt train``: the configuration file is read first, so that its values are the flags' defaults."""

    def main(args: TrainArgs) -> None:
        from wgpt_jax.parallel.hosts import start_hosts
        from wgpt_jax.training.loop import train  # after --help, which needs no JAX

        with start_hosts(args.hosts, args.workdir):
            options = {"fresh": args.fresh, "start_from": args.start_from, "profile": args.profile}
            step = train(args.config, args.data, args.workdir, **options)
            if step < args.config.training.steps:
                again = shlex.join(["wgpt", "train", *(word for word in argv if word != "--fresh")])
                where = f"stopped and saved at step {step}" if step else "stopped before the first step"
                print(f"{where}; to continue:\n  {again}")

    def parse_twice() -> None:
        # The first pass finds the file wherever it stands; --help shows that file's values, where one is named.
        named = [Path(word) for word in argv if word.endswith(".py") and not word.startswith("-")]
        if not {"-h", "--help"} & set(argv):
            named = [tyro.cli(TrainArgs, args=list(argv), prog="wgpt train").config_file]
        default = TrainArgs(named[0], tyro.MISSING, tyro.MISSING, read_config_file(named[0])) if named else None
        main(tyro.cli(TrainArgs, args=list(argv), default=default, prog="wgpt train"))

    return guarded(parse_twice)


def evaluate_command(argv: Sequence[str]) -> int:
    """``wgpt evaluate``."""

    def main(args: EvaluateArgs) -> None:
        from wgpt_jax.evaluation import evaluate, format_table
        from wgpt_jax.parallel.hosts import start_hosts
        from wgpt_jax.runs import read_run

        step = parse_step(args.step)
        read_run(args.run)  # before several processes make a folder for their logs there
        with start_hosts(args.hosts, args.run):
            which = {"step": step, "weights": args.weights, "mel": args.mel}
            result = evaluate(args.run, args.data, args.split, **which, progress=not args.json)
            print(json.dumps(result.summary) if args.json else format_table(result.summary))

    return run_command(main, EvaluateArgs, argv, prog="wgpt evaluate")


def generate_command(argv: Sequence[str]) -> int:
    """``wgpt generate``."""

    def main(args: GenerateArgs) -> None:
        from wgpt_jax.generation import format_summary, generate_files

        try:
            summary = generate_files(args, parse_step(args.step))
        except KeyboardInterrupt as interrupt:
            raise KeyboardInterrupt(str(interrupt) or "interrupted") from interrupt
        print(json.dumps(summary) if args.json else format_summary(summary))

    return run_command(main, GenerateArgs, argv, prog="wgpt generate")


def export_command(argv: Sequence[str]) -> int:
    """``wgpt export``."""

    def main(args: ExportArgs) -> None:
        from wgpt_jax.training.weights import export

        done = export(args.run, args.out, step=parse_step(args.step), ema=args.weights == "ema")
        averaged = "averaged " if args.weights == "ema" else ""
        print(f"{done['parameters']:,} {averaged}parameters of step {done['step']} in {done['file']}")

    return run_command(main, ExportArgs, argv, prog="wgpt export")


def demo_command(argv: Sequence[str]) -> int:
    """``wgpt demo``."""
    from wgpt_jax.demo import DemoArgs, demo

    return run_command(demo, DemoArgs, argv, prog="wgpt demo")


def ablate_command(argv: Sequence[str]) -> int:
    """``wgpt ablate``."""

    def main(args: AblateArgs) -> None:
        from wgpt_jax.ablation.main import ablate_main

        ablate_main(args, argv)

    return run_command(main, AblateArgs, argv, prog="wgpt ablate")


def watch_command(argv: Sequence[str]) -> int:
    """``wgpt watch``."""
    from wgpt_jax.watch import watch_command

    return watch_command(argv)


def doctor_command(argv: Sequence[str]) -> int:
    """``wgpt doctor``."""
    from wgpt_jax.doctor.main import doctor

    return doctor(argv)


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "demo": (demo_command, "everything end to end, offline, in minutes on a CPU"),
    "doctor": (doctor_command, "say what is here and what a run would be, before anything compiles"),
    "train": (train_command, "train a model, or continue a run"),
    "watch": (watch_command, "say where a run stands, also while it trains"),
    "evaluate": (evaluate_command, "score a run on a split of prepared data"),
    "ablate": (ablate_command, "train and score a grid of inputs, sizes, data sets and seeds"),
    "generate": (generate_command, "generate audio from a run, from nothing or from a prompt"),
    "export": (export_command, "write the weights of a run as safetensors"),
}


def usage() -> str:
    """The overview that ``wgpt --help`` prints."""
    rows = [f"  {name:10} {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: wgpt COMMAND [flags]    (wgpt COMMAND --help lists the flags)",
            "",
            *rows,
            "",
            "prepare audio first: python tools/prepare_audio.py AUDIO OUT   (README.md has the whole way)",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``wgpt COMMAND ...``; returns the exit code."""
    commands = {name: command for name, (command, _) in COMMANDS.items()}
    return run_subcommand(commands, usage(), sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
