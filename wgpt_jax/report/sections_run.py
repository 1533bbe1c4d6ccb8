"""The appendix: what was run, on which data, with which proof of causality, by which commands."""

from collections.abc import Sequence

from wgpt_jax.report.caveats import one_order
from wgpt_jax.report.groups import Group, length
from wgpt_jax.report.missing import missing
from wgpt_jax.report.numbers import counted, listed, table
from wgpt_jax.report.provenance import UNKNOWN, Provenance
from wgpt_jax.report.renamed import renamed
from wgpt_jax.report.rows import Row, of_kind
from wgpt_jax.report.same_data import Match

_SPLITS = ("train", "validation", "test")
_POINT = ("data", "data_fingerprint", "arm", "size", "learning_rate", "embedding_std", "steps", "seed")
"""What makes a run of a sweep another one."""


def what_was_run(
    rows: Sequence[Row], groups: Sequence[Group], matches: Sequence[Match], origins: Provenance
) -> list[str]:
    """Data sets, grids and what is missing of them, failures, commands."""
    return [
        *_data_sets(rows, groups, matches),
        "### Grids",
        "",
        *_grids(groups),
        *missing(rows, groups),
        *_failures(rows),
        "### Commands",
        "",
        *origins.lines(),
        *renamed(rows),
        "",
    ]


def _data_sets(rows: Sequence[Row], groups: Sequence[Group], matches: Sequence[Match]) -> list[str]:
    found = of_kind(rows, "data")
    lines = ["### Data", ""]
    if found:
        heads = ("data", "fingerprint", "codec", "mels", *_SPLITS, "held out by", "groups of the test")
        cells = []
        for row in found:
            splits = [_split(row["splits"].get(name)) for name in _SPLITS]
            codec = f"{row['codec']}, {row['codebooks']} codebooks" + ("" if row["codec_causal"] else ", NOT causal")
            mels, told = ", ".join(row["mel_sources"]), row["test_groups"]
            shared = f"{len({group for _, group in told['documents']})}, by {told['by']}" if told else "not known"
            cells.append([row["data"], row["data_fingerprint"], codec, mels, *splits, row["split_by"], shared])
        lines += [*table(heads, cells), "", *_matched(matches)]
        heads = ("data", "fingerprint", "`tools/verify_causality.py --data` says")
        said = [[row["data"], row["data_fingerprint"], row["causality"] or "not checked"] for row in found]
        lines += [*table(heads, said), ""]
    apart = [group.name for group in groups if group.belongs is None]
    if apart:
        said = "Nothing says which test documents share a speaker or a work"
        lines += [f"{said} ({listed(list(dict.fromkeys(apart)))}): intervals take each as independent evidence.", ""]
    known = {row["data_fingerprint"] for row in found}
    for name, fingerprint in dict.fromkeys((group.data, group.fingerprint) for group in groups):
        if fingerprint not in known:
            lines += [
                f"{name} ({fingerprint}) is not described; "
                f"`python tools/collect_results.py ROWS... --data {name}=DATA` does.",
                "",
            ]
    return lines


def _matched(matches: Sequence[Match]) -> list[str]:
    """Which preparations of one name were taken as one, on what evidence, and which were not."""
    lines = []
    for match in matches:
        if match.evidence:
            lines.append(
                f"{match.data} was prepared twice, {match.first} and {match.other}, and is taken as one data set: its "
                f"description is the same, and {match.evidence}. Its mels may differ in rounding, which processors do "
                "differently. Runs on both stand under the first fingerprint."
            )
        else:
            lines.append(
                f"{match.other} is not taken as the same data as {match.first}, though both are called {match.data}: "
                "their descriptions, tokens or n-gram scores differ, or there are none to compare."
            )
    return [part for line in lines for part in (line, "")]


def _split(of: dict | None) -> str:
    return f"{of['hours']:.2f} h, {of['documents']:,} documents, {of['frames']:,} frames" if of else "none"


def _grids(groups: Sequence[Group]) -> list[str]:
    heads = ("experiment", "data", "steps x windows x frames", "codebooks out", "sizes", "arms", "final runs", "tuning")
    cells = []
    for group in groups:
        finals = [row for row in group.rows if row["stage"] == "final"]
        tunes = [row for row in group.rows if row["stage"] == "tune"]
        cells.append(
            [
                group.experiment,
                f"{group.data} ({group.fingerprint})",
                length(group.steps, group.batch, group.context),
                str(group.codebooks),
                ", ".join(group.sizes),
                ", ".join(group.arms()),
                str(len(finals)),
                _tuning(tunes),
            ]
        )
    lines = [*table(heads, cells), ""]
    return [*lines, *_one_order(groups), *_code(groups)]


def _one_order(groups: Sequence[Group]) -> list[str]:
    """The arms whose seeds are of the initialisation alone."""
    lines = []
    for group in groups:
        arms = [arm for arm in group.arms() if any(one_order(group.final(arm, size)) for size in group.sizes)]
        if arms:
            lines.append(f"- {group.experiment}, {group.name}: {listed(arms)}")
    if not lines:
        return []
    return ["Seeds that differ in the initialisation alone, over one order of the data:", "", *lines, ""]


def _code(groups: Sequence[Group]) -> list[str]:
    """The groups whose rows are not all of one commit, or of changes that no commit holds."""
    lines = []
    for group in groups:
        commits = list(dict.fromkeys(row.get("commit") or UNKNOWN for row in group.rows))
        if len(commits) > 1 or commits[0] == UNKNOWN or commits[0].endswith("-dirty"):
            lines.append(f"- {group.experiment}, {group.name}: {listed(commits)}")
    if not lines:
        return []
    said = "Not made by one committed version of the code (dirty: with changes that no commit has):"
    return [said, "", *lines, ""]


def _tuning(tunes: Sequence[Row]) -> str:
    """How many points were tried; one that was tried on two preparations of the same data counts once."""
    if not tunes:
        return "none"
    steps = listed(sorted({str(row["steps"]) for row in tunes}))
    points = {tuple(row[key] for key in _POINT) for row in tunes}
    return f"{counted(len(points), 'run')} of {steps} steps, on {listed(sorted({row['data'] for row in tunes}))}"


def _failures(rows: Sequence[Row]) -> list[str]:
    failed = of_kind(rows, "failed")
    if not failed:
        return ["No run failed.", ""]
    made = {_identity(row) for row in of_kind(rows, "run")}
    lines = ["Runs that failed:", ""]
    for row in failed:
        name = ", ".join(
            [row["experiment"], row["data"], row["size"], f"arm {row['arm']}", row["stage"], f"seed {row['seed']}"]
        )
        point = f"learning rate {row['learning_rate']:g}, embedding_std {row['embedding_std']:g}"
        since = " (made since)" if _identity(row) in made else ""
        lines.append(f"- {name}, {point}: {row['reason']}{since}")
    return [*lines, ""]


def _identity(row: Row) -> tuple:
    keys = ("experiment", "data", "data_fingerprint", "arm", "size", "stage", "seed", "learning_rate", "embedding_std")
    return (*(row[key] for key in keys), row["config"]["training"]["steps"])
