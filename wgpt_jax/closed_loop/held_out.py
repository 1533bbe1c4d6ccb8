"""Held-out documents to compare generated samples with: the first frames of each, of equal length."""

import dataclasses
import os

import numpy as np

from wgpt_jax.data.index import DataIndex
from wgpt_jax.data.shards import SplitRecords, UnreadableRecord, describe_damage
from wgpt_jax.errors import RequestError, WorkError

FEWEST_DOCUMENTS = 4
"""Two for each of two disjoint halves: with fewer, there is no floor with an uncertainty."""


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Documents in an order drawn at random."""

    names: tuple[str, ...]
    tokens: np.ndarray
    """int16 [D, n, K']; the first n frames of each document, all stored codebooks."""
    too_short: int
    """Documents of the split that were left out because they have fewer than n frames."""


def read_held_out(
    data: str | os.PathLike, index: DataIndex, split: str, frames: int, *, limit: int, seed: int
) -> HeldOut:
    """Reads the beginnings of a split's documents; those that are shorter are left out.

    Args:
        data: prepared data.
        index: its index.
        split: which split.
        frames: n, of each document.
        limit: documents at most; which ones, and their order, is a function of the split, n and the seed.
        seed: of the draw.

    Raises:
        RequestError: if the split is unknown or empty, or has fewer than ``FEWEST_DOCUMENTS`` that are long enough.
        WorkError: if a shard is damaged.
    """
    begun, lengths = _beginnings(data, index, split, frames)
    names = sorted(name for name, length in lengths.items() if length >= frames)
    if len(names) < FEWEST_DOCUMENTS:
        raise RequestError(_too_few(data, split, frames, index.clock.frames_per_second, list(lengths.values())))
    order = np.random.default_rng(seed).permutation(len(names))[:limit]
    chosen = tuple(names[number] for number in order)
    tokens = np.stack([np.concatenate(begun[name])[:frames] for name in chosen])
    return HeldOut(chosen, tokens, len(lengths) - len(names))


def _beginnings(
    data: str | os.PathLike, index: DataIndex, split: str, frames: int
) -> tuple[dict[str, list[np.ndarray]], dict[str, int]]:
    """Of every document, the pieces of tokens that its first frames lie in, and its length in frames."""
    begun: dict[str, list[np.ndarray]] = {}
    lengths: dict[str, int] = {}
    records = SplitRecords(data, index, split)
    try:
        for number in range(len(records)):
            record, offset = records[number], 0
            for segment in record.segments:
                name, first = segment.document, segment.start + segment.context
                if first < frames:
                    # A copy: the tokens are a view of the record, which has the mel in it.
                    piece = record.tokens[offset + segment.context : offset + segment.length].copy()
                    begun.setdefault(name, []).append(piece)
                lengths[name] = segment.start + segment.length  # a document's segments come in order
                offset += segment.length
    except UnreadableRecord as error:
        raise WorkError(describe_damage(data, index, split, error)) from error
    return begun, lengths


def _too_few(data: str | os.PathLike, split: str, frames: int, rate: float, lengths: list[int]) -> str:
    enough = sum(length >= frames for length in lengths)
    told = (
        f"the {split} split of {data} has {enough} document(s) of at least {frames / rate:.2f} s, and "
        f"{FEWEST_DOCUMENTS} are needed for two halves; "
    )
    if len(lengths) < FEWEST_DOCUMENTS:
        return told + f"prepare the data with a larger --{split} fraction, or take another --split"
    longest = sorted(lengths)[-FEWEST_DOCUMENTS] / rate
    return told + f"ask for fewer seconds: {FEWEST_DOCUMENTS} documents have {longest:.2f} s or more"
