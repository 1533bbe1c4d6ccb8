"""Proof of causality on a prepared data set: stored mel and tokens against their own audio, disturbed."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from wgpt_jax.audio.mel import log_mel
from wgpt_jax.data.index import DataIndex, load_index
from wgpt_jax.errors import RequestError
from wgpt_jax.prepare.causality import CausalityReport, verify_function
from wgpt_jax.prepare.codec import cached_codec
from wgpt_jax.prepare.shards import load_report, read_records
from wgpt_jax.prepare.sources import SourceError, decode_audio


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
        Two reports per document, of its mel and of its tokens.

    Raises:
        RequestError: if the audio or the codec is not there, or the codec is another one.
    """
    index = load_index(data_dir)
    root = Path(audio_root or index.options["source"])
    codec = cached_codec(index.codec.name, allow_noncausal=not index.codec.causal)
    if codec.fingerprint != index.codec.fingerprint:
        raise RequestError(f"codec {codec.name} is no longer the one {data_dir} was prepared with")
    for shard, name in _draw(index, Path(data_dir), documents, seed):
        try:
            samples = decode_audio(root / name, index.clock.sample_rate)
        except SourceError as error:
            raise RequestError(
                f"cannot read the audio {root / name} ({error}); say where it is: --audio-root"
            ) from error
        mel, tokens = _stored(shard, name)
        functions = {
            "mel": (lambda x: log_mel(x, index.mel, index.clock).astype(np.float16), mel),
            "tokens": (lambda x: codec.encode(x, index.codebooks), tokens),
        }
        for stream, (function, stored) in functions.items():
            yield verify_function(f"{stream} of {name}", function, samples, index.clock, seed=seed, expected=stored)


def draw_documents(
    data_dir: str | os.PathLike, documents: int, audio_root: str | os.PathLike | None = None, seed: int = 0
) -> list[Path]:
    """Audio files of the documents that :func:`verify_prepared` draws; same arguments."""
    index = load_index(data_dir)
    root = Path(audio_root or index.options["source"])
    return [root / name for _, name in _draw(index, Path(data_dir), documents, seed)]


def _draw(index: DataIndex, folder: Path, documents: int, seed: int) -> list[tuple[Path, str]]:
    """Shard and name of documents, drawn without repetition."""
    found = []
    for shard in index.shards:
        report = load_report((folder / shard.file).with_suffix(".json"))
        found += [(folder / shard.file, document["name"]) for document in (report.documents if report else ())]
    drawn = np.random.default_rng(seed).permutation(len(found))[:documents]
    return [found[i] for i in sorted(drawn)]


def _stored(shard: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Mel float16 [n, M] and tokens int16 [n, K] of a document, put together from its segments."""
    mel, tokens = [], []
    for record in read_records(shard):
        offset = 0
        for segment in record.segments:
            if segment.document == name:
                mel.append(record.mel[offset + segment.context : offset + segment.length])
                tokens.append(record.tokens[offset + segment.context : offset + segment.length])
            offset += segment.length
    return np.concatenate(mel), np.concatenate(tokens)
