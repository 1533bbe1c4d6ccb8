"""What is held out, and which documents make up so many hours: growing never moves a document between splits."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wgpt_jax.errors import RequestError
from wgpt_jax.prepare.splits import hash_fraction

SHARES = {"train": 0.80, "validation": 0.08, "test": 0.12}
"""Of the hours, by split."""
FEWEST = 12
"""Documents that validation and test hold at least, from two hours on: standard errors are over documents."""


@dataclass(frozen=True)
class Document:
    """One file of a corpus, planned."""

    path: str
    """The file, relative to the corpus; what it sounds like follows from it."""
    split: str
    """``train``, ``validation`` or ``test``."""
    seconds: float
    """Its length, as planned."""
    columns: Mapping[str, Any]
    """What else the manifest says of it."""
    recipe: Any
    """What its maker needs to render it."""


def generator(seed: int, name: str) -> np.random.Generator:
    """A generator that depends on the seed and the name alone, whatever else is in the corpus."""
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest[:16], "<u4").tolist()])


def divide(weights: Mapping[str, float], seed: int) -> dict[str, str]:
    """Puts every group into one split, so that the groups' weights come near :data:`SHARES`.

    Args:
        weights: group -> how much of the material it is.
        seed: of the order in which groups are drawn; each goes to the split that lacks most.

    Returns:
        group -> split.
    """
    filled = dict.fromkeys(SHARES, 0.0)
    splits = {}
    for group in sorted(weights, key=lambda name: (hash_fraction(name, seed), name)):
        total = sum(filled.values()) + weights[group]
        splits[group] = max(SHARES, key=lambda split: SHARES[split] * total - filled[split])
        filled[splits[group]] += weights[group]
    return splits


def choose(candidates: Mapping[str, Iterable[Document]], hours: float) -> list[Document]:
    """The documents of a corpus of ``hours`` hours: of each split the first ones, up to its share.

    Args:
        candidates: split -> documents in a fixed order; no more of them are asked for than are needed.
        hours: in all.

    Returns:
        the documents of all splits; those for fewer hours are among those for more.

    Raises:
        RequestError: if ``hours`` is not positive, or there is too little material, saying for how many hours there is
            enough.
    """
    if not hours > 0:
        raise RequestError(f"--hours {hours}: it must be above 0")
    chosen, most = [], float("inf")
    for split, share in SHARES.items():
        fewest = 0 if split == "train" else int(FEWEST * min(1.0, hours / 2))
        documents, seconds, source = [], 0.0, iter(candidates[split])
        while seconds < share * hours * 3600 or len(documents) < fewest:
            document = next(source, None)
            if document is None:
                most = min(
                    most, seconds / 3600 / share, 2 * len(documents) / FEWEST if len(documents) < fewest else most
                )
                break
            documents.append(document)
            seconds += document.seconds
        chosen += documents
    if most < hours:
        possible = int(most * 100) / 100
        raise RequestError(
            f"--hours {hours:g}: the material is enough for {possible:g} hours; ask for no more, or raise --longest"
        )
    return chosen


def hours_by_split(documents: Iterable[Document], seconds: Mapping[str, float]) -> dict[str, tuple[int, float]]:
    """Split -> number of documents, hours; ``seconds`` are the files' lengths by path."""
    counts = {split: [0, 0.0] for split in SHARES}
    for document in documents:
        counts[document.split][0] += 1
        counts[document.split][1] += seconds[document.path] / 3600
    return {split: (number, hours) for split, (number, hours) in counts.items()}
