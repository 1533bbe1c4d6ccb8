"""A run made ready to generate: checked, loaded once, compiled once per batch size."""

import contextlib
import os
from collections.abc import Iterator, Sequence

import jax
from flax import nnx

from wgpt_jax.audio.codec_file import CodecDecoder, DecoderSpec, load_codec_decoder
from wgpt_jax.closed_loop.loop import Loop
from wgpt_jax.closed_loop.request import Mode
from wgpt_jax.closed_loop.sampling import Sampling
from wgpt_jax.closed_loop.stream import Chunk, Prompt, Streamer
from wgpt_jax.config import MeshConfig, Weights
from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.evaluation import load_network
from wgpt_jax.parallel.mesh import make_mesh
from wgpt_jax.runs import RunFolder, RunInfo, read_run

CHUNK_FRAMES = 50
"""Frames per call of the device: two thirds of a second at 75 Hz is written at a time."""


class Generator:
    """Generates from a run: the network, the codec's decoder, and their compiled loops.

    Attributes:
        info: what the run is.
        step: the checkpoint's.
        mode: ``hybrid`` (the loop is closed) or ``tokens`` (the null mel).
        codebooks: K, predicted and heard.
        warnings: sentences about this mode and how the run was trained.
    """

    def __init__(
        self,
        run: str | os.PathLike,
        *,
        step: int | str = "latest",
        mode: Mode | None = None,
        weights: Weights = "raw",
    ):
        """Loads a run onto the first device.

        Args:
            run: run folder.
            step: a checkpoint's step, ``latest`` or ``best``.
            mode: ``hybrid`` by default, ``tokens`` for a token-only model.
            weights: ``raw``, or ``ema`` for the averaged ones (``optimizer.ema``).

        Raises:
            RequestError: if the run, its checkpoint, the average or its codec is not there, or it cannot generate in
                this mode.
        """
        self.info = info = read_run(run)
        self.mode: Mode = _checked_mode(info, mode, run)
        codec = load_run_codec(run, info)
        mesh = make_mesh(MeshConfig(), jax.devices()[:1])
        graph, self._params, self.step = load_network(run, info, mesh, step, weights)
        self._weights = jax.device_put(codec.weights, jax.devices()[0])
        self.codebooks = info.config.model.output_codebooks
        self.warnings = _warnings(info, self.mode)
        self._loop = loop_of(info, graph, codec.spec, self.mode)
        self._streamer = Streamer(self._loop, self._weights, CHUNK_FRAMES)

    @property
    def compile_seconds(self) -> float:
        """Spent on compiling so far."""
        return self._streamer.compile_seconds

    def compile(self, batch: int) -> None:
        """Compiles for a batch size, if that was not done yet; :meth:`stream` does it by itself."""
        with self._failures_told(batch):
            self._streamer.compile(self._params, batch)

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
        with self._failures_told(len(seeds)):
            yield from self._streamer.stream(self._params, frames, sampling=sampling, seeds=seeds, prompt=prompt)

    @contextlib.contextmanager
    def _failures_told(self, batch: int) -> Iterator[None]:
        try:
            yield
        except FloatingPointError as error:
            raise WorkError(f"checkpoint {self.step} gives {error}; try another --step") from error
        except jax.errors.JaxRuntimeError as error:  # most of them mean that the batch does not fit
            first_line = str(error).splitlines()[0]
            raise WorkError(f"the device failed with {batch} sample(s) at once: {first_line}; try fewer") from error


def loop_of(info: RunInfo, graph: nnx.GraphDef, codec: DecoderSpec, mode: Mode) -> Loop:
    """The loop of a run's network and codec."""
    return Loop(
        graph=graph,
        codec=codec,
        mel=info.mel,
        clock=info.clock,
        codebooks=info.config.model.output_codebooks,
        window=info.config.data.context,
        closed=mode == "hybrid",
        hears_prompt=info.config.data.main_mel == "original",
    )


def _checked_mode(info: RunInfo, mode: Mode | None, run: str | os.PathLike) -> Mode:
    model = info.config.model
    inputs = model.inputs
    if model.pattern != "depth":
        raise RequestError(
            f"{run} predicts its codebooks in the {model.pattern} pattern, which is here to be compared by its "
            "likelihood; generate from a run with model.pattern depth"
        )
    if model.input_codebooks > model.output_codebooks:
        raise RequestError(
            f"{run} reads {model.input_codebooks} codebooks and predicts {model.output_codebooks}: it cannot go on "
            f"from its own tokens; train with --model.output-codebooks {model.input_codebooks}"
        )
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


def load_run_codec(run: str | os.PathLike, info: RunInfo) -> CodecDecoder:
    """A run's decoder, checked to be its codec's and to have the codebooks that the network emits.

    Raises:
        RequestError: if it is not there, does not fit, or cannot be heard while tokens are drawn.
    """
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
