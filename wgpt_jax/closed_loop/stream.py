"""The loop compiled, once per batch size; the network's parameters come with every call."""

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

from wgpt_jax.closed_loop.loop import Given, Loop, compile_chunk
from wgpt_jax.closed_loop.sampling import Sampling
from wgpt_jax.errors import RequestError

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


class Streamer:
    """Generates in chunks with any parameters of one network, and keeps none of them.

    Attributes:
        loop: what is compiled.
        compile_seconds: spent on compiling so far.
    """

    def __init__(self, loop: Loop, weights: dict[str, jax.Array], chunk_frames: int):
        """Compiles nothing yet.

        Args:
            loop: what is fixed.
            weights: the codec decoder's, on the device that generates.
            chunk_frames: frames per call of the device.
        """
        self.loop = loop
        self.compile_seconds = 0.0
        self._weights = weights
        self._chunk_frames = chunk_frames
        self._compiled: dict[int, tuple] = {}

    def compile(self, params: nnx.State, batch: int) -> None:
        """Compiles for a batch size, if that was not done yet; :meth:`stream` does it by itself."""
        if batch not in self._compiled:
            begin = time.perf_counter()
            self._compiled[batch] = compile_chunk(self.loop, params, self._weights, batch, self._chunk_frames)
            self.compile_seconds += time.perf_counter() - begin

    def stream(
        self,
        params: nnx.State,
        frames: int,
        *,
        sampling: Sampling,
        seeds: Sequence[int] = (0,),
        prompt: Prompt | None = None,
    ) -> Iterator[Chunk]:
        """Generates, chunk by chunk, one sample per seed.

        Args:
            params: the network's, on the device of the codec's weights.
            frames, sampling, seeds, prompt: as of :meth:`wgpt_jax.closed_loop.generator.Generator.stream`.

        Yields:
            chunks that add up to ``frames`` frames.

        Raises:
            RequestError: if ``frames`` leaves nothing to generate, or the prompt does not fit the network.
            FloatingPointError: if the network's output is not finite, saying where.
            jax.errors.JaxRuntimeError: if the device fails.
        """
        hop = self.loop.clock.hop
        if prompt is not None:
            _check_prompt(prompt, self.loop.codebooks, hop)
        known = 0 if prompt is None else len(prompt.tokens)
        if frames <= known:
            raise RequestError(f"the prompt has {known} frames, {frames} were asked for in all; ask for more")
        self.compile(params, len(seeds))
        start, chunk = self._compiled[len(seeds)]
        keys = np.asarray(seeds, np.uint32)
        state = start(params, self._weights)
        for first in range(0, frames, self._chunk_frames):
            here = min(self._chunk_frames, frames - first)
            given = self._given(prompt, first)
            state, tokens, samples = chunk(params, self._weights, state, given, sampling, keys)
            # To the host before they are cut: a cut on the device would be compiled.
            samples = np.array(samples)[:, : here * hop]
            if not np.isfinite(samples).all():
                raise FloatingPointError(
                    f"logits or samples that are not finite between frames {first} and {first + here}"
                )
            if prompt is not None:
                _lead_with(samples, prompt.samples, first * hop, self.loop.clock.sample_rate)
            yield Chunk(np.asarray(tokens, np.int16)[:, :here], samples)

    def _given(self, prompt: Prompt | None, first: int) -> Given:
        """The prompt's part of the chunk that begins with frame ``first``."""
        hop, codebooks = self.loop.clock.hop, self.loop.codebooks
        known = np.zeros(self._chunk_frames, bool)
        tokens = np.zeros((self._chunk_frames, codebooks), np.int32)
        samples = np.zeros((self._chunk_frames, hop), np.float32)
        if prompt is not None:
            part = prompt.tokens[first : first + self._chunk_frames, :codebooks]
            known[: len(part)] = True
            tokens[: len(part)] = part
            samples[: len(part)] = prompt.samples[first * hop : (first + len(part)) * hop].reshape(-1, hop)
        return Given(known, tokens, samples)


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


def _check_prompt(prompt: Prompt, codebooks: int, hop: int) -> None:
    frames, given = prompt.tokens.shape
    if given < codebooks or len(prompt.samples) != frames * hop:
        raise RequestError(
            f"the prompt has {frames} frames of {given} codebooks and {len(prompt.samples)} samples; the run needs "
            f"{codebooks} codebooks, and {hop} samples per frame"
        )
