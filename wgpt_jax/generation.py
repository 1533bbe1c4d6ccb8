"""Generation: audio from a run, as arrays or as files. It stands above both halves: torch encodes a prompt."""

import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from wgpt_jax.audio.clock import Clock
from wgpt_jax.audio.mel import log_mel
from wgpt_jax.audio.wav import WavWriter
from wgpt_jax.closed_loop.generator import Chunk, Generator, Prompt, check_codec_streams
from wgpt_jax.closed_loop.request import GenerateArgs, Mode, SamplingConfig
from wgpt_jax.closed_loop.sampling import Sampling, make_sampling
from wgpt_jax.config import Weights
from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.interrupt import hold_interrupts
from wgpt_jax.plots import plot_generated
from wgpt_jax.runs import RunInfo, read_run

_LONGEST = 86_400  # seconds; a WAV file ends after 4 GiB, a day at 24 kHz
_STUCK = 150  # frames, two seconds: no sound that goes on is one token for so long


def generate(
    run: str | os.PathLike,
    prompt: str | os.PathLike | np.ndarray | None = None,
    seconds: float = 10.0,
    *,
    prompt_seconds: float | None = None,
    num_samples: int = 1,
    seed: int = 0,
    mode: Mode | None = None,
    step: int | str = "latest",
    weights: Weights = "raw",
    codec: str | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    repetition_window: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Generates audio; who generates often from one run makes a ``Generator`` once and calls its ``stream``.

    Args:
        run: run folder.
        prompt: what to continue: an audio file, or float samples [N] at the run's rate; None begins from nothing.
        seconds: length of the result, the prompt's own samples at its start included.
        prompt_seconds: takes only the beginning of the prompt.
        num_samples: B.
        seed: of the first sample; the others have the seeds after it.
        mode: ``hybrid`` (closed loop) or ``tokens`` (null mel).
        step: checkpoint: a step, ``latest`` or ``best``.
        weights: ``raw``, or ``ema`` for the averaged ones (``optimizer.ema``).
        codec: name or folder of the run's codec, if it has moved since; it encodes the prompt.
        temperature, top_k, top_p, min_p, repetition_penalty, repetition_window: fields of
            :class:`~wgpt_jax.closed_loop.request.SamplingConfig`.

    Returns:
        float32 samples [B, N] and int16 tokens [B, n, K], the prompt's included.

    Raises:
        RequestError: if something asked for is not there or does not go together.
    """
    config = SamplingConfig(temperature, top_k, top_p, min_p, repetition_penalty, repetition_window)
    request = _Request(read_run(run), seconds, prompt, prompt_seconds, num_samples, seed, config, codec)
    chunks = list(request.stream(Generator(run, step=step, mode=mode, weights=weights)))
    return (
        np.concatenate([chunk.samples for chunk in chunks], axis=1),
        np.concatenate([chunk.tokens for chunk in chunks], axis=1),
    )


def generate_files(args: GenerateArgs, step: int | str) -> dict[str, Any]:
    """Generates into WAV files, written as they are produced, each with a PNG of its spectrogram beside it.

    Args:
        args: the request.
        step: the checkpoint that ``args.step`` names.

    Returns:
        what ``wgpt generate --json`` prints.

    Raises:
        RequestError: as :func:`generate`, or if a file cannot be written.
    """
    info = read_run(args.run)
    paths = _paths(args.out, args.num_samples, args.prompt)
    request = _Request(
        info,
        args.seconds,
        args.prompt,
        args.prompt_seconds,
        args.num_samples,
        args.seed,
        args.sampling,
        args.codec,
    )
    generator = Generator(args.run, step=step, mode=args.mode, weights=args.weights)
    for warning in generator.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    generator.compile(args.num_samples)
    tokens, mel, spent = _write(request, generator, paths, progress=not args.json)
    warnings = [*generator.warnings, *_stuck(paths, tokens, info.clock, args.sampling)]
    for warning in warnings[len(generator.warnings) :]:
        print(f"warning: {warning}", file=sys.stderr)
    seconds = info.clock.seconds(request.frames)
    summary = {
        "files": [str(path) for path in paths],
        "run": str(args.run),
        "step": generator.step,
        "weights": args.weights,
        "mode": generator.mode,
        "mel_source": f"codec{generator.codebooks}" if generator.mode == "hybrid" else "null",
        "codebooks": generator.codebooks,
        "seeds": request.seeds,
        "seconds": seconds,
        "prompt_seconds": info.clock.seconds(request.prompt_frames),
        "generate_seconds": spent,
        "compile_seconds": generator.compile_seconds,
        "frames_per_second": request.frames / spent,
        "real_time_factor": seconds / spent,
        "warnings": warnings,
    }
    origin = f"{args.run}, step {generator.step}" + _averaged(args.weights)
    for row, path in enumerate(paths):
        try:
            plot_generated(
                mel[row],
                tokens[row],
                info.clock.frames_per_second,
                f"{path.name}: {origin}, {generator.mode} mode, seed {request.seeds[row]}",
                path.with_suffix(".png"),
                prompt_frames=request.prompt_frames,
            )
        except OSError as error:
            raise WorkError(f"{path} is complete, but its spectrogram could not be written: {error}") from error
    return summary


def format_summary(summary: dict[str, Any]) -> str:
    """What was generated, for a terminal."""
    lines = [f"{path}  ({Path(path).with_suffix('.png').name} beside it)" for path in summary["files"]]
    loop = {"hybrid": f"closed loop on the mel of its own decode ({summary['mel_source']})", "tokens": "null mel"}
    several = " each" if len(summary["files"]) > 1 else ""
    prompt = f", the first {summary['prompt_seconds']:.2f} s the prompt's own" if summary["prompt_seconds"] else ""
    return "\n".join(
        [
            *lines,
            f"{summary['seconds']:.2f} s{several}{prompt}; {summary['mode']} mode, {loop[summary['mode']]}, "
            f"{summary['codebooks']} codebook(s){_averaged(summary['weights'])}",
            f"real-time factor {summary['real_time_factor']:.2f} ({summary['frames_per_second']:.0f} frames/s"
            f"{several}); compiling took {summary['compile_seconds']:.1f} s besides",
        ]
    )


def stuck_since(coarse: np.ndarray) -> int | None:
    """The frame from which on all coarse tokens int [n] are one and the same; None if that is not for two seconds."""
    (changes,) = np.nonzero(coarse[1:] != coarse[:-1])
    first = int(changes[-1]) + 1 if len(changes) else 0
    return first if len(coarse) - first >= _STUCK else None


def _stuck(paths: list[Path], tokens: np.ndarray, clock: Clock, sampling: SamplingConfig) -> list[str]:
    """A warning of each sample int16 [B, n, K] that ends in one token: of silence, as a rule (docs/LOG.md)."""
    cut = sampling.temperature < 1 or sampling.top_p < 1 or sampling.top_k > 0 or sampling.min_p > 0
    why = "; what is cut off cannot end it: draw from the whole distribution (temperature 1, no --top-p)" if cut else ""
    since = {path: stuck_since(row) for path, row in zip(paths, tokens[..., 0], strict=True)}
    return [
        f"{path} is one and the same coarse token from {clock.seconds(frame):.2f} s to its end{why}"
        for path, frame in since.items()
        if frame is not None
    ]


def _averaged(weights: Weights) -> str:
    return ", averaged weights" if weights == "ema" else ""


class _Request:
    """A request checked against the run, its prompt read and encoded."""

    def __init__(
        self,
        info: RunInfo,
        seconds: float,
        prompt: str | os.PathLike | np.ndarray | None,
        prompt_seconds: float | None,
        num_samples: int,
        seed: int,
        sampling: SamplingConfig,
        codec: str | None,
    ):
        if not 0 < seconds <= _LONGEST:
            raise RequestError(f"--seconds {seconds:g}: ask for a positive number of seconds, {_LONGEST} at most")
        if num_samples < 1:
            raise RequestError(f"--num-samples {num_samples}: ask for at least one")
        if not 0 <= seed <= 2**32 - num_samples:
            raise RequestError(f"--seed {seed}: seeds are from 0 to {2**32 - num_samples}")
        if prompt_seconds is not None and prompt is None:
            raise RequestError("--prompt-seconds says how much of a prompt to take; give --prompt as well")
        self.frames = max(1, round(seconds * info.clock.frames_per_second))
        self.seeds = list(range(seed, seed + num_samples))
        self.sampling: Sampling = make_sampling(**dataclasses.asdict(sampling), vocabulary=info.config.model.vocabulary)
        self.prompt = None if prompt is None else _read_prompt(prompt, info, prompt_seconds, codec)
        self.prompt_frames = 0 if self.prompt is None else len(self.prompt.tokens)
        if self.prompt_frames >= self.frames:
            raise RequestError(
                f"the prompt lasts {info.clock.seconds(self.prompt_frames):.2f} s, and --seconds {seconds:g} is the "
                "length of the whole output; ask for more, or shorten the prompt with --prompt-seconds"
            )

    def stream(self, generator: Generator) -> Iterator[Chunk]:
        """The chunks that answer it."""
        return generator.stream(self.frames, sampling=self.sampling, seeds=self.seeds, prompt=self.prompt)


def _read_prompt(
    source: str | os.PathLike | np.ndarray, info: RunInfo, seconds: float | None, codec: str | None
) -> Prompt:
    check_codec_streams(info)
    missing = [name for name in ("torch", "transformers", "soundfile", "soxr") if find_spec(name) is None]
    if missing:
        raise RequestError(
            f"a prompt is read and encoded by packages that are not installed ({', '.join(missing)}); "
            "pip install 'wgpt_jax[prepare]'"
        )
    from wgpt_jax.prepare.prompt import read_prompt

    return Prompt(*read_prompt(source, info.codec, info.config.model.output_codebooks, seconds, codec))


def _paths(out: Path, num_samples: int, prompt: Path | None) -> list[Path]:
    if out.suffix.lower() != ".wav":
        raise RequestError(f"--out {out}: the output is a WAV file; give a name that ends in .wav")
    numbers = [""] if num_samples == 1 else [f"-{number}" for number in range(1, num_samples + 1)]
    paths = [out.with_name(f"{out.stem}{number}{out.suffix}") for number in numbers]
    for path in paths:
        if path.is_dir():
            raise RequestError(f"--out {path} is a folder; give the name of a file")
        if prompt is not None and path.resolve() == prompt.resolve():
            raise RequestError(f"--out {path} is the prompt itself; give another name")
    return paths


def _write(
    request: _Request, generator: Generator, paths: list[Path], progress: bool
) -> tuple[np.ndarray, np.ndarray, float]:
    """Writes the files; returns tokens [B, n, K], float16 mel [B, n, M] and the seconds it took.

    Raises:
        KeyboardInterrupt: with a sentence that says what the files hold.
    """
    clock, tokens, mels, done = generator.info.clock, [], [], 0
    slices = _Slices(generator.info, len(paths))
    layout = "{l_bar}{bar}| {n:.1f}/{total:.1f} s of audio [{elapsed}<{remaining}{postfix}]"
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(WavWriter(path, clock.sample_rate)) for path in paths]
        bar = stack.enter_context(tqdm(total=clock.seconds(request.frames), bar_format=layout, disable=not progress))
        begin = time.perf_counter()
        try:
            for chunk in request.stream(generator):
                with hold_interrupts():  # the files are as long as we say
                    for writer, samples in zip(writers, chunk.samples, strict=True):
                        writer.write(samples)
                    done += chunk.tokens.shape[1]
                tokens.append(chunk.tokens)
                mels.append(slices(chunk.samples))
                spent = time.perf_counter() - begin
                bar.set_postfix_str(f"{clock.seconds(done) / spent:.2f}x real time", refresh=False)
                bar.update(clock.seconds(chunk.tokens.shape[1]))
        except KeyboardInterrupt as interrupt:
            names = ", ".join(map(str, paths))
            raise KeyboardInterrupt(
                f"interrupted: kept the first {clock.seconds(done):.2f} s in {names}"
            ) from interrupt
    return np.concatenate(tokens, axis=1), np.concatenate(mels, axis=1), spent


class _Slices:
    """The mel of what is written, chunk by chunk, so that the picture of an hour needs no hour of samples."""

    def __init__(self, info: RunInfo, rows: int):
        self.info = info
        self.context = -(-(info.mel.n_fft - info.clock.hop) // info.clock.hop)  # frames that a slice reaches back to
        self.tail = np.zeros((rows, self.context * info.clock.hop), np.float32)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """The next samples [B, n * hop] -> their slices, float16 [B, n, M]."""
        heard = np.concatenate([self.tail, samples], axis=1)
        self.tail = heard[:, heard.shape[1] - self.tail.shape[1] :]
        rows = [log_mel(row, self.info.mel, self.info.clock)[self.context :] for row in heard]
        return np.stack(rows).astype(np.float16)
