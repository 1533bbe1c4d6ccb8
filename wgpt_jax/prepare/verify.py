"""Proof of causality on a prepared data set: stored mel and tokens against their own audio, disturbed."""

import dataclasses
import functools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from wgpt_jax.data.index import load_index
from wgpt_jax.errors import RequestError
from wgpt_jax.prepare.causality import CausalityReport, verify_function
from wgpt_jax.prepare.codec import cached_codec
from wgpt_jax.prepare.convert import source_mel
from wgpt_jax.prepare.shards import load_report, read_records
from wgpt_jax.prepare.sources import SourceError, decode_audio

_SHORTEST = 16  # frames


def verify_prepared(
    data_dir: str | os.PathLike, documents: int = 3, audio_root: str | os.PathLike | None = None, seed: int = 0
) -> Iterator[CausalityReport]:
    """Checks that stored frames up to t are what the audio gives when all after t is noise, bit for bit.

    Args:
        data_dir: folder of a prepared data set.
        documents: number of documents, drawn at random.
        audio_root: folder of the audio; the one in the index by default.
        seed: of the draw and the noise.

    Yields:
        Reports of each document: one per mel source, and one of its tokens.

    Raises:
        RequestError: if the audio or the codec is not there, or the codec is another one.
    """
    index = load_index(data_dir)
    codec = cached_codec(index.codec.name, allow_noncausal=not index.codec.causal)
    if codec.fingerprint != index.codec.fingerprint:
        raise RequestError(f"codec {codec.name} is no longer the one {data_dir} was prepared with")
    for document in draw_documents(data_dir, documents, audio_root, seed):
        try:
            samples = decode_audio(document.audio, index.clock.sample_rate)
        except SourceError as error:
            raise RequestError(
                f"cannot read the audio {document.audio} ({error}); say where it is: --audio-root"
            ) from error
        name = document.name
        mel, tokens = _stored(document.shard, name)
        streams = {
            f"{source} mel": (functools.partial(source_mel, source, codec=codec, mel=index.mel), row)
            for source, row in zip(index.mel_sources, mel, strict=True)
        }
        streams["tokens"] = (functools.partial(codec.encode, codebooks=index.codebooks), tokens)
        for stream, (function, stored) in streams.items():
            yield verify_function(f"{stream} of {name}", function, samples, index.clock, seed=seed, expected=stored)


@dataclasses.dataclass(frozen=True)
class DrawnDocument:
    """A document of a prepared set and where its two forms are."""

    name: str
    audio: Path
    shard: Path


def draw_documents(
    data_dir: str | os.PathLike, documents: int, audio_root: str | os.PathLike | None = None, seed: int = 0
) -> list[DrawnDocument]:
    """Draws documents without repetition, none too short to tell a leak from silence.

    Args:
        data_dir: folder of a prepared data set.
        documents: number of documents; fewer if there are not as many.
        audio_root: folder of the audio; the one in the index by default.
        seed: of the draw.

    Raises:
        RequestError: if no document is long enough.
    """
    index, folder = load_index(data_dir), Path(data_dir)
    root = Path(audio_root or index.options["source"])
    found = []
    for shard in index.shards:
        report = load_report((folder / shard.file).with_suffix(".json"))
        for document in report.documents if report else ():
            if document["frames"] >= _SHORTEST:
                found.append(DrawnDocument(document["name"], root / document["name"], folder / shard.file))
    if not found:
        raise RequestError(f"no document in {data_dir} has {_SHORTEST} frames: too short to prove anything on")
    drawn = np.random.default_rng(seed).permutation(len(found))[:documents]
    return [found[i] for i in sorted(drawn)]


def _stored(shard: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Mel float16 [S, n, M] and tokens int16 [n, K] of a document, put together from its segments."""
    mel, tokens = [], []
    for record in read_records(shard):
        offset = 0
        for segment in record.segments:
            if segment.document == name:
                mel.append(record.mel[:, offset + segment.context : offset + segment.length])
                tokens.append(record.tokens[offset + segment.context : offset + segment.length])
            offset += segment.length
    return np.concatenate(mel, axis=1), np.concatenate(tokens)
