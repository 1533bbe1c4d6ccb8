"""``plan.json``: which file goes into which shard. Written before the work, so that every later run repeats it."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wgpt_jax.data.index import SPLITS
from wgpt_jax.errors import RequestError

PLAN_NAME = "plan.json"
_SHARDS = 64  # aimed at for one run's files
_SHORTEST, _LONGEST = 60.0, 1800.0  # seconds of audio in a shard


@dataclasses.dataclass
class ShardPlan:
    """Files that make one shard, in order."""

    name: str
    """Its split and number: ``train-00000``."""
    split: str
    seconds: float
    """Duration of the files by their headers, for the progress bar."""
    files: list[str]


@dataclasses.dataclass
class Plan:
    """The options of a data set and all its shards, finished or not."""

    options: dict[str, Any]
    shards: list[ShardPlan]

    def files(self) -> dict[str, ShardPlan]:
        """The shard of every file."""
        return {name: shard for shard in self.shards for name in shard.files}

    def add(self, seconds: Mapping[str, float], splits: Mapping[str, str]) -> None:
        """Appends shards for new files.

        The cut depends on the files alone, not on the number of workers: it aims at 64 shards, each of 1 to 30
        minutes.

        Args:
            seconds: file -> duration.
            splits: file -> split.
        """
        length = min(max(sum(seconds.values()) / _SHARDS, _SHORTEST), _LONGEST)
        for split in SPLITS:
            shard = None
            number = sum(other.split == split for other in self.shards)
            for name in sorted(name for name in seconds if splits[name] == split):
                if shard is None or shard.seconds >= length:
                    shard = ShardPlan(f"{split}-{number:05d}", split, 0.0, [])
                    self.shards.append(shard)
                    number += 1
                shard.files.append(name)
                shard.seconds += seconds[name]

    def save(self, folder: Path) -> None:
        """Writes ``folder/plan.json`` in one atomic step."""
        temporary = folder / f"{PLAN_NAME}.tmp"
        temporary.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")
        os.replace(temporary, folder / PLAN_NAME)


def load_plan(folder: Path, options: Mapping[str, Any]) -> Plan:
    """Reads the plan of a data set, or begins one.

    Raises:
        RequestError: if the data set was begun with other options, or its plan is damaged.
    """
    path = folder / PLAN_NAME
    if not path.exists():
        return Plan(dict(options), [])
    try:
        fields = json.loads(path.read_text())
        plan = Plan(fields["options"], [ShardPlan(**shard) for shard in fields["shards"]])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RequestError(
            f"{path} is damaged ({error!r}); choose another OUT, or delete it and begin again"
        ) from error
    for key in sorted(options.keys() | plan.options.keys()):
        old, new = plan.options.get(key), options.get(key)
        if old != new:
            raise RequestError(f"{folder} was prepared with {key} = {old}, now {key} = {new}; choose another OUT")
    return plan
