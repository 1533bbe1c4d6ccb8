"""Prepared data sets made of known processes, without audio or codec."""

from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from wgpt_jax.audio.clock import Clock
from wgpt_jax.audio.mel import MelConfig
from wgpt_jax.config import (
    CheckpointConfig,
    Config,
    DataConfig,
    LoggingConfig,
    ModelConfig,
    OptimizerConfig,
    TrainingConfig,
)
from wgpt_jax.data.index import CodecInfo, DataIndex, ShardInfo, file_sha256, save_index
from wgpt_jax.data.ngrams import count_ngrams, save_ngrams
from wgpt_jax.data.records import WRITER_OPTIONS, Document, encode_record, pack_documents

VOCABULARY, BANDS, CODEBOOKS = 16, 8, 2


def markov_matrix(seed: int = 0, sharpness: float = 2.0) -> np.ndarray:
    """Transition probabilities [V, V]."""
    logits = sharpness * np.random.default_rng(seed).normal(size=(VOCABULARY, VOCABULARY))
    weights = np.exp(logits)
    return weights / weights.sum(axis=1, keepdims=True)


def markov_document(
    name: str, frames: int, matrix: np.ndarray, rng: np.random.Generator, domain="all", sources: int = 1
) -> Document:
    """Tokens of a Markov chain and noise for each mel source."""
    tokens = np.zeros((frames, CODEBOOKS), np.int16)
    cumulative = matrix.cumsum(axis=1)
    state = rng.integers(VOCABULARY)
    for t in range(frames):
        state = min(int(np.searchsorted(cumulative[state], rng.random())), VOCABULARY - 1)
        tokens[t] = state, rng.integers(VOCABULARY)
    return Document(name, domain, tokens, rng.normal(size=(sources, frames, BANDS)).astype(np.float16))


def write_dataset(
    folder: Path,
    splits: dict[str, list[Document]],
    max_frames: int = 2048,
    codec="c0dec",
    mel_sources: tuple[str, ...] = ("original",),
) -> DataIndex:
    """Writes one shard per split, the n-grams and the index."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for split, documents in splits.items():
        records = list(pack_documents(documents, max_frames))
        path = folder / f"{split}-00000.array_record"
        writer = ArrayRecordWriter(str(path), WRITER_OPTIONS)
        for record in records:
            writer.write(encode_record(record))
        writer.close()
        frames = sum(len(document.tokens) for document in documents)
        shards.append(ShardInfo(path.name, split, file_sha256(path), len(records), len(documents), frames))
        if split == "train":
            save_ngrams(count_ngrams(records, VOCABULARY), folder)
    index = DataIndex(
        clock=Clock(24000, 320),
        codec=CodecInfo("synthetic", codec, VOCABULARY, True),
        codebooks=CODEBOOKS,
        mel=MelConfig(bands=BANDS),
        mel_sources=mel_sources,
        shards=tuple(shards),
        domains=tuple(sorted({d.domain for documents in splits.values() for d in documents})),
        failed=(),
        options={},
        tool_version="test",
    )
    save_index(index, folder)
    return index


def markov_dataset(
    folder: Path,
    *,
    train=40,
    validation=6,
    frames=(50, 400),
    max_frames=512,
    seed=0,
    mel_sources: tuple[str, ...] = ("original",),
) -> DataIndex:
    """Train and validation documents of one Markov chain, lengths uniform in ``frames``; every mel is noise."""
    rng, matrix = np.random.default_rng(seed), markov_matrix()

    def documents(split, count):
        return [
            markov_document(
                f"{split}/{i}",
                int(rng.integers(*frames)),
                matrix,
                rng,
                domain=("a", "b")[i % 2],
                sources=len(mel_sources),
            )
            for i in range(count)
        ]

    splits = {"train": documents("train", train), "validation": documents("validation", validation)}
    return write_dataset(folder, splits, max_frames, mel_sources=mel_sources)


def tiny_config(inputs="hybrid", **groups) -> Config:
    """A network of a few thousand parameters for the synthetic data."""
    defaults = {
        "model": {
            "inputs": inputs, "width": 16, "depth": 2, "heads": 2, "hidden": 32, "mel_width": 8, "mel_depth": 1,
            "mel_heads": 2, "vocabulary": VOCABULARY, "mel_bands": BANDS,
            "depformer_width": 16, "depformer_depth": 1, "depformer_heads": 2,
        },
        "data": {"context": 32},
        "training": {"steps": 10, "batch": 8, "eval_every": 5, "eval_windows": 16},
        "optimizer": {"learning_rate": 3e-3, "warmup": 2},
        "checkpoint": {"every": 5},
        "logging": {"every": 1, "tensorboard": False},
    }  # fmt: skip
    types = {
        "model": ModelConfig, "data": DataConfig, "training": TrainingConfig, "optimizer": OptimizerConfig,
        "checkpoint": CheckpointConfig, "logging": LoggingConfig,
    }  # fmt: skip
    values = {name: cls(**{**defaults[name], **groups.pop(name, {})}) for name, cls in types.items()}
    return Config(**values, **groups)
