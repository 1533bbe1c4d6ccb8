"""What other documents and other seeds would have given: draws of a mean NLL, and the interval that they make.

The plain bootstrap over a few seeds is far too narrow: three of them have two thirds of their variance, and a normal's
tails. So seeds are not drawn but given Student's distribution, and the drawn documents are spread by what Student's is
wider than the bootstrap. The two add: a draw of one plus a draw of the other, as Behrens and Fisher add two means of
unknown variances; the noise that is of a seed and a document at once counts in both, which errs on the side of width.
"""

import math

import numpy as np
from scipy.special import ndtri, stdtrit

_LEVEL = 0.95
_ENDS = (100 * (1 - _LEVEL) / 2, 100 * (1 + _LEVEL) / 2)


def draw_weights(count: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of ``count`` things is drawn with replacement, float64 [resamples, count]."""
    return rng.multinomial(count, np.full(count, 1 / count), size=resamples).astype(float)


def draw_means(nats: np.ndarray, frames: np.ndarray, weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws of nats per frame, as a mean over seeds.

    Args:
        nats: [..., seeds, groups], of groups of documents that are independent of each other. Of one seed, the draws
            are of other documents only.
        frames: [groups].
        weights: how often each draw has each group [R, groups]; two groups or more.
        rng: of the seeds' part.

    Returns:
        [..., R].
    """
    seeds, groups = nats.shape[-2:]
    per_group = nats.mean(axis=-2)
    mean = (per_group.sum(axis=-1) / frames.sum())[..., None]
    wider = stdtrit(groups - 1, _ENDS[1] / 100) / ndtri(_ENDS[1] / 100) * math.sqrt(groups / (groups - 1))
    drawn = mean + wider * (per_group @ weights.T / (weights @ frames) - mean)
    if seeds == 1:
        return drawn
    spread = (nats.sum(axis=-1) / frames.sum()).std(axis=-1, ddof=1) / math.sqrt(seeds)
    # Evenly spaced probabilities: tails as heavy as those of two degrees of freedom are drawn too rarely at random.
    shifts = stdtrit(seeds - 1, (rng.permutation(len(weights)) + 0.5) / len(weights))
    return drawn + spread[..., None] * shifts


def interval(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ends [...] of the interval that holds 95 % of draws [..., R]."""
    low, high = np.percentile(draws, _ENDS, axis=-1)
    return low, high
