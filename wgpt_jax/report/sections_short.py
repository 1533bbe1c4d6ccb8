"""What the document begins with: the questions and their answers in a table, and the rest in a line each."""

from collections.abc import Sequence

from wgpt_jax.report.caveats import caveats
from wgpt_jax.report.claims import Answer
from wgpt_jax.report.groups import ARMS
from wgpt_jax.report.numbers import counted, interval, signed, table
from wgpt_jax.report.promises import FLOOR, floors
from wgpt_jax.report.rows import Row
from wgpt_jax.report.sections_loop import in_a_line
from wgpt_jax.report.tenfold import TIMES, Tenfold

_HEADS = ("question", "data", "pair", "seeds", "difference", "95 % interval", "answer", "keep in mind")


def in_short(rows: Sequence[Row], found: Sequence[Answer], tens: Sequence[Tenfold]) -> list[str]:
    """A table of the first questions, won, lost or open; then the tenfold claim, the closed loop, the known source."""
    first = [answer for answer in found if answer.claim.first]
    lines = [*question_table(first), *_legend(first)]
    if not lines:
        lines = ["No pair of arms that a question is of has been run.", ""]
    told = []
    if tens:
        told.append(f"- Does a hybrid equal a token-only model of {TIMES} times its parameters?")
        told += [f"  - {ten.arm} against {ten.base}, {ten.where}: **{ten.holds}**, {ten.said}." for ten in tens]
    if loop := in_a_line(rows):
        told.append(f"- The closed loop: {loop}.")
    if known := floors(rows):
        holds = "yes" if all(holds == "yes" for _, holds in known) else "NO"
        count = counted(len(known), "model")
        told.append(f"- Is a source of known entropy learned to within {FLOOR:g} %? **{holds}**, by {count}.")
    return [*lines, *told, ""]


def _legend(found: Sequence[Answer]) -> list[str]:
    """What the letters of the answers' arms stand for, in the registry's order; nothing of no answer."""
    titles = {runs[0]["arm"]: runs[0]["title"] for answer in found for runs in answer.runs()}
    known = [arm for arm in ARMS if arm in titles]
    told = [f"**{arm}**: {titles[arm]}" for arm in (*known, *(arm for arm in titles if arm not in known))]
    return [f"The arms read: {'; '.join(told)}.", ""] if told else []


def question_table(found: Sequence[Answer]) -> list[str]:
    """Answers, those of a question one below the other; empty if there are none."""
    cells, before = [], None
    for answer in found:
        claim, estimate = answer.claim, answer.estimate
        numbers = ["0", "", ""] if estimate is None else [str(estimate.seeds), signed(estimate), interval(estimate)]
        question = claim.question if claim != before else ""
        cells.append(
            [question, answer.where, claim.pair, *numbers, f"**{answer.verdict}**", "; ".join(caveats(answer))]
        )
        before = claim
    return [*table(_HEADS, cells), ""] if cells else []
