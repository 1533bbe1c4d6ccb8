"""From the sound of a file to mono samples at the rate of the clock, block by block."""

from collections.abc import Iterator

import numpy as np
import soxr

from wgpt_jax.prepare.items import SourceError
from wgpt_jax.prepare.reading.sound import Sound

_LOUDEST = 10.0  # 20 dB over full scale; beyond it the samples are integers in a float file, or noise


def mono_blocks(sound: Sound, channel: int | None) -> Iterator[np.ndarray]:
    """The average of all channels, or one of them counted from 0.

    Yields:
        float32 [n], n > 0, full scale 1.

    Raises:
        SourceError: if there is no such channel, or a sample of those used is not finite or far over full scale.
    """
    if channel is not None and not 0 <= channel < sound.channels:
        raise SourceError(f"no channel {channel}: it has {sound.channels}, counted from 0")
    position = 0
    for block in sound.blocks:
        used = block if channel is None else block[:, channel : channel + 1]
        _check_samples(used, position, sound.rate)
        position += len(block)
        yield used.mean(axis=1)


def resampled(blocks: Iterator[np.ndarray], rate: int, sample_rate: int) -> Iterator[np.ndarray]:
    """Resamples blocks float32 [n] from ``rate`` to ``sample_rate`` Hz (soxr HQ), as one call on all of them would.

    Yields:
        float32 [m], m > 0; together round(n * sample_rate / rate) samples.
    """
    if rate == sample_rate:
        yield from blocks
        return
    resampler = soxr.ResampleStream(rate, sample_rate, num_channels=1, dtype="float32", quality="HQ")
    for block in blocks:
        if len(samples := resampler.resample_chunk(block)):
            yield samples
    if len(samples := resampler.resample_chunk(np.zeros(0, np.float32), last=True)):
        yield samples


def _check_samples(block: np.ndarray, position: int, rate: int) -> None:
    peak = np.abs(block).max()
    if not np.isfinite(peak):
        second = (position + np.isfinite(block).all(axis=1).argmin()) / rate
        raise SourceError(f"non-finite samples (NaN or infinity) at {second:.2f} seconds")
    if peak > _LOUDEST:
        raise SourceError(f"samples reach {peak:.3g} where full scale is 1")
