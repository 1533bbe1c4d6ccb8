"""From shards to batches: Grain for training, every document once for evaluation."""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence

import grain
import numpy as np
from absl import flags

from wgpt_jax.config import DataConfig
from wgpt_jax.data.batch import Batch
from wgpt_jax.data.index import DataIndex
from wgpt_jax.data.records import Record
from wgpt_jax.data.shards import SplitRecords, UnreadableRecord, describe_damage
from wgpt_jax.data.windows import cut_window, random_start, stack_windows, tile_record
from wgpt_jax.data.workers import end_with_parent
from wgpt_jax.errors import RequestError, WorkError

_PREFETCH = 4  # batches; Grain's default of 500 would hold gigabytes


@dataclasses.dataclass(frozen=True)
class RandomWindow(grain.transforms.RandomMap):
    """Cuts one random window out of a record, under a random one of its mel sources."""

    context: int
    mix: tuple[float, ...]
    """Probability of each of the record's mel sources."""

    def random_map(self, element: Record, rng: np.random.Generator) -> Batch:
        """Record -> window of ``context`` frames."""
        # The start first: it must not depend on the mix, so that models trained on different mixes see equal tokens.
        start = random_start(len(element.tokens), self.context, rng)
        return cut_window(element, start, self.context, source=rng.choice(len(self.mix), p=self.mix))


class _OwnRows(grain.MapDataset):
    """The windows of some rows of every batch, one after the other."""

    def __init__(self, windows: grain.MapDataset, batch: int, rows: Sequence[int], first: int):
        """Rows ``rows`` of batches of ``batch`` windows, of which the first begins with window ``first``."""
        super().__init__(windows)
        self._batch, self._rows, self._first = batch, tuple(rows), first

    def __len__(self) -> int:
        return (len(self._parent) - self._first) // self._batch * len(self._rows)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.slice(index)
        batch, row = divmod(index, len(self._rows))
        return self._parent[self._first + batch * self._batch + self._rows[row]]


class TrainingBatches(Iterator[Batch]):
    """Endless batches of windows, this process's rows of each, and the position of the next one to be delivered.

    Workers or threads start with the first batch. If a batch cannot be had, the position stays before it, and the next
    call reads that batch anew; Grain's own iterators would go on behind it.
    """

    def __init__(self, windows: grain.MapDataset, batch: int, rows: Sequence[int], workers: int):
        """Begins at the first window.

        Args:
            windows: the windows of all processes in their order, without end.
            batch: rows over all processes.
            rows: those of them that this process feeds. A window's row is the same whatever the number of processes:
                Grain's ``ElasticIterator`` would deal them out in turn, and dropout is drawn by row.
            workers: processes that read; 0 for threads.
        """
        self._windows, self._batch, self._rows, self._workers = windows, batch, rows, workers
        self._position = 0
        self._batches: grain.DatasetIterator | None = None

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
            UnreadableRecord: if a record of it cannot be read.
            RuntimeError: if a worker died; :func:`describe_damage` tells these apart.
        """
        if self._batches is None:
            self._batches = self._read()
        try:
            batch = next(self._batches)
        except BaseException:
            self.close()
            raise
        self._position += self._batch
        # Out of the workers' shared memory, which would else be held for as long as anything refers to the batch.
        return Batch(*map(np.array, batch)) if self._workers else batch

    def get_state(self) -> dict[str, int]:
        """The position: how many windows were delivered over all processes."""
        return {"global_next_index": self._position}

    def set_state(self, state: Mapping[str, int]) -> None:
        """Goes to a position from :meth:`get_state`, whatever number of processes and workers it comes from."""
        self.close()
        self._position = state["global_next_index"]

    def close(self) -> None:
        """Ends threads and workers; the position stays."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None

    def _read(self) -> grain.DatasetIterator:
        windows = _OwnRows(self._windows, self._batch, self._rows, self._position)
        batches = windows.batch(len(self._rows), drop_remainder=True)
        options = grain.MultiprocessingOptions(num_workers=self._workers, per_worker_buffer_size=1)
        read = batches.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=_PREFETCH))
        return iter(read.mp_prefetch(options, end_with_parent))


def training_batches(
    folder: str | os.PathLike,
    index: DataIndex,
    config: DataConfig,
    batch: int,
    *,
    rows: Sequence[int] | None = None,
    reads_mel: bool = True,
) -> TrainingBatches:
    """Endless shuffled batches of the training split, this process's rows of each.

    The order depends on ``config.shuffle_seed`` alone: not on workers, processes or devices. ``get_state()`` is one
    integer, which ``set_state()`` takes on any number of hosts.

    Args:
        folder: prepared data.
        index: its index.
        config: window length, seed, workers and mel mix.
        batch: rows over all processes.
        rows: those that this process feeds (:func:`wgpt_jax.parallel.hosts.own_rows`); all by default.
        reads_mel: whether the model reads the mel; if not, the mix is ignored.

    Raises:
        RequestError: if the mix names a mel source that the data does not have, or there is nothing to train on.
        WorkError: if a shard cannot be read.
    """
    mix = _mix_probabilities(folder, index, config.mel_mix if reads_mel else {index.mel_sources[0]: 1.0})
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain's workers read absl flags, which nobody parses here
    windows = (
        grain.MapDataset.source(SplitRecords(folder, index, "train"))
        .seed(config.shuffle_seed)
        .shuffle()
        .repeat(None)
        .random_map(RandomWindow(config.context, mix))
    )
    return TrainingBatches(windows, batch, range(batch) if rows is None else rows, config.workers)


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
    stored = SplitRecords(folder, index, split)
    order = np.arange(len(stored))
    if limit:
        # A golden-ratio walk visits the split evenly whatever the limit, and in the same order every time.
        order = np.argsort((np.arange(len(stored)) * 0.6180339887498949) % 1.0, kind="stable")
    rows: list[tuple[Batch, tuple[Record, int]]] = []
    taken = 0
    for key in order:
        try:
            record = stored[int(key)]
        except UnreadableRecord as error:
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
