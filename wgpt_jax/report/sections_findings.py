"""What the document begins and ends with: answers in brief, and all of what holds and what does not."""

from collections.abc import Sequence

from wgpt_jax.ablation.analysis import ENOUGH, paired_difference
from wgpt_jax.evaluation import meaning
from wgpt_jax.report.claims import Answer, answers, unanswered
from wgpt_jax.report.groups import Group
from wgpt_jax.report.numbers import interval, listed, signed, table
from wgpt_jax.report.rows import Row, of_kind
from wgpt_jax.report.sections_run import unproven
from wgpt_jax.report.sections_sizes import PROMISE, apart, largest, leaks, multipliers
from wgpt_jax.report.sweeps import swept

TENFOLD = 10.0
"""The paper's claim: a hybrid equals a token-only model so many times its size."""
SETTLED = 16
"""Frame of a window from which on what came before it matters little: the mel of a codec's decode knows of it."""
_FLOOR = 1.0
"""Per cent above a known entropy that a model may stay."""


def in_short(groups: Sequence[Group]) -> list[str]:
    """The headline questions with their answers, a line each."""
    lines = []
    for answer in answers(groups):
        if answer.claim.headline:
            said = f"**{answer.verdict}**{_difference(answer)}{_on_edge(answer)}"
            lines.append(f"- {answer.claim.question} {_where(answer)}: {said}")
    lines += [f"- Does it hold that {what}? **{holds}**: {said}" for what, said, holds in _tenfold(groups)]
    if not lines:
        return ["No headline pair has been run.", ""]
    return [*lines, ""]


def what_holds(rows: Sequence[Row], groups: Sequence[Group]) -> list[str]:
    """Every question with its answer, the promises of the experiment, and what nobody has asked yet."""
    found = answers(groups)
    lines = ["### Questions", ""]
    if found:
        heads = ("question", "pair", "where", "nats", "95 % interval", "answer")
        heads += ("of it the coarse token's", f"the coarse token's from frame {SETTLED} of a window on")
        cells = []
        for answer in found:
            numbers = ["", ""] if answer.estimate is None else [signed(answer.estimate), interval(answer.estimate)]
            pair = f"{answer.claim.arm} - {answer.claim.base}"
            said = [answer.verdict, _coarse(answer), _settled(answer)]
            cells.append([answer.claim.question, pair, _where(answer), *numbers, *said])
        lines += [*table(heads, cells), ""]
    if absent := unanswered(groups):
        lines += ["Not answered, since an arm is not there:", ""]
        lines += [f"- {claim.question} ({claim.arm} - {claim.base})" for claim in absent] + [""]
    lines += [*_parts(groups), "### Promises", "", *_promises(rows, groups), ""]
    return lines


def _coarse(answer: Answer) -> str:
    """What of a difference over several codebooks is the coarse token's, paired as the whole one."""
    if answer.estimate is None or answer.group.codebooks == 1:
        return ""
    runs = [answer.group.final(arm, answer.size) for arm in (answer.claim.arm, answer.claim.base)]
    estimate = paired_difference(*runs, total=False, groups=answer.group.belongs)
    return f"{signed(estimate)} ({interval(estimate)})"


def _settled(answer: Answer) -> str:
    """The difference of the coarse token's NLL where a window has shown some frames."""
    levels = []
    for arm in (answer.claim.arm, answer.claim.base):
        runs = answer.group.final(arm, answer.size)
        parts = [part for row in runs for part in row["evaluation"]["by_position"] if part["first"] >= SETTLED]
        frames = sum(part["frames"] for part in parts)
        if not frames:
            return ""
        levels.append(sum(part["nll"] * part["frames"] for part in parts) / frames)
    return f"{levels[0] - levels[1]:+.4f}"


def _where(answer: Answer) -> str:
    return f"{answer.group.name}, {answer.size} ({answer.group.experiment})"


def _difference(answer: Answer) -> str:
    if answer.estimate is None:
        return ""
    ends = f" ({interval(answer.estimate)})" if answer.estimate.low is not None else ""
    scores = answer.group.final(answer.claim.arm, answer.size)[0]["evaluation"]
    said = meaning(scores["mel_source"], scores["output_codebooks"], scores["input_codebooks"])
    bits = answer.estimate.value * scores["total_bits_per_second"] / scores["total_nll"]
    unit = f"nats per frame, {bits:+.1f} bits/s" if answer.group.codebooks > 1 else "nats per token"
    return f", {signed(answer.estimate)}{ends} {unit}; {answer.claim.arm} is {said}"


def _on_edge(answer: Answer) -> str:
    """Which of the two arms may have had a better point outside of its sweep."""
    arms = (answer.claim.arm, answer.claim.base)
    edges = {arm: swept(answer.group, arm, answer.size).chosen for arm in arms}
    told = [f"{arm} at the {edge}" for arm, edge in edges.items() if edge]
    return f"; best on the edge of the sweep: {listed(told)}" if told else ""


def _parts(groups: Sequence[Group]) -> list[str]:
    """Where the gain of the original's mel comes from, step by step down the ladder."""
    by_pair = {(a.claim.arm, a.claim.base, a.group.key, a.size): a for a in answers(groups) if a.estimate}
    lines = []
    for (arm, base, key, size), whole in by_pair.items():
        steps = [by_pair.get((*pair, key, size)) for pair in (("d", "a"), ("e", "d"), ("c", "e"))]
        if (arm, base) != ("c", "a") or None in steps:
            continue
        told = [
            f"{signed(step.estimate)} {what} ({step.verdict})"
            for step, what in zip(
                steps,
                (
                    "from a mel that holds only the coarse tokens so far",
                    "from what the other codebooks add to it",
                    "from what the original adds to those",
                ),
                strict=True,
            )
        ]
        lines.append(f"- {_where(whole)}: {signed(whole.estimate)} nats in all: {listed(told)}.")
    if not lines:
        return []
    return ["### Where the gain of the original's mel comes from", "", *lines, ""]


def _promises(rows: Sequence[Row], groups: Sequence[Group]) -> list[str]:
    checks = [_proof(rows, groups), _pairs(groups), *_tenfold(groups), *_floors(rows)]
    return table(("what was promised", "what was found", "holds"), [check for check in checks if check])


def _proof(rows: Sequence[Row], groups: Sequence[Group]) -> list[str] | None:
    if not groups:
        return None
    bad = unproven(groups)
    described = {row["data_fingerprint"]: row["causality"] or "" for row in of_kind(rows, "data")}
    for group in groups:
        if not described.get(group.fingerprint, "").startswith("causal: "):
            bad.append(f"data {group.data} ({group.fingerprint}): no proof")
    runs = [row for group in groups for row in group.rows if row["stage"] == "final" and not row["leaks"]]
    checked = f"{sum(bool(row['causality']) for row in runs)} of {len(runs)} runs of them checked"
    proved = f"proved of every data set, and of every arm but those that leak ({checked})"
    said = "; ".join(dict.fromkeys(bad)) if bad else proved
    return ["nothing sees the future", said, "NO" if bad else "yes"]


def _pairs(groups: Sequence[Group]) -> list[str] | None:
    found = [(apart(group, size), group, size) for group in groups for size in group.sizes]
    if not found:
        return None
    worst, group, size = max(found, key=lambda each: each[0])
    said = f"at most {100 * worst:.2f} %, {group.name}, {size} ({group.experiment})"
    what = f"arms of a size differ by less than {100 * PROMISE:g} % in parameters"
    return [what, said, "yes" if worst < PROMISE else "NO"]


def _tenfold(groups: Sequence[Group]) -> list[list[str]]:
    cells = []
    for group in groups:
        for arm, size, base, worth in multipliers(group):
            if leaks(group, arm):
                continue
            holds = "not decided"
            if worth.low is not None and worth.seeds >= ENOUGH:
                holds = "yes" if worth.low >= TENFOLD else "NO" if worth.high < TENFOLD else holds
            what = f"{arm} equals a token-only model ({base}) of {TENFOLD:g} times its parameters"
            said = f"{worth}, {group.name}, {size} ({group.experiment})"
            if holds == "not decided" and (reach := _reach(group, arm, size, base)) < TENFOLD:
                said += f"; the largest token-only model has {reach:.1f} times its parameters, too few to say yes"
            cells.append([what, said, holds])
    return cells


def _reach(group: Group, arm: str, size: str, base: str) -> float:
    """Parameters of the largest model of an arm over those of another arm's."""
    return largest(group, base)[0]["parameters"] / group.final(arm, size)[0]["parameters"]


def _floors(rows: Sequence[Row]) -> list[list[str]]:
    cells = []
    for row in of_kind(rows, "markov"):
        excess = row.get("total_excess_percent", row["excess_percent"])
        what = f"a source of known entropy is learned to within {_FLOOR:g} %"
        said = f"{excess:+.3f} %, {row['inputs']}, order {row['order']}, {row['output_codebooks']} codebook(s)"
        cells.append([what, said, "yes" if abs(excess) <= _FLOOR else "NO"])
    return cells
