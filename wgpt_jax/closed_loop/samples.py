"""Samples to be measured: drawn from nothing in one batch, or each as the continuation of a held-out document."""

import dataclasses
import time
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from wgpt_jax.audio.codec_file import CodecDecoder
from wgpt_jax.audio.encodec import decode, initial_carry
from wgpt_jax.closed_loop.generator import Generator, Prompt
from wgpt_jax.closed_loop.sampling import Sampling


@dataclasses.dataclass(frozen=True)
class Samples:
    """What was generated, prompts included."""

    tokens: np.ndarray
    """int16 [G, n, K]."""
    sounds: np.ndarray
    """float32 [S, n * hop]; of the first samples."""
    spent: float
    """Seconds it took, without compiling."""


def draw_samples(
    generator: Generator,
    frames: int,
    *,
    sampling: Sampling,
    seeds: Sequence[int],
    prompts: Sequence[Prompt] = (),
    keep: int = 2,
    progress: bool = True,
) -> Samples:
    """Generates one sample per seed.

    Args:
        generator: of a run.
        frames: n, the prompt's among them.
        sampling: how tokens are drawn.
        seeds: of the samples, G.
        prompts: one per seed; a batch shares its prompt, so these are generated one after the other. None for none.
        keep: samples whose sound is kept, S at most.
        progress: whether to show a progress bar on a terminal.

    Raises:
        RequestError, WorkError: as :meth:`Generator.stream`.
    """
    batches = [([seed], prompt) for seed, prompt in zip(seeds, prompts, strict=True)] if prompts else [(seeds, None)]
    generator.compile(len(batches[0][0]))
    tokens, sounds, begin = [], [], time.perf_counter()
    hidden = None if progress else True
    with tqdm(total=frames * len(batches), unit="frame", desc="generating", disable=hidden) as bar:
        for batch, prompt in batches:
            chunks = []
            for chunk in generator.stream(frames, sampling=sampling, seeds=batch, prompt=prompt):
                chunks.append(chunk._replace(samples=chunk.samples[: keep - len(sounds)]))
                bar.update(chunk.tokens.shape[1])
            tokens.append(np.concatenate([chunk.tokens for chunk in chunks], axis=1))
            sounds.extend(np.concatenate([chunk.samples for chunk in chunks], axis=1))
    return Samples(np.concatenate(tokens), np.stack(sounds), time.perf_counter() - begin)


def decoded_prompts(codec: CodecDecoder, tokens: np.ndarray) -> list[Prompt]:
    """Prompts made of the first frames of documents, heard as the codec decodes all their stored codebooks.

    Args:
        codec: the run's.
        tokens: int16 [G, n, K'].
    """
    sounds = decode_tokens(codec, tokens[..., : codec.spec.codebooks])
    return [Prompt(sound, row) for sound, row in zip(sounds, tokens, strict=True)]


def decode_tokens(codec: CodecDecoder, tokens: np.ndarray) -> np.ndarray:
    """Sound of documents from their first frame on: int [B, n, K] -> float32 [B, n * hop]."""
    carry = initial_carry(codec.spec, codec.weights, batch=len(tokens), codebooks=tokens.shape[2])
    return np.asarray(decode(codec.spec, codec.weights, tokens.astype(np.int32), carry)[0])
