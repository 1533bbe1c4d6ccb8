"""What a preparation leaves behind for the rest of the package, and what it tells the person."""

import importlib.metadata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wgpt_jax.data.index import SPLITS, CodecInfo, DataIndex, save_index
from wgpt_jax.data.ngrams import count_ngrams, save_ngrams
from wgpt_jax.mel_sources import ORIGINAL
from wgpt_jax.prepare.convert import Conversion
from wgpt_jax.prepare.shards import ShardReport, read_records

_FAILURES_SHOWN = 10


def write_index(
    out: Path, reports: Sequence[ShardReport], codec: CodecInfo, conversion: Conversion, request: dict[str, Any]
) -> DataIndex:
    """Writes ``ngrams.npz`` of the train split and, last, ``index.json``.

    Args:
        out: the data folder.
        reports: of every shard, finished.
        codec: identity of the codec.
        conversion: what the arrays are.
        request: source and split options.
    """
    shards = tuple(report.shard for report in reports if report.documents)
    failed = sorted((failure["path"], failure["reason"]) for report in reports for failure in report.failed)
    train = (record for shard in shards if shard.split == "train" for record in read_records(out / shard.file))
    save_ngrams(count_ngrams(train, codec.codebook_size), out)
    index = DataIndex(
        clock=conversion.clock,
        codec=codec,
        codebooks=conversion.codebooks,
        mel=conversion.mel,
        mel_sources=conversion.mel_sources,
        shards=shards,
        domains=tuple(sorted({document["domain"] for report in reports for document in report.documents})),
        failed=tuple({"path": path, "reason": reason} for path, reason in failed),
        options=request,
        tool_version=_version(),
    )
    save_index(index, out)
    return index


def describe(index: DataIndex, reports: Sequence[ShardReport], out: Path) -> str:
    """The closing lines: hours, documents and frames per split and domain, failures, the next command."""
    documents: Counter[tuple[str, str]] = Counter()
    frames: Counter[tuple[str, str]] = Counter()
    for report in reports:
        for document in report.documents:
            documents[report.shard.split, document["domain"]] += 1
            frames[report.shard.split, document["domain"]] += document["frames"]
    rows = [(split, domain) for split in SPLITS for domain in index.domains if documents[split, domain]]
    width = max([len("domain"), *map(len, index.domains)])
    lines = [f"{'split':<10}  {'domain':<{width}}  {'hours':>10}  {'documents':>9}  {'frames':>13}"]
    for row in rows:
        hours = _hours(index.clock.seconds(frames[row]))
        lines.append(f"{row[0]:<10}  {row[1]:<{width}}  {hours:>10}  {documents[row]:>9,}  {frames[row]:>13,}")
    causal = "" if index.codec.causal else ", NOT CAUSAL: its tokens contain the future"
    lines += [
        "",
        f"codec   {index.codec.name} ({index.codec.fingerprint}), {index.codebooks} codebooks of "
        f"{index.codec.codebook_size}, {index.clock.frames_per_second:g} frames/s{causal}",
        f"mel     {', '.join(index.mel_sources)} ({index.mel.bands} bands)",
        f"index   {out / 'index.json'} ({len(index.shards)} shards)",
        *describe_failures(index),
        *_notes(index),
        f"next    wgpt train configs/demo_hybrid.py --data {out} --workdir RUN{''.join(_flags(index))}",
    ]
    return "\n".join(lines)


def _flags(index: DataIndex) -> list[str]:
    """What configs/demo_hybrid.py, made for codebooks of 1024 entries and two mels, must be told about other data."""
    flags = []
    if not {ORIGINAL, "codec1"} <= set(index.mel_sources):
        flags.append(f" --data.mel-mix {index.mel_sources[0]} 1")
    if index.codec.codebook_size != 1024:
        flags.append(f" --model.vocabulary {index.codec.codebook_size}")
    if index.mel.bands != 64:
        flags.append(f" --model.mel-bands {index.mel.bands}")
    return flags


def describe_failures(index: DataIndex) -> list[str]:
    """The first failures with their reasons; nothing if there are none."""
    if not index.failed:
        return []
    lines = [f"FAILED  {len(index.failed)} files could not be used:"]
    for failure in index.failed[:_FAILURES_SHOWN]:
        printable = failure["path"].encode(errors="backslashreplace").decode()
        lines.append(f"          {printable}: {failure['reason']}")
    if len(index.failed) > _FAILURES_SHOWN:
        lines.append(f"          ... and {len(index.failed) - _FAILURES_SHOWN} more, see failed in the index")
    return lines


def _hours(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _notes(index: DataIndex) -> list[str]:
    unit = f"{index.options['split_by']}s"
    return [
        f"note    no {split} documents: there are too few {unit} to spare one"
        for split in ("validation", "test")
        if index.options[split] > 0 and not index.documents(split)
    ]


def _version() -> str:
    try:
        return importlib.metadata.version("wgpt_jax")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        return "unknown"
