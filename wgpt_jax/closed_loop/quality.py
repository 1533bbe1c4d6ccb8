"""What a run makes of sound when it listens to itself, measured against held-out audio; no claim by ear.

Three measures of generated samples beside documents of a split, cut to equal length: how the use of coarse tokens
drifts with time (:mod:`drift`), how much repeats (:mod:`repetition`), and the Frechet distance in the codec's latent
space (:mod:`frechet`). Distances come with their floor (:mod:`floor`).
"""

import dataclasses
import math
import os
from pathlib import Path
from typing import Any

from wgpt_jax.audio.codec_file import CodecDecoder
from wgpt_jax.audio.mel import log_mel
from wgpt_jax.closed_loop.drift import window_edges
from wgpt_jax.closed_loop.floor import per_side
from wgpt_jax.closed_loop.generator import Generator, load_run_codec
from wgpt_jax.closed_loop.held_out import HeldOut, read_held_out
from wgpt_jax.closed_loop.measures import PATCH_SECONDS, Measures
from wgpt_jax.closed_loop.repetition import NGRAM
from wgpt_jax.closed_loop.request import SamplingConfig
from wgpt_jax.closed_loop.samples import Samples, decode_tokens, decoded_prompts, draw_samples
from wgpt_jax.closed_loop.sampling import make_sampling
from wgpt_jax.config import Weights
from wgpt_jax.data.index import load_index
from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.plots_quality import plot_closed_loop
from wgpt_jax.runs import RunInfo, check_data_is_readable, check_model_fits_data, read_run

AS_PREDICTED = SamplingConfig()
"""Tokens drawn as the network predicts them."""
_SHOWN = 2  # samples and documents in the picture


def measure(
    run: str | os.PathLike,
    data: str | os.PathLike,
    split: str = "test",
    *,
    seconds: float = 20.0,
    num_samples: int = 16,
    prompt_seconds: float = 0.0,
    seed: int = 0,
    sampling: SamplingConfig = AS_PREDICTED,
    step: int | str = "latest",
    weights: Weights = "raw",
    window_seconds: float = 2.5,
    max_documents: int = 64,
    splits: int = 20,
    picture: str | os.PathLike | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Generates from a run and measures what came out.

    Args:
        run: run folder.
        data: prepared data, made with the run's codec and mel.
        split: whose documents are the held-out audio.
        seconds: measured length of every sample and document, behind the prompt.
        num_samples: G, with the seeds ``seed`` and those after it.
        prompt_seconds: how much of a held-out document each sample continues; 0 for none. The prompts are the stored
            tokens, heard as decoded: no torch and no audio files are needed.
        seed: of the first sample, of the choice of documents and of the divisions.
        sampling: how tokens are drawn.
        step: checkpoint: a step, ``latest`` or ``best``.
        weights: ``raw``, or ``ema`` for the averaged ones.
        window_seconds: width of the windows in time.
        max_documents: held-out documents at most.
        splits: divisions of the documents that distances are means over.
        picture: PNG to write: spectrograms of two documents and two samples above the drift; None for none.
        progress: whether to show progress bars on a terminal.

    Returns:
        a JSON row of kind ``closed_loop``; docs/generation.md says what its figures are.

    Raises:
        RequestError: if the run cannot generate, the data does not fit it, or the split has too few documents that are
            long enough; or if the request is wrong in itself.
        WorkError: if generating fails, a shard is damaged or the picture cannot be written.
    """
    info, index = read_run(run), load_index(data)
    check_data_is_readable(info, index, run, data)
    check_model_fits_data(info.config, index, data)
    rate = info.clock.frames_per_second
    _check(seconds, num_samples, prompt_seconds, seed, window_seconds, rate)
    drawn = make_sampling(**dataclasses.asdict(sampling), vocabulary=info.config.model.vocabulary)
    edges = window_edges(seconds, window_seconds, rate)
    lead = round(prompt_seconds * rate)
    frames = lead + round(seconds * rate)
    generator = Generator(run, step=step, weights=weights)
    codec = load_run_codec(run, info)
    held_out = read_held_out(data, index, split, frames, limit=max_documents, seed=seed)
    if lead and num_samples > len(held_out.names):
        raise RequestError(
            f"--num-samples {num_samples}: with a prompt each sample continues another document, and there are "
            f"{len(held_out.names)} that are long enough; ask for at most as many"
        )
    seeds = list(range(seed, seed + num_samples))
    prompts = decoded_prompts(codec, held_out.tokens[:num_samples, :lead]) if lead else []
    samples = draw_samples(
        generator, frames, sampling=drawn, seeds=seeds, prompts=prompts, keep=_SHOWN, progress=progress
    )
    row = {
        "kind": "closed_loop",
        "run": str(run),
        "data": str(data),
        "split": split,
        "step": generator.step,
        "weights": weights,
        "inputs": info.config.model.inputs,
        "mode": generator.mode,
        "codebooks": generator.codebooks,
        "sampling": dataclasses.asdict(sampling),
        "seed": seed,
        "seeds": seeds,
        "num_samples": num_samples,
        "seconds": seconds,
        "frames": frames - lead,
        "prompt_seconds": lead / rate,
        "prompts": list(held_out.names[:num_samples]) if lead else [],
        "documents": len(held_out.names),
        "documents_too_short": held_out.too_short,
        "per_side": per_side(num_samples, len(held_out.names)),
        "splits": splits,
        "warnings": generator.warnings,
        "generate_seconds": samples.spent,
    }
    measures = Measures(edges, rate, codec.weights["codebooks"], lead > 0, seed, splits, progress)
    theirs = held_out.tokens[:, lead:, : generator.codebooks]
    row |= measures(samples.tokens[:, lead:], theirs)
    row["drift"]["window_seconds"] = window_seconds
    if picture is not None:
        _draw(row, info, codec, samples, held_out, Path(picture))
    return row


def _check(
    seconds: float, num_samples: int, prompt_seconds: float, seed: int, window_seconds: float, rate: float
) -> None:
    """Raises RequestError, naming the flag, if a request is wrong whatever the run and the data."""
    if not NGRAM / rate <= window_seconds < math.inf:
        raise RequestError(
            f"--window-seconds {window_seconds:g}: a window has {NGRAM} frames ({NGRAM / rate:.3f} s) or more"
        )
    if not 2 * PATCH_SECONDS <= seconds < math.inf:
        raise RequestError(f"--seconds {seconds:g}: ask for {2 * PATCH_SECONDS:g} s or more")
    if window_seconds > seconds:
        raise RequestError(
            f"--seconds {seconds:g}: too short for one window of {window_seconds:g} s; ask for more, or "
            "set --window-seconds"
        )
    if not 0 <= prompt_seconds < math.inf:
        raise RequestError(f"--prompt-seconds {prompt_seconds:g}: give a number of seconds, or 0 for no prompt")
    if num_samples < 2:
        raise RequestError(f"--num-samples {num_samples}: the spread of samples needs at least 2")
    if not 0 <= seed <= 2**32 - num_samples:
        raise RequestError(f"--seed {seed}: seeds are from 0 to {2**32 - num_samples}")


def _draw(
    row: dict[str, Any], info: RunInfo, codec: CodecDecoder, samples: Samples, held_out: HeldOut, out: Path
) -> None:
    """Draws the first documents, decoded from the codebooks that the run emits, the first samples, and the drift."""
    theirs = decode_tokens(codec, held_out.tokens[:_SHOWN, :, : row["codebooks"]])
    pictures = [(f"held out: {name}", sound) for name, sound in zip(held_out.names, theirs, strict=False)]
    pictures += [(f"generated, seed {seed}", sound) for seed, sound in zip(row["seeds"], samples.sounds, strict=False)]
    mels = {label: log_mel(sound, info.mel, info.clock) for label, sound in pictures}
    try:
        plot_closed_loop(mels, row, info.clock.frames_per_second, out)
    except OSError as error:
        raise WorkError(f"cannot write {out}: {error.strerror or error}") from error
