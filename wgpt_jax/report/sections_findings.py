"""Section 1: the questions that the first table leaves out, where the mel's gain comes from, promises."""

from collections.abc import Sequence

from wgpt_jax.report.claims import Answer, unanswered
from wgpt_jax.report.groups import Group
from wgpt_jax.report.numbers import listed, signed
from wgpt_jax.report.promises import promises
from wgpt_jax.report.rows import Row
from wgpt_jax.report.sections_short import question_table
from wgpt_jax.report.tenfold import Tenfold

_STEPS = {
    ("d", "a"): "from a mel that holds only the coarse tokens so far",
    ("e", "d"): "from what the other codebooks add to it",
    ("c", "e"): "from what the original adds to those",
}


def what_holds(
    rows: Sequence[Row], groups: Sequence[Group], found: Sequence[Answer], tens: Sequence[Tenfold]
) -> list[str]:
    """More questions with their answers, what nobody has asked yet, and the promises of the experiment."""
    lines = []
    if more := question_table([answer for answer in found if not answer.claim.first]):
        lines += ["### More questions", "", *more]
    if absent := unanswered(found):
        lines += ["Not answered, since an arm is not there:", ""]
        lines += [f"- {claim.question} ({claim.pair})" for claim in absent] + [""]
    return [*lines, *_parts(found), "### Promises", "", *promises(rows, groups, tens), ""]


def _parts(found: Sequence[Answer]) -> list[str]:
    """Where the gain of the original's mel comes from, step by step down the ladder."""
    by_pair = {(a.claim.arm, a.claim.base, a.group.key, a.size): a for a in found if a.estimate}
    lines = []
    for (arm, base, key, size), whole in by_pair.items():
        steps = {pair: by_pair.get((*pair, key, size)) for pair in _STEPS}
        if (arm, base) != ("c", "a") or None in steps.values():
            continue
        told = [f"{signed(step.estimate)} {_STEPS[pair]} ({step.verdict})" for pair, step in steps.items()]
        lines.append(f"- {whole.where}: {signed(whole.estimate)} nats in all: {listed(told)}.")
    if not lines:
        return []
    return ["### Where the gain of the original's mel comes from", "", *lines, ""]
