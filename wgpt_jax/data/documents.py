"""Whole documents of prepared data, put together from the records that they are cut into."""

import os
from collections.abc import Iterator

import numpy as np

from wgpt_jax.data.index import DataIndex
from wgpt_jax.data.shards import SplitRecords, UnreadableRecord, describe_damage
from wgpt_jax.errors import WorkError


def whole_documents(data: str | os.PathLike, index: DataIndex, split: str) -> Iterator[tuple[str, str, np.ndarray]]:
    """Name, domain and tokens of all codebooks (int16 [n, K]) of every document of a split, in the records' order.

    Raises:
        RequestError: if the split is empty.
        WorkError: if a shard is damaged.
    """
    records = SplitRecords(data, index, split)
    name, domain, pieces = "", "", []
    for number in range(len(records)):
        try:
            record = records[number]
        except UnreadableRecord as error:
            raise WorkError(describe_damage(data, index, split, error)) from error
        offset = 0
        for segment in record.segments:
            if segment.start == 0 and pieces:
                yield name, domain, np.concatenate(pieces)
                pieces = []
            name, domain = segment.document, segment.domain
            pieces.append(record.tokens[offset + segment.context : offset + segment.length])
            offset += segment.length
    yield name, domain, np.concatenate(pieces)
