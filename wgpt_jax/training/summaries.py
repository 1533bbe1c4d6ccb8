"""What TensorBoard gets to hear and see at each evaluation: a held-out document, and what the current weights make.

Samples of different steps differ by the weights alone: seed, prompt and the pictures' colours stay.
"""

import contextlib
import os
from collections.abc import Callable, Iterator

import jax
import numpy as np
from flax import nnx

# Only imported by a run that writes TensorBoard: it imports torch wherever torch is installed.
from tensorboardX import summary
from tensorboardX.proto.summary_pb2 import Summary

from wgpt_jax.audio.mel import log_mel
from wgpt_jax.audio.wav import encode_wav
from wgpt_jax.closed_loop.generator import CHUNK_FRAMES, load_run_codec, loop_of
from wgpt_jax.closed_loop.reference import read_reference
from wgpt_jax.closed_loop.sampling import make_sampling
from wgpt_jax.closed_loop.stream import Prompt, Streamer
from wgpt_jax.data.index import DataIndex
from wgpt_jax.errors import WgptError
from wgpt_jax.plots import generated_pixels
from wgpt_jax.runs import RunFolder, RunInfo
from wgpt_jax.training.tensorboard import TensorBoard

SEED = 0
"""Of every sample."""
PROMPT_SECONDS = 2.0
"""Of the reference that the model continues; half of the sample if that is less."""


class Summaries:
    """Writes audio and spectrograms of a run in one process; a failure is told once, ends them, and stops no training.

    Tags are ``reference``, ``generated/from_nothing`` and ``generated/continued`` for audio; their spectrograms have
    ``/mel`` behind them, since TensorBoard takes one kind of data per tag.
    """

    def __init__(
        self,
        writer: TensorBoard,
        run: RunFolder,
        info: RunInfo,
        data: str | os.PathLike,
        index: DataIndex,
        graph: nnx.GraphDef,
        seconds: float,
        say: Callable[[str], None],
    ):
        """Reads the codec and the reference; compiles the loop at the first :meth:`write`.

        Args:
            writer: of the run's event file.
            run: folder with the codec's decoder.
            info: what the run is.
            data: prepared data, whose validation split has the reference.
            index: its index.
            graph: the network's.
            seconds: length of each sample, prompt included.
            say: takes a warning.
        """
        self._writer, self._info, self._say = writer, info, say
        self._frames = max(1, round(seconds * info.clock.frames_per_second))
        self._ended = self._reference_written = False
        with self._failures_told("no audio"):
            codec = load_run_codec(run.path, info)
            self._reference = read_reference(data, index, codec, info.config.model.output_codebooks, self._frames)
            loop = loop_of(info, graph, codec.spec, info.config.model.inputs)
            self._streamer = Streamer(loop, jax.device_put(codec.weights, jax.devices()[0]), CHUNK_FRAMES)

    def write(self, step: int, params: nnx.State) -> None:
        """Writes the reference, the first time, and what the parameters generate.

        Args:
            step: that the parameters are of.
            params: the network's, on any devices of this process; they are copied to the first one while this runs.

        Raises:
            OSError: if the event file cannot be written.
        """
        if self._ended:
            return
        with self._failures_told(f"no more audio after step {step}"):
            reference = self._reference
            if not self._reference_written:
                title = f"{reference.document}, decoded from {reference.tokens.shape[1]} stored codebook(s)"
                self._add("reference", step, title, reference.tokens, reference.samples)
                self._reference_written = True
            params = jax.device_put(params, jax.devices()[0])
            title = f"step {step}, generated from nothing"
            self._add("generated/from_nothing", step, title, *self._generate(params, None))
            clock = self._info.clock
            given = min(round(PROMPT_SECONDS * clock.frames_per_second), self._frames // 2, len(reference.tokens))
            prompt = Prompt(reference.samples[: clock.samples(given)], reference.tokens[:given])
            title = f"step {step}, {reference.document} continued"
            self._add("generated/continued", step, title, *self._generate(params, prompt), prompt_frames=given)
        self._writer.flush()

    def _generate(self, params: nnx.State, prompt: Prompt | None) -> tuple[np.ndarray, np.ndarray]:
        """Tokens int16 [n, K] and samples float32 [n * hop], the prompt's among them."""
        sampling = make_sampling(vocabulary=self._info.config.model.vocabulary)
        stream = self._streamer.stream(params, self._frames, sampling=sampling, seeds=(SEED,), prompt=prompt)
        tokens, samples = zip(*stream, strict=True)
        return np.concatenate(tokens, axis=1)[0], np.concatenate(samples, axis=1)[0]

    def _add(
        self, tag: str, step: int, title: str, tokens: np.ndarray, samples: np.ndarray, *, prompt_frames: int = 0
    ) -> None:
        """Writes samples [n * hop] and their spectrogram above tokens [n, K] into the event file."""
        clock, mel = self._info.clock, self._info.mel
        audio = Summary.Audio(  # by hand: tensorboardX's own function needs soundfile
            sample_rate=clock.sample_rate,
            num_channels=1,
            length_frames=len(samples),
            encoded_audio_string=encode_wav(samples, clock.sample_rate),
            content_type="audio/wav",
        )
        self._writer.add(Summary(value=[Summary.Value(tag=tag, audio=audio)]), step)
        pixels = generated_pixels(
            log_mel(samples, mel, clock),
            tokens,
            clock.frames_per_second,
            title,
            prompt_frames=prompt_frames,
            mel_range=(mel.silence, self._reference.loudest),
        )
        self._writer.add(summary.image(f"{tag}/mel", pixels, dataformats="HWC"), step)

    @contextlib.contextmanager
    def _failures_told(self, loss: str) -> Iterator[None]:
        """Ends the summaries at a failure of the data, the codec, the network or the device, and says what is lost."""
        try:
            yield
        except (WgptError, FloatingPointError, jax.errors.JaxRuntimeError) as error:
            self._ended = True
            self._say(f"warning: TensorBoard gets {loss}: {str(error).splitlines()[0]}")
