"""Evaluation: every document of a split exactly once, against n-gram models of the training split."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from tqdm import tqdm

from wgpt_jax.config import Config, MeshConfig, Weights
from wgpt_jax.data.index import INDEX_NAME, DataIndex, file_sha256, load_index
from wgpt_jax.data.ngrams import load_ngrams
from wgpt_jax.data.pipeline import EvaluationBatch, evaluation_batches
from wgpt_jax.data.records import Record
from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.mel_sources import CENTRED, LATENT, NONE, NULL, ORIGINAL, codec_codebooks
from wgpt_jax.parallel.hosts import check_same, first_together
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
    """Per document and position, under the mel source that the summary names."""


def evaluate(
    run: str | os.PathLike,
    data: str | os.PathLike,
    split: str = "validation",
    *,
    step: int | str = "latest",
    weights: Weights = "raw",
    mel: str = "all",
    progress: bool = True,
) -> Evaluation:
    """Scores a run on a split of prepared data and writes the result into the run folder.

    Args:
        run: run folder.
        data: prepared data, made with the run's codec and mel.
        split: train, validation or test.
        step: a checkpoint's step, ``latest`` or ``best``.
        weights: ``raw``, or ``ema`` for the averaged ones (``optimizer.ema``).
        mel: what a hybrid reads: one of the data's mel sources, ``null`` for the null mel, or ``all`` of them one after
            the other. :func:`meaning` says what an NLL under each is. Token-only models read none: ``all`` it stays.
        progress: whether to show progress bars.

    Returns:
        the summary and the scores behind it. The summary is of ``mel``, of the main source where that is ``all``;
        ``by_mel_source`` has the rest then.

    Raises:
        RequestError: if the run, the data, the split, the step or the mel is not there, or they do not belong together.
    """
    info, index = read_run(run), load_index(data)
    check_data_is_readable(info, index, run, data)
    check_model_fits_data(info.config, index, data)
    sources = _sources(mel, info.config, index, data)
    asked = {"the data's index.json": file_sha256(Path(data) / INDEX_NAME), "step": step, "split": split, "mel": mel}
    asked["weights"] = weights
    check_same("the request", asked, "start all processes with the same command")
    folder = RunFolder(run).evaluation
    with _writing(folder):  # now, not after all the scoring
        folder.mkdir(exist_ok=True)
        (folder / ".probe").touch()
        (folder / ".probe").unlink(missing_ok=True)
    mesh = make_mesh(MeshConfig())
    graph, params, step = load_network(run, info, mesh, step, weights)
    eval_fn = first_together("the first evaluation", make_eval_step(info.config.model, graph, mesh, params))
    scores = {
        source: score_split(eval_fn, params, data, index, split, info.config, mesh, mel=source, progress=progress)
        for source in sources
    }
    rows = {source: _row(scores[source], index) for source in sources}
    same_data = training_data_fingerprint(index) == info.data_fingerprint
    summary = {
        "run": str(run),
        "data": str(data),
        "same_data": same_data,
        "step": step,
        "weights": weights,
        "split": split,
        "inputs": info.config.model.inputs,
        "input_codebooks": info.config.model.input_codebooks,
        "output_codebooks": info.config.model.output_codebooks,
        "pattern": info.config.model.pattern,
        "mel_source": sources[0],
        "mel_mix": {} if sources[0] == NONE else info.config.data.mel_mix,
        "parameters": sum(info.parameters.values()),
        **rows[sources[0]],
        "context": info.config.data.context,
        "codec": info.codec.name,
        "codec_causal": info.codec.causal,
    }
    if len(sources) > 1:
        summary["by_mel_source"] = rows
    which = f"{split}-{step}" + ("-ema" if weights == "ema" else "")
    other_data = "" if same_data else f"-{training_data_fingerprint(index)}"
    if jax.process_index() == 0:
        with _writing(folder):
            for source in sources:
                _write_documents(folder / f"{which}-{source}{other_data}.documents.jsonl", scores[source])
            (folder / f"{which}-{sources[0]}{other_data}.json").write_text(json.dumps(summary, indent=1) + "\n")
    return Evaluation(summary, scores[sources[0]])


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WorkError(f"cannot write the evaluation into {folder}: {error.strerror}") from error


def main_source(config: Config, index: DataIndex) -> str:
    """What a model reads if nothing else is asked for: the heaviest source of its training, or the data's first."""
    if config.model.inputs == "tokens":
        return NONE
    return config.data.main_mel if config.data.main_mel in index.mel_sources else index.mel_sources[0]


def meaning(source: str, output_codebooks: int, input_codebooks: int) -> str:
    """What an NLL under a mel source is, in a phrase, of a model that reads and predicts so many codebooks."""
    codebooks = codec_codebooks(source)
    if source == CENTRED:
        return "no result: this mel looks ahead of its frame, a leak made on purpose"
    if source in (ORIGINAL, LATENT):
        what = "the original's mel" if source == ORIGINAL else "the codec's latent"
        return f"conditional on side information: {what} holds more than the tokens"
    if max(input_codebooks, codebooks or 0) > output_codebooks:
        return "conditional on side information: codebooks that the model does not predict"
    tokens = "the token sequence" if output_codebooks == 1 else f"all {output_codebooks} codebooks, in their total"
    why = "no mel is read" if codebooks is None else "this mel is a function of the tokens before"
    return f"a likelihood of {tokens}: {why}"


def _sources(mel: str, config: Config, index: DataIndex, data: str | os.PathLike) -> list[str]:
    """The mel sources to score a run under, the main one first."""
    main = main_source(config, index)
    if main == NONE:
        if mel != "all":
            raise RequestError(f"--mel {mel}: a token-only model reads no mel; leave --mel out")
        return [main]
    possible = [main, *(name for name in index.mel_sources if name != main), NULL]
    if mel not in ("all", *possible):
        have = ", ".join(index.mel_sources)
        raise RequestError(f"--mel {mel}: the data in {data} has {have}; give one of them, null or all")
    return possible if mel == "all" else [mel]


def _row(scores: SplitScores, index: DataIndex) -> dict[str, Any]:
    """What a summary says of the scores under one mel source."""
    rate = index.clock.frames_per_second
    calibration = {"ece": scores.ece(), "calibration": scores.calibration()}
    positions = {"by_position": scores.by_position(), "by_document_position": scores.by_document_position()}
    row = {**scores.summary(rate), **positions, **calibration}
    domains = sorted({document.domain for document in scores.documents.values()})
    if len(domains) > 1:
        row["by_domain"] = {name: scores.summary(rate, name) for name in domains}
    return row


def load_network(
    run: str | os.PathLike, info: RunInfo, mesh: Mesh, step: int | str = "latest", weights: Weights = "raw"
) -> tuple[nnx.GraphDef, nnx.State, int]:
    """A run's network: its graph, the parameters of a checkpoint on ``mesh``, and the checkpoint's step.

    Raises:
        RequestError: if the checkpoint, or its average for ``ema``, is not there or cannot be read.
    """
    graph, abstract = abstract_model(info.config.model, mesh)
    folder = RunFolder(run)
    with Checkpoints(folder.checkpoints, evaluated=folder.evaluated()) as checkpoints:
        params, step = checkpoints.restore_params(abstract, step, ema=weights == "ema")
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
    mel: str,
    limit: int = 0,
    progress: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> SplitScores | None:
    """Runs the evaluation step over a split.

    Args:
        eval_fn: from :func:`wgpt_jax.training.step.make_eval_step`.
        params: the network's parameters.
        data: prepared data.
        index: its index.
        split: which split.
        config: for the context length and the batch size.
        mesh: where the batches lie.
        mel: a mel source of the data, ``null``, or ``none`` for a token-only model; see :func:`main_source`.
        limit: windows at most; 0 for every document.
        progress: whether to show a progress bar.
        stop: asked before each batch whether to give up.

    Returns:
        the scores; None if it gave up.
    """
    ngrams = load_ngrams(data)
    log_unigram, log_bigram = np.log(ngrams.unigram()), np.log(ngrams.bigram())
    scores = SplitScores(config.data.context)
    source = index.mel_sources.index(mel) if mel in index.mel_sources else 0
    # The batch's size only has to divide over the devices.
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    size = -(-config.training.batch // parts) * parts
    batches = evaluation_batches(data, index, split, config.data.context, size, limit, source)
    label = f"evaluating {split}" + ("" if mel == NONE else f", {mel} mel")
    sharding = batch_sharding(mesh)
    # A bar on a terminal only (None): in a log file it would be a line without end.
    hidden = None if progress else True
    with tqdm(total=index.frames(split), unit="frame", unit_scale=True, disable=hidden, desc=label) as bar:
        for batch in batches:
            if stop():
                return None
            # Every process has read the whole batch; device_put would send it round to see whether that is so.
            arrays = jax.tree.map(
                lambda field: jax.make_array_from_callback(field.shape, sharding, field.__getitem__), batch.batch
            )
            result = jax.device_get(eval_fn(params, arrays, jnp.asarray(mel == NULL)))
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
    for row, (record, start) in enumerate(evaluated.origins):
        for number in np.unique(batch.segment_ids[row][weights[row]]):
            here = batch.segment_ids[row] == number
            segment = record.segments[number - 1]
            document = scores.documents.setdefault(segment.document, DocumentScores(segment.domain))
            # The first position of a piece cut out of its document already sees the frame before the window.
            seen = batch.positions[row, here] + (not batch.starts[row, here][0])
            nll, rank = result.nll[row, here], result.rank[row, here]
            np.add.at(scores.position_nll, seen, nll[:, 0])
            np.add.at(scores.position_frames, seen, 1)
            scores.add_in_document(_place(record, number, start, here), nll[:, 0])
            document.add(nll, rank)
            scores.add_confidence(result.confidence[row, here], rank[:, 0] == 0)
            document.unigram += float(unigram[row, here].sum())
            document.bigram += float(bigram[row, here].sum())
    return int(weights.sum())


def _place(record: Record, number: int, start: int, here: np.ndarray) -> np.ndarray:
    """Index in its document, int [n], of each frame of a window that is ``here``, bool [T], of segment ``number``."""
    begins = sum(segment.length for segment in record.segments[: number - 1])
    return record.segments[number - 1].start + start + np.flatnonzero(here) - begins


def _write_documents(path: Path, scores: SplitScores) -> None:
    with open(path, "w") as file:
        for document, row in sorted(scores.documents.items()):
            file.write(json.dumps({"document": document, **dataclasses.asdict(row)}) + "\n")


def _trained_on(summary: dict[str, Any]) -> bool:
    """Whether the main mel source was shown in training."""
    return summary["mel_source"] in (NONE, NULL) or summary["mel_mix"].get(summary["mel_source"], 0.0) > 0


def format_table(summary: dict[str, Any]) -> str:
    """An evaluation as text for a terminal."""
    main = summary["mel_source"]
    sources = summary.get("by_mel_source", {main: summary})
    step = f"step {summary['step']}" + (", averaged weights" if summary["weights"] == "ema" else "")
    lines = [
        f"{summary['run']}, {step}: {summary['inputs']} model, {summary['parameters']:,} parameters",
        f"{summary['split']} split, {summary['documents']} documents, {summary['frames']:,} frames",
        *([] if summary["codec_causal"] else ["WARNING: the codec is not causal, its tokens contain the future"]),
        *([] if _trained_on(summary) else [f"WARNING: trained on {', '.join(summary['mel_mix'])}, never on {main}"]),
        "",
        f"{'mel':12} {'coarse':>8} {'+-':>7} {'bits/s':>8} {'PPL':>9} {'top-1 %':>8} {'top-10 %':>9} {'unigram':>8} "
        f"{'bigram':>8} {'ECE %':>6}",
    ]
    domains = {f"  {name}": row for name, row in summary.get("by_domain", {}).items()}
    for name, row in {main: summary, **domains, **sources}.items():
        lines.append(
            f"{name:12} {row['nll']:8.4f} {format_stderr(row['nll_stderr']):>7} "
            f"{row['bits_per_second']:8.1f} {row['ppl']:9.2f} "
            f"{100 * row['top1']:8.2f} {100 * row['top10']:9.2f} {row['unigram_nll']:8.4f} {row['bigram_nll']:8.4f}"
            # Of all documents together: a domain's row has none.
            + (f" {100 * row['ece']:6.2f}" if "ece" in row else "")
        )
    lines += [
        "",
        *(f"{name:12} {meaning(name, summary['output_codebooks'], summary['input_codebooks'])}" for name in sources),
    ]
    if summary["output_codebooks"] > 1:
        heads = "".join(f"{name:>12}" for name in sources)
        lines += ["", f"{'codebook':12}{heads}   (mel) NLL, each codebook given those before it"]
        for k, rows in enumerate(zip(*(row["by_codebook"] for row in sources.values()), strict=True), start=1):
            lines.append(f"{k:<12}" + "".join(f"{row['nll']:12.4f}" for row in rows))
        totals = "".join(f"{row['total_bits_per_second']:12.1f}" for row in sources.values())
        lines.append(f"{'bits/s':12}{totals}   of all {summary['output_codebooks']} output codebooks")
    lines += ["", f"frames seen before   NLL (mel: {main})"]
    for row in summary["by_position"]:
        lines.append(f"{row['first']:>6} - {row['last']:<9} {row['nll']:7.4f}")
    return "\n".join(lines)
