"""Scores of a split: sums per document, and what is said of them (nats, perplexity, accuracy, standard errors)."""

import dataclasses
import math
from typing import Any

import numpy as np


@dataclasses.dataclass
class DocumentScores:
    """Sums over the predicted frames of one document."""

    domain: str
    frames: int = 0
    nll: float = 0.0
    """Nats, summed."""
    top1: int = 0
    """Frames whose token had the highest logit."""
    top10: int = 0
    unigram: float = 0.0
    """Nats under the training split's unigram model, summed."""
    bigram: float = 0.0


class SplitScores:
    """Scores by document and by position, filled window by window."""

    def __init__(self, context: int):
        self.documents: dict[str, DocumentScores] = {}
        # Index: frames of the document that a position sees in its window, 0 to context.
        self.position_nll = np.zeros(context + 1)
        self.position_frames = np.zeros(context + 1, np.int64)

    def summary(self, frames_per_second: float, domain: str | None = None) -> dict[str, Any]:
        """Totals over all documents, or over those of a domain.

        ``nll`` is in nats per token; ``nll_stderr`` its standard error over documents (ratio estimator: documents are
        the independent units, tokens within one are not), None for a single document; ``top1`` and ``top10`` are
        fractions.
        """
        rows = [row for row in self.documents.values() if domain in (None, row.domain)]
        frames = np.array([row.frames for row in rows])
        nll, stderr = ratio([row.nll for row in rows], frames)
        total = frames.sum()
        return {
            "nll": nll,
            "nll_stderr": None if math.isnan(stderr) else stderr,
            "bits_per_second": nll / math.log(2) * frames_per_second,
            "ppl": math.exp(min(nll, 700.0)),
            "top1": sum(row.top1 for row in rows) / total,
            "top10": sum(row.top10 for row in rows) / total,
            "unigram_nll": sum(row.unigram for row in rows) / total,
            "bigram_nll": sum(row.bigram for row in rows) / total,
            "documents": len(rows),
            "frames": int(total),
        }

    def by_position(self) -> list[dict[str, Any]]:
        """NLL by the number of frames seen before, in buckets that double: 0, 1, 2-3, 4-7, ..."""
        rows, first = [], 0
        while first < len(self.position_nll):
            last = min(max(2 * first, first + 1), len(self.position_nll))
            frames = int(self.position_frames[first:last].sum())
            if frames:
                nll = float(self.position_nll[first:last].sum() / frames)
                rows.append({"first": first, "last": last - 1, "nll": nll, "frames": frames})
            first = last
        return rows


def ratio(sums: list[float], counts: np.ndarray) -> tuple[float, float]:
    """A ratio of totals and its standard error over documents.

    Args:
        sums: per document.
        counts: frames per document.

    Returns:
        sum(sums) / sum(counts), and its standard error by linearisation (Cochran, Sampling Techniques, 6.4); nan for
        fewer than two documents.
    """
    values = np.asarray(sums, float)
    mean = values.sum() / counts.sum()
    n = len(values)
    if n < 2:
        return float(mean), math.nan
    residuals = values - mean * counts
    return float(mean), float(math.sqrt(n / (n - 1) * np.sum(residuals**2)) / counts.sum())


def paired_difference(first: SplitScores, second: SplitScores) -> tuple[float, float]:
    """Mean NLL of ``first`` minus ``second`` on the same documents, and its standard error over documents, in nats.

    Raises:
        ValueError: if the two were not scored on the same frames.
    """
    names = sorted(first.documents)
    if names != sorted(second.documents):
        raise ValueError("the two models were scored on different documents")
    pairs = [(first.documents[name], second.documents[name]) for name in names]
    if any(a.frames != b.frames for a, b in pairs):
        raise ValueError("the two models were scored on different frames")
    return ratio([a.nll - b.nll for a, b in pairs], np.array([a.frames for a, _ in pairs]))


def format_stderr(value: float | None) -> str:
    """A standard error for a table; ``n/a`` for a single document."""
    return "n/a" if value is None else f"{value:.4f}"
