"""Section 5: NLL against parameters, what an arm is worth in parameters, and whether pairs are of equal size."""

from collections.abc import Sequence

from wgpt_jax.ablation.analysis import Multiplier, final_runs, multiplier
from wgpt_jax.figure import Figure
from wgpt_jax.report.curves import parameters_figure
from wgpt_jax.report.groups import SAME_SIZE, Group
from wgpt_jax.report.numbers import NONE, interval, percent, signed, table
from wgpt_jax.report.provenance import Provenance
from wgpt_jax.report.rows import Row
from wgpt_jax.report.sections_arms import how_to_run
from wgpt_jax.report.verdicts import difference, named, verdict


def sizes(groups: Sequence[Group], origins: Provenance, data: Sequence[str]) -> tuple[list[str], list[Figure]]:
    """Curves and multipliers of the groups that have a token-only arm at two sizes or more."""
    several = [group for group in groups if len(group.sizes) > 1]
    lines, figures = [], [parameters_figure(group) for group in several]
    cells = [row for group in groups for row in _multipliers(group)]
    if cells:
        said = (
            "Parameters of the token-only arm with the same NLL, over the arm's own (95 % interval), and the arm's NLL "
            "minus that of the largest token-only model:"
        )
        heads = ("experiment", "data", "arm", "size", "against", "multiplier", "fitted")
        heads += ("largest", "parameters, times", "minus the largest", "95 % interval", "against the largest")
        used = [row for group in several for row in group.rows if row["stage"] == "final"]
        lines += [said, "", *table(heads, cells), *origins.made_by(used)]
    else:
        lines += [f"No token-only arm at several sizes; they are made by {how_to_run('ablation_sizes', data)}.", ""]
    for figure in figures:
        lines += [f"![{figure.caption}](results/{figure.file})", ""]
    pairs = [row for group in groups for row in _pairs(group)]
    if pairs:
        heads = ("experiment", "data", "size", "fewest", "most", "apart %", f"less than {100 * SAME_SIZE:g} %")
        lines += ["Parameters of the arms of each size:", "", *table(heads, pairs), ""]
    return lines, figures


def multipliers(group: Group) -> list[tuple[str, str, str, Multiplier]]:
    """(arm, size, base, multiplier) of every arm of a group whose base has two sizes or more."""
    found = []
    for at, base in enumerate(group.bases()):
        tokens = final_runs(group.rows, arm=base)
        if len({row["parameters"] for row in tokens}) < 2:
            continue
        for arm in group.arms():
            if arm in group.bases()[: at + 1]:
                continue
            for size in group.sizes:
                if runs := group.final(arm, size):
                    found.append((arm, size, base, multiplier(tokens, runs, groups=group.belongs)))
    return found


def leaks(group: Group, arm: str) -> bool:
    """Whether an arm sees the future on purpose."""
    return any(row["leaks"] for row in final_runs(group.rows, arm=arm))


def apart(group: Group, size: str) -> float:
    """Relative difference of the most and the fewest parameters of a size's arms."""
    counts = [row["parameters"] for row in final_runs(group.rows, size=size)]
    return (max(counts) - min(counts)) / min(counts)


def largest(group: Group, arm: str) -> list[Row]:
    """Final runs of an arm at its largest size."""
    runs = final_runs(group.rows, arm=arm)
    most = max(row["parameters"] for row in runs)
    return [row for row in runs if row["parameters"] == most]


def _multipliers(group: Group) -> list[list[str]]:
    cells = []
    for arm, size, base, worth in multipliers(group):
        said = [_worth(worth, leaks(group, arm)), worth.curve if worth.value is not None else NONE]
        against = _against_largest(group, arm, size, largest(group, base))
        cells.append([group.experiment, group.name, arm, size, base, *said, *against])
    return cells


def _against_largest(group: Group, arm: str, size: str, theirs: Sequence[Row]) -> list[str]:
    """What a bound on the multiplier leaves open: whether the arm beats the largest model that it was held against."""
    ours = group.final(arm, size)
    estimate = difference(ours, theirs, group.belongs)
    numbers = ["", ""] if estimate is None else [signed(estimate), interval(estimate)]
    times = f"{theirs[0]['parameters'] / ours[0]['parameters']:.2f}"
    return [theirs[0]["size"], times, *numbers, named(arm, verdict(estimate, leaks(group, arm)))]


def _worth(worth: Multiplier, leaking: bool) -> str:
    return f"a leak, no result: {worth}" if leaking else str(worth)


def _pairs(group: Group) -> list[list[str]]:
    rows = []
    for size in group.sizes:
        if len(group.arms(size)) < 2:
            continue
        counts = {row["parameters"]: row["arm"] for row in final_runs(group.rows, size=size)}
        least, most = min(counts), max(counts)
        ends = [f"{least:,} ({counts[least]})", f"{most:,} ({counts[most]})"]
        kept = "yes" if apart(group, size) < SAME_SIZE else "NO"
        rows.append([group.experiment, group.name, size, *ends, percent(apart(group, size)), kept])
    return rows
