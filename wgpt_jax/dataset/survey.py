"""All shards of a data set looked through, by several processes, and what they hold together."""

import dataclasses
import sys
from collections.abc import Iterator, Sequence

from tqdm import tqdm

from wgpt_jax.data.statistics import Statistics
from wgpt_jax.dataset.examine import Findings, ShardTask, examine_shard
from wgpt_jax.prepare.engines.local import run_tasks
from wgpt_jax.processor import available_cores


@dataclasses.dataclass(frozen=True)
class Survey:
    """What is in the shards, by the names of their files."""

    findings: dict[str, Findings]
    """Without their statistics, of which each takes megabytes."""
    statistics: dict[str, Statistics]
    """Of each split, added up."""
    uncounted: tuple[str, ...]
    """Shards whose records could not all be counted."""

    def problems(self, kind: str) -> Iterator[str]:
        """What is wrong with shards by themselves, of one kind of check."""
        for found in self.findings.values():
            yield from (text for what, text in found.problems if what == kind)


def survey_shards(tasks: Sequence[ShardTask], workers: int | None) -> Survey:
    """Looks through shards, with a bar over their bytes.

    Args:
        tasks: the shards.
        workers: processes; one per core if None.
    """
    sizes = {task: task.path.stat().st_size if task.path.is_file() else 0 for task in tasks}
    findings: dict[str, Findings] = {}
    totals: dict[str, Statistics] = {}
    uncounted = []
    bar = {"unit": "B", "unit_scale": True, "delay": 1, "leave": False, "disable": None, "file": sys.stderr}
    with tqdm(total=sum(sizes.values()), desc="checking shards", **bar) as progress:
        for outcome in run_tasks(examine_shard, list(sizes), workers or available_cores()):
            task, name = outcome.task, outcome.task.path.name
            died = f"the process that read {name} ended ({outcome.died})"
            found = outcome.result or Findings(problems=(("records", died),))
            if found.statistics is None:
                uncounted.append(name)
            elif task.split in totals:
                totals[task.split].add(found.statistics)
            else:
                totals[task.split] = found.statistics
            findings[name] = dataclasses.replace(found, statistics=None)
            progress.update(sizes[task])
    return Survey({task.path.name: findings[task.path.name] for task in tasks}, totals, tuple(sorted(uncounted)))
