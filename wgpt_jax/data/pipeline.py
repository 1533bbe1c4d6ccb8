"""From shards to batches: Grain for training, every document once for evaluation."""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import grain
import numpy as np
from absl import flags
from grain.sources import ArrayRecordDataSource

from wgpt_jax.config import DataConfig
from wgpt_jax.data.batch import Batch
from wgpt_jax.data.index import DataIndex, file_sha256
from wgpt_jax.data.records import Record, decode_record
from wgpt_jax.data.windows import cut_window, random_start, stack_windows, tile_record
from wgpt_jax.errors import RequestError, WorkError

_PREFETCH = 4  # batches; Grain's default of 500 would hold gigabytes


def open_split(folder: str | os.PathLike, index: DataIndex, split: str) -> ArrayRecordDataSource:
    """Random access to the records of a split.

    Raises:
        RequestError: if the split is empty.
        WorkError: if a shard cannot be read.
    """
    paths = [str(Path(folder) / shard.file) for shard in index.split(split)]
    try:
        return ArrayRecordDataSource(paths)
    except (RuntimeError, OSError, ValueError) as error:
        raise WorkError(describe_damage(folder, index, split, error)) from error


def describe_damage(folder: str | os.PathLike, index: DataIndex, split: str, error: Exception) -> str:
    """A sentence about records that cannot be read: which shard is not what was written, and the remedy."""
    for shard in index.split(split):
        path = Path(folder) / shard.file
        if not path.is_file() or file_sha256(path) != shard.sha256:
            return (
                f"shard {path} is damaged (its sha256 is not {shard.sha256}); run the same tools/prepare_audio.py "
                "command again, it makes damaged shards anew"
            )
    first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"cannot read the {split} shards in {folder}: {first_line}"


@dataclasses.dataclass(frozen=True)
class RandomWindow(grain.transforms.RandomMap):
    """Decodes a record and cuts one random window out of it, under a random one of its mel sources."""

    context: int
    mix: tuple[float, ...]
    """Probability of each of the record's mel sources."""

    def random_map(self, element: bytes, rng: np.random.Generator) -> Batch:
        """Record bytes -> window of ``context`` frames."""
        record = decode_record(element)
        # The start first: it must not depend on the mix, so that models trained on different mixes see equal tokens.
        start = random_start(len(record.tokens), self.context, rng)
        return cut_window(record, start, self.context, source=rng.choice(len(self.mix), p=self.mix))


def training_batches(
    folder: str | os.PathLike, index: DataIndex, config: DataConfig, batch: int, *, reads_mel: bool = True
) -> "grain.experimental.ElasticIterator":
    """Endless shuffled batches of the training split, this process's rows of each.

    The order depends on ``config.shuffle_seed`` alone: not on workers, processes or devices. ``get_state()`` is one
    integer, which ``set_state()`` takes on any number of hosts.

    Args:
        folder: prepared data.
        index: its index.
        config: window length, seed, workers and mel mix.
        batch: rows over all processes.
        reads_mel: whether the model reads the mel; if not, the mix is ignored.

    Raises:
        RequestError: if the mix names a mel source that the data does not have, or there is nothing to train on.
        WorkError: if a shard cannot be read.
    """
    mix = _mix_probabilities(folder, index, config.mel_mix if reads_mel else {index.mel_sources[0]: 1.0})
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain's workers read absl flags, which nobody parses here
    windows = (
        grain.MapDataset.source(open_split(folder, index, "train"))
        .seed(config.shuffle_seed)
        .shuffle()
        .repeat(None)
        .random_map(RandomWindow(config.context, mix))
    )
    workers = grain.MultiprocessingOptions(num_workers=config.workers, per_worker_buffer_size=1)
    return grain.experimental.ElasticIterator(
        windows,
        batch,
        grain.sharding.ShardByJaxProcess(drop_remainder=True),
        read_options=grain.ReadOptions(num_threads=2, prefetch_buffer_size=_PREFETCH),
        multiprocessing_options=workers if config.workers else None,
    )


def _mix_probabilities(folder: str | os.PathLike, index: DataIndex, mix: Mapping[str, float]) -> tuple[float, ...]:
    """Probability of each of the data's mel sources: in the index's order, so that the mix's own changes no draw."""
    for name, weight in mix.items():
        if weight and name not in index.mel_sources:
            raise RequestError(
                f"data.mel_mix names {name}, but the data in {folder} has the mel of {', '.join(index.mel_sources)}; "
                f"prepare it into another folder with --mel-sources {','.join([*index.mel_sources, name])}"
            )
    return tuple(mix.get(name, 0.0) / sum(mix.values()) for name in index.mel_sources)


@dataclasses.dataclass(frozen=True)
class EvaluationBatch:
    """A batch of windows and where each came from."""

    batch: Batch
    """[B, ...]; rows past ``len(origins)`` are padding."""
    origins: tuple[tuple[Record, int], ...]
    """Record and start frame of every real row."""


def evaluation_batches(
    folder: str | os.PathLike,
    index: DataIndex,
    split: str,
    context: int,
    batch: int,
    limit: int = 0,
    source: int = 0,
) -> Iterator[EvaluationBatch]:
    """Every frame of a split once, in windows side by side; the last batch is padded.

    Args:
        folder: prepared data.
        index: its index.
        split: which split.
        context: window length T.
        batch: rows per batch.
        limit: windows at most, spread evenly over the records; 0 for all.
        source: which of the index's mel sources the windows show.
    """
    stored = open_split(folder, index, split)
    order = np.arange(len(stored))
    if limit:
        # A golden-ratio walk visits the split evenly whatever the limit, and in the same order every time.
        order = np.argsort((np.arange(len(stored)) * 0.6180339887498949) % 1.0, kind="stable")
    rows: list[tuple[Batch, tuple[Record, int]]] = []
    taken = 0
    for key in order:
        try:
            record = decode_record(stored[int(key)])
        except (RuntimeError, OSError, RequestError) as error:
            raise WorkError(describe_damage(folder, index, split, error)) from error
        for start, window in tile_record(record, context, source):
            rows.append((window, (record, start)))
            taken += 1
            if len(rows) == batch:
                yield _evaluation_batch(rows, batch)
                rows = []
            if limit and taken == limit:
                break
        if limit and taken == limit:
            break
    if rows:
        yield _evaluation_batch(rows, batch)


def _evaluation_batch(rows: list[tuple[Batch, tuple[Record, int]]], size: int) -> EvaluationBatch:
    return EvaluationBatch(stack_windows([row for row, _ in rows], size), tuple(origin for _, origin in rows))
