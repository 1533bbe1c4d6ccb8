"""The entropy floor measured: models trained on a Markov source, against the source itself on the same frames."""

import dataclasses
import os
from typing import Any

import numpy as np

from wgpt_jax.config import (
    CheckpointConfig,
    Config,
    DataConfig,
    LoggingConfig,
    ModelConfig,
    OptimizerConfig,
    TrainingConfig,
)
from wgpt_jax.data.index import DataIndex, load_index
from wgpt_jax.data.shards import SplitRecords
from wgpt_jax.data.windows import tile_record
from wgpt_jax.errors import RequestError
from wgpt_jax.evaluation import evaluate
from wgpt_jax.markov.dataset import NAME, MarkovSet
from wgpt_jax.markov.source import MarkovSource
from wgpt_jax.scores import ratio
from wgpt_jax.training.loop import train


def source_of(index: DataIndex) -> tuple[MarkovSet, MarkovSource]:
    """The source of a data set that tools/make_markov.py made.

    Raises:
        RequestError: if it is no such set, or this NumPy draws another source from the same seed.
    """
    if NAME not in index.options:
        raise RequestError("the data was not made by tools/make_markov.py: its entropy is not known")
    names = {field.name for field in dataclasses.fields(MarkovSet)}
    asked = MarkovSet(**{key: value for key, value in index.options.items() if key in names})
    source = asked.source()
    if source.fingerprint() != index.codec.fingerprint:
        raise RequestError("this version draws another source from the data's seed; make the data again")
    return asked, source


def floor_in_windows(source: MarkovSource, data: str | os.PathLike, split: str, context: int) -> dict[str, np.ndarray]:
    """Nats of each document under the true source when it sees what a model sees: the windows of evaluation.

    A window that begins inside a document shows one frame before its first. That is all that a source of order 1 needs;
    one of order 2 is then uncertain for a frame, and so is every model.

    Returns:
        document -> float64 [K], summed over its frames.
    """
    sums: dict[str, np.ndarray] = {}
    records = SplitRecords(data, load_index(data), split)
    for record in (records[i] for i in range(len(records))):
        for _, window in tile_record(record, context):
            for number in np.unique(window.segment_ids[window.weights]):
                here = np.flatnonzero(window.segment_ids == number)
                seen = 0 if window.starts[here[0]] else 1
                piece = window.tokens[here[0] + 1 - seen : here[-1] + 2]
                name = record.segments[number - 1].document
                sums[name] = sums.get(name, 0) + source.nll(piece)[seen:].sum(axis=0)
    return sums


def floor_config(
    asked: MarkovSet, inputs: str, steps: int, *, batch: int = 32, learning_rate: float = 1e-2, **model: Any
) -> Config:
    """A small network for a Markov set.

    Args:
        asked: the set.
        inputs: ``tokens`` or ``hybrid``, which reads the set's first mel.
        steps: of the optimiser.
        batch: windows per step.
        learning_rate: its peak.
        **model: keys of the model that are to be others.
    """
    shape = {
        "width": 64, "depth": 2, "heads": 2, "hidden": 128, "mel_width": 16, "mel_depth": 0,
        "depformer_width": 32, "depformer_depth": 1, "output_codebooks": asked.codebooks,
    }  # fmt: skip
    network = ModelConfig(inputs=inputs, vocabulary=asked.vocabulary, mel_bands=asked.mel_bands, **shape | model)
    optimizer = OptimizerConfig(
        learning_rate=learning_rate, warmup=min(50, steps // 4), final_fraction=0.01, weight_decay=0.0
    )
    return Config(
        model=network,
        data=DataConfig(context=64, mel_mix={asked.sources()[0]: 1.0}),
        training=TrainingConfig(steps=steps, batch=batch, eval_every=0),
        optimizer=optimizer,
        checkpoint=CheckpointConfig(every=steps, keep=1),
        logging=LoggingConfig(every=max(steps // 10, 1), tensorboard=False),
    )


def measure_floor(
    data: str | os.PathLike, run: str | os.PathLike, config: Config, split: str = "test"
) -> dict[str, Any]:
    """Trains a model on a Markov set and compares it with the true source, document by document.

    Args:
        data: made by tools/make_markov.py.
        run: run folder.
        config: the experiment.
        split: what both are scored on.

    Returns:
        nats per frame of the coarse token, and with ``total_`` in front of all output codebooks: ``entropy_rate``;
        ``floor``, the source on these documents with what the model sees of them; ``nll``; ``excess``, their
        difference, with its standard error over documents (``excess_stderr``), and in percent (``excess_percent``).
        ``document_floor`` is the source's with whole documents in sight. A model that is below the floor by several
        standard errors has seen what it should predict.

    Raises:
        RequestError: as :func:`wgpt_jax.train` does, and if the data is no Markov set.
        WorkError: as :func:`wgpt_jax.train` does.
    """
    index = load_index(data)
    asked, source = source_of(index)
    step = train(config, data, run)
    result = evaluate(run, data, split, mel="all" if config.model.inputs == "tokens" else asked.sources()[0])
    codebooks, known = config.model.output_codebooks, index.options[NAME]
    windows = floor_in_windows(source, data, split, config.data.context)
    names = sorted(result.scores.documents)
    rows = [result.scores.documents[name] for name in names]
    frames = np.array([row.frames for row in rows])
    measured = {
        "inputs": config.model.inputs,
        "order": asked.order,
        "vocabulary": asked.vocabulary,
        "output_codebooks": codebooks,
        "parameters": result.summary["parameters"],
        "split": split,
        "documents": len(names),
        "frames": int(frames.sum()),
        "step": step,
        "mel_source": result.summary["mel_source"],
        "document_floor": ratio([known["documents"][name][1] for name in names], frames)[0],
    }
    kinds = {"": (1, [row.nll for row in rows])}
    if codebooks > 1:
        kinds["total_"] = codebooks, [row.total_nll for row in rows]
    for prefix, (count, nll) in kinds.items():
        truth = [windows[name][:count].sum() for name in names]
        floor, (excess, stderr) = ratio(truth, frames)[0], ratio(list(np.subtract(nll, truth)), frames)
        measured |= {
            f"{prefix}entropy_rate": sum(known["entropy_rates"][:count]),
            f"{prefix}floor": floor,
            f"{prefix}nll": floor + excess,
            f"{prefix}excess": excess,
            f"{prefix}excess_stderr": stderr,
            f"{prefix}excess_percent": 100 * excess / floor,
        }
    return measured
