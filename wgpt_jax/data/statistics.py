"""What the tokens and mel slices of a data set are like, counted shard by shard and added up."""

import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from wgpt_jax.data.ngrams import NGrams, count_record
from wgpt_jax.data.records import Record


@dataclasses.dataclass
class Statistics:
    """Sums over predicted frames: context frames are counted where they are predicted."""

    frames: int
    histogram: np.ndarray
    """int64 [K, V]: how often each entry of each codebook occurs."""
    mel_sum: np.ndarray
    """float64 [S, M], of the stored, normalised slices."""
    mel_square: np.ndarray
    """float64 [S, M], of their squares."""
    pairs: np.ndarray
    """int64 [V + 1, V]: coarse tokens by the one before them; row V is the start of a document."""

    @classmethod
    def empty(cls, codebooks: int, codebook_size: int, sources: int, bands: int) -> "Statistics":
        """Of no frames."""
        return cls(
            frames=0,
            histogram=np.zeros((codebooks, codebook_size), np.int64),
            mel_sum=np.zeros((sources, bands)),
            mel_square=np.zeros((sources, bands)),
            pairs=np.zeros((codebook_size + 1, codebook_size), np.int64),
        )

    def add_record(self, record: Record) -> None:
        """Counts the frames of a record."""
        predicted = count_record(record, self.pairs)
        tokens = record.tokens[predicted]
        for counts, column in zip(self.histogram, tokens.T, strict=True):
            counts += np.bincount(column, minlength=len(counts))
        mel = record.mel[:, predicted].astype(np.float64)
        self.mel_sum += mel.sum(axis=1)
        self.mel_square += (mel * mel).sum(axis=1)
        self.frames += len(tokens)

    def add(self, other: "Statistics") -> None:
        """Adds those of other frames."""
        for field in dataclasses.fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    def ngrams(self) -> NGrams:
        """The n-gram counts."""
        return NGrams(self.pairs)

    def summary(self, mel_sources: Sequence[str]) -> dict[str, Any]:
        """What the index says: JSON values.

        Returns:
            ``tokens``: per codebook ``histogram``, ``entropy_bits`` (of that distribution) and ``used`` entries;
            ``mel``: per source and band ``mean`` and ``std`` of the normalised slices.
        """
        mean = self.mel_sum / max(1, self.frames)
        std = np.sqrt(np.maximum(0.0, self.mel_square / max(1, self.frames) - mean**2))
        return {
            "frames": self.frames,
            "tokens": {
                "entropy_bits": [round(entropy_bits(counts), 4) for counts in self.histogram],
                "used": [int((counts > 0).sum()) for counts in self.histogram],
                "histogram": self.histogram.tolist(),
            },
            "mel": {
                name: {"mean": [round(x, 4) for x in mean[i]], "std": [round(x, 4) for x in std[i]]}
                for i, name in enumerate(mel_sources)
            },
        }

    def to_bytes(self) -> bytes:
        """As an ``npz`` file; equal statistics give equal bytes. Of the pairs, those that occur."""
        file = io.BytesIO()
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        occur = np.nonzero(fields.pop("pairs"))
        np.savez_compressed(file, **fields, previous=occur[0], following=occur[1], counts=self.pairs[occur])
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Statistics":
        """Reads what :meth:`to_bytes` wrote.

        Raises:
            ValueError, KeyError, OSError, zipfile.BadZipFile, zlib.error: if the bytes are damaged.
        """
        with np.load(io.BytesIO(data)) as fields:
            size = fields["histogram"].shape[1]
            pairs = np.zeros((size + 1, size), np.int64)
            pairs[fields["previous"], fields["following"]] = fields["counts"]
            mel = {name: fields[name] for name in ("mel_sum", "mel_square")}
            return cls(int(fields["frames"]), fields["histogram"], pairs=pairs, **mel)


def entropy_bits(counts: np.ndarray) -> float:
    """Entropy of the distribution that counts [V] are of, in bits; 0 for none."""
    probabilities = counts[counts > 0] / max(1, counts.sum())
    return float(-(probabilities * np.log2(probabilities)).sum()) + 0.0
