"""The conversion itself, apart from any engine: one audio file to one document of aligned tokens and mel."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wgpt_jax.audio.clock import Clock
from wgpt_jax.audio.mel import MelConfig, log_mel
from wgpt_jax.data.records import Document
from wgpt_jax.errors import WorkError
from wgpt_jax.mel_sources import codec_codebooks
from wgpt_jax.prepare.codec import cached_codec
from wgpt_jax.prepare.sources import SourceError, decode_audio
from wgpt_jax.prepare.splits import domain_of

if TYPE_CHECKING:
    from wgpt_jax.prepare.encodec import Codec


@dataclasses.dataclass(frozen=True)
class Conversion:
    """Everything that a document's arrays depend on besides the file."""

    codec: str
    """Name or folder that :func:`wgpt_jax.prepare.codec.load_codec` takes."""
    codec_fingerprint: str
    """Identity the loaded codec must have."""
    clock: Clock
    """Sample rate and hop of the codec."""
    allow_noncausal: bool
    codebooks: int
    """Codebooks stored, K."""
    mel: MelConfig
    mel_sources: tuple[str, ...]
    """Mels stored, in order: ``original``, ``codecN``."""
    domains: bool
    """Whether the first folder names the domain."""


def convert_file(name: str, root: Path, conversion: Conversion) -> Document:
    """Converts ``root / name``: mel and tokens of the same samples, cut to whole frames.

    Raises:
        SourceError: if the file cannot be used.
        WorkError: if the codec is not the one the conversion began with.
    """
    codec = cached_codec(conversion.codec, conversion.allow_noncausal)
    if codec.fingerprint != conversion.codec_fingerprint:
        raise WorkError(f"codec {conversion.codec} changed while the data was prepared; run the command again")
    samples = decode_audio(root / name, conversion.clock.sample_rate)
    if conversion.clock.frames(len(samples)) == 0:
        raise SourceError(f"shorter than one frame ({1000 * conversion.clock.seconds(1):.1f} ms)")
    tokens = codec.encode(samples, conversion.codebooks)
    mel = np.empty((len(conversion.mel_sources), len(tokens), conversion.mel.bands), np.float16)
    for row, source in zip(mel, conversion.mel_sources, strict=True):
        row[:] = source_mel(source, samples, codec, conversion.mel, tokens)
    return Document(name, domain_of(name, conversion.domains), tokens, mel)


def source_mel(
    source: str, samples: np.ndarray, codec: "Codec", mel: MelConfig, tokens: np.ndarray | None = None
) -> np.ndarray:
    """The slices of one mel source, as a record stores them.

    ``codecN`` is what a model hears that generates: the decode of tokens up to each frame, of the first N codebooks.

    Args:
        source: ``original`` or ``codecN``.
        samples: float32 [N], the original.
        codec: causal, unless the source is ``original``.
        mel: definition of the slice.
        tokens: int16 [n, K] of the samples with the source's codebooks or more, if they are known already.

    Returns:
        float16 [n, M].
    """
    codebooks = codec_codebooks(source)
    if codebooks is not None:
        tokens = codec.encode(samples, codebooks) if tokens is None else tokens
        samples = codec.decode(tokens[:, :codebooks])
    return log_mel(samples, mel, codec.clock).astype(np.float16)
