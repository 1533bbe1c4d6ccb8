"""What ``tools/verify_causality.py`` says of data and runs, and whether nothing sees the future."""

from collections.abc import Sequence

from wgpt_jax.report.groups import Group
from wgpt_jax.report.numbers import counted, listed
from wgpt_jax.report.rows import Row, of_kind
from wgpt_jax.report.same_data import fingerprint_of

CAUSAL = "causal: "
"""How the command's last line begins if all is well."""


def checked(runs: Sequence[Row]) -> str:
    """How many of an arm's runs were proved causal, and how many were found not to be."""
    said = [row["causality"] for row in runs if row["causality"]]
    good = sum(line.startswith(CAUSAL) for line in said)
    told = f"{good} of {len(runs)}"
    if bad := len(said) - good:
        told += f", {bad} leak{'s' * (bad == 1)} on purpose" if runs[0]["leaks"] else f", {bad} FAILED"
    return told


def lines_of(runs: Sequence[Row]) -> list[str]:
    """What the command said of runs, each line once with its arms, and of how many of them it was asked."""
    arms: dict[str, dict[str, None]] = {}
    for row in runs:
        if row["causality"]:
            arms.setdefault(row["causality"], {})[row["arm"]] = None
    count = sum(bool(row["causality"]) for row in runs)
    told = [f'"{line}" ({", ".join(names)})' for line, names in arms.items()]
    said = f": {'; '.join(told)}" if told else ""
    return [f"`tools/verify_causality.py --run`, of {count} of {counted(len(runs), 'run')}{said}.", ""]


def nothing_sees_the_future(rows: Sequence[Row], groups: Sequence[Group]) -> list[str]:
    """The promise, what was found and whether it holds: of every preparation of the data, and of every arm."""
    bad = [line for group in groups for line in (*_data(rows, group), *_arms(group))]
    runs = [row for group in groups for row in group.rows if row["stage"] == "final" and not row["leaks"]]
    count = f"{sum(bool(row['causality']) for row in runs)} of {counted(len(runs), 'run')} checked"
    said = "proved of every data set, and of at least one run of every arm that does not leak on purpose"
    if bad:
        said = "; ".join(dict.fromkeys(bad))
    return ["nothing sees the future", said, "NO" if bad else f"yes, {count}"]


def _data(rows: Sequence[Row], group: Group) -> list[str]:
    """What is wrong with the proofs of a group's data, of each of its preparations."""
    described = [row for row in of_kind(rows, "data") if fingerprint_of(row) == group.fingerprint]
    if not described:
        return [f"data {group.data} ({group.fingerprint}): no proof"]
    said = [(row["data_fingerprint"], row["causality"] or "no proof") for row in described]
    return [f"data {group.data} ({which}): {line}" for which, line in said if not line.startswith(CAUSAL)]


def _arms(group: Group) -> list[str]:
    """Arms of a group that were not checked, or of which a check does not say what it must."""
    lines = []
    for size in group.sizes:
        for arm in group.arms(size):
            runs = group.final(arm, size)
            said = [row["causality"] for row in runs if row["causality"]]
            wrong = [line for line in said if line.startswith(CAUSAL) == runs[0]["leaks"]]
            where = f"{group.experiment}, {group.name}, {size}, arm {arm}"
            if wrong:
                lines.append(f"{where}: {listed(list(dict.fromkeys(wrong)))}" + " (a leak unseen)" * runs[0]["leaks"])
            elif not said and not runs[0]["leaks"]:
                lines.append(f"{where}: not checked")
    return lines
