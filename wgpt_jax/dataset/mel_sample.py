"""How the values of each mel band are spread, from a sample of the records."""

import dataclasses

import numpy as np

from wgpt_jax.dataset.folder import Prepared
from wgpt_jax.dataset.records import ShardReader, UnreadableError
from wgpt_jax.errors import WorkError

_RECORDS = 64
_BINS = 120


@dataclasses.dataclass(frozen=True)
class MelSample:
    """Histograms of the predicted frames of a sample."""

    histograms: dict[str, np.ndarray]
    """By mel source: int64 [M, bins]."""
    edges: np.ndarray
    """Of the bins, [bins + 1], normalised mel."""
    records: int
    frames: int


def sample_mel(prepared: Prepared, seed: int = 0) -> MelSample:
    """Draws records, whatever split they are of, and counts the values of their mel.

    Args:
        prepared: the data set.
        seed: of the draw.

    Raises:
        WorkError: if a record cannot be read.
    """
    index = prepared.index
    owners = np.repeat(np.arange(len(index.shards)), [shard.records for shard in index.shards])
    firsts = np.cumsum([0, *(shard.records for shard in index.shards)])
    drawn = np.sort(np.random.default_rng(seed).permutation(len(owners))[:_RECORDS])
    edges = np.linspace(np.floor(index.mel.silence), np.ceil(index.mel.silence) + 5, _BINS + 1)
    counts = np.zeros((len(index.mel_sources), index.mel.bands, _BINS), np.int64)
    frames = 0
    for number in np.unique(owners[drawn]):
        file = index.shards[number].file
        try:
            with ShardReader(prepared.folder / file) as reader:
                for row in drawn[owners[drawn] == number]:
                    record = reader.read(int(row - firsts[number]))
                    context = np.concatenate([np.arange(s.length) < s.context for s in record.segments])
                    mel = np.clip(record.mel[:, ~context].astype(np.float32), edges[0], edges[-1])
                    for source, band in np.ndindex(counts.shape[:2]):
                        counts[source, band] += np.histogram(mel[source, :, band], edges)[0]
                    frames += mel.shape[1]
        except (UnreadableError, IndexError) as error:
            raise WorkError(f"{file} cannot be read: {error}; dataset.py verify says what else is damaged") from error
    return MelSample(dict(zip(index.mel_sources, counts, strict=True)), edges, len(drawn), frames)
