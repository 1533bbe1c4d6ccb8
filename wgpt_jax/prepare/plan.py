"""``plan.json``: which item goes into which shard. Written before the work, so that every later run repeats it."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from wgpt_jax.data.index import SPLITS, rows_text
from wgpt_jax.errors import RequestError
from wgpt_jax.prepare.splits import hash_fraction
from wgpt_jax.prepare.storage import Storage

PLAN_NAME = "plan.json"
LOCK_NAME = "preparation.lock"
"""Held by the one process that works on a data set."""
_VERSION = 2
_SHARDS = (64, 1024)  # for one run's items, unless the shards were shorter than the shortest
_SHORTEST, _LONGEST = 60.0, 1800.0  # seconds of audio in a shard; longer ones only where there would be too many


@dataclasses.dataclass
class ShardPlan:
    """Items that make one shard, in order."""

    name: str
    """Its split and number: ``train-00000``."""
    split: str
    seconds: float
    """Duration of its items."""
    items: list[str]
    """Their names."""


@dataclasses.dataclass
class Plan:
    """The request that a data set answers, and all its shards, finished or not."""

    options: dict[str, Any]
    """What must be the same in every run, by the names of the flags."""
    arguments: dict[str, Any]
    """The flags as they were given first, to run the same command again."""
    shards: list[ShardPlan]

    def shard_of(self) -> dict[str, ShardPlan]:
        """The shard of every item."""
        return {name: shard for shard in self.shards for name in shard.items}

    def add(self, seconds: Mapping[str, float], splits: Mapping[str, str], seed: int) -> None:
        """Appends shards for new items, in an order that is random across documents and always the same.

        The cut depends on the items alone, not on the number of workers.

        Args:
            seconds: item -> duration.
            splits: item -> split.
            seed: of the order.
        """
        length = shard_seconds(sum(seconds.values()))
        for split in SPLITS:
            shard = None
            number = sum(other.split == split for other in self.shards)
            names = (name for name in seconds if splits[name] == split)
            for name in sorted(names, key=lambda name: (hash_fraction(name, seed), name)):
                # An item closes a shard that it would leave fuller than twice over, so that a long one is by itself.
                if shard is None or shard.seconds >= length or shard.seconds + seconds[name] > 2 * length:
                    shard = ShardPlan(f"{split}-{number:05d}", split, 0.0, [])
                    self.shards.append(shard)
                    number += 1
                shard.items.append(name)
                shard.seconds += seconds[name]

    def save(self, storage: Storage) -> None:
        """Writes ``plan.json`` in one atomic step."""
        storage.write(PLAN_NAME, rows_text({"version": _VERSION} | dataclasses.asdict(self)).encode())


def shard_seconds(total: float) -> float:
    """Seconds of audio to aim at in a shard of a data set of ``total`` seconds: half an hour, in 64 to 1024 shards.

    A data set of less than 32 hours has shorter shards, of a minute at least; one of more than 512 has longer ones.
    """
    fewest, most = _SHARDS
    return max(min(max(total / fewest, _SHORTEST), _LONGEST), total / most)


def load_plan(storage: Storage, options: Mapping[str, Any], arguments: Mapping[str, Any]) -> Plan:
    """Reads the plan of a data set, or begins one.

    Raises:
        RequestError: if the data set was begun with other options or by another version, or its plan is damaged.
    """
    plan = read_plan(storage)
    if plan is None:
        return Plan(dict(options), dict(arguments), [])
    for key in sorted(options.keys() | plan.options.keys()):
        old, new = plan.options.get(key), options.get(key)
        if old != new:
            raise RequestError(f"{storage.root} was prepared with {key} = {old}, now {key} = {new}; choose another OUT")
    return plan


def read_plan(storage: Storage) -> Plan | None:
    """Reads the plan of a data set; None if there is none.

    Raises:
        RequestError: if it is of another version, or damaged.
    """
    text = storage.read(PLAN_NAME)
    if text is None:
        return None
    try:
        fields = json.loads(text)
        if fields.get("version") != _VERSION:
            raise RequestError(f"{storage.root} was prepared by another version of this tool; choose another OUT")
        return Plan(fields["options"], fields["arguments"], [ShardPlan(**shard) for shard in fields["shards"]])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RequestError(
            f"{storage.root}/{PLAN_NAME} is damaged ({error!r}); choose another OUT, or delete it and begin again"
        ) from error
