"""The questions of the experiment, each a pair of arms, and what the rows answer."""

import dataclasses
from collections.abc import Sequence

from wgpt_jax.ablation.analysis import Estimate
from wgpt_jax.report.groups import Group
from wgpt_jax.report.rows import Row
from wgpt_jax.report.verdicts import difference, in_pairs, named, verdict


@dataclasses.dataclass(frozen=True)
class Claim:
    """A question: does ``arm`` have a lower NLL than ``base``?"""

    question: str
    arm: str
    base: str
    first: bool = True
    """Whether it is in the table that the document begins with."""

    @property
    def pair(self) -> str:
        """As tables name it."""
        return f"{self.arm} - {self.base}"


CLAIMS = (
    Claim("the original's mel, as in the paper, against tokens alone", "c", "a"),
    Claim("a mel of nothing but the coarse tokens against tokens alone", "d", "a"),
    Claim("embeddings of all codebooks, summed, against the coarse tokens alone", "b", "a", first=False),
    Claim("a mel of all codebooks against the sum of their embeddings", "e", "b"),
    Claim("what the codebooks above the first add to the mel", "e", "d", first=False),
    Claim("what the original adds to the mel of all codebooks", "c", "e", first=False),
    Claim("a convolution over the tokens, no mel, against tokens alone", "ac", "a"),
    Claim("a convolution over the tokens against the original's mel", "ac", "c"),
    Claim("the original's mel beside a convolution over the tokens", "cc", "ac"),
    Claim("a mel of nothing but the coarse tokens beside a convolution over them", "dc", "ac"),
    Claim("a convolution and the original's mel against tokens alone", "cc", "a"),
    Claim("the codec's latent against the original's mel", "f", "c"),
    Claim("a mel that looks ahead (what a leak would have won)", "c'", "c"),
    Claim("all codebooks out: their own mel beside summed embeddings, depth transformer", "h", "g2"),
    Claim("all codebooks out: their own mel and a depth transformer against the delay pattern", "h", "g"),
    Claim("all codebooks out: depth transformer against delay", "g2", "g", first=False),
    Claim("all codebooks out: flattened against delay, at equal compute", "i", "g"),
    Claim("all codebooks out: a convolution over the embeddings, no mel", "g2c", "g2"),
    Claim("all codebooks out: their own mel beside a convolution over the embeddings", "hc", "g2c"),
    Claim("all codebooks out: their own mel against a convolution over the embeddings", "h", "g2c", first=False),
    Claim("all codebooks out: a convolution and their own mel against the plain summed embeddings", "hc", "g2"),
)


@dataclasses.dataclass(frozen=True)
class Answer:
    """What one group of runs says to a question at one size."""

    claim: Claim
    group: Group
    size: str
    estimate: Estimate | None
    verdict: str

    @property
    def where(self) -> str:
        """Data, size and experiment."""
        return f"{self.group.name}, {self.size} ({self.group.experiment})"

    def runs(self) -> tuple[list[Row], list[Row]]:
        """Final runs of the arm and of its base."""
        return self.group.final(self.claim.arm, self.size), self.group.final(self.claim.base, self.size)


def answers(groups: Sequence[Group]) -> list[Answer]:
    """Every question that both arms are there for, question by question."""
    found = []
    for claim in CLAIMS:
        for group in groups:
            for size in group.sizes:
                ours, theirs = group.final(claim.arm, size), group.final(claim.base, size)
                if ours and theirs:
                    estimate = difference(ours, theirs, group.belongs)
                    said = named(claim.arm, verdict(estimate, ours[0]["leaks"]))
                    found.append(Answer(claim, group, size, estimate, said))
    return found


def unanswered(found: Sequence[Answer]) -> list[Claim]:
    """The questions that no group has both arms for."""
    asked = {answer.claim for answer in found}
    return [claim for claim in CLAIMS if claim not in asked]


def seeds_beyond(group: Group, ours: Sequence[Row], theirs: Sequence[Row]) -> tuple[list[int], Estimate | None]:
    """The seeds of a pair beyond those of its grid's file, and what they say alone; none, and None, if there are none.

    That more seeds were run may have been decided upon what the first ones said. Of these nothing was known. Where all
    are beyond them, none are.
    """
    ours, theirs = in_pairs(ours, theirs)
    usual = group.usual_seeds()
    seeds = [row["seed"] for row in ours if row["seed"] not in usual]
    if len(seeds) == len(ours):
        return [], None
    ours, theirs = ([row for row in rows if row["seed"] in seeds] for rows in (ours, theirs))
    return seeds, difference(ours, theirs, group.belongs)
