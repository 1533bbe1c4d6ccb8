"""A run made ready to generate: checked, loaded once, compiled once per batch size."""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from wgpt_jax.audio.codec_file import CodecDecoder, load_codec_decoder
from wgpt_jax.closed_loop.loop import Given, Loop, compile_chunk
from wgpt_jax.closed_loop.request import Mode
from wgpt_jax.closed_loop.sampling import Sampling
from wgpt_jax.config import MeshConfig
from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.evaluation import load_network
from wgpt_jax.parallel.mesh import make_mesh
from wgpt_jax.runs import RunFolder, RunInfo, read_run

CHUNK_FRAMES = 50
"""Frames per call of the device: two thirds of a second at 75 Hz is written at a time."""
_FADE_SECONDS = 0.02


class Prompt(NamedTuple):
    """What is continued, on the run's clock."""

    samples: np.ndarray
    """float32 [n * hop]."""
    tokens: np.ndarray
    """int [n, K']; K' at least the network's output codebooks."""


class Chunk(NamedTuple):
    """The next frames of every sample."""

    tokens: np.ndarray
    """int16 [B, n, K]."""
    samples: np.ndarray
    """float32 [B, n * hop]; a prompt's own samples, faded into the decode over its last 20 ms."""


class Generator:
    """Generates from a run: the network, the codec's decoder, and their compiled loops.

    Attributes:
        info: what the run is.
        step: the checkpoint's.
        mode: ``hybrid`` (the loop is closed) or ``tokens`` (the null mel).
        codebooks: K, predicted and heard.
        warnings: sentences about this mode and how the run was trained.
        compile_seconds: spent on compiling so far.
    """

    def __init__(self, run: str | os.PathLike, *, step: int | str = "latest", mode: Mode | None = None):
        """Loads a run onto the first device.

        Args:
            run: run folder.
            step: a checkpoint's step, ``latest`` or ``best``.
            mode: ``hybrid`` by default, ``tokens`` for a token-only model.

        Raises:
            RequestError: if the run, its checkpoint or its codec is not there, or it cannot generate in this mode.
        """
        self.info = info = read_run(run)
        self.mode: Mode = _checked_mode(info, mode, run)
        codec = _load_codec(run, info)
        graph, self._params, self.step = load_network(run, info, make_mesh(MeshConfig(), jax.devices()[:1]), step)
        self._weights = jax.device_put(codec.weights, jax.devices()[0])
        self.codebooks = info.config.model.output_codebooks
        self.warnings = _warnings(info, self.mode)
        self.compile_seconds = 0.0
        self._loop = Loop(
            graph=graph,
            codec=codec.spec,
            mel=info.mel,
            clock=info.clock,
            codebooks=self.codebooks,
            window=info.config.data.context,
            closed=self.mode == "hybrid",
            hears_prompt=info.config.data.main_mel == "original",
        )
        self._compiled: dict[int, tuple] = {}

    def compile(self, batch: int) -> None:
        """Compiles for a batch size, if that was not done yet; :meth:`stream` does it by itself."""
        if batch not in self._compiled:
            begin = time.perf_counter()
            with _device_failures_told(batch):
                self._compiled[batch] = compile_chunk(self._loop, self._params, self._weights, batch, CHUNK_FRAMES)
            self.compile_seconds += time.perf_counter() - begin

    def stream(
        self, frames: int, *, sampling: Sampling, seeds: Sequence[int] = (0,), prompt: Prompt | None = None
    ) -> Iterator[Chunk]:
        """Generates, chunk by chunk, one sample per seed.

        Args:
            frames: length in frames, the prompt's among them.
            sampling: run-time values; changing them compiles nothing.
            seeds: of the samples. A sample's randomness is its own seed's alone; other batch sizes change the logits by
                rounding, which in bfloat16 draws another token after some hundred frames.
            prompt: what comes first; BOS alone if not given.

        Yields:
            chunks that add up to ``frames`` frames.

        Raises:
            RequestError: if ``frames`` leaves nothing to generate.
            WorkError: if the network's output is not finite, or the device fails.
        """
        if prompt is not None:
            _check_prompt(prompt, self.codebooks, self.info.clock.hop)
        known = 0 if prompt is None else len(prompt.tokens)
        if frames <= known:
            raise RequestError(f"the prompt has {known} frames, {frames} were asked for in all; ask for more")
        self.compile(len(seeds))
        start, chunk = self._compiled[len(seeds)]
        keys = np.asarray(seeds, np.uint32)
        with _device_failures_told(len(seeds)):
            state = start(self._params, self._weights)
        for first in range(0, frames, CHUNK_FRAMES):
            here = min(CHUNK_FRAMES, frames - first)
            given = self._given(prompt, first)
            with _device_failures_told(len(seeds)):
                state, tokens, samples = chunk(self._params, self._weights, state, given, sampling, keys)
                # To the host before they are cut: a cut on the device would be compiled.
                samples = np.array(samples)[:, : here * self.info.clock.hop]
            if not np.isfinite(samples).all():
                raise WorkError(
                    f"checkpoint {self.step} gives logits or samples that are not finite between frames {first} and "
                    f"{first + here}; try another --step"
                )
            if prompt is not None:
                _lead_with(samples, prompt.samples, first * self.info.clock.hop, self.info.clock.sample_rate)
            yield Chunk(np.asarray(tokens, np.int16)[:, :here], samples)

    def _given(self, prompt: Prompt | None, first: int) -> Given:
        """The prompt's part of the chunk that begins with frame ``first``."""
        hop = self.info.clock.hop
        known = np.zeros(CHUNK_FRAMES, bool)
        tokens = np.zeros((CHUNK_FRAMES, self.codebooks), np.int32)
        samples = np.zeros((CHUNK_FRAMES, hop), np.float32)
        if prompt is not None:
            part = prompt.tokens[first : first + CHUNK_FRAMES, : self.codebooks]
            known[: len(part)] = True
            tokens[: len(part)] = part
            samples[: len(part)] = prompt.samples[first * hop : (first + len(part)) * hop].reshape(-1, hop)
        return Given(known, tokens, samples)


@contextlib.contextmanager
def _device_failures_told(batch: int) -> Iterator[None]:
    """Most of them mean that the batch does not fit."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        first_line = str(error).splitlines()[0]
        raise WorkError(f"the device failed with {batch} sample(s) at once: {first_line}; try fewer") from error


def _lead_with(samples: np.ndarray, prompt: np.ndarray, offset: int, sample_rate: int) -> None:
    """Puts a prompt's own samples over their decode, in place, and fades to the decode at its end: no click.

    Args:
        samples: float32 [B, n], decoded.
        prompt: float32 [P].
        offset: index of ``samples``' first sample in the whole.
        sample_rate: in Hz.
    """
    own = prompt[offset : offset + samples.shape[1]]
    fade = min(int(_FADE_SECONDS * sample_rate), len(prompt))
    left = (len(prompt) - offset - np.arange(len(own))) / fade  # of the fade, 0 at the end
    weight = (0.5 - 0.5 * np.cos(np.pi * np.clip(left, 0.0, 1.0))).astype(np.float32)
    samples[:, : len(own)] = weight * own + (1 - weight) * samples[:, : len(own)]


def _checked_mode(info: RunInfo, mode: Mode | None, run: str | os.PathLike) -> Mode:
    inputs = info.config.model.inputs
    if mode not in (None, "hybrid", "tokens"):
        raise RequestError(f"unknown mode {mode!r}; the modes are hybrid, tokens")
    if mode == "hybrid" and inputs == "tokens":
        raise RequestError(f"{run} is a token-only model: it hears no mel; leave --mode out, or take a hybrid run")
    return mode or inputs


def check_codec_streams(info: RunInfo) -> None:
    """Raises RequestError if the run's codec cannot be heard while tokens are drawn."""
    if not info.codec.causal:
        raise RequestError(
            f"the run's codec {info.codec.name} is not causal: its decoder needs tokens that are not drawn yet, so "
            "nothing can be heard while generating; train on data of a causal codec (24 kHz ENCODEC, bundled)"
        )


def _load_codec(run: str | os.PathLike, info: RunInfo) -> CodecDecoder:
    """The run's decoder, checked to be its codec's and to have the codebooks that the network emits."""
    check_codec_streams(info)
    path = RunFolder(run).codec
    codec = load_codec_decoder(path)
    if codec.spec.fingerprint != info.codec.fingerprint:
        raise RequestError(
            f"{path} is of codec {codec.spec.fingerprint}, but the run was trained with {info.codec.fingerprint}; "
            f"copy {path.name} from the data it was trained on"
        )
    if codec.spec.codebooks < info.config.model.output_codebooks:
        raise RequestError(
            f"{path} has {codec.spec.codebooks} codebooks, but the run emits {info.config.model.output_codebooks}; "
            f"copy {path.name} from the data it was trained on"
        )
    return codec


def _check_prompt(prompt: Prompt, codebooks: int, hop: int) -> None:
    frames, given = prompt.tokens.shape
    if given < codebooks or len(prompt.samples) != frames * hop:
        raise RequestError(
            f"the prompt has {frames} frames of {given} codebooks and {len(prompt.samples)} samples; the run needs "
            f"{codebooks} codebooks, and {hop} samples per frame"
        )


def _warnings(info: RunInfo, mode: Mode) -> list[str]:
    config, loop_mel = info.config, f"codec{info.config.model.output_codebooks}"
    if mode == "hybrid" and config.data.mel_mix.get(loop_mel, 0.0) == 0.0:
        return [
            f"the loop feeds back the mel of its own decode ({loop_mel}), which this run never saw in training "
            f"({', '.join(config.data.mel_mix)}): expect worse than its evaluation; a run trained with "
            f"--data.mel-mix {loop_mel} 1 has"
        ]
    if mode == "tokens" and config.model.inputs == "hybrid" and config.model.mel_dropout_window == 0.0:
        return [
            "this hybrid was trained without model.mel_dropout_window, so it does not know the null mel: expect worse "
            "than the closed loop"
        ]
    return []
