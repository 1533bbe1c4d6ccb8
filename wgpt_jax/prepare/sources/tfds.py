"""TFDS data sets as a source: what TFDS has prepared as ArrayRecord is read without TensorFlow."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from wgpt_jax.errors import RequestError
from wgpt_jax.prepare.items import Item
from wgpt_jax.prepare.reading.sound import Sound
from wgpt_jax.prepare.sources.tfds_example import open_audio, read_example, read_scalars
from wgpt_jax.prepare.sources.tfds_find import find_prepared
from wgpt_jax.prepare.sources.tfds_info import cached_set, read_set

_SPEAKER_FEATURES = ("speaker_id", "speaker")
_SPLIT_PREFIXES = {"train": "train", "dev": "validation", "val": "validation", "test": "test"}


@dataclasses.dataclass(frozen=True)
class TfdsSource:
    """The examples of a prepared TFDS data set."""

    folder: str
    """The prepared data set (``.../libritts/1.0.1``)."""
    splits: tuple[str, ...]
    """Which of its splits."""
    resplit: bool
    """Whether these do not decide what is for training, validation and test."""

    @property
    def root(self) -> str:
        """What the items' paths are relative to."""
        return self.folder

    def items(self) -> list[Item]:
        """One item per example, sorted by name; no example is read.

        Names are the data set's split and the example's number in it.

        Raises:
            RequestError: as :func:`open_tfds`.
        """
        items = []
        for split in self.splits:
            ours = None if self.resplit else split_of(split)
            number = 0
            for path, count in cached_set(self.folder).shards[split]:
                items.extend(
                    Item(f"{split}/{number + record:07d}", path, record=record, split=ours) for record in range(count)
                )
                number += count
        return sorted(items, key=lambda item: item.name)

    @contextlib.contextmanager
    def open(self, item: Item) -> Iterator[Sound]:
        """Opens an item's audio.

        Yields:
            the :class:`Sound`.

        Raises:
            SourceError: if the example is damaged or holds no audio that can be decoded.
        """
        example = read_example(f"{self.folder}/{item.path}", item.record)
        with open_audio(example, cached_set(self.folder).audio) as sound:
            yield sound

    def describe(self, item: Item) -> Item:
        """The item with its example's texts, numbers and labels as metadata, and its speaker if one of them is that.

        Raises:
            SourceError: if the example is damaged.
        """
        example = read_example(f"{self.folder}/{item.path}", item.record)
        metadata = read_scalars(example, cached_set(self.folder).scalars)
        speakers = [metadata[name] for name in _SPEAKER_FEATURES if metadata.get(name) is not None]
        return dataclasses.replace(item, speaker=str(speakers[0]) if speakers else "", metadata=metadata)


def open_tfds(spec: str, data_dir: Path | None, splits: Sequence[str] | None, resplit: bool) -> TfdsSource:
    """A TFDS data set as a source; one that is not prepared yet is built if TensorFlow is installed.

    Args:
        spec: ``tfds:NAME[/CONFIG][:VERSION]``; without a version, the newest that is prepared.
        data_dir: where TFDS keeps its data sets; by default ``$TFDS_DATA_DIR`` or ``~/tensorflow_datasets``.
        splits: which of its splits; all by default.
        resplit: whether its splits are ignored.

    Raises:
        RequestError: if there is no such data set, or one that cannot be read; the message gives the remedy.
        WorkError: if building it failed.
    """
    folder = find_prepared(spec, data_dir)
    shards = read_set(folder).shards
    chosen = tuple(dict.fromkeys(shards if splits is None else splits))
    for split in chosen:
        if split not in shards:
            raise RequestError(f"{folder} has no split {split!r}; it has {', '.join(shards)}")
        for path, _ in shards[split]:
            if not (folder / path).is_file():
                raise RequestError(f"{folder / path} is missing; copy or prepare the data set again")
    return TfdsSource(folder.as_posix(), chosen, resplit)


def split_of(name: str) -> str | None:
    """``train``, ``validation`` or ``test`` if a data set's split begins like one of them, else None."""
    return next((ours for prefix, ours in _SPLIT_PREFIXES.items() if name.startswith(prefix)), None)
