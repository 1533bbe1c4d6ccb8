"""The trained side of residual vector quantization, on the codebook buffers of ``transformers.EncodecModel``."""

import numpy as np
import torch
from torch import Tensor
from transformers import EncodecModel

from wgpt_jax.prepare.codec_training.config import Recipe

RESTART_COUNT = 0.5  # EMA count that a restarted code begins with


class ResidualQuantizer:
    """Quantizes latents with a model's codebooks and keeps those as running means (van den Oord, 1711.00937).

    The state lives in the model's own buffers (``embed``, ``embed_avg``, ``cluster_size``), so that a checkpoint of
    the model is one of the codebooks too.
    """

    def __init__(self, model: EncodecModel, recipe: Recipe) -> None:
        self.books = [layer.codebook for layer in model.quantizer.layers[: recipe.codebooks]]
        self.recipe = recipe

    def draw_counts(self, batch: int, rng: np.random.Generator) -> Tensor:
        """Number of codebooks for each example, int64 ``[B]``; the recipe's odds, cut to the codebooks there are."""
        counts = np.minimum(rng.choice(self.recipe.counts, batch, p=self.recipe.count_odds), len(self.books))
        return torch.from_numpy(counts.astype(np.int64))

    def quantize(self, latent: Tensor, counts: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor, list[float]]:
        """Quantizes with the first ``counts[b]`` codebooks and moves all codebooks towards this batch.

        Args:
            latent: encoder output, float32 ``[B, 64, T]``.
            counts: int64 ``[B]`` between 1 and the number of codebooks.
            rng: chooses the vectors that dead codes restart from.

        Returns:
            the quantized latent ``[B, 64, T]`` with the latent's gradient passed straight through; the commitment
            loss, a scalar; the perplexity of every codebook on this batch.
        """
        batch, width, frames = latent.shape
        with torch.no_grad():
            residual = latent.detach().transpose(1, 2).reshape(-1, width)
            used = counts.to(latent.device).repeat_interleave(frames)[:, None]
            total = torch.zeros_like(residual)
            perplexities = []
            for index, book in enumerate(self.books):
                codes = nearest(residual, book.embed)
                vectors = book.embed[codes]
                perplexities.append(perplexity(torch.bincount(codes, minlength=len(book.embed))))
                self._move(book, residual, codes, rng)
                total += vectors * (used > index)
                residual = residual - vectors
            quantized = total.reshape(batch, frames, width).transpose(1, 2)
        commitment = (latent - quantized).square().mean()
        return latent + (quantized - latent).detach(), commitment, perplexities

    def _move(self, book: torch.nn.Module, vectors: Tensor, codes: Tensor, rng: np.random.Generator) -> None:
        decay, size = self.recipe.codebook_decay, len(book.embed)
        counts = torch.bincount(codes, minlength=size).to(vectors.dtype)
        sums = torch.zeros_like(book.embed).index_add_(0, codes, vectors)
        book.cluster_size.mul_(decay).add_(counts, alpha=1 - decay)
        book.embed_avg.mul_(decay).add_(sums, alpha=1 - decay)
        dead = (book.cluster_size < self.recipe.dead_count).nonzero()[:, 0]
        if len(dead):
            chosen = torch.from_numpy(rng.integers(0, len(vectors), len(dead))).to(vectors.device)
            book.cluster_size[dead] = RESTART_COUNT
            book.embed_avg[dead] = vectors[chosen] * RESTART_COUNT
        book.embed.copy_(book.embed_avg / book.cluster_size[:, None])

    @torch.no_grad()
    def fit(self, latents: Tensor, vectors_per_step: int, rng: np.random.Generator) -> None:
        """Fits all codebooks anew by residual k-means on ``latents``, float32 ``[M, 64]``, M above 1,024.

        ``vectors_per_step`` scales the counts to those that the running means are used to.
        """
        residual = latents.clone()
        for book in self.books:
            centres, codes = kmeans(residual, len(book.embed), rng)
            counts = torch.bincount(codes, minlength=len(centres)).to(residual.dtype)
            book.embed.copy_(centres)
            book.cluster_size.copy_((counts * vectors_per_step / len(residual)).clamp(min=2 * self.recipe.dead_count))
            book.embed_avg.copy_(centres * book.cluster_size[:, None])
            book.inited.fill_(1)
            residual = residual - centres[codes]


def nearest(vectors: Tensor, centres: Tensor) -> Tensor:
    """Index of the closest centre: ``[M, D]`` and ``[V, D]`` to int64 ``[M]``."""
    return (centres.square().sum(1) - 2 * vectors @ centres.T).argmin(1)


def kmeans(vectors: Tensor, size: int, rng: np.random.Generator, rounds: int = 12) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm from random vectors; empty clusters restart. Returns centres ``[V, D]`` and codes ``[M]``."""
    draw = rng.choice(len(vectors), size, replace=len(vectors) < size)
    centres = vectors[torch.from_numpy(draw).to(vectors.device)].clone()
    for _ in range(rounds):
        codes = nearest(vectors, centres)
        counts = torch.bincount(codes, minlength=size)
        centres = torch.zeros_like(centres).index_add_(0, codes, vectors) / counts.clamp(min=1)[:, None]
        empty = (counts == 0).nonzero()[:, 0]
        if len(empty):
            centres[empty] = vectors[torch.from_numpy(rng.integers(0, len(vectors), len(empty))).to(vectors.device)]
    return centres, nearest(vectors, centres)


def perplexity(counts: Tensor) -> float:
    """exp of the entropy of code counts ``[V]``: how many codes are in even use."""
    p = counts[counts > 0].double() / counts.sum()
    return float(torch.exp(-(p * p.log()).sum()))
