"""The paper's numbers (Verma, WHISPER-GPT, arXiv 2412.11449, tables of teacher-forced scores), and ours beside them."""

import dataclasses
import math
from collections.abc import Sequence

from wgpt_jax.report.groups import Group
from wgpt_jax.report.numbers import interval, signed, table
from wgpt_jax.report.verdicts import difference


@dataclasses.dataclass(frozen=True)
class Published:
    """A model of the paper: (NLL in nats per coarse token, accuracy in %, perplexity) on its two corpora."""

    name: str
    parameters: str
    config: str
    librispeech: tuple[float, float, float]
    music: tuple[float, float, float]


PAPER = (
    Published("GPT-S, tokens only", "3.7 M", "paper_gpt_s", (2.02, 34.18, 7.54), (2.78, 34.96, 16.12)),
    Published("GPT-L, tokens only", "40 M", "paper_gpt_l", (1.94, 34.82, 6.96), (2.77, 35.72, 15.96)),
    Published("hybrid", "4 M", "paper_hybrid", (1.93, 35.05, 6.96), (2.52, 38.47, 12.43)),
)


def published(groups: Sequence[Group]) -> list[str]:
    """The paper's table as published, its slips, and its differences beside ours."""
    heads = ["model", "parameters"]
    heads += [f"{corpus} {what}" for corpus in ("LibriSpeech", "music") for what in ("NLL", "accuracy %", "PPL")]
    cells = []
    for model in PAPER:
        scores = [f"{value:.2f}" for corpus in (model.librispeech, model.music) for value in corpus]
        cells.append([model.name, model.parameters, *scores, f"`configs/{model.config}.py`"])
    lines = [*table([*heads, "here"], cells), ""]
    for model in PAPER:
        for corpus, (nll, _, ppl) in (("LibriSpeech", model.librispeech), ("music", model.music)):
            if slips(nll, ppl):
                lines += [
                    f"A slip in the paper: the {model.name}'s PPL of {ppl:.2f} on {corpus} is not that of its NLL of "
                    f"{nll:.2f}, which gives {math.exp(nll):.2f}.",
                    "",
                ]
    return [*lines, "Hybrid minus the token-only twin, in the paper and here:", "", *_beside(groups), ""]


def slips(nll: float, ppl: float) -> bool:
    """Whether a perplexity of two decimals cannot be that of an NLL of two decimals."""
    return not math.exp(nll - 0.005) - 0.005 <= ppl <= math.exp(nll + 0.005) + 0.005


def _beside(groups: Sequence[Group]) -> list[str]:
    small, _, hybrid = PAPER
    said = "not published"
    cells = [
        [f"paper, {name}", f"{hybrid.parameters} and {small.parameters}", f"{ours[0] - theirs[0]:+.2f}", said]
        for name, ours, theirs in (
            ("LibriSpeech", hybrid.librispeech, small.librispeech),
            ("music", hybrid.music, small.music),
        )
    ]
    for group in groups:
        for size in group.sizes:
            ours, theirs = group.final("c", size), group.final("a", size)
            if group.codebooks == 1 and ours and theirs and (found := difference(ours, theirs, group.belongs)):
                counts = f"{ours[0]['parameters']:,} and {theirs[0]['parameters']:,}"
                cells.append([f"here, {group.name} ({group.experiment})", counts, signed(found), interval(found)])
    return table(("corpus", "parameters", "nats", "95 % interval"), cells)
