"""Unigram and bigram models of the coarse token: the floor that any trained model must beat.

Counted once, on the training split, when the data is prepared (``ngrams.npz`` beside the index).
"""

import dataclasses
import io
import os
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from wgpt_jax.data.records import Record
from wgpt_jax.errors import RequestError

NGRAMS_NAME = "ngrams.npz"


@dataclasses.dataclass(frozen=True)
class NGrams:
    """Counts of coarse tokens and of pairs of them; the first token of a document follows BOS (id V)."""

    pairs: np.ndarray
    """int64 [V + 1, V]: times ``next`` followed ``previous``."""

    def unigram(self) -> np.ndarray:
        """Probability of each token, float64 [V], add-one smoothed."""
        counts = self.pairs.sum(axis=0) + 1.0
        return counts / counts.sum()

    def bigram(self) -> np.ndarray:
        """Probability of ``next`` after ``previous``, float64 [V + 1, V].

        Witten-Bell smoothing: the more different tokens followed ``previous``, the more weight the unigram gets
        (Witten and Bell 1991, method C; Chen and Goodman 1999, section 2.5). It has no constant to tune.
        """
        total = self.pairs.sum(axis=1, keepdims=True)
        distinct = np.maximum((self.pairs > 0).sum(axis=1, keepdims=True), 1)
        return (self.pairs + distinct * self.unigram()) / (total + distinct)


def previous_tokens(record: Record, bos: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coarse tokens of a record, each with the one before it.

    Returns:
        previous int64 [n] (``bos`` at a document's start), next int64 [n], predicted bool [n] (False for context).
    """
    following = record.tokens[:, 0].astype(np.int64)
    previous = np.concatenate([[bos], following[:-1]])
    predicted = np.ones(len(following), bool)
    offset = 0
    for segment in record.segments:
        previous[offset] = bos
        predicted[offset : offset + segment.context] = False
        offset += segment.length
    return previous, following, predicted


def count_record(record: Record, pairs: np.ndarray) -> np.ndarray:
    """Adds the predicted frames of a record to ``pairs``, int64 [V + 1, V]; returns which ones these are, bool [n]."""
    previous, following, predicted = previous_tokens(record, bos=pairs.shape[1])
    np.add.at(pairs, (previous[predicted], following[predicted]), 1)
    return predicted


def count_ngrams(records: Iterable[Record], codebook_size: int) -> NGrams:
    """Counts every predicted frame of ``records``."""
    pairs = np.zeros((codebook_size + 1, codebook_size), np.int64)
    for record in records:
        count_record(record, pairs)
    return NGrams(pairs)


def ngrams_bytes(ngrams: NGrams) -> bytes:
    """The bytes of ``ngrams.npz``: the non-zero counts only."""
    previous, following = np.nonzero(ngrams.pairs)
    file = io.BytesIO()
    np.savez_compressed(
        file,
        codebook_size=ngrams.pairs.shape[1],
        previous=previous.astype(np.int32),
        following=following.astype(np.int32),
        counts=ngrams.pairs[previous, following],
    )
    return file.getvalue()


def save_ngrams(ngrams: NGrams, folder: str | os.PathLike) -> None:
    """Writes ``folder/ngrams.npz`` in one atomic step."""
    temporary = Path(folder) / f"{NGRAMS_NAME}.tmp"
    temporary.write_bytes(ngrams_bytes(ngrams))
    os.replace(temporary, Path(folder) / NGRAMS_NAME)


def load_ngrams(folder: str | os.PathLike) -> NGrams:
    """Reads ``folder/ngrams.npz``.

    Raises:
        RequestError: if it is missing or damaged.
    """
    path = Path(folder) / NGRAMS_NAME
    try:
        with np.load(path) as fields:
            size = int(fields["codebook_size"])
            pairs = np.zeros((size + 1, size), np.int64)
            pairs[fields["previous"], fields["following"]] = fields["counts"]
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise RequestError(f"cannot read {path} ({error}); run tools/prepare_audio.py again") from error
    return NGrams(pairs)
