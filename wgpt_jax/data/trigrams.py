"""A trigram model of the coarse token, counted when it is asked for: the strongest baseline that needs no training."""

import dataclasses
import functools
from collections.abc import Iterable

import numpy as np

from wgpt_jax.data.ngrams import NGrams

_PENDING = 2_000_000  # trigrams held one by one before they are counted


@dataclasses.dataclass(frozen=True)
class Trigrams:
    """Counts of three coarse tokens in a row, those that occur; two BOS (id V) stand before every document."""

    ngrams: NGrams
    """Of the same documents."""
    keys: np.ndarray
    """int64 [N], ascending: the three tokens as the digits of a number to base V + 1."""
    counts: np.ndarray
    """int64 [N]."""

    def probability(self, before: np.ndarray, previous: np.ndarray, following: np.ndarray) -> np.ndarray:
        """Probability of ``following`` after ``before`` and ``previous``.

        Witten-Bell smoothing as of :meth:`NGrams.bigram`, with the bigram in the unigram's place: after a pair that
        never occurred it is the bigram.

        Args:
            before, previous, following: int [n].

        Returns:
            float64 [n].
        """
        histories, totals, distinct = self._histories
        history = before.astype(np.int64) * self._base + previous
        seen = _look_up(self.keys, self.counts, history * self._base + following)
        total = _look_up(histories, totals, history)
        kinds = np.maximum(_look_up(histories, distinct, history), 1)
        return (seen + kinds * self._bigram[previous, following]) / (total + kinds)

    @property
    def _base(self) -> int:
        return len(self.ngrams.pairs)

    @functools.cached_property
    def _bigram(self) -> np.ndarray:
        return self.ngrams.bigram()

    @functools.cached_property
    def _histories(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pairs that occur, ascending; how often; and how many different tokens followed, int64 [H] each."""
        histories, first, distinct = np.unique(self.keys // self._base, return_index=True, return_counts=True)
        return histories, np.add.reduceat(self.counts, first) if len(first) else self.counts, distinct


def last_two(tokens: np.ndarray, bos: int) -> tuple[np.ndarray, np.ndarray]:
    """The two tokens before each frame of a document: int64 [n] -> int64 [n] (the earlier), int64 [n]."""
    padded = np.concatenate([[bos, bos], tokens])
    return padded[:-2], padded[1:-1]


def count_trigrams(documents: Iterable[np.ndarray], ngrams: NGrams) -> Trigrams:
    """Counts every frame of whole documents.

    Args:
        documents: coarse tokens, int64 [n] each.
        ngrams: of the same documents.
    """
    base = len(ngrams.pairs)
    keys, counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
    new, pending = [], 0
    for tokens in documents:
        before, previous = last_two(tokens, base - 1)
        new.append((before * base + previous) * base + tokens)
        pending += len(tokens)
        if pending > _PENDING:
            keys, counts = _add(keys, counts, new)
            new, pending = [], 0
    return Trigrams(ngrams, *_add(keys, counts, new))


def _add(keys: np.ndarray, counts: np.ndarray, new: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Counts [N] of ascending keys [N], and one more of each new key."""
    merged, place = np.unique(np.concatenate([keys, *new]), return_inverse=True)
    sums = np.bincount(place[len(keys) :], minlength=len(merged))
    sums[place[: len(keys)]] += counts
    return merged, sums


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The value of each wanted key, 0 where there is none: ascending keys [N], values [N], int [n] -> int [n]."""
    if not len(keys):
        return np.zeros(len(wanted), np.int64)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)
