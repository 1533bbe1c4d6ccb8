"""The questions of the experiment, each a pair of arms, and what the rows answer."""

import dataclasses
from collections.abc import Sequence

from wgpt_jax.ablation.analysis import Estimate
from wgpt_jax.report.groups import Group
from wgpt_jax.report.verdicts import difference, verdict


@dataclasses.dataclass(frozen=True)
class Claim:
    """A question: does ``arm`` have a lower NLL than ``base``?"""

    question: str
    arm: str
    base: str
    headline: bool = False
    """Whether the document begins with it."""


CLAIMS = (
    Claim(
        "The original's mel through taps and blocks, as in the paper: does it beat tokens alone?",
        "c",
        "a",
        headline=True,
    ),
    Claim("The same with a mel that holds nothing but the coarse tokens so far?", "d", "a", headline=True),
    Claim("Does the original's mel help beside a convolution over the embeddings?", "cc", "ac", headline=True),
    Claim("Does a mel that holds nothing but the tokens help beside that convolution?", "dc", "ac"),
    Claim("Is that convolution worth having, without any mel?", "ac", "a"),
    Claim("Is it worth the original's mel?", "ac", "c"),
    Claim("Do summed embeddings of all codebooks beat tokens alone?", "b", "a"),
    Claim("Is a mel of those codebooks a better input than the sum of their embeddings?", "e", "b"),
    Claim("Does the mel carry what codebooks above the first say?", "e", "d"),
    Claim("Does the original's mel say more than that of the decoded codebooks?", "c", "e"),
    Claim("Is the codec's latent a better input than the mel?", "f", "c"),
    Claim("What would a mel that looks ahead have won?", "c'", "c"),
    Claim("All codebooks out: does their own mel help beside summed embeddings (depth)?", "h", "g2", headline=True),
    Claim("All codebooks out: does it beat the delay pattern?", "h", "g", headline=True),
    Claim("All codebooks out: beside a convolution of those, does their own mel help?", "hc", "g2c", headline=True),
    Claim("All codebooks out: is that convolution worth having?", "g2c", "g2"),
    Claim("All codebooks out: is their own mel worth that convolution?", "h", "g2c"),
    Claim("All codebooks out: is the depth transformer better than the delay?", "g2", "g"),
    Claim("All codebooks out: is flattening better than the delay, at equal compute?", "i", "g"),
)


@dataclasses.dataclass(frozen=True)
class Answer:
    """What one group of runs says to a question at one size."""

    claim: Claim
    group: Group
    size: str
    estimate: Estimate | None
    verdict: str


def answers(groups: Sequence[Group]) -> list[Answer]:
    """Every question that both arms are there for, question by question."""
    found = []
    for claim in CLAIMS:
        for group in groups:
            for size in group.sizes:
                ours, theirs = group.final(claim.arm, size), group.final(claim.base, size)
                if ours and theirs:
                    estimate = difference(ours, theirs, group.belongs)
                    said = verdict(estimate, ours[0]["leaks"])
                    said = f"{claim.arm} {said}" if said.startswith(("wins", "loses")) else said
                    found.append(Answer(claim, group, size, estimate, said))
    return found


def unanswered(groups: Sequence[Group]) -> list[Claim]:
    """The questions that no group has both arms for."""
    asked = {answer.claim for answer in answers(groups)}
    return [claim for claim in CLAIMS if claim not in asked]
