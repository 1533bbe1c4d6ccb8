"""Scores of a split: sums per document, and what is said of them (nats, perplexity, accuracy, standard errors)."""

import dataclasses
import math
from typing import Any

import numpy as np

_DIGITS = 64
CONFIDENCE_BINS = 15
"""Bins of equal width, as in Guo et al., On Calibration of Modern Neural Networks, 2017."""


@dataclasses.dataclass
class DocumentScores:
    """Sums over the predicted frames of one document."""

    domain: str
    frames: int = 0
    nll: float = 0.0
    """Nats of the coarse tokens, summed."""
    top1: int = 0
    """Frames whose coarse token had the highest logit."""
    top10: int = 0
    unigram: float = 0.0
    """Nats under the training split's unigram model, summed."""
    bigram: float = 0.0
    fine: list[list[float]] = dataclasses.field(default_factory=list)
    """[nll, top1, top10] of each output codebook above the first."""

    def add(self, nll: np.ndarray, rank: np.ndarray) -> None:
        """Adds frames: nats float32 [n, K] and ranks int [n, K] of their tokens."""
        self.frames += len(nll)
        sums = np.stack([nll.sum(axis=0, dtype=np.float64), (rank < 1).sum(axis=0), (rank < 10).sum(axis=0)], axis=1)
        self.nll += float(sums[0, 0])
        self.top1 += int(sums[0, 1])
        self.top10 += int(sums[0, 2])
        before = np.array(self.fine) if self.fine else np.zeros((len(sums) - 1, 3))
        self.fine = (before + sums[1:]).tolist()

    @property
    def total_nll(self) -> float:
        """Nats of all output codebooks, summed."""
        return self.nll + sum(row[0] for row in self.fine)


class SplitScores:
    """Scores by document, by position and by confidence, filled window by window."""

    def __init__(self, context: int):
        self.documents: dict[str, DocumentScores] = {}
        # Index: frames of the document that a position sees in its window, 0 to context.
        self.position_nll = np.zeros(context + 1)
        self.position_frames = np.zeros(context + 1, np.int64)
        # Index: binary digits of the index in the document, so 0, 1, 2-3, 4-7, ...; columns: frames, their nats.
        self.document_position = np.zeros((_DIGITS, 2))
        # Index: bin of the probability that the most likely coarse token was given. Columns: frames, sum of that
        # probability, frames where that token was the target.
        self.reliability = np.zeros((CONFIDENCE_BINS, 3))

    def add_confidence(self, confidence: np.ndarray, correct: np.ndarray) -> None:
        """Adds frames: the probability of the most likely coarse token, float32 [n], and whether it came, bool [n]."""
        # Bins are open below and closed above; a diverged model's nans fall into the lowest and show there.
        bins = np.ceil(np.nan_to_num(confidence) * CONFIDENCE_BINS).astype(int) - 1
        rows = np.stack([np.ones(len(confidence)), confidence, correct], axis=1)
        np.add.at(self.reliability, np.clip(bins, 0, CONFIDENCE_BINS - 1), rows)

    def add_in_document(self, place: np.ndarray, nll: np.ndarray) -> None:
        """Adds frames: their index in the document, int [n], and the nats of their coarse token, float32 [n]."""
        digits = np.frexp(place.astype(float))[1]  # exact: the exponent of an integer is its number of binary digits
        np.add.at(self.document_position, digits, np.stack([np.ones(len(nll)), nll], axis=1))

    def summary(self, frames_per_second: float, domain: str | None = None) -> dict[str, Any]:
        """Totals over all documents, or over those of a domain.

        ``nll`` is in nats per token; ``nll_stderr`` its standard error over documents (ratio estimator: documents are
        the independent units, tokens within one are not), None for a single document; ``top1`` and ``top10`` are
        fractions. These are of the coarse token. ``total_nll`` (nats per frame) and ``total_bits_per_second`` are of
        all output codebooks, each given the ones before it; ``by_codebook`` has the rest where there are several.
        """
        rows = [row for row in self.documents.values() if domain in (None, row.domain)]
        frames = np.array([row.frames for row in rows])
        nll, stderr = ratio([row.nll for row in rows], frames)
        total = frames.sum()
        bits_per_nat = frames_per_second / math.log(2)
        all_codebooks, all_stderr = ratio([row.total_nll for row in rows], frames)
        fine = np.sum([row.fine for row in rows], axis=0).tolist() if rows[0].fine else []
        codebooks = [(nll, *(sum(getattr(row, name) for row in rows) / total for name in ("top1", "top10")))]
        codebooks += [tuple(value / total for value in values) for values in fine]
        by_codebook = [
            {"codebook": k, "nll": nll, "ppl": math.exp(min(nll, 700.0)), "top1": top1, "top10": top10}
            for k, (nll, top1, top10) in enumerate(codebooks, start=1)
        ]
        return {
            "nll": nll,
            "nll_stderr": None if math.isnan(stderr) else stderr,
            "total_nll": all_codebooks,
            "bits_per_second": nll * bits_per_nat,
            "total_bits_per_second": all_codebooks * bits_per_nat,
            "total_bits_per_second_stderr": None if math.isnan(all_stderr) else all_stderr * bits_per_nat,
            "ppl": by_codebook[0]["ppl"],
            "top1": by_codebook[0]["top1"],
            "top10": by_codebook[0]["top10"],
            **({"by_codebook": by_codebook} if fine else {}),
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

    def by_document_position(self) -> list[dict[str, Any]]:
        """NLL by the frame's index in its document, in the same buckets, whatever the window shows of the document."""
        return [
            {"first": 2 ** (d - 1) if d else 0, "last": 2**d - 1 if d else 0, "nll": float(nats / n), "frames": int(n)}
            for d, (n, nats) in enumerate(self.document_position)
            if n
        ]

    def calibration(self) -> list[dict[str, Any]]:
        """The reliability table of the most likely coarse token: a row for each bin of its probability with frames.

        Returns:
            per bin ``low`` and ``high`` (its edges), ``frames``, ``confidence`` (the mean probability) and
            ``accuracy`` (the fraction of frames where the token came); equal if the model is calibrated.
        """
        edges = np.linspace(0, 1, CONFIDENCE_BINS + 1).tolist()
        return [
            {"low": low, "high": high, "frames": int(n), "confidence": float(sure / n), "accuracy": float(right / n)}
            for low, high, (n, sure, right) in zip(edges, edges[1:], self.reliability, strict=False)
            if n
        ]

    def ece(self) -> float:
        """Expected calibration error of the most likely coarse token (top-1), a fraction (Guo et al. 2017, eq. 3).

        The mean over frames of |accuracy - confidence| of their bin; it says nothing of the other tokens.
        """
        frames, sure, right = self.reliability.T
        return float(np.abs(right - sure).sum() / frames.sum())


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


def paired_difference(first: SplitScores, second: SplitScores, *, total: bool = False) -> tuple[float, float]:
    """Mean NLL of ``first`` minus ``second`` on the same documents, and its standard error over documents.

    Args:
        first, second: two models' scores.
        total: compares the nats of all output codebooks per frame, not of the coarse token alone.

    Returns:
        nats per frame.

    Raises:
        ValueError: if the two were not scored on the same frames.
    """
    names = sorted(first.documents)
    if names != sorted(second.documents):
        raise ValueError("the two models were scored on different documents")
    pairs = [(first.documents[name], second.documents[name]) for name in names]
    if any(a.frames != b.frames for a, b in pairs):
        raise ValueError("the two models were scored on different frames")
    nats = "total_nll" if total else "nll"
    return ratio([getattr(a, nats) - getattr(b, nats) for a, b in pairs], np.array([a.frames for a, _ in pairs]))


def format_stderr(value: float | None) -> str:
    """A standard error for a table; ``n/a`` for a single document."""
    return "n/a" if value is None else f"{value:.4f}"
