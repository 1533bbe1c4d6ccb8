"""The conversion itself, apart from any engine: one audio file to one document of aligned tokens and mel."""

import dataclasses
from pathlib import Path

import numpy as np

from wgpt_jax.audio.clock import Clock
from wgpt_jax.audio.mel import MelConfig, log_mel
from wgpt_jax.data.records import Document
from wgpt_jax.errors import WorkError
from wgpt_jax.prepare.codec import cached_codec
from wgpt_jax.prepare.sources import SourceError, decode_audio
from wgpt_jax.prepare.splits import domain_of


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
    return Document(
        name=name,
        domain=domain_of(name, conversion.domains),
        tokens=codec.encode(samples, conversion.codebooks),
        mel=log_mel(samples, conversion.mel, conversion.clock).astype(np.float16),
    )
