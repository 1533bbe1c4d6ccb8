"""The measures of generated tokens beside held-out ones, wherever either are from.

Letters: G samples, D documents, n frames, K codebooks.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
from tqdm import tqdm

from wgpt_jax.closed_loop.drift import drift_from, entropies, histograms
from wgpt_jax.closed_loop.floor import Draw, Figure, compare, draw_halves, mean_figure
from wgpt_jax.closed_loop.frechet import latents, moments, moments_from, patches
from wgpt_jax.closed_loop.repetition import NGRAM, loops, rates, repeats

PATCH_SECONDS = 0.5
"""Stretch of latents whose mean is one vector of the second Frechet distance."""
LOOP_SECONDS = 5.0
"""How far a phrase is looked back for."""


@dataclasses.dataclass(frozen=True)
class Measures:
    """The measures of tokens, of whatever origin."""

    edges: np.ndarray
    """int [W + 1]; frames where windows begin and end."""
    rate: float
    """Frames per second."""
    codebooks: np.ndarray
    """float32 [K', V, D]; the codec's entries."""
    paired: bool
    """Whether each sample continues the document of its number."""
    seed: int
    """Of the divisions."""
    splits: int
    """Divisions of the documents that distances are means over."""
    progress: bool = False
    """Whether to show progress bars on a terminal."""

    def __call__(self, generated: np.ndarray, held_out: np.ndarray) -> dict[str, Any]:
        """Measures int [G, n, K] against int [D, n, K]: the row's ``drift``, ``repetition`` and ``frechet``."""
        rng = np.random.default_rng(self.seed)
        sizes = len(generated), len(held_out)
        draws = [draw_halves(rng, *sizes, paired=self.paired) for _ in range(self.splits)]
        return {
            "drift": self._drift(generated, held_out, draws),
            "repetition": self._repetition(generated, held_out),
            "frechet": self._frechet(generated, held_out, draws),
        }

    def _drift(self, generated: np.ndarray, held_out: np.ndarray, draws: list[Draw]) -> dict[str, Any]:
        vocabulary = self.codebooks.shape[1]
        counts = [histograms(tokens[..., 0], self.edges, vocabulary) for tokens in (generated, held_out)]
        divergence = compare(drift_from, *counts, self._bar(draws, "drift"), paired=self.paired)
        return {
            "windows": (np.stack([self.edges[:-1], self.edges[1:]], axis=1) / self.rate).tolist(),
            "divergence_bits": divergence.row(np.s_[:-2]),
            "overall": divergence.row(-2),
            "rise": divergence.row(-1),
            "entropy_bits": _beside(*(mean_figure(entropies(each)) for each in counts)),
        }

    def _repetition(self, generated: np.ndarray, held_out: np.ndarray) -> dict[str, Any]:
        reach = round(LOOP_SECONDS * self.rate)
        row: dict[str, Any] = {"ngram": NGRAM, "reach_seconds": LOOP_SECONDS}
        for name, mark in (("repeated", repeats), ("looped", lambda tokens: loops(tokens, reach))):
            marks = [np.stack([mark(sample) for sample in tokens[..., 0]]) for tokens in (generated, held_out)]
            whole, windows = zip(*(rates(each, self.edges) for each in marks), strict=True)
            row[name] = _beside(*map(mean_figure, whole))
            row[name]["by_window"] = _beside(*map(mean_figure, windows))
        return row

    def _frechet(self, generated: np.ndarray, held_out: np.ndarray, draws: list[Draw]) -> dict[str, Any]:
        length = int(PATCH_SECONDS * self.rate)
        row: dict[str, Any] = {"dimensions": self.codebooks.shape[2], "patch_frames": length}
        for name, size in (("frames", 1), ("patches", length)):
            sums = [
                np.stack([moments(patches(latents(self.codebooks, sample), size)) for sample in tokens])
                for tokens in (generated, held_out)
            ]
            vectors = len(draws[0].floor) * (held_out.shape[1] // size)
            compared = compare(moments_from, *sums, self._bar(draws, f"Frechet, {name}"), paired=self.paired)
            row[name] = {"vectors": vectors, **compared.row(0)}
        return row

    def _bar(self, draws: list[Draw], label: str) -> Iterable[Draw]:
        return tqdm(draws, desc=f"measuring, {label}", unit="division", disable=None if self.progress else True)


def _beside(generated: Figure, held_out: Figure) -> dict[str, Any]:
    return {
        "generated": generated.value.tolist(),
        "generated_stderr": generated.stderr.tolist(),
        "held_out": held_out.value.tolist(),
        "held_out_stderr": held_out.stderr.tolist(),
    }
