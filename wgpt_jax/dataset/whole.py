"""Checks of a data set as a whole: what its index, its plan and its other files say against what its shards hold."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from wgpt_jax.data.index import SPLITS, DataIndex
from wgpt_jax.dataset.beside import check_codec, check_statistics
from wgpt_jax.dataset.check import Check, passed_or_failed
from wgpt_jax.dataset.folder import Prepared, missing_packages, name_of, printable
from wgpt_jax.dataset.survey import Survey
from wgpt_jax.errors import RequestError
from wgpt_jax.prepare.plan import PLAN_NAME, read_plan
from wgpt_jax.prepare.splits import find_leaks
from wgpt_jax.prepare.storage import LocalStorage

if TYPE_CHECKING:
    from wgpt_jax.prepare.shards import ShardReport

    Reports = Mapping[str, ShardReport | None]
    """By the name of the shard's file; None for one that is missing or damaged."""

_SUFFIX = ".array_record"
_ROUNDED = 1e-4  # hours have four digits behind the point
_LEAKS_SHOWN = 5


def check_set(prepared: Prepared, survey: Survey) -> Iterator[Check]:
    """All that is checked without the audio, a line or more each.

    Args:
        prepared: the data set.
        survey: of its shards.
    """
    index, storage = prepared.index, LocalStorage(str(prepared.folder))
    reports = _load_reports(index, storage)
    size = sum(found.size for found in survey.findings.values()) / 1e6
    shards, records = len(index.shards), sum(shard.records for shard in index.shards)
    documents = sum(shard.documents for shard in index.shards)
    frames = sum(shard.frames for shard in index.shards)
    yield from passed_or_failed(
        "index", _options(index), f"tool version {index.tool_version}, {len(prepared.inputs):,} inputs"
    )
    yield from passed_or_failed("plan", _plan(index, storage), f"{PLAN_NAME} plans the shards that are there")
    if reports is None:
        yield Check("reports", "note", f"not checked: {missing_packages()}")
    else:
        yield from passed_or_failed("reports", _reports(index, reports), "each shard's says what the index says")
    yield from passed_or_failed(
        "shards", _shards(index, survey), f"{shards:,} are there, sha256 as in the index ({size:,.1f} MB)"
    )
    yield from passed_or_failed("records", _records(index, survey), f"{records:,} decode, arrays as the index says")
    yield from passed_or_failed("values", survey.problems("values"), "tokens in range, mel finite and in range")
    yield from passed_or_failed(
        "documents",
        _documents(index, survey),
        f"{documents:,} of {frames:,} frames, each predicted exactly once, none in two splits",
    )
    yield from passed_or_failed("inputs", _inputs(prepared, survey), "those used are in the shards that they name")
    yield from check_statistics(prepared, survey)
    yield from check_codec(prepared)
    yield from _leaks(index, reports)


def _options(index: DataIndex) -> Iterator[str]:
    """What the index says twice."""
    options = {
        "num_codebooks": index.codebooks,
        "codec_fingerprint": index.codec.fingerprint,
        "mel_sources": ",".join(index.mel_sources),
        **{f"mel.{key}": value for key, value in vars(index.mel).items()},
    }
    for key, value in options.items():
        if index.options.get(key) != value:
            yield f"{key} is {value}, its options say {index.options.get(key)}"


def _plan(index: DataIndex, storage: LocalStorage) -> Iterator[str]:
    try:
        plan = read_plan(storage)
    except RequestError as error:
        yield f"{error}"
        return
    if plan is None:
        yield f"there is no {PLAN_NAME}: nothing can be repaired or added; prepare the audio again into another OUT"
        return
    if plan.options != index.options:
        yield f"{PLAN_NAME} has other options than the index"
    there = {shard.file for shard in index.shards}
    planned = {shard.name + _SUFFIX for shard in plan.shards}
    yield from (f"{file} is in no plan" for file in sorted(there - planned))
    for file in sorted(planned - there):
        if _has_documents(storage.read(f"{file.removesuffix(_SUFFIX)}.json")):
            yield f"{file} is planned and not in the index: the preparation was not finished"


def _has_documents(report: bytes | None) -> bool:
    """Whether a planned shard has any: one none of whose inputs could be read has a report and nothing else."""
    try:
        return bool(json.loads(report or b"")["documents"])
    except (ValueError, TypeError, KeyError):
        return True


def _load_reports(index: DataIndex, storage: LocalStorage) -> "Reports | None":
    """The report of each shard; None where what makes shards is not installed."""
    if missing_packages():
        return None
    from wgpt_jax.prepare.shards import load_report

    return {shard.file: load_report(shard.file.removesuffix(_SUFFIX), storage) for shard in index.shards}


def _reports(index: DataIndex, reports: "Reports") -> Iterator[str]:
    for shard in index.shards:
        report = reports[shard.file]
        if report is None:
            yield f"{shard.file.removesuffix(_SUFFIX)}.json is missing or damaged"
        elif report.shard != shard:
            yield f"{report.name}.json is not of the {shard.file} that the index tells of"


def _shards(index: DataIndex, survey: Survey) -> Iterator[str]:
    yield from survey.problems("shards")
    for shard in index.shards:
        found = survey.findings[shard.file]
        if found.sha256 not in ("", shard.sha256):
            yield f"{shard.file} is damaged: its sha256 is not that of the index"


def _records(index: DataIndex, survey: Survey) -> Iterator[str]:
    yield from survey.problems("records")
    for shard in index.shards:
        found = survey.findings[shard.file].records
        if found and found != shard.records:
            yield f"{shard.file} holds {found:,} records, the index says {shard.records:,}"


def _documents(index: DataIndex, survey: Survey) -> Iterator[str]:
    yield from survey.problems("documents")
    seen: dict[str, str] = {}
    for shard in index.shards:
        found = survey.findings[shard.file]
        for name in found.documents:
            if name in seen:
                yield f"{printable(name)} is in {seen[name]} and in {shard.file}"
            seen[name] = shard.file
        if shard.file in survey.uncounted:
            continue
        if (len(found.documents), found.frames) != (shard.documents, shard.frames):
            yield (
                f"{shard.file} holds {len(found.documents):,} documents of {found.frames:,} frames, the index says "
                f"{shard.documents:,} of {shard.frames:,}"
            )
    if survey.uncounted:
        return
    for split in SPLITS:
        counted = sum(survey.findings[shard.file].frames for shard in index.shards if shard.split == split)
        hours = index.clock.seconds(counted) / 3600
        said = index.hours.get(split)
        if not isinstance(said, int | float) or abs(said - hours) > _ROUNDED:
            yield f"the {split} split has {hours:.4f} hours, the index says {said}"
    domains = {domain for found in survey.findings.values() for _, domain in found.documents.values()}
    if domains != set(index.domains):
        yield f"the domains are {', '.join(sorted(domains))}, the index says {', '.join(index.domains)}"


def _inputs(prepared: Prepared, survey: Survey) -> Iterator[str]:
    """Inputs that are used against documents that are stored."""
    index, missing = prepared.index, prepared.used()
    for shard in index.shards:
        for name, (frames, domain) in survey.findings[shard.file].documents.items():
            row = missing.pop(name, None)
            if row is None:
                yield f"{printable(name)} is in {shard.file}, and not once among the used inputs of the index"
            elif (row["shard"], row["split"]) != (shard.file, shard.split):
                yield f"{printable(name)} is in {shard.file}, the index says {row['shard']} ({row['split']})"
            elif row["frames"] != frames and shard.file not in survey.uncounted:
                yield f"{printable(name)} has {frames:,} frames in {shard.file}, the index says {row['frames']:,}"
            elif row.get("domain", "") != domain:
                yield f"{printable(name)} is of domain {domain} in {shard.file}, the index says {row.get('domain')}"
    for name, row in missing.items():
        if row["shard"] not in survey.uncounted:
            yield f"{printable(name)} is not in {row['shard']}, where the index says it is"
    failed = sum(row["fate"] == "failed" for row in prepared.inputs)
    if failed != len(index.failed):
        yield f"{failed:,} inputs have failed, the index lists {len(index.failed):,}"
    repeated = [name for name, count in Counter(map(name_of, prepared.inputs)).items() if count > 1]
    yield from (f"{printable(name)} is listed more than once" for name in repeated)


def _leaks(index: DataIndex, reports: "Reports | None") -> Iterator[Check]:
    if reports is not None and None not in reports.values():
        used = [(d.item, shard.split) for shard in index.shards for d in reports[shard.file].documents]
        if find_leaks(used) != index.leaks:
            yield Check("leaks", "FAILED", "the index does not say what is in more than one split")
            return
    for kind, values in index.leaks.items():
        if values:
            some = ", ".join(map(printable, values[:_LEAKS_SHOWN])) + (", ..." if len(values) > _LEAKS_SHOWN else "")
            yield Check("leaks", "note", f"{len(values):,} by {kind} in more than one split: {some}")
    if not any(index.leaks.values()):
        yield Check("leaks", "ok", f"no {' or '.join(index.leaks)} is in more than one split")
