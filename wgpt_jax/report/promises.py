"""The promises of the experiment, and whether they hold."""

import statistics
from collections.abc import Sequence

from wgpt_jax.report.causality import nothing_sees_the_future
from wgpt_jax.report.groups import SAME_SIZE, Group
from wgpt_jax.report.numbers import listed, nats, table
from wgpt_jax.report.rows import Row, of_kind
from wgpt_jax.report.sections_baselines import best_ngram
from wgpt_jax.report.sections_sizes import apart
from wgpt_jax.report.tenfold import Tenfold

FLOOR = 1.0
"""Per cent above a known entropy that a model may stay."""
_TEST = "test"


def promises(rows: Sequence[Row], groups: Sequence[Group], tens: Sequence[Tenfold]) -> list[str]:
    """The table of promises; a line if there is nothing that any could be checked on."""
    checks = (
        [nothing_sees_the_future(rows, groups), *_equal_sizes(groups), *_beats_counts(rows, groups)] if groups else []
    )
    checks += [[ten.claim, f"{ten.where}: [in short](#in-short)", ten.holds] for ten in tens]
    checks += [[f"a source of known entropy is learned to within {FLOOR:g} %", *floor] for floor in floors(rows)]
    if not checks:
        return ["There is nothing to check them on."]
    return table(("what was promised", "what was found", "holds"), checks)


def floors(rows: Sequence[Row]) -> list[list[str]]:
    """How far each model stays from a known entropy, of what, and whether that is little enough."""
    cells = []
    for row in of_kind(rows, "markov"):
        excess = row.get("total_excess_percent", row["excess_percent"])
        said = f"{excess:+.3f} %, {row['inputs']}, order {row['order']}, {row['output_codebooks']} codebook(s)"
        cells.append([said, "yes" if abs(excess) <= FLOOR else "NO"])
    return cells


def _equal_sizes(groups: Sequence[Group]) -> list[list[str]]:
    found = [(apart(group, size), group, size) for group in groups for size in group.sizes]
    worst, group, size = max(found, key=lambda each: each[0])
    said = f"at most {100 * worst:.2f} %, {group.name}, {size} ({group.experiment})"
    what = f"arms of a size differ by less than {100 * SAME_SIZE:g} % in parameters"
    return [[what, said, "yes" if worst < SAME_SIZE else "NO"]]


def _beats_counts(rows: Sequence[Row], groups: Sequence[Group]) -> list[list[str]]:
    """The token-only arm with the highest coarse NLL of each data set, against the best n-gram on it."""
    told, holds = [], []
    for data, fingerprint in dict.fromkeys((group.data, group.fingerprint) for group in groups):
        scores = {
            f"{arm}, {size} ({group.experiment})": statistics.fmean(row["evaluation"]["nll"] for row in runs)
            for group in groups
            if (group.data, group.fingerprint) == (data, fingerprint)
            for size in group.sizes
            for arm in group.arms(size)
            if (runs := group.final(arm, size))[0]["evaluation"]["mel_source"] == "none"
        }
        best = best_ngram(rows, data, fingerprint, _TEST)
        if not scores or best is None:
            told.append(f"{data} ({fingerprint}): no {'n-grams' if scores else 'token-only arm'}")
            continue
        behind = [f"{name} {nats(nll)}" for name, nll in scores.items() if nll >= best[1]]
        worst = max(scores, key=scores.get)
        said = f"NOT {listed(behind)}" if behind else f"the last of {len(scores)} is {worst}, {nats(scores[worst])}"
        told.append(f"{data}: best n-gram {best[0]}, {nats(best[1])}; {said}")
        holds.append(not behind)
    verdict = "NO" if not all(holds) else "yes" if len(holds) == len(told) else "not decided"
    what = "every token-only arm beats the best n-gram, of the coarse token, by the point estimates, without errors"
    return [[what, "; ".join(told), verdict]]
