"""A whole sound at once, for what is short: prompts and checks."""

from pathlib import Path

import numpy as np

from wgpt_jax.prepare.reading.files import open_sound
from wgpt_jax.prepare.reading.mono import mono_blocks, resampled


def decode_audio(
    path: Path, sample_rate: int, channel: int | None = None, start: float = 0.0, end: float | None = None
) -> np.ndarray:
    """Decodes a file or a part of it, mixes it down to mono (or takes one channel) and resamples it.

    Args:
        path: the file.
        sample_rate: Hz of the result.
        channel: the channel to take, counted from 0; None for the average of all.
        start: where the part begins, in seconds.
        end: where it ends; None for the end of the file.

    Returns:
        float32 [N], N = round(samples * sample_rate / rate of the file), full scale 1.

    Raises:
        SourceError: if the file cannot be decoded to its end or holds no usable audio.
    """
    with open_sound(path, start, end) as sound:
        blocks = list(resampled(mono_blocks(sound, channel), sound.rate, sample_rate))
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
