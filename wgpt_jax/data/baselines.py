"""n-gram baselines of a split, document by document: what a trained model must beat on the same frames."""

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from wgpt_jax.data.documents import whole_documents
from wgpt_jax.data.index import DataIndex, load_index
from wgpt_jax.data.ngrams import load_ngrams
from wgpt_jax.data.trigrams import count_trigrams, last_two
from wgpt_jax.scores import ratio

MODELS = ("unigram", "bigram", "trigram")


@dataclasses.dataclass(frozen=True)
class DocumentBaselines:
    """Nats of the coarse tokens of one document under each model, summed over its frames."""

    document: str
    domain: str
    frames: int
    unigram: float
    bigram: float
    trigram: float


def score_documents(data: str | os.PathLike, split: str) -> list[DocumentBaselines]:
    """Scores every document of a split under n-gram models of the training split, in the records' order.

    The trigrams are counted here. Every frame is scored given the two before it in its document, wherever the document
    is cut into records.

    Raises:
        RequestError: if there is no such data, split or training split, or its n-grams cannot be read.
        WorkError: if a shard is damaged.
    """
    index, ngrams = load_index(data), load_ngrams(data)
    index.split(split)
    trigrams = count_trigrams((tokens for _, _, tokens in documents(data, index, "train")), ngrams)
    log_unigram, log_bigram = np.log(ngrams.unigram()), np.log(ngrams.bigram())
    rows = []
    for name, domain, tokens in documents(data, index, split):
        before, previous = last_two(tokens, bos=index.codec.codebook_size)
        nats = (
            log_unigram[tokens],
            log_bigram[previous, tokens],
            np.log(trigrams.probability(before, previous, tokens)),
        )
        rows.append(DocumentBaselines(name, domain, len(tokens), *(-float(each.sum()) for each in nats)))
    return rows


def score_baselines(data: str | os.PathLike, split: str) -> dict[str, Any]:
    """Scores a split under n-gram models of the training split.

    Returns:
        ``documents``, ``frames``, and of each of ``unigram``, ``bigram``, ``trigram`` (all Witten-Bell) the ``_nll`` in
        nats per coarse token, with its standard error over documents (``_nll_stderr``; None for a single document).

    Raises:
        RequestError, WorkError: as :func:`score_documents` does.
    """
    rows = score_documents(data, split)
    frames = np.array([row.frames for row in rows])
    summary: dict[str, Any] = {"documents": len(rows), "frames": int(frames.sum())}
    for model in MODELS:
        nll, stderr = ratio([getattr(row, model) for row in rows], frames)
        summary |= {f"{model}_nll": nll, f"{model}_nll_stderr": stderr if len(rows) > 1 else None}
    return summary


def documents(data: str | os.PathLike, index: DataIndex, split: str) -> Iterator[tuple[str, str, np.ndarray]]:
    """Name, domain and coarse tokens (int64 [n]) of every document of a split, put together from its records.

    Raises:
        RequestError, WorkError: as :func:`~wgpt_jax.data.documents.whole_documents` does.
    """
    for name, domain, tokens in whole_documents(data, index, split):
        yield name, domain, tokens[:, 0].astype(np.int64)
