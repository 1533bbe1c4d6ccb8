"""Checks of the sums in the index, and of the files beside the shards: n-grams and the codec's decoder."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from wgpt_jax.audio.codec_file import CODEC_NAME, load_codec_decoder
from wgpt_jax.data.ngrams import NGRAMS_NAME, load_ngrams
from wgpt_jax.data.statistics import Statistics
from wgpt_jax.dataset.check import Check, passed_or_failed
from wgpt_jax.dataset.folder import Prepared
from wgpt_jax.dataset.survey import Survey
from wgpt_jax.errors import RequestError

_ROUNDED = 1.5e-4  # the index keeps four digits behind the point


def check_statistics(prepared: Prepared, survey: Survey) -> Iterator[Check]:
    """The index's sums, those of the shards, and the n-grams."""
    index = prepared.index
    files = list(survey.problems("statistics"))
    if survey.uncounted:
        yield from (Check("statistics", "FAILED", text) for text in files)
        text = f"not compared with the records, which cannot all be read ({', '.join(survey.uncounted[:3])})"
        yield Check("statistics", "note", text)
        yield from _ngrams(prepared, None)
        return
    whole = Statistics.empty(index.codebooks, index.codec.codebook_size, len(index.mel_sources), index.mel.bands)
    for part in survey.statistics.values():
        whole.add(part)
    wrong = _differences(index.statistics, whole.summary(index.mel_sources))
    text = "token histogram and mel of the index are those of the records"
    yield from passed_or_failed("statistics", [*files, *wrong], text)
    yield from _ngrams(prepared, survey.statistics["train"].pairs if "train" in survey.statistics else None)


def _differences(stored: Mapping[str, Any], counted: Mapping[str, Any]) -> Iterator[str]:
    try:
        if stored["frames"] != counted["frames"]:
            yield f"the index counts {stored['frames']:,} frames, the records hold {counted['frames']:,}"
        for key in ("histogram", "used"):
            if stored["tokens"][key] != counted["tokens"][key]:
                yield f"the {key} of the tokens in the index is not that of the records"
        if not _close(stored["tokens"]["entropy_bits"], counted["tokens"]["entropy_bits"]):
            yield "the entropy of the tokens in the index is not that of the records"
        for source, values in counted["mel"].items():
            for key, value in values.items():
                if not _close(stored["mel"][source][key], value):
                    yield f"the {key} of the {source} mel in the index is not that of the records"
    except (KeyError, TypeError, ValueError) as error:
        yield f"the statistics in the index are damaged ({error!r})"


def _close(stored: list[float], counted: list[float]) -> bool:
    return len(stored) == len(counted) and np.allclose(stored, counted, rtol=0, atol=_ROUNDED)


def _ngrams(prepared: Prepared, pairs: np.ndarray | None) -> Iterator[Check]:
    try:
        stored = load_ngrams(prepared.folder).pairs
    except RequestError as error:
        yield Check("ngrams", "FAILED", f"{error}".split("; ")[0])
        return
    if pairs is None:
        yield Check("ngrams", "note", f"{NGRAMS_NAME} was not compared with the train records")
        return
    wrong = [] if np.array_equal(stored, pairs) else [f"{NGRAMS_NAME} is not of the train records"]
    yield from passed_or_failed("ngrams", wrong, f"{NGRAMS_NAME} counts the train records")


def check_codec(prepared: Prepared) -> Iterator[Check]:
    """Whether the codec's decoder beside the data is that of its tokens."""
    index = prepared.index
    if index.codec.causal:
        text = f"{CODEC_NAME} is of {index.codec.name} ({index.codec.fingerprint})"
        yield from passed_or_failed("codec", _codec(prepared), text)
    else:
        yield Check("codec", "note", f"{index.codec.name} is not causal: its tokens contain the future")


def _codec(prepared: Prepared) -> Iterator[str]:
    index = prepared.index
    try:
        spec = load_codec_decoder(prepared.folder / CODEC_NAME).spec
    except RequestError as error:
        yield f"{error}".split("; ")[0]
        return
    said = (index.codec.fingerprint, index.codec.codebook_size, index.codebooks, index.clock)
    if (spec.fingerprint, spec.codebook_size, spec.codebooks, spec.clock) != said:
        yield f"{CODEC_NAME} ({spec.fingerprint}) is not of the codec of the index ({index.codec.fingerprint})"
