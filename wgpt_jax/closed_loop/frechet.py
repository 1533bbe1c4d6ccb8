"""Frechet distance in the codec's latent space: what the decoder reads, taken as a Gaussian.

d2 = |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), the squared 2-Wasserstein distance of two Gaussians: Heusel et al.,
GANs Trained by a Two Time-Scale Update Rule (arXiv 1706.08500), for audio Kilgour et al., Frechet Audio Distance
(arXiv 1812.08466). They embed by a trained classifier; here the embedding is the codec's own, so that nothing is judged
but what the network has emitted.

Letters: n frames, K codebooks, V entries, D channels of the latent, P vectors.
"""

from collections.abc import Callable

import numpy as np


def latents(codebooks: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """The sum of a frame's codebook entries: float32 [K', V, D] and int [n, K] with K <= K' -> float32 [n, D]."""
    return codebooks[np.arange(tokens.shape[-1]), tokens].sum(axis=-2)


def patches(frames: np.ndarray, length: int) -> np.ndarray:
    """Means of whole stretches of ``length`` frames: [n, D] -> [n // length, D]."""
    whole = len(frames) // length
    return frames[: whole * length].reshape(whole, length, -1).mean(axis=1)


def moments(vectors: np.ndarray) -> np.ndarray:
    """Count, sum and second moments in one matrix that adds up over sets: [P, D] -> float64 [1 + D, 1 + D]."""
    extended = np.concatenate([np.ones((len(vectors), 1)), vectors], axis=1)
    return extended.T @ extended


def gaussian(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [D] and covariance [D, D], unbiased, of what :func:`moments` summed."""
    count, mean = sums[0, 0], sums[0, 1:] / sums[0, 0]
    return mean, (sums[1:, 1:] - count * np.outer(mean, mean)) / (count - 1)


def frechet_from(mean: np.ndarray, covariance: np.ndarray) -> Callable[[np.ndarray, np.ndarray], float]:
    """The squared distance from a Gaussian of mean [D] and covariance [D, D], also a singular one.

    The trace of (C1 C2)^(1/2) is the sum of the roots of the eigenvalues of C1^(1/2) C2 C1^(1/2), which is symmetric:
    no root of a matrix that is not, and no imaginary part to drop.

    Returns:
        a function of the other Gaussian's mean and covariance.
    """
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T

    def distance(other: np.ndarray, other_covariance: np.ndarray) -> float:
        cross = np.linalg.eigvalsh(root @ other_covariance @ root)
        traces = np.trace(covariance) + np.trace(other_covariance) - 2 * np.sqrt(np.maximum(cross, 0)).sum()
        return float(np.sum((mean - other) ** 2) + traces)

    return distance


def moments_from(reference: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The distance from a sum of :func:`moments`: a function of another such sum; float64 [1]."""
    distance = frechet_from(*gaussian(reference))
    return lambda sums: np.array([distance(*gaussian(sums))])
