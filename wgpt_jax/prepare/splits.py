"""Which item belongs to which split: given, or by the hash of its group, stable when items are added; and leaks."""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence

from wgpt_jax.errors import RequestError
from wgpt_jax.prepare.items import Item

FILE, SPEAKER = "file", "speaker"
_WORKS = ("work", "book", "piece", "chapter_id")
"""Metadata that names a work, which should not be heard in two splits."""


@dataclasses.dataclass(frozen=True)
class Splitting:
    """How items are divided where their source does not say."""

    split_by: str = FILE
    """What is kept whole in one split: ``file``, ``speaker``, or a column of the metadata."""
    validation: float = 0.05
    """Fraction of groups for validation."""
    test: float = 0.05
    """Fraction of groups for test."""
    seed: int = 0
    """Seed of the hash."""

    def group(self, item: Item) -> str:
        """What goes into one split as a whole.

        Raises:
            RequestError: if the item lacks the column.
        """
        if self.split_by == FILE:
            return file_of(item)
        value = item.speaker if self.split_by == SPEAKER else item.metadata.get(self.split_by)
        if value is None or value == "":
            raise RequestError(
                f"--split-by {self.split_by}: {item.name} has none; give it one, or split by another column"
            )
        return f"{value}"


def file_of(item: Item) -> str:
    """The file that an item is a part of; an example of TFDS is one of its own."""
    return item.path if item.record is None else item.name


def hash_fraction(group: str, seed: int) -> float:
    """A number in [0, 1) that depends on the group and the seed alone."""
    digest = hashlib.sha256(f"{seed}:{group}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:7], "big") / 2.0**56


def assign_splits(groups: Mapping[str, str], taken: Mapping[str, str], splitting: Splitting) -> dict[str, str]:
    """Assigns every group to ``train``, ``validation`` or ``test``.

    Each group goes where its hash puts it. Then, domain by domain, a requested split that stayed empty gets the
    group with the smallest hash, as long as there is one to spare: train is never empty, two groups make train and
    validation, one group is train alone.

    Args:
        groups: group -> domain.
        taken: group -> split of earlier runs; these stay.
        splitting: fractions and seed.

    Returns:
        group -> split, for all of ``groups``.
    """
    members: dict[str, list[str]] = {}
    for group in sorted(groups):
        members.setdefault(groups[group], []).append(group)
    return {group: split for same in members.values() for group, split in _assign(same, taken, splitting).items()}


def _assign(members: Sequence[str], taken: Mapping[str, str], splitting: Splitting) -> dict[str, str]:
    """Assigns the groups of one domain."""
    fractions = {"validation": splitting.validation, "test": splitting.test}
    wanted = ["train", *(name for name, fraction in fractions.items() if fraction > 0)][: len(members)]
    hashes = {group: hash_fraction(group, splitting.seed) for group in members}
    splits = {}
    for group in members:
        below_test = hashes[group] < splitting.validation + splitting.test
        drawn = "validation" if hashes[group] < splitting.validation else "test" if below_test else "train"
        splits[group] = taken.get(group, drawn if drawn in wanted else "train")
    for split in wanted:
        counts = {name: list(splits.values()).count(name) for name in wanted}
        spare = [group for group in members if group not in taken and counts.get(splits[group], 0) > 1]
        if counts[split] == 0 and spare:
            order = -1 if split == "train" else 1
            chosen = min(spare, key=lambda group: (splits[group] != "train", order * hashes[group]))
            splits[chosen] = split
    return splits


def find_leaks(used: Iterable[tuple[Item, str]]) -> dict[str, list[str]]:
    """Files, speakers and works that are in more than one split.

    The same audio in two files cannot be: of duplicates only one is used.

    Args:
        used: items that are stored, with their splits.

    Returns:
        for ``file``, ``speaker`` and each of the works' columns that items have: the values, sorted.
    """
    splits: dict[str, dict[str, set[str]]] = {FILE: {}, SPEAKER: {}}
    for item, split in used:
        splits[FILE].setdefault(file_of(item), set()).add(split)
        if item.speaker:
            splits[SPEAKER].setdefault(item.speaker, set()).add(split)
        for column in _WORKS:
            if item.metadata.get(column) not in (None, ""):
                splits.setdefault(column, {}).setdefault(f"{item.metadata[column]}", set()).add(split)
    return {kind: sorted(value for value, where in seen.items() if len(where) > 1) for kind, seen in splits.items()}
