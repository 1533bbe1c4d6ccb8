"""``summary.md`` and its figures: rewritten after each final run."""

import os
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from wgpt_jax.ablation.analysis import (
    ENOUGH,
    Estimate,
    Row,
    final_runs,
    mean_over_seeds,
    multiplier,
    paired_difference,
)
from wgpt_jax.ablation.grid import Ablation, Arm, Size
from wgpt_jax.ablation.plots import learning_panel, parameters_panel
from wgpt_jax.ablation.runs import sweep_of, sweep_scores
from wgpt_jax.figure import Figure

SUMMARY_NAME = "summary.md"
_RUNS = ("arm", "input", "parameters", "seeds", "NLL", "over seeds", "bits/s", "top-1 %", "minus {}", "interval")


def write_summary(ablation: Ablation, rows: Sequence[Row], work: Path) -> None:
    """Writes tables and figures of what there is so far.

    Args:
        ablation: the grid.
        rows: of its experiment.
        work: folder that they are written into.

    Raises:
        OSError: if it cannot be written.
    """
    lines = [f"# {ablation.name}", "", _said(ablation), ""]
    for data in dict.fromkeys(row["data"] for row in final_runs(rows)):
        lines += [f"## {data}", ""]
        for size in ablation.sizes:
            arms = _by_arm(ablation, final_runs(rows, data=data, size=size.name))
            if not arms:
                continue
            panel = learning_panel(_labelled(arms), f"{data}, {size.name}: validation")
            figure = Figure(f"curves-{data}-{size.name}", "learning curves", (panel,))
            lines += [f"### {size.name}", "", *_table(arms), "", *_tuned(ablation, rows, arms, data, size), ""]
            lines += _drawn(figure, work)
        arms = _by_arm(ablation, final_runs(rows, data=data))
        fitted = _labelled({arm: runs for arm, runs in arms.items() if _is_baseline(arm, arms)})
        panel = parameters_panel(_labelled(arms), fitted, f"{data}: test")
        figure = Figure(f"parameters-{data}", "NLL against parameters", (panel,))
        lines += [*_drawn(figure, work), *_multipliers(arms)]
    failed = [row for row in rows if row["kind"] == "failed"]
    if failed:
        lines += ["## Runs that failed", ""]
        lines += [f"- {row['data']}, {row['arm']}, {row['size']}, {row['stage']}: {row['reason']}" for row in failed]
    temporary = work / f"{SUMMARY_NAME}.tmp"
    temporary.write_text("\n".join(lines).rstrip() + "\n")
    os.replace(temporary, work / SUMMARY_NAME)


def _drawn(figure: Figure, work: Path) -> list[str]:
    figure.draw(work / figure.file)
    return [f"![{figure.caption}]({figure.file})", ""]


def baseline(arm: Arm, arms: Sequence[Arm]) -> Arm | None:
    """What an arm is compared with: the first token-only arm that predicts as many codebooks; None if it is that."""
    for other in arms:
        if not other.hybrid and _out(other) == _out(arm):
            return None if other == arm else other
    return None


def _is_baseline(arm: Arm, arms: Iterable[Arm]) -> bool:
    return not arm.hybrid and baseline(arm, list(arms)) is None


def _out(arm: Arm) -> int:
    return arm.model.get("output_codebooks", 1)


def _said(ablation: Ablation) -> str:
    where = "on each data set" if ablation.sweep_per_data else "on the first data set, for all"
    return (
        f"{ablation.steps} steps of {ablation.batch} windows of {ablation.context} frames for every arm. NLL in nats "
        "per frame over all predicted codebooks, on the test split. Each arm's learning rate and embedding_std are the "
        f"best of its sweep {where} ({ablation.sweep.steps} steps, seed {ablation.sweep.seed}, validation split). "
        "Intervals hold 95 %: of a mean, Student's over seeds, on these documents; of a difference, paired, of other "
        "documents and (from two seeds on) other seeds. They take documents as independent of each other, which those "
        "of one speaker or work are not: tools/report.py, which knows the data, takes these together. Nothing is "
        f"decided by fewer than {ENOUGH} seeds, and no interval is corrected for the number of comparisons."
    )


def _by_arm(ablation: Ablation, rows: Sequence[Row]) -> dict[Arm, list[Row]]:
    found = {arm.name: (arm, final_runs(rows, arm=arm.name)) for arm in ablation.arms}
    return {name: rows for name, rows in found.values() if rows}


def _labelled(arms: dict[Arm, list[Row]]) -> dict[str, list[Row]]:
    return {f"{arm.name}: {arm.title}": rows for arm, rows in arms.items()}


def _table(arms: dict[Arm, list[Row]]) -> list[str]:
    bases = {arm: baseline(arm, list(arms)) for arm in arms}
    names = "/".join(dict.fromkeys(base.name for base in bases.values() if base)) or "baseline"
    heads = [head.format(names) for head in _RUNS]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for arm, rows in arms.items():
        nll = mean_over_seeds(rows)
        bits, top1 = (
            statistics.fmean(row["evaluation"][key] for row in rows) for key in ("total_bits_per_second", "top1")
        )
        difference = _difference(rows, arms.get(bases[arm]))
        cells = [
            arm.name,
            arm.title,
            f"{rows[0]['parameters']:,}",
            str(nll.seeds),
            f"{nll.value:.4f}",
            _interval(nll),
            f"{bits:.1f}",
            f"{100 * top1:.2f}",
            "" if difference is None else f"{difference.value:+.4f}",
            "" if difference is None else _interval(difference),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _difference(rows: Sequence[Row], base: Sequence[Row] | None) -> Estimate | None:
    if base is None or not {row["seed"] for row in rows} & {row["seed"] for row in base}:
        return None
    return paired_difference(rows, base)


def _interval(estimate: Estimate) -> str:
    return "" if estimate.low is None else f"{estimate.low:.4f} to {estimate.high:.4f}"


def _tuned(ablation: Ablation, rows: Sequence[Row], arms: dict[Arm, list[Row]], data: str, size: Size) -> list[str]:
    """What each arm's sweep chose, and where from."""
    lines = []
    for arm, runs in arms.items():
        where = data if ablation.sweep_per_data else next(row["data"] for row in rows)
        group = (where, arm.name, ablation.tuning_size(size).name)
        swept, scores = sweep_of(ablation, group, rows), sweep_scores(group, rows)
        spread = [scores[point] for point in swept.points if scores.get(point) is not None]
        told = f"; validation NLL {min(spread):.4f} to {max(spread):.4f}" if len(spread) > 1 else ""
        at = f", at {size.tuned_at}, learning rate by the root of the widths" if size.tuned_at else ""
        edge = f", the edge of its {' and '.join(swept.edges)}" if swept.edges else ""
        chosen = f"learning rate {runs[0]['learning_rate']:g}, embedding_std {runs[0]['embedding_std']:g}"
        lines.append(f"- {arm.name}: {chosen}, best of {len(swept.points)}{edge}{at}{told}")
    return lines


def _multipliers(arms: dict[Arm, list[Row]]) -> list[str]:
    """What every arm is worth in parameters of the token-only arm, where that has several sizes."""
    lines = []
    for arm, rows in arms.items():
        base = baseline(arm, list(arms))
        if base is None or len({row["size"] for row in arms[base]}) < 2:
            continue
        for size in dict.fromkeys(row["size"] for row in rows):
            worth = multiplier(arms[base], final_runs(rows, size=size))
            leak = "a leak, no result: " if arm.leaks else ""
            lines.append(f"| {arm.name} | {size} | {leak}{worth} | {worth.curve} |")
    if not lines:
        return []
    said = "Effective parameter multiplier: parameters of the token-only arm with the same NLL, over the arm's own."
    return [said, "", "| arm | size | multiplier | fitted |", "|---|---|---|---|", *lines, ""]
