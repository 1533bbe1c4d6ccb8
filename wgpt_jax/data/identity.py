"""Whether data that was prepared twice has the same tokens, whatever became of its mels' last bits."""

import hashlib
import os

import numpy as np

from wgpt_jax.data.documents import whole_documents
from wgpt_jax.data.index import SPLITS, DataIndex


def token_hashes(data: str | os.PathLike, index: DataIndex) -> dict[str, str]:
    """A hash by split of the names of all documents and of their tokens of all codebooks, 16 hexadecimal digits each.

    The order of the records does not count. A shard's own hash is of the mels too, which processors round differently.

    Raises:
        WorkError: if a shard is damaged.
    """
    return {split: _token_hash(data, index, split) for split in SPLITS if index.documents(split)}


def _token_hash(data: str | os.PathLike, index: DataIndex, split: str) -> str:
    each = sorted(_document_hash(name, tokens) for name, _, tokens in whole_documents(data, index, split))
    return hashlib.sha256(b"".join(each)).hexdigest()[:16]


def _document_hash(name: str, tokens: np.ndarray) -> bytes:
    """Of a name and tokens [n, K]; the shape counts, so that no other one has the same bytes."""
    head = f"{name}\n{tokens.shape}\n".encode()
    return hashlib.sha256(head + np.ascontiguousarray(tokens, "<i2").tobytes()).digest()
