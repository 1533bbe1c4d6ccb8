"""Generated against held-out audio, beside the floor: held-out against other held-out audio, of equal counts.

A distance between two finite samples is above zero also where both are of one distribution, so it says nothing alone.
The held-out documents are divided into two: as many as there are samples on one side, the reference on the other. The
samples and those documents are then compared with the same reference, which makes the bias the same for both: what
counts is the excess of the one over the other. Several divisions are drawn, and the distances are their means.

Standard errors are of a jackknife over samples and documents, the independent units: each is left out once, in all
divisions (Efron and Stein, The Jackknife Estimate of Variance, Ann. Statist. 9, 1981). A bootstrap would repeat
documents, which are then closer to themselves than to the reference: its spread is two to three times too wide here.

Letters: G generated samples, D held-out documents, n of each on the side that is compared, X figures of a distance.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

Distance = Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]]
"""Takes the sums that describe the reference, then those of a side; float64 [X]."""


class Draw(NamedTuple):
    """One division, by numbers of samples and of documents."""

    generated: np.ndarray
    """int [n]."""
    floor: np.ndarray
    """int [n]."""
    reference: np.ndarray
    """int [D - n]; no document is in both."""


class Figure(NamedTuple):
    """Values and their standard errors, float64 [...]."""

    value: np.ndarray
    stderr: np.ndarray


class Compared(NamedTuple):
    """A distance to held-out audio; all are [X]."""

    generated: Figure
    floor: Figure
    excess: Figure
    """Of the generated over the floor."""

    def row(self, part: Any) -> dict[str, float | list[float]]:
        """The values at an index as JSON: ``generated``, ``generated_stderr``, ``floor``, ..."""
        return {
            name + suffix: np.asarray(values)[part].tolist()
            for name, figure in self._asdict().items()
            for suffix, values in zip(("", "_stderr"), figure, strict=True)
        }


def per_side(samples: int, documents: int) -> int:
    """n: as many as there are samples, half of the documents at most."""
    return min(samples, documents // 2)


def draw_halves(rng: np.random.Generator, samples: int, documents: int, *, paired: bool) -> Draw:
    """Divides the documents into two, and takes as many samples as the smaller side has documents.

    Args:
        rng: moved on.
        samples: G.
        documents: D.
        paired: whether each sample continues the document of its number. They then stand side by side, and the
            reference has nothing to do with what is compared with it.
    """
    size = per_side(samples, documents)
    taken = rng.permutation(samples)[:size]
    held = taken if paired else rng.permutation(documents)[:size]
    return Draw(taken, held, np.setdiff1d(np.arange(documents), held))


def compare(
    distance: Distance, generated: np.ndarray, held_out: np.ndarray, draws: Iterable[Draw], *, paired: bool
) -> Compared:
    """A distance of generated to held-out audio, and its floor.

    Args:
        distance: of what is compared.
        generated: float64 [G, ...], sums that describe a sample and add up over samples (counts, moments).
        held_out: float64 [D, ...], the same of the documents.
        draws: divisions, from :func:`draw_halves`.
        paired: as there; a sample and its document are then left out together.
    """
    parts = [_with_and_without(distance, generated, held_out, draw, paired) for draw in draws]
    whole, *without = (np.mean(part, axis=0) for part in zip(*parts, strict=True))
    whole, *without = (np.concatenate([x, x[..., :1, :] - x[..., 1:, :]], axis=-2) for x in (whole, *without))
    variance = sum((len(x) - 1) * x.var(axis=0) for x in without)
    return Compared(*(Figure(*pair) for pair in zip(whole, np.sqrt(variance), strict=True)))


def _with_and_without(
    distance: Distance, generated: np.ndarray, held_out: np.ndarray, draw: Draw, paired: bool
) -> list[np.ndarray]:
    """Both distances [2, X] of one division, and the same with one unit left out: [D, 2, X], before it [G, 2, X].

    Where samples and documents are paired, there is no [G, 2, X].
    """
    sums = generated[draw.generated].sum(axis=0), held_out[draw.floor].sum(axis=0)
    reference = held_out[draw.reference].sum(axis=0)
    measure = distance(reference)
    both = np.stack([measure(side) for side in sums])
    samples, documents = (np.repeat(both[None], len(units), axis=0) for units in (generated, held_out))
    for number in draw.generated:
        (documents if paired else samples)[number, 0] = measure(sums[0] - generated[number])
    for number in draw.floor:
        documents[number, 1] = measure(sums[1] - held_out[number])
    for number in draw.reference:
        measure = distance(reference - held_out[number])
        documents[number] = [measure(side) for side in sums]
    return [both, documents] if paired else [both, samples, documents]


def mean_figure(values: np.ndarray) -> Figure:
    """Mean over the first axis, of samples or documents, and its standard error: float64 [N, ...] -> [...]."""
    return Figure(values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values)))
