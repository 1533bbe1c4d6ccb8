"""A prepared data set of a Markov source's tokens, with a mel made of them: no audio, and a codec that is a name."""

import dataclasses
import importlib.metadata
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from wgpt_jax.audio.clock import Clock
from wgpt_jax.audio.mel import MelConfig
from wgpt_jax.data.index import INDEX_NAME, SPLITS, CodecInfo, DataIndex, ShardInfo, file_sha256, index_text, rows_text
from wgpt_jax.data.ngrams import save_ngrams
from wgpt_jax.data.records import WRITER_OPTIONS, Document, encode_record, pack_documents
from wgpt_jax.data.statistics import Statistics
from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.markov.source import MarkovSource, draw_source
from wgpt_jax.mel_sources import codec_codebooks
from wgpt_jax.prepare.items import Item
from wgpt_jax.prepare.plan import Plan, ShardPlan
from wgpt_jax.prepare.storage import LocalStorage

NAME = "markov"
"""What the index gives as the codec and as the only domain."""
CLOCK = Clock(24000, 320)
"""Of 24 kHz ENCODEC: there is no audio, but bits per second are per frame of it."""
_LENGTHS = 16, 3000  # frames of a document, uniform in their logarithm: some are longer than a record
_SHARD = 135_000  # frames, half an hour
_STATES = 2**21


@dataclasses.dataclass(frozen=True)
class MarkovSet:
    """What to make."""

    order: int = 1
    """Coarse tokens that the next one depends on: 1 or 2."""
    vocabulary: int = 32
    """Entries of each codebook, V."""
    branching: int = 4
    """Tokens that can follow in each state; the entropy rate is near 1/2 + 1/3 + ... + 1/branching nats."""
    codebooks: int = 1
    """Codebooks per frame, K: 2, 4, ... are drawn given the one below, 3, 5, ... are a function of the one below."""
    mel_sources: str | None = None
    """Mels to store, as in original,codec1: codecN is a function of the first N tokens of its frame, the original one
    of all K; codecK by default."""
    mel_bands: int = 64
    """Bands of each mel slice."""
    frames: int = 500_000
    """Frames to train on."""
    held_out: int = 50_000
    """Frames of the validation split, and of the test split."""
    seed: int = 0
    """Seed of the source and of the documents."""

    def sources(self) -> tuple[str, ...]:
        """Names of the mel sources."""
        return tuple((self.mel_sources or f"codec{self.codebooks}").split(","))

    def source(self) -> MarkovSource:
        """The source, drawn anew; always the same one."""
        return draw_source(self.vocabulary, self.order, self.codebooks, self.branching, self.seed)

    def check(self) -> None:
        """Raises RequestError, naming the flag, if there is no such set."""
        rules = [
            ("order", self.order in (1, 2), "1 and 2 can be"),
            ("branching", 2 <= self.branching <= self.vocabulary, f"2 to {self.vocabulary} can be (--vocabulary)"),
            ("vocabulary", self.vocabulary**self.order <= _STATES, f"a source has at most {_STATES:,} states"),
            ("vocabulary", self.vocabulary < 2**15, "tokens are 16 bits"),
            ("codebooks", self.codebooks >= 1, "at least 1 is needed"),
            ("mel-bands", self.mel_bands >= 1, "at least 1 is needed"),
            ("frames", self.frames >= _LENGTHS[1], f"at least {_LENGTHS[1]:,} are needed"),
            ("held-out", self.held_out >= _LENGTHS[1], f"at least {_LENGTHS[1]:,} are needed"),
            ("seed", self.seed >= 0, "it must not be negative"),
        ]
        for flag, holds, why in rules:
            if not holds:
                raise RequestError(f"--{flag} {getattr(self, flag.replace('-', '_'))}: {why}")
        for name in self.sources():
            if name != "original" and not 1 <= (codec_codebooks(name) or 0) <= self.codebooks:
                raise RequestError(f"--mel-sources {name}: original and codec1 to codec{self.codebooks} can be")


def make_markov_set(out: str | os.PathLike, asked: MarkovSet) -> DataIndex:
    """Draws a source and makes a data set of its documents, as tools/prepare_audio.py makes one of audio.

    The index's options have, under ``markov``: ``entropy_rates`` (nats per frame of each codebook), ``entropy_rate``
    (their sum), ``start_entropies`` (of the first coarse tokens of a document), and ``documents``: of every held-out
    one its frames and its negative log-likelihood under the source in nats, of the coarse tokens and of all codebooks.

    Args:
        out: folder to make; it must be empty, or not there.
        asked: the source and how much of it.

    Raises:
        RequestError: if there is no such source, or the folder is not empty.
        WorkError: if the folder cannot be written.
    """
    asked.check()
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RequestError(f"{out} is not empty; give a folder that is not there yet")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _make(folder, asked)
    except OSError as error:
        raise WorkError(f"cannot write {out}: {error.strerror or error}") from error


def _make(folder: Path, asked: MarkovSet) -> DataIndex:
    source, sources, mel = asked.source(), asked.sources(), MelConfig(bands=asked.mel_bands)
    storage, plan = LocalStorage(str(folder)), Plan({}, {}, [])
    shards, inputs, likelihoods = [], [], {}
    whole = Statistics.empty(asked.codebooks, asked.vocabulary, len(sources), mel.bands)
    pairs = whole.pairs
    for number, split in enumerate(SPLITS):
        for documents in _shards_of(source, asked, split, np.random.default_rng([asked.seed, 1 + number])):
            name = f"{split}-{sum(shard.split == split for shard in shards):05d}"
            shard, statistics = _write_shard(storage, name, split, documents, whole)
            shards.append(shard)
            whole.add(statistics)
            pairs = pairs + statistics.pairs if split == "train" else pairs
            names, seconds = [d.name for d in documents], CLOCK.seconds(statistics.frames)
            plan.shards.append(ShardPlan(name, split, seconds, names))
            inputs += [_input(document, shard) for document in documents]
            if split != "train":
                nll = {d.name: source.nll(d.tokens).sum(axis=0) for d in documents}
                likelihoods |= {d.name: [len(d.tokens), *_coarse_and_all(nll[d.name])] for d in documents}
    rates = source.entropy_rates()
    plan.options = {
        "source": NAME,
        **dataclasses.asdict(asked),
        "num_codebooks": asked.codebooks,
        "codec_fingerprint": source.fingerprint(),
        "mel_sources": ",".join(sources),
        **{f"mel.{key}": value for key, value in dataclasses.asdict(mel).items()},
        NAME: {
            "entropy_rate": sum(rates),
            "entropy_rates": rates,
            "start_entropies": source.start_entropies(),
            "documents": likelihoods,
        },
    }
    plan.save(storage)
    save_ngrams(dataclasses.replace(whole.ngrams(), pairs=pairs), folder)
    index = DataIndex(
        clock=CLOCK,
        codec=CodecInfo(NAME, source.fingerprint(), asked.vocabulary, causal=True),
        codebooks=asked.codebooks,
        mel=mel,
        mel_sources=sources,
        shards=tuple(shards),
        domains=(NAME,),
        failed=(),
        options=plan.options,
        tool_version=importlib.metadata.version("wgpt_jax"),
        hours={
            split: round(CLOCK.seconds(sum(s.frames for s in shards if s.split == split)) / 3600, 4) for split in SPLITS
        },
        leaks={"file": [], "speaker": []},
        statistics=whole.summary(sources),
    )
    storage.write(INDEX_NAME, index_text(index, inputs).encode())
    return index


def _shards_of(source: MarkovSource, asked: MarkovSet, split: str, rng: np.random.Generator):
    """Documents of a split, as many as make its frames, shard by shard."""
    left, number = (asked.frames if split == "train" else asked.held_out), 0
    while left > 0:
        lengths: list[int] = []
        while sum(lengths) < min(left, _SHARD):
            drawn = int(math.exp(rng.uniform(*map(math.log, _LENGTHS))))
            lengths.append(max(min(drawn, left - sum(lengths)), _LENGTHS[0]))
        left -= sum(lengths)
        tokens = source.sample(np.array(lengths), rng)
        yield [
            Document(f"{split}/{number + i:05d}", NAME, frames, mel_of(frames, asked))
            for i, frames in enumerate(tokens)
        ]
        number += len(lengths)


def mel_of(tokens: np.ndarray, asked: MarkovSet) -> np.ndarray:
    """Mel slices: of each frame, the mean of a fixed random vector in [-1, 1] for each of its first N tokens.

    Args:
        tokens: int [n, K].
        asked: the set.

    Returns:
        float16 [S, n, M]. Slice t is a function of the tokens of frame t alone, so it adds nothing to what they say.
    """
    shape = asked.codebooks, asked.vocabulary, asked.mel_bands
    vectors = np.random.default_rng([asked.seed, 4]).uniform(-1, 1, shape).astype(np.float32)
    running = np.cumsum([vectors[k, tokens[:, k]] for k in range(asked.codebooks)], axis=0)
    used = [codec_codebooks(name) or asked.codebooks for name in asked.sources()]
    return np.stack([running[n - 1] / n for n in used]).astype(np.float16)


def _write_shard(
    storage: LocalStorage, name: str, split: str, documents: Sequence[Document], like: Statistics
) -> tuple[ShardInfo, Statistics]:
    """Writes a shard, its statistics, and the report that tools/dataset.py reads."""
    statistics = Statistics.empty(*like.histogram.shape, *like.mel_sum.shape)
    file, records = f"{name}.array_record", 0
    path = Path(storage.root, file)
    try:
        writer = ArrayRecordWriter(str(path), WRITER_OPTIONS)
        for record in pack_documents(documents):
            writer.write(encode_record(record))
            statistics.add_record(record)
            records += 1
        writer.close()
    except RuntimeError as error:  # ArrayRecord's way of saying that the disk is full
        raise OSError(str(error).split(";")[0]) from error
    shard = ShardInfo(file, split, file_sha256(path), records, len(documents), statistics.frames)
    stored = [
        {
            "item": dataclasses.asdict(Item(d.name, d.name, split=split, domain=d.domain)),
            "content": d.name,
            "frames": len(d.tokens),
            "seconds": round(CLOCK.seconds(len(d.tokens)), 3),
        }
        for d in documents
    ]
    report = {"shard": dataclasses.asdict(shard), "stamp": storage.stamp(file), "documents": stored, "failed": []}
    storage.write(f"{name}.statistics.npz", statistics.to_bytes())
    storage.write(f"{name}.json", rows_text(report | {"version": 1}).encode())
    return shard, statistics


def _input(document: Document, shard: ShardInfo) -> dict[str, Any]:
    """A row of the index's inputs."""
    return {
        "path": document.name,
        "fate": "used",
        "split": shard.split,
        "shard": shard.file,
        "seconds": round(CLOCK.seconds(len(document.tokens)), 3),
        "frames": len(document.tokens),
        "domain": document.domain,
    }


def _coarse_and_all(nll: np.ndarray) -> tuple[float, float]:
    """Nats by codebook, float64 [K] -> those of the coarse token and of all."""
    return float(nll[0]), float(nll.sum())
