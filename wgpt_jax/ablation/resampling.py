"""What other documents and other seeds would have given: draws of a mean NLL, and the interval that they make.

The plain bootstrap over a few seeds is far too narrow: three of them have two thirds of their variance, and a normal's
tails. So seeds are not drawn but given Student's distribution, and the drawn documents are spread by what Student's is
wider than the bootstrap. The two add: a draw of one plus a draw of the other, as Behrens and Fisher add two means of
unknown variances; the noise that is of a seed and a document at once counts in both, which errs on the side of width.
"""

import functools
import math

import numpy as np
from scipy.special import ndtri, stdtrit

_LEVEL = 0.95
_TAIL = (1 - _LEVEL) / 2
_MOST = 2**23
"""Weights that are kept at most, 64 MiB: of thousands of documents, there are fewer draws than were asked for."""


@functools.lru_cache(maxsize=4)
def draw_weights(count: int, resamples: int, seed: int) -> np.ndarray:
    """How often each of ``count`` things is drawn with replacement, read-only float64 [R, count].

    R is half of ``resamples``, since :func:`draw_means` makes two draws of each; less where R * count is too much.
    """
    draws = min((resamples + 1) // 2, max(_MOST // count, 1))
    rng = np.random.default_rng((seed, count))  # another stream than default_rng(seed), of the seeds' part
    # By hand: the generator's multinomial takes ten times as long.
    drawn = rng.integers(count, size=(draws, count)) + count * np.arange(draws)[:, None]
    weights = np.bincount(drawn.ravel(), minlength=draws * count).reshape(draws, count).astype(float)
    weights.flags.writeable = False
    return weights


def draw_means(nats: np.ndarray, frames: np.ndarray, weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws of nats per frame, as a mean over seeds. Those of ``-nats`` are the same with the other sign, reordered.

    Args:
        nats: [..., seeds, groups], of groups of documents that are independent of each other. Of one seed, the draws
            are of other documents only.
        frames: [groups].
        weights: how often each draw has each group [R, groups]; two groups or more.
        rng: of the seeds' part.

    Returns:
        [..., 2 R]: each draw of documents with one of the seeds, then with its opposite.
    """
    seeds, groups = nats.shape[-2:]
    per_group = nats.mean(axis=-2)
    mean = (per_group.sum(axis=-1) / frames.sum())[..., None]
    wider = stdtrit(groups - 1, 1 - _TAIL) / ndtri(1 - _TAIL) * math.sqrt(groups / (groups - 1))
    # Not a matrix product, whose threads take longer than the sum where cores are busy.
    sums = np.einsum("...g,rg->...r", per_group, weights)
    drawn = mean + wider * (sums / np.einsum("g,rg->r", frames, weights) - mean)
    if seeds == 1:
        return np.concatenate([drawn, drawn], axis=-1)
    spread = (nats.sum(axis=-1) / frames.sum()).std(axis=-1, ddof=1) / math.sqrt(seeds)
    shifts = spread[..., None] * rng.permutation(_student(seeds - 1, len(weights)))
    return np.concatenate([drawn + shifts, drawn - shifts], axis=-1)


def interval(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ends [...] of the interval that holds 95 % of draws [..., R]: two of them, as many below as above."""
    below = int(_TAIL * draws.shape[-1])
    ordered = np.partition(draws, (below, -1 - below), axis=-1)
    return ordered[..., below], ordered[..., -1 - below]


@functools.lru_cache(maxsize=16)
def _student(freedom: int, count: int) -> np.ndarray:
    """Draws [count] of Student's distribution: with their opposites, at evenly spaced probabilities.

    Tails as heavy as those of two degrees of freedom are drawn too rarely at random.
    """
    return stdtrit(freedom, (np.arange(count) + 0.25) / count)
