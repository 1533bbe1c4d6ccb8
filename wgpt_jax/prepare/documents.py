"""One document of a prepared data set: its stored arrays, and its audio."""

from pathlib import Path

import numpy as np

from wgpt_jax.prepare.items import Item
from wgpt_jax.prepare.reading.mono import mono_blocks, resampled
from wgpt_jax.prepare.shards import read_records
from wgpt_jax.prepare.sources.opening import Source


def read_document(shard: Path, name: str, frames: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mel float16 [S, n, M] and tokens int16 [n, K] of a document, or of its first ``frames``, from its segments.

    Raises:
        KeyError: if the shard does not hold it.
    """
    mel, tokens = [], []
    for record in read_records(shard):
        offset = 0
        for segment in record.segments:
            if segment.document == name:
                mel.append(record.mel[:, offset + segment.context : offset + segment.length])
                tokens.append(record.tokens[offset + segment.context : offset + segment.length])
            offset += segment.length
        if frames is not None and sum(map(len, tokens)) >= frames:
            break
    if not tokens:
        raise KeyError(name)
    return np.concatenate(mel, axis=1)[:, :frames], np.concatenate(tokens)[:frames]


def read_samples(
    source: Source, item: Item, sample_rate: int, channel: int | None, longest: int | None = None
) -> np.ndarray:
    """The audio of an item, float32 [N] at ``sample_rate``; no more than its first ``longest`` samples are kept.

    Raises:
        SourceError: if it cannot be read.
    """
    with source.open(item) as sound:
        blocks, samples = [], 0
        for block in resampled(mono_blocks(sound, channel), sound.rate, sample_rate):
            blocks.append(block)
            samples += len(block)
            if longest is not None and samples >= longest:
                break
    return np.concatenate(blocks)[:longest] if blocks else np.zeros(0, np.float32)
