"""Which document belongs to which split, domain and speaker: decided by names, stable when files are added."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

DEFAULT_DOMAIN = "audio"
"""Domain of everything when folders do not name one."""


@dataclasses.dataclass(frozen=True)
class Splitting:
    """How a folder of audio is divided."""

    split_by: Literal["file", "speaker"] = "file"
    """What is kept whole in one split."""
    domains: bool = False
    """Whether the first folder below the root names the domain."""
    validation: float = 0.05
    """Fraction of files or speakers for validation."""
    test: float = 0.05
    """Fraction of files or speakers for test."""
    seed: int = 0
    """Seed of the hash."""

    def group(self, name: str) -> str:
        """What goes into one split as a whole: the file, or its speaker."""
        return speaker_of(name, self.domains) if self.split_by == "speaker" else name


def domain_of(name: str, domains: bool) -> str:
    """Domain of a document: the first folder below the root if ``domains``, else :data:`DEFAULT_DOMAIN`."""
    first, _, rest = name.partition("/")
    return first if domains and rest else DEFAULT_DOMAIN


def speaker_of(name: str, domains: bool) -> str:
    """Speaker of a document: the first folder below the root, or below the domain's folder.

    A file that lies directly there is a speaker of its own. The domain stays part of the speaker's name.
    """
    folders = name.split("/")[:-1]
    level = 2 if domains else 1
    return "/".join(folders[:level]) if len(folders) >= level else name


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
