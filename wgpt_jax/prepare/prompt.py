"""A prompt for generation: any audio file as samples and tokens of a codec."""

import math
import os
from pathlib import Path

import numpy as np

from wgpt_jax.data.index import CodecInfo
from wgpt_jax.errors import RequestError
from wgpt_jax.prepare.codec import cached_codec
from wgpt_jax.prepare.items import SourceError
from wgpt_jax.prepare.reading.decode import decode_audio


def read_prompt(
    source: str | os.PathLike | np.ndarray,
    codec: CodecInfo,
    codebooks: int,
    seconds: float | None = None,
    where: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Reads and encodes what is to be continued, cut to whole frames.

    Args:
        source: an audio file of any format, rate and number of channels, or float samples [N] at the codec's rate.
        codec: the codec the tokens must be of.
        codebooks: K.
        seconds: takes only the beginning, as long.
        where: name or folder of the codec, if not the one it was first loaded from.

    Returns:
        float32 samples [n * hop] and int16 tokens [n, K].

    Raises:
        RequestError: if it cannot be read, is empty or not finite, or the codec is not there or is another one.
    """
    if seconds is not None and not 0 < seconds < math.inf:
        raise RequestError(f"--prompt-seconds {seconds:g}: ask for a positive number of seconds")
    loaded = cached_codec(where or codec.name)
    if loaded.fingerprint != codec.fingerprint:
        raise RequestError(
            f"codec {loaded.name} ({loaded.fingerprint}) is not the one the run was trained with "
            f"({codec.fingerprint}): its tokens mean something else to the run"
        )
    if isinstance(source, np.ndarray):
        name, samples = "the prompt", _checked_samples(source)
    else:
        name = f"the prompt {source}"
        if not Path(source).is_file():
            raise RequestError(f"there is no file {source} to continue")
        try:
            samples = decode_audio(Path(source), loaded.clock.sample_rate)
        except SourceError as error:
            raise RequestError(f"{name} cannot be used: {error}") from error
    if seconds is not None:
        samples = samples[: round(seconds * loaded.clock.sample_rate)]
    frames = loaded.clock.frames(len(samples))
    if frames == 0:
        raise RequestError(f"{name} is shorter than one frame ({1000 * loaded.clock.seconds(1):.1f} ms)")
    samples = np.ascontiguousarray(samples[: loaded.clock.samples(frames)], np.float32)
    return samples, loaded.encode(samples, codebooks)


def _checked_samples(samples: np.ndarray) -> np.ndarray:
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise RequestError(
            f"the prompt must be float samples [N], full scale 1; got {samples.dtype} of shape {samples.shape}"
        )
    if not np.isfinite(samples).all():
        raise RequestError("the prompt has samples that are not finite")
    return samples
