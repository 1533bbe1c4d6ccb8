"""Section 1: the questions that the first table leaves out, where the mel's gain comes from, promises."""

from collections.abc import Sequence

from wgpt_jax.report.caveats import knowledge, tuning
from wgpt_jax.report.claims import Answer, unanswered
from wgpt_jax.report.groups import Group
from wgpt_jax.report.numbers import in_brief, listed, signed
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
    lines, ladders = [], _ladders(found)
    told = [step for _, steps in ladders for step in steps.values()]
    if more := question_table([answer for answer in found if not answer.claim.first and answer not in told]):
        lines += ["### More questions", "", *more]
    if absent := unanswered(found):
        lines += ["Not answered, since an arm is not there:", ""]
        lines += [f"- {claim.question} ({claim.pair})" for claim in absent] + [""]
    return [*lines, *_parts(ladders), "### Promises", "", *promises(rows, groups, tens), ""]


def _ladders(found: Sequence[Answer]) -> list[tuple[Answer, dict[tuple[str, str], Answer]]]:
    """The answers to what the original's mel is worth, each with the steps of the ladder that lead to it."""
    by_pair = {(a.claim.arm, a.claim.base, a.group.key, a.size): a for a in found if a.estimate}
    ladders = []
    for (arm, base, key, size), whole in by_pair.items():
        steps = {pair: by_pair.get((*pair, key, size)) for pair in _STEPS}
        if (arm, base) == ("c", "a") and None not in steps.values():
            ladders.append((whole, steps))
    return ladders


def _parts(ladders: Sequence[tuple[Answer, dict[tuple[str, str], Answer]]]) -> list[str]:
    """Where the gain of the original's mel comes from, step by step down the ladder."""
    lines = []
    for whole, steps in ladders:
        told = [f"{in_brief(step.estimate)} {_STEPS[pair]} ({step.verdict})" for pair, step in steps.items()]
        arms = {arm: whole.group.final(arm, whole.size) for arm in dict.fromkeys(sum(_STEPS, ()))}
        limits = [knowledge(arms), *tuning(whole.group, dict.fromkeys(arms, whole.size))]
        said = f"{signed(whole.estimate)} nats in all: {listed(told)}. Keep in mind: {'; '.join(limits)}."
        lines.append(f"- {whole.where}: {said}")
    if not lines:
        return []
    return ["### Where the gain of the original's mel comes from", "", *lines, ""]
