"""The two stages of a preparation: plan what is new, make what is missing."""

import dataclasses
import functools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from wgpt_jax.prepare.convert import Conversion
from wgpt_jax.prepare.engine import run_tasks
from wgpt_jax.prepare.plan import Plan, ShardPlan
from wgpt_jax.prepare.shards import ShardReport, file_stamp, finished, write_shard
from wgpt_jax.prepare.sources import probe_seconds
from wgpt_jax.prepare.splits import Splitting, assign_splits, domain_of


def extend_plan(plan: Plan, names: Sequence[str], root: Path, out: Path, splitting: Splitting, shortest: float) -> None:
    """Adds shards for the files that are new, or that failed and have changed since.

    Args:
        plan: gets the shards; a repaired file leaves the shard it failed in.
        names: all audio files below ``root``.
        root: the audio folder.
        out: the data folder, with the reports of finished shards.
        splitting: what goes together, and where.
        shortest: seconds that make a document.
    """
    shard_of = plan.files()
    failed = {name: stamp for name, stamp in _failures(plan, out) if name in shard_of}
    repaired = {name for name in failed.keys() & set(names) if file_stamp(root / name) != failed[name]}
    for name in repaired:
        shard_of[name].files.remove(name)
    stored = shard_of.keys() - failed.keys()
    new = sorted(repaired.union(names) - (shard_of.keys() - repaired))
    bar = tqdm(new, desc="reading headers", unit=" files", delay=2, leave=False)
    seconds = {name: probe_seconds(root / name) for name in bar}
    # A file that will fail must not be the one that a split is given so as not to be empty.
    audible = [*stored, *(name for name in new if seconds[name] >= shortest)]
    groups = {splitting.group(name): domain_of(name, splitting.domains) for name in audible}
    taken = {splitting.group(name): shard_of[name].split for name in stored}
    splits = assign_splits(groups, taken, splitting)
    plan.add(seconds, {name: splits.get(splitting.group(name), "train") for name in new})


def make_missing(plan: Plan, root: Path, out: Path, conversion: Conversion, workers: int) -> list[ShardReport]:
    """Makes the shards that are not finished; returns the reports of all, in the plan's order."""
    reports = {shard.name: finished(shard, out) for shard in plan.shards}
    missing = [shard for shard in plan.shards if reports[shard.name] is None]
    work = functools.partial(write_shard, root=root, out=out, conversion=conversion)
    for report in _with_progress(run_tasks(work, missing, workers), missing):
        reports[report.name] = report
    return [_without_moved(reports[shard.name], shard) for shard in plan.shards]


def _without_moved(report: ShardReport, shard: ShardPlan) -> ShardReport:
    """Drops failures of files that are planned elsewhere since: they have their fate there."""
    failed = [failure for failure in report.failed if failure["path"] in shard.files]
    return dataclasses.replace(report, failed=failed)


def _failures(plan: Plan, out: Path) -> Iterator[tuple[str, list[int]]]:
    for shard in plan.shards:
        report = finished(shard, out)
        for failure in report.failed if report else ():
            yield failure["path"], failure["stamp"]


def _with_progress(reports: Iterator[ShardReport], missing: Sequence[ShardPlan]) -> Iterator[ShardReport]:
    """Passes reports on and shows hours of audio done, the speed in x realtime, and failures."""
    hours = {shard.name: shard.seconds / 3600 for shard in missing}
    failures = 0
    layout = "{l_bar}{bar}| {n:.2f}/{total:.2f} h [{elapsed}<{remaining}{postfix}]"
    with tqdm(total=sum(hours.values()), bar_format=layout, disable=not missing, file=sys.stderr) as bar:
        for report in reports:
            failures += len(report.failed)
            bar.update(hours[report.name])
            speed = 3600 * bar.n / bar.format_dict["elapsed"]
            bar.set_postfix_str(f"{speed:.0f}x realtime, {failures} failed")
            yield report
