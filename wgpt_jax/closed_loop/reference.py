"""The beginning of a held-out document, to hear beside what is generated."""

import os
from typing import NamedTuple

import numpy as np

from wgpt_jax.audio.codec_file import CodecDecoder
from wgpt_jax.audio.encodec import decode, initial_carry
from wgpt_jax.data.index import DataIndex
from wgpt_jax.data.shards import SplitRecords, UnreadableRecord, describe_damage
from wgpt_jax.errors import WorkError


class Reference(NamedTuple):
    """A held-out document as the model could sound at best: through the codebooks that it predicts."""

    document: str
    tokens: np.ndarray
    """int16 [n, K], as stored."""
    samples: np.ndarray
    """float32 [n * hop], their decode."""
    loudest: float
    """The highest value of the stored mels of all its frames in the record, or that of silence."""


def read_reference(
    data: str | os.PathLike, index: DataIndex, codec: CodecDecoder, codebooks: int, frames: int
) -> Reference:
    """Decodes the beginning of the longest segment that begins its document, in the first validation record.

    Args:
        data: prepared data.
        index: its index.
        codec: the data's.
        codebooks: K, decoded of each frame.
        frames: at most.

    Raises:
        RequestError: if there is no validation split.
        WorkError: if its first record is damaged, or its sound is not finite.
    """
    try:
        record = SplitRecords(data, index, "validation")[0]
    except UnreadableRecord as error:
        raise WorkError(describe_damage(data, index, "validation", error)) from error
    ends = np.cumsum([segment.length for segment in record.segments])
    end, segment = max(zip(ends, record.segments, strict=True), key=lambda pair: (pair[1].start == 0, pair[1].length))
    first = end - segment.length
    tokens = record.tokens[first : min(end, first + frames), :codebooks]
    carry = initial_carry(codec.spec, codec.weights, 1, codebooks)
    samples = np.asarray(decode(codec.spec, codec.weights, tokens[None], carry)[0][0])
    if not np.isfinite(samples).all():
        raise WorkError(f"the codec makes samples that are not finite of the tokens of {segment.document}")
    loudest = max(float(record.mel[:, first:end].max()), index.mel.silence)  # float16 can round silence down
    return Reference(segment.document, tokens, samples, loudest)
