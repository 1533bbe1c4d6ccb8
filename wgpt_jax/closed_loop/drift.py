"""How the use of coarse tokens moves away from held-out audio while a model listens to itself.

Letters: N samples, n frames, W windows in time, V entries of the codebook.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from wgpt_jax.data.statistics import entropy_bits


def window_edges(seconds: float, window_seconds: float, frames_per_second: float) -> np.ndarray:
    """Frames that the whole windows within a length begin and end with: int [W + 1]; what is left over is in none."""
    windows = int(seconds / window_seconds + 1e-9)
    return np.rint(np.arange(windows + 1) * window_seconds * frames_per_second).astype(int)


def histograms(tokens: np.ndarray, edges: np.ndarray, vocabulary: int) -> np.ndarray:
    """How often each token occurs in each window: int [N, n] -> float64 [N, W, V]."""
    rows = [[np.bincount(row[first:last], minlength=vocabulary) for first, last in pairwise(edges)] for row in tokens]
    return np.array(rows, float)


def js_divergence(first: np.ndarray, second: np.ndarray) -> float:
    """Jensen-Shannon divergence of two histograms [V], in bits: 0 if they are proportional, 1 if they share nothing.

    Lin, Divergence Measures Based on the Shannon Entropy, IEEE Trans. Inf. Theory 37 (1991).
    """
    p, q = first / first.sum(), second / second.sum()
    return entropy_bits((p + q) / 2) - (entropy_bits(p) + entropy_bits(q)) / 2


def drift_from(reference: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Divergence of what a side has in each window from all that the reference has.

    Args:
        reference: counts [W, V], used without regard to their windows.

    Returns:
        a function of counts [W, V]: bits [W + 2] of each window, of all windows together, and of the last minus the
        first.
    """
    whole = reference.sum(axis=0)

    def distance(windows: np.ndarray) -> np.ndarray:
        each = [js_divergence(window, whole) for window in windows]
        return np.array([*each, js_divergence(windows.sum(axis=0), whole), each[-1] - each[0]])

    return distance


def entropies(counts: np.ndarray) -> np.ndarray:
    """Entropy of each histogram in bits: [N, W, V] -> float64 [N, W]."""
    return np.apply_along_axis(entropy_bits, -1, counts)
