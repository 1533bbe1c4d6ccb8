"""How fast preparation is, stage by stage, what memory it takes, and how fast its result is read for training.

    python tools/benchmark_prepare.py

All arms are timed in turn, round by round in one run, since machines are shared and noisy: read the ratios.
"""

import contextlib
import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from wgpt_jax.benchmark.codecs import RANDOM, write_random_codec
from wgpt_jax.benchmark.timing import in_own_process, one_thread_each
from wgpt_jax.command import run_command
from wgpt_jax.errors import RequestError


@dataclasses.dataclass(frozen=True)
class BenchmarkArgs:
    """Times decoding, inspection, resampling, mel, tokens, writing, the whole, and reading beside training."""

    audio: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="AUDIO")] = None
    """A file, or a folder; a synthetic signal by default."""
    parts: tuple[Literal["stages", "memory", "reading"], ...] = ("stages", "memory", "reading")
    """What is measured."""
    seconds: float = 60.0
    """Audio that each stage works on."""
    rounds: int = 5
    """Rounds; the median is shown."""
    codec: str = "bundled"
    """Codec: "bundled", a folder, a name on the hub, or "random-24khz": the architecture of facebook/encodec_24khz."""
    num_codebooks: int | None = None
    """Codebooks; 8 by default, or all the codec has if it has fewer."""
    batch: int = 16
    """Documents encoded together in the second measurement of tokens; 1 in the first."""
    device: str = "auto"
    """GPUs that encode as well as the CPU: auto, cpu, cuda, cuda:0,cuda:1,..."""
    long_hours: float = 1.0
    """Length of the file whose memory is compared with that of a minute."""
    config: Path = Path("configs/paper_hybrid.py")
    """Configuration whose batches are read and which is trained."""
    data: Path | None = None
    """Prepared data to read; random arrays of its shape by default."""
    workers: tuple[int, ...] = (0, 1, 2)
    """Processes that read; 0 for threads."""
    train_batch: int | None = None
    """Windows of a training step; the configuration's by default, on CPUs 4."""
    json: bool = False
    """Print one JSON object and nothing else."""


def benchmark(args: BenchmarkArgs) -> None:
    """Prints a table per part, or JSON."""
    if args.rounds < 1 or args.batch < 1 or args.seconds <= 0 or args.long_hours <= 0:
        raise RequestError("--rounds and --batch are at least 1, --seconds and --long-hours more than 0")
    if args.audio is not None and not args.audio.exists():
        raise RequestError(f"there is no {args.audio}")
    from wgpt_jax.benchmark.machine import describe_machine
    from wgpt_jax.benchmark.table import table

    report = {"codec": args.codec, "machine": describe_machine()}
    with _codec(args.codec) as codec:
        if "stages" in args.parts:
            report["stages"] = _stages(args, codec)
        if "memory" in args.parts:
            from wgpt_jax.benchmark.memory import measure_memory

            report["memory"] = measure_memory(args.audio, codec, args.num_codebooks, args.long_hours)
    if "reading" in args.parts:
        report["reading"] = _reading(args)
    report["load_after"] = round(os.getloadavg()[0], 2)
    print(json.dumps(report) if args.json else table(report))


def _stages(args: BenchmarkArgs, codec: str) -> dict[str, Any]:
    from wgpt_jax.benchmark.stages import StagesTask, measure_stages

    task = StagesTask(args.audio, args.seconds, codec, args.num_codebooks, args.batch, args.device, args.rounds)
    with one_thread_each():
        return in_own_process(measure_stages, task)


def _reading(args: BenchmarkArgs) -> dict[str, Any]:
    import jax

    from wgpt_jax.benchmark.reading import measure_reading
    from wgpt_jax.config import load_config

    found = measure_reading(load_config(args.config), args.data, args.workers, args.train_batch, args.rounds)
    return {"config": str(args.config), "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}", **found}


@contextlib.contextmanager
def _codec(name: str) -> Iterator[str]:
    """The name or folder of the codec that ``name`` means."""
    with tempfile.TemporaryDirectory() as scratch:
        if name == RANDOM:
            in_own_process(write_random_codec, Path(scratch))
        yield scratch if name == RANDOM else name


if __name__ == "__main__":
    sys.exit(run_command(benchmark, BenchmarkArgs, prog="benchmark_prepare"))
