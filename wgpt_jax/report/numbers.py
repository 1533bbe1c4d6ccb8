"""Numbers and tables as the document has them."""

import math
from collections.abc import Sequence

from wgpt_jax.ablation.analysis import Estimate

NONE = ""


def nats(value: float | None, digits: int = 4) -> str:
    """A number of nats; empty where there is none."""
    return NONE if value is None or math.isnan(value) else f"{value:.{digits}f}"


def percent(fraction: float | None) -> str:
    """A fraction in per cent."""
    return NONE if fraction is None else f"{100 * fraction:.2f}"


def signed(estimate: Estimate, digits: int = 3) -> str:
    """A difference with its sign."""
    return f"{estimate.value:+.{digits}f}"


def interval(estimate: Estimate, digits: int = 3) -> str:
    """The ends of an interval with their signs; empty where there is none."""
    if estimate.low is None:
        return NONE
    return f"{estimate.low:+.{digits}f} to {estimate.high:+.{digits}f}"


def in_brief(estimate: Estimate, digits: int = 3) -> str:
    """A difference with its interval in brackets."""
    said = signed(estimate, digits)
    return f"{said} ({interval(estimate, digits)})" if estimate.low is not None else said


def counted(number: int, what: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (heads, *rows)]
    return [f"| {' | '.join(row)} |" for row in cells[:1]] + [
        f"|{'---|' * len(heads)}",
        *(f"| {' | '.join(row)} |" for row in cells[1:]),
    ]


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
