"""What a preparation leaves behind for the rest of the package, and what it tells the person."""

import importlib.metadata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from wgpt_jax.data.index import INDEX_NAME, SPLITS, CodecInfo, DataIndex, index_text
from wgpt_jax.data.ngrams import NGRAMS_NAME, ngrams_bytes
from wgpt_jax.data.statistics import Statistics
from wgpt_jax.errors import WorkError
from wgpt_jax.mel_sources import ORIGINAL
from wgpt_jax.prepare.convert import Conversion
from wgpt_jax.prepare.inspection import Inspected
from wgpt_jax.prepare.items import Item
from wgpt_jax.prepare.shards import ShardReport, load_statistics
from wgpt_jax.prepare.splits import find_leaks
from wgpt_jax.prepare.storage import Storage

_FAILURES_SHOWN = 10
_LEAKS_SHOWN = 5


def write_index(
    storage: Storage,
    reports: Sequence[ShardReport],
    inputs: Sequence[dict[str, Any]],
    codec: CodecInfo,
    conversion: Conversion,
    options: dict[str, Any],
) -> DataIndex:
    """Writes ``ngrams.npz`` of the train split and, last, ``index.json``.

    Args:
        storage: of the data set.
        reports: of every shard, finished.
        inputs: every input and its fate, of :func:`fates`.
        codec: identity of the codec.
        conversion: what the arrays are.
        options: the request.
    """
    stored = [report for report in reports if report.documents]
    statistics = {split: _empty(codec, conversion) for split in SPLITS}
    for report in stored:
        found = load_statistics(report, storage)
        if found is None:
            raise WorkError(f"the statistics of {report.shard.file} went away; run the same command again")
        statistics[report.shard.split].add(found)
    whole = _empty(codec, conversion)
    for part in statistics.values():
        whole.add(part)
    used = [(document.item, report.shard.split) for report in stored for document in report.documents]
    seconds = conversion.clock.seconds
    index = DataIndex(
        clock=conversion.clock,
        codec=codec,
        codebooks=conversion.codebooks,
        mel=conversion.mel,
        mel_sources=conversion.mel_sources,
        shards=tuple(report.shard for report in stored),
        domains=tuple(sorted({item.domain for item, _ in used})),
        failed=tuple({key: row[key] for key in ("path", "name", "reason") if key in row} for row in _failed(inputs)),
        options=options,
        tool_version=_version(),
        hours={split: round(seconds(part.frames) / 3600, 4) for split, part in statistics.items()},
        leaks=find_leaks(used),
        statistics=whole.summary(conversion.mel_sources),
    )
    storage.write(NGRAMS_NAME, ngrams_bytes(statistics["train"].ngrams()))
    storage.write(INDEX_NAME, index_text(index, inputs).encode())
    return index


def fates(
    reports: Sequence[ShardReport], inspected: Mapping[str, Inspected], duplicates: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Every input and what became of it, sorted by name: JSON values.

    An input that is stored is ``used``, also if its source no longer has it.
    """
    rows: dict[str, dict[str, Any]] = {}
    for report in reports:
        for document in report.documents:
            rows[document.item.name] = _row(
                document.item,
                fate="used",
                split=report.shard.split,
                shard=report.shard.file,
                seconds=document.seconds,
                frames=document.frames,
            )
        for failure in report.failed:
            rows[failure.item.name] = _row(failure.item, fate="failed", reason=failure.reason)
    for name, entry in inspected.items():
        if name in rows:
            continue
        if name in duplicates:
            rows[name] = _row(entry.item, fate="skipped", reason=f"the same audio as {duplicates[name]}")
        else:
            rows[name] = _row(entry.item, fate="failed", reason=entry.reason)
    return [rows[name] for name in sorted(rows)]


def describe(index: DataIndex, inputs: Sequence[dict[str, Any]], changed: Sequence[str], out: str) -> str:
    """The closing lines: hours, documents and frames per split and domain, failures, the next command.

    Args:
        index: of the data set.
        inputs: every input and its fate.
        changed: inputs whose audio is no longer what is stored.
        out: the data set's folder.
    """
    documents: Counter[tuple[str, str]] = Counter()
    frames: Counter[tuple[str, str]] = Counter()
    for row in (row for row in inputs if row["fate"] == "used"):
        documents[row["split"], row["domain"]] += 1
        frames[row["split"], row["domain"]] += row["frames"]
    rows = [(split, domain) for split in SPLITS for domain in index.domains if documents[split, domain]]
    width = max([len("domain"), *map(len, index.domains)])
    lines = [f"{'split':<10}  {'domain':<{width}}  {'hours':>10}  {'documents':>9}  {'frames':>13}"]
    for row in rows:
        hours = _hours(index.clock.seconds(frames[row]))
        lines.append(f"{row[0]:<10}  {row[1]:<{width}}  {hours:>10}  {documents[row]:>9,}  {frames[row]:>13,}")
    causal = "" if index.codec.causal else ", NOT CAUSAL: its tokens contain the future"
    entropy = index.statistics.get("tokens", {}).get("entropy_bits", [])
    fate = Counter(row["fate"] for row in inputs)
    lines += [
        "",
        f"inputs  {len(inputs):,}: {', '.join(f'{fate[name]:,} {name}' for name in ('used', 'skipped', 'failed'))}",
        f"codec   {index.codec.name} ({index.codec.fingerprint}), {index.codebooks} codebooks of "
        f"{index.codec.codebook_size}, {index.clock.frames_per_second:g} frames/s{causal}",
        f"tokens  {', '.join(f'{bits:.2f}' for bits in entropy)} bits of entropy per codebook",
        f"mel     {', '.join(index.mel_sources)} ({index.mel.bands} bands)",
        f"index   {out}/{INDEX_NAME} ({len(index.shards)} shards)",
        *describe_failures(inputs),
        *_notes(index, inputs, changed),
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


def describe_failures(inputs: Sequence[dict[str, Any]]) -> list[str]:
    """The first failures with their reasons; nothing if there are none."""
    failed = list(_failed(inputs))
    if not failed:
        return []
    lines = [f"FAILED  {len(failed):,} inputs could not be used:"]
    for row in failed[:_FAILURES_SHOWN]:
        printable = row.get("name", row["path"]).encode(errors="backslashreplace").decode()
        lines.append(f"          {printable}: {row['reason']}")
    if len(failed) > _FAILURES_SHOWN:
        lines.append(f"          ... and {len(failed) - _FAILURES_SHOWN:,} more, see failed in the index")
    return lines


def _notes(index: DataIndex, inputs: Sequence[dict[str, Any]], changed: Sequence[str]) -> Iterator[str]:
    """What the person should know before training on it."""
    for kind, values in index.leaks.items():
        if values:
            some = ", ".join(values[:_LEAKS_SHOWN]) + (", ..." if len(values) > _LEAKS_SHOWN else "")
            remedy = "" if index.options.get("split_by") == kind else f"; --split-by {kind} keeps each in one"
            what = f"1 {kind} is" if len(values) == 1 else f"{len(values):,} {kind}s are"
            yield f"LEAK    {what} in more than one split: {some}{remedy}"
    if index.leaks and not any(index.leaks.values()):
        yield f"splits  no {', '.join(list(index.leaks)[:-1])} or {list(index.leaks)[-1]} is in more than one"
    skipped = sum(row["fate"] == "skipped" for row in inputs)
    if skipped:
        yield f"note    {skipped:,} inputs have the same audio as others, and are left out"
    if changed:
        yield (
            f"note    {len(changed):,} inputs have changed since they were stored ({changed[0]}, ...); what is stored "
            "stays as it was: prepare into another OUT to take them in anew"
        )
    for split in ("validation", "test"):
        if index.options.get(split, 0) > 0 and not index.documents(split):
            yield f"note    no {split} documents: there are too few {index.options['split_by']}s to spare one"


def _row(item: Item, **fields: Any) -> dict[str, Any]:
    row = {"path": item.path} | ({} if item.name == item.path else {"name": item.name}) | fields
    for key in ("speaker", "domain", "metadata"):
        if getattr(item, key):
            row[key] = getattr(item, key)
    return row


def _failed(inputs: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (row for row in inputs if row["fate"] == "failed")


def _empty(codec: CodecInfo, conversion: Conversion) -> Statistics:
    return Statistics.empty(
        conversion.codebooks, codec.codebook_size, len(conversion.mel_sources), conversion.mel.bands
    )


def _hours(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _version() -> str:
    try:
        return importlib.metadata.version("wgpt_jax")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        return "unknown"
