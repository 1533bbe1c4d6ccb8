"""Tokens that repeat: at once, or as a phrase that comes back.

Letters: N samples, n frames, W windows in time. Both marks are 1 where a frame repeats and 0 where it does not; the
first frame has nothing before it and is nan.
"""

from itertools import pairwise

import numpy as np

NGRAM = 8
"""Frames of the shortest phrase whose return is called a loop."""


def repeats(tokens: np.ndarray) -> np.ndarray:
    """Whether each token is the one before: int [n] -> float64 [n]."""
    return np.concatenate([[np.nan], tokens[1:] == tokens[:-1]])


def loops(tokens: np.ndarray, reach: int, ngram: int = NGRAM) -> np.ndarray:
    """Whether each frame lies in a phrase that has just been heard.

    Args:
        tokens: int [n].
        reach: frames by which a phrase may begin after the same phrase did before; a stuck token returns after one.
        ngram: tokens of a phrase.

    Returns:
        float64 [n]: 1 for all frames of a phrase that returns, so that one return marks ``ngram`` frames.
    """
    phrases = np.lib.stride_tricks.sliding_window_view(tokens, ngram)
    _, kinds = np.unique(phrases, axis=0, return_inverse=True)
    order = np.argsort(kinds, kind="stable")  # phrases of a kind side by side, in time
    same, gap = np.diff(kinds[order]) == 0, np.diff(order)
    marks = np.zeros(len(tokens))
    for first in order[1:][same & (gap <= reach)]:
        marks[first : first + ngram] = 1
    marks[0] = np.nan
    return marks


def rates(marks: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fractions of marked frames.

    Args:
        marks: float64 [N, n].
        edges: int [W + 1], frames where windows begin and end.

    Returns:
        of each sample [N], and of each sample's windows [N, W].
    """
    windows = [np.nanmean(marks[:, first:last], axis=1) for first, last in pairwise(edges)]
    return np.nanmean(marks, axis=1), np.stack(windows, axis=1)
