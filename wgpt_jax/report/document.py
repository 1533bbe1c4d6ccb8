"""The document: its sections in their order, the prose between them, its figures."""

import dataclasses
from collections.abc import Mapping, Sequence

from wgpt_jax.errors import RequestError
from wgpt_jax.figure import Figure
from wgpt_jax.report.claims import answers
from wgpt_jax.report.groups import Group, data_names, make_groups
from wgpt_jax.report.paper import published
from wgpt_jax.report.provenance import Provenance
from wgpt_jax.report.rows import Row, of_kind
from wgpt_jax.report.same_data import unify
from wgpt_jax.report.sections_arms import contest, ladder
from wgpt_jax.report.sections_baselines import baselines
from wgpt_jax.report.sections_curves import curves
from wgpt_jax.report.sections_findings import what_holds
from wgpt_jax.report.sections_loop import closed_loop
from wgpt_jax.report.sections_run import what_was_run
from wgpt_jax.report.sections_short import in_short
from wgpt_jax.report.sections_sizes import sizes
from wgpt_jax.report.tenfold import tenfold

PASSAGES = (
    "intro",
    "brief",
    "why",
    "limits",
    "baselines",
    "ladder",
    "contest",
    "sizes",
    "curves",
    "closed-loop",
    "paper",
    "reading",
    "run",
)
"""Names of the prose that docs/results/text.md holds."""
TINY = "ablation_tiny"
"""The experiment whose runs are made to be short."""


@dataclasses.dataclass(frozen=True)
class Document:
    """What a report is."""

    text: str
    figures: tuple[Figure, ...]
    """Drawn from rows."""
    pictures: Mapping[str, str]
    """Files that rows refer to, and their sha256."""


def make_document(rows: Sequence[Row], prose: Mapping[str, str]) -> Document:
    """Makes a document of rows and passages.

    Args:
        rows: from :func:`wgpt_jax.report.rows.load_rows`.
        prose: passages by :data:`PASSAGES`.

    Raises:
        RequestError: if rows contradict each other or lack what their kind has.
    """
    try:
        return _make(rows, prose)
    except (KeyError, TypeError, AttributeError) as error:
        raise RequestError(f"a row is not as its kind has it ({error!r}); make it again") from error
    except ValueError as error:
        raise RequestError(f"rows of one experiment do not belong together: {error}") from error


def _make(rows: Sequence[Row], prose: Mapping[str, str]) -> Document:
    rows, matches = unify(rows)
    groups, origins = make_groups(rows), Provenance(rows)
    data, found, tens = data_names(groups), answers(groups), tenfold(groups)
    size_lines, size_figures = sizes(groups, origins, data)
    curve_lines, curve_figures = curves(groups, found, data)
    loop_lines, loop_figures = closed_loop(rows, origins)
    parts = (
        ("## In short", "brief", in_short(rows, found, tens)),
        ("### What this grid can and cannot show", "limits", []),
        ("## 1. What holds and what does not", "", what_holds(rows, groups, found, tens)),
        ("### Why we think so", "why", []),
        ("## 2. Baselines", "baselines", baselines(rows, groups, origins)),
        ("## 3. The ladder of inputs", "ladder", ladder(groups, origins, data)),
        ("## 4. Several codebooks out", "contest", contest(groups, origins, data)),
        ("## 5. Sizes", "sizes", size_lines),
        ("## 6. Curves", "curves", curve_lines),
        ("## 7. The closed loop", "closed-loop", loop_lines),
        ("## 8. The paper", "paper", published(groups)),
        ("## Appendix A. How to read this", "reading", []),
        ("## Appendix B. What was run", "run", what_was_run(rows, groups, matches, origins)),
    )
    lines = [
        "# Results",
        "",
        "<!-- Made by tools/report.py: change the rows or docs/results/text.md, not this. -->",
        "",
    ]
    lines += [prose["intro"], "", *_warning(groups)]
    for heading, passage, body in parts:
        lines += [heading, "", *([prose[passage], ""] if passage else []), *body, ""]
    pictures = {
        row["picture"]["file"]: row["picture"]["sha256"] for row in of_kind(rows, "closed_loop") if row.get("picture")
    }
    return Document(_tidy(lines), (*size_figures, *curve_figures, *loop_figures), pictures)


def _warning(groups: Sequence[Group]) -> list[str]:
    """Whether what follows is no result at all, or in part."""
    tiny = [group for group in groups if group.experiment == TINY]
    if not tiny:
        return []
    what = "All runs of this document are of" if len(tiny) == len(groups) else "Some runs of this document are of"
    why = "they last a minute and show that the machinery works. Nothing that is said of their models is a result."
    return [f"**{what} `{TINY}`: {why}**", ""]


def _tidy(lines: Sequence[str]) -> str:
    """One text, with single empty lines."""
    kept: list[str] = []
    for line in lines:
        if line or (kept and kept[-1]):
            kept.append(line.rstrip())
    return "\n".join(kept).rstrip() + "\n"
