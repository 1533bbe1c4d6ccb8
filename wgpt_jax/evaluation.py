"""Evaluation: every document of a split exactly once, against n-gram models of the training split."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from tqdm import tqdm

from wgpt_jax.config import Config, MeshConfig
from wgpt_jax.data.index import DataIndex, load_index
from wgpt_jax.data.ngrams import load_ngrams
from wgpt_jax.data.pipeline import EvaluationBatch, evaluation_batches
from wgpt_jax.errors import RequestError
from wgpt_jax.parallel.mesh import batch_sharding, make_mesh
from wgpt_jax.runs import (
    RunFolder,
    RunInfo,
    check_data_is_readable,
    check_model_fits_data,
    read_run,
    training_data_fingerprint,
)
from wgpt_jax.scores import DocumentScores, SplitScores, format_stderr
from wgpt_jax.training.checkpoint import Checkpoints
from wgpt_jax.training.state import abstract_model
from wgpt_jax.training.step import Scores, make_eval_step


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Result of :func:`evaluate`."""

    summary: dict[str, Any]
    """What ``wgpt evaluate --json`` prints."""
    scores: SplitScores
    """Per document and position."""


def evaluate(
    run: str | os.PathLike,
    data: str | os.PathLike,
    split: str = "validation",
    *,
    step: int | str = "latest",
    mel: str = "original",
    progress: bool = True,
) -> Evaluation:
    """Scores a run on a split of prepared data and writes the result into the run folder.

    Args:
        run: run folder.
        data: prepared data, made with the run's codec and mel.
        split: train, validation or test.
        step: a checkpoint's step, ``latest`` or ``best``.
        mel: ``original`` feeds the mel of the original audio, so that the NLL is conditional on side information;
            ``null`` feeds the null mel, so that it is a likelihood of the token sequence. Token-only models read none.
        progress: whether to show a progress bar.

    Returns:
        the summary and the scores behind it.

    Raises:
        RequestError: if the run, the data, the split or the step is not there, or they do not belong together.
    """
    info, index = read_run(run), load_index(data)
    check_data_is_readable(info, index, run, data)
    check_model_fits_data(info.config, index, data)
    if mel not in ("original", "null"):
        raise RequestError(f"unknown mel source {mel!r}; the sources are original, null")
    mesh = make_mesh(MeshConfig())
    graph, params, step = load_network(run, info, mesh, step)
    eval_fn = make_eval_step(info.config.model, graph, mesh, params)
    scores = score_split(
        eval_fn, params, data, index, split, info.config, mesh, null_mel=mel == "null", progress=progress
    )
    same_data = training_data_fingerprint(index) == info.data_fingerprint
    summary = {
        "run": str(run),
        "data": str(data),
        "same_data": same_data,
        "step": step,
        "split": split,
        "inputs": info.config.model.inputs,
        "mel_source": "none" if info.config.model.inputs == "tokens" else mel,
        "parameters": sum(info.parameters.values()),
        **scores.summary(index.clock.frames_per_second),
        "context": info.config.data.context,
        "codec": info.codec.name,
        "codec_causal": info.codec.causal,
        "by_position": scores.by_position(),
    }
    domains = sorted({row.domain for row in scores.documents.values()})
    if len(domains) > 1:
        summary["by_domain"] = {name: scores.summary(index.clock.frames_per_second, name) for name in domains}
    name = f"{split}-{step}-{summary['mel_source']}" + ("" if same_data else f"-{training_data_fingerprint(index)}")
    _write(RunFolder(run).evaluation, name, summary, scores)
    return Evaluation(summary, scores)


def load_network(
    run: str | os.PathLike, info: RunInfo, mesh: Mesh, step: int | str = "latest"
) -> tuple[nnx.GraphDef, nnx.State, int]:
    """A run's network: its graph, the parameters of a checkpoint on ``mesh``, and the checkpoint's step.

    Raises:
        RequestError: if the checkpoint is not there or cannot be read.
    """
    graph, abstract = abstract_model(info.config.model, mesh)
    with Checkpoints(RunFolder(run).checkpoints) as checkpoints:
        if step == "best":
            step = checkpoints.best_step
            if step is None:
                raise RequestError(f"{run} has no evaluated checkpoint yet; use --step latest")
        params, step = checkpoints.restore_params(abstract, None if step == "latest" else step)
    return graph, params, step


def score_split(
    eval_fn: Callable[..., Scores],
    params: Any,
    data: str | os.PathLike,
    index: DataIndex,
    split: str,
    config: Config,
    mesh: Mesh,
    *,
    limit: int = 0,
    null_mel: bool = False,
    progress: bool = False,
) -> SplitScores:
    """Runs the evaluation step over a split.

    Args:
        eval_fn: from :func:`wgpt_jax.training.step.make_eval_step`.
        params: the network's parameters.
        data: prepared data.
        index: its index.
        split: which split.
        config: for the context length and the batch size.
        mesh: where the batches lie.
        limit: windows at most; 0 for every document.
        null_mel: feeds the null mel instead of the slices.
        progress: whether to show a progress bar.
    """
    ngrams = load_ngrams(data)
    log_unigram, log_bigram = np.log(ngrams.unigram()), np.log(ngrams.bigram())
    scores = SplitScores(config.data.context)
    # The batch's size only has to divide over the devices.
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    size = -(-config.training.batch // parts) * parts
    batches = evaluation_batches(data, index, split, config.data.context, size, limit)
    with tqdm(
        total=index.frames(split), unit="frame", unit_scale=True, disable=not progress, desc=f"evaluating {split}"
    ) as bar:
        for batch in batches:
            arrays = jax.device_put(batch.batch, batch_sharding(mesh))
            result = jax.device_get(eval_fn(params, arrays, jnp.asarray(null_mel)))
            bar.update(_add(scores, batch, result, log_unigram, log_bigram))
    return scores


def _add(
    scores: SplitScores, evaluated: EvaluationBatch, result: Scores, log_unigram: np.ndarray, log_bigram: np.ndarray
) -> int:
    """Adds a batch's windows to the scores; returns the number of frames."""
    batch, bos = evaluated.batch, len(log_unigram)
    previous = np.where(batch.starts, bos, batch.tokens[:, :-1, 0])
    unigram, bigram = -log_unigram[batch.targets], -log_bigram[previous, batch.targets]
    weights = batch.weights
    for row, (record, _) in enumerate(evaluated.origins):
        for number in np.unique(batch.segment_ids[row][weights[row]]):
            here = batch.segment_ids[row] == number
            segment = record.segments[number - 1]
            document = scores.documents.setdefault(segment.document, DocumentScores(segment.domain))
            # The first position of a piece cut out of its document already sees the frame before the window.
            seen = batch.positions[row, here] + (not batch.starts[row, here][0])
            np.add.at(scores.position_nll, seen, result.nll[row, here])
            np.add.at(scores.position_frames, seen, 1)
            document.frames += int(here.sum())
            document.nll += float(result.nll[row, here].sum(dtype=np.float64))
            document.top1 += int((result.rank[row, here] < 1).sum())
            document.top10 += int((result.rank[row, here] < 10).sum())
            document.unigram += float(unigram[row, here].sum())
            document.bigram += float(bigram[row, here].sum())
    return int(weights.sum())


def _write(folder: Path, name: str, summary: dict[str, Any], scores: SplitScores) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(summary, indent=1) + "\n")
    with open(folder / f"{name}.documents.jsonl", "w") as file:
        for document, row in sorted(scores.documents.items()):
            file.write(json.dumps({"document": document, **dataclasses.asdict(row)}) + "\n")


def format_table(summary: dict[str, Any]) -> str:
    """An evaluation as text for a terminal."""
    sources = {"original": "the original's mel: conditional on side information", "null": "null mel", "none": "no mel"}
    lines = [
        f"{summary['run']}, step {summary['step']}: {summary['inputs']} model, {summary['parameters']:,} parameters",
        f"{summary['split']} split, {summary['documents']} documents, {summary['frames']:,} frames; "
        f"under {sources[summary['mel_source']]}",
        *([] if summary["codec_causal"] else ["WARNING: the codec is not causal, its tokens contain the future"]),
        "",
        f"{'':12} {'NLL':>8} {'+-':>7} {'bits/s':>8} {'PPL':>9} {'top-1 %':>8} {'top-10 %':>9} {'unigram':>8} "
        f"{'bigram':>8}",
    ]
    rows = {"all": summary, **summary.get("by_domain", {})}
    for name, row in rows.items():
        lines.append(
            f"{name:12} {row['nll']:8.4f} {format_stderr(row['nll_stderr']):>7} "
            f"{row['bits_per_second']:8.1f} {row['ppl']:9.2f} "
            f"{100 * row['top1']:8.2f} {100 * row['top10']:9.2f} {row['unigram_nll']:8.4f} {row['bigram_nll']:8.4f}"
        )
    lines += ["", "frames seen before   NLL"]
    for row in summary["by_position"]:
        lines.append(f"{row['first']:>6} - {row['last']:<9} {row['nll']:7.4f}")
    return "\n".join(lines)
