"""The three stages of a preparation: inspect what is new, plan it, make what is missing."""

import dataclasses
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from wgpt_jax.errors import WorkError
from wgpt_jax.prepare.engines import local
from wgpt_jax.prepare.engines.outcome import Outcome
from wgpt_jax.prepare.inspection import Inspected, Inspector, Ledger, file_stamp
from wgpt_jax.prepare.items import Item
from wgpt_jax.prepare.plan import Plan, ShardPlan
from wgpt_jax.prepare.progress import show_progress
from wgpt_jax.prepare.shards import ShardMaker, ShardReport, ShardTask, is_intact, load_report
from wgpt_jax.prepare.splits import Splitting, assign_splits
from wgpt_jax.prepare.storage import Storage
from wgpt_jax.prepare.workplace import enter_workplace

_CHUNK = (32, 10**9)  # items, and bytes of their files, that are inspected by one task
_SAVE_EVERY = 60.0  # seconds, while inspecting
_PATIENCE = 3600.0  # seconds that inspecting a task may take: a decoder that hangs must not hold up the rest
_TRIES = 2  # for a shard whose process dies
_BAR = {"delay": 1, "leave": False, "disable": None, "file": sys.stderr}

Engine = Callable[..., Iterator[Outcome]]


@dataclasses.dataclass(frozen=True)
class Workforce:
    """Who does the work: processes of this machine, or a Beam pipeline."""

    workers: int
    """Processes that decode, and encode where there is no GPU."""
    encoders: int
    """Processes that encode."""
    beam: Callable[[Callable, Sequence], Iterator[Outcome]] | None = None
    """Runs tasks through Beam instead."""

    def run(self, work: Callable, tasks: Sequence, workers: int, **options) -> Iterator[Outcome]:
        """Outcomes of tasks, as they are done."""
        if self.beam is not None:
            return self.beam(work, tasks)
        return local.run_tasks(work, tasks, workers, **options)


def inspect_items(
    items: Sequence[Item], inspector: Inspector, ledger: Ledger, workforce: Workforce
) -> dict[str, Inspected]:
    """Inspects the items that are new or have changed; what is found is kept, also if this is interrupted.

    Returns:
        all of ``items``, by name.
    """
    root = inspector.source.root
    known = {item.name: ledger.get(item, root) for item in items}
    new = [item for item in items if known[item.name] is None]
    saved = time.monotonic()
    try:
        with tqdm(total=len(new), desc="inspecting", unit=" files", **_BAR) as bar:
            for chunk, found in _inspected(_chunks(new, root), inspector, workforce):
                ledger.add(chunk, found)
                known |= {entry.item.name: entry for entry in found}
                bar.update(len(chunk))
                if time.monotonic() > saved + _SAVE_EVERY:
                    ledger.save()
                    saved = time.monotonic()
    finally:
        if new:
            ledger.save()
    return known


def _chunks(items: Sequence[Item], root: str) -> list[list[Item]]:
    chunks: list[list[Item]] = []
    size = 0
    for item in items:
        if not chunks or len(chunks[-1]) == _CHUNK[0] or size > _CHUNK[1]:
            chunks.append([])
            size = 0
        chunks[-1].append(item)
        size += sum(file_stamp(root, item)[:1])
    return chunks


def _inspected(
    chunks: Sequence[Sequence[Item]], inspector: Inspector, workforce: Workforce
) -> Iterator[tuple[Sequence[Item], Sequence[Inspected]]]:
    """Chunks and what was found; the items of a chunk whose process died are tried one by one."""
    options = {"isolate": True, "timeout": _PATIENCE}
    died: list[list[Item]] = []
    for outcome in workforce.run(inspector, chunks, workforce.workers, **options):
        if outcome.died is None:
            yield outcome.task, outcome.result
        else:
            died += [[item] for item in outcome.task]
    for outcome in workforce.run(inspector, died, workforce.workers, **options):
        item = outcome.task[0]
        yield [item], outcome.result or [Inspected(item, (), reason=f"its decoder failed ({outcome.died})")]


@dataclasses.dataclass(frozen=True)
class Extension:
    """What a run makes of items that were not in the plan before."""

    duplicates: Mapping[str, str]
    """Item -> the item that has the same audio and is used."""
    changed: tuple[str, ...]
    """Items in the plan whose audio is no longer what is stored."""


def extend_plan(
    plan: Plan, inspected: Mapping[str, Inspected], reports: Mapping[str, ShardReport], splitting: Splitting
) -> Extension:
    """Adds shards for the items that are new, or that failed and have changed since.

    Of items with the same audio, one is used: one that is in the plan already, else one whose source gives it to test
    or validation, else the first by name.

    Args:
        plan: gets the shards; a repaired item leaves the shard it failed in.
        inspected: all items of the source, by name.
        reports: of the shards that are finished, by name.
        splitting: what goes together, and where.
    """
    shard_of = plan.shard_of()
    for report in reports.values():
        for failure in report.failed:
            entry = inspected.get(failure.item.name)
            if failure.item.name in shard_of and entry and not entry.reason and entry.stamp != failure.stamp:
                shard_of.pop(failure.item.name).items.remove(failure.item.name)
    stored = {document.item.name: document for report in reports.values() for document in report.documents}
    contents: dict[str, str] = {}  # of audio that is used -> item
    for name in shard_of:
        entry = inspected.get(name)
        content = stored[name].content if name in stored else entry.content if entry and not entry.reason else ""
        if content:
            contents.setdefault(content, name)
    new = [entry for name, entry in inspected.items() if name not in shard_of and not entry.reason]
    precedence = {"test": 0, "validation": 1}
    accepted, duplicates = [], {}
    for entry in sorted(new, key=lambda entry: (precedence.get(entry.item.split, 2), entry.item.name)):
        first = contents.setdefault(entry.content, entry.item.name)
        if first == entry.item.name:
            accepted.append(entry)
        else:
            duplicates[entry.item.name] = first

    planned = {name: inspected[name].item for name in shard_of if name in inspected}
    planned |= {name: stored[name].item for name in shard_of if name in stored}
    taken = {splitting.group(item): shard_of[name].split for name, item in planned.items()}
    for entry in accepted:
        if entry.item.split:
            taken.setdefault(splitting.group(entry.item), entry.item.split)
    groups = {splitting.group(item): item.domain for item in planned.values()}
    groups |= {splitting.group(entry.item): entry.item.domain for entry in accepted}
    drawn = assign_splits(groups, taken, splitting)
    splits = {entry.item.name: entry.item.split or drawn[splitting.group(entry.item)] for entry in accepted}
    plan.add({entry.item.name: entry.seconds for entry in accepted}, splits, splitting.seed)
    changed = (
        name
        for name, document in stored.items()
        if name in inspected and (inspected[name].reason or inspected[name].content != document.content)
    )
    return Extension(duplicates, tuple(sorted(changed)))


def finished_shards(plan: Plan, storage: Storage, *, hashed: bool = False) -> dict[str, ShardReport]:
    """Reports of the shards that are there as they were written, by name.

    Args:
        plan: of the data set.
        storage: where it is.
        hashed: compare every sha256, not only of shards whose size or time of change is another.
    """
    reports = {}
    for shard in tqdm(plan.shards, desc="checking", unit=" shards", **_BAR):
        report = load_report(shard.name, storage)
        if report is not None and is_intact(report, storage, hashed=hashed):
            reports[shard.name] = report
    return reports


def make_missing(
    plan: Plan,
    reports: Mapping[str, ShardReport],
    inspected: Mapping[str, Inspected],
    maker: ShardMaker,
    workforce: Workforce,
) -> list[ShardReport]:
    """Makes the shards that are not finished; returns the reports of all, in the plan's order.

    Raises:
        WorkError: if a shard cannot be written, or the process that makes it dies again and again.
    """
    reports = dict(reports)
    missing = [shard for shard in plan.shards if shard.name not in reports]
    tasks = [ShardTask(shard.name, shard.split, _inputs(shard, inspected)) for shard in missing]
    # The longest first, so that no process is left with one when the others have done.
    tasks.sort(key=lambda task: -sum(entry.seconds for entry in task.inputs))
    context = multiprocessing.get_context("spawn")
    seconds = context.Value("d", 0.0)
    total = sum(entry.seconds for task in tasks for entry in task.inputs)
    with tempfile.TemporaryDirectory() as seats, show_progress(total, seconds) as note_failures:
        options = {"initializer": enter_workplace, "initargs": (Path(seats), seconds)}
        for attempt in range(1, _TRIES + 1):
            died = []
            for outcome in workforce.run(maker, tasks, workforce.encoders, isolate=attempt > 1, **options):
                if outcome.died is None:
                    reports[outcome.result.name] = outcome.result
                    note_failures(len(outcome.result.failed))
                else:
                    died.append(outcome)
            if died and attempt == _TRIES:
                raise WorkError(
                    f"the process that makes shard {died[0].task.name} has died {_TRIES} times ({died[0].died}; out of "
                    "memory? fewer --workers need less); what was finished is kept, the same command continues"
                )
            tasks = [outcome.task for outcome in died]
    return [_without_moved(reports[shard.name], shard) for shard in plan.shards]


def _inputs(shard: ShardPlan, inspected: Mapping[str, Inspected]) -> tuple[Inspected, ...]:
    """What goes into a shard; an item that its source no longer lists, or that has become unusable, will fail."""
    gone = "its source no longer has it"
    return tuple(inspected.get(name) or Inspected(Item(name, name), (0,), reason=gone) for name in shard.items)


def _without_moved(report: ShardReport, shard: ShardPlan) -> ShardReport:
    """Drops failures of items that are planned elsewhere since: they have their fate there."""
    failed = tuple(failure for failure in report.failed if failure.item.name in shard.items)
    return dataclasses.replace(report, failed=failed)
