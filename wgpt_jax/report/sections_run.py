"""Sections 1 and 2: what was run, on which data, with which proof of causality; what anything must beat."""

from collections.abc import Sequence

from wgpt_jax.report.groups import Group
from wgpt_jax.report.numbers import listed, nats, table
from wgpt_jax.report.provenance import UNKNOWN, Provenance
from wgpt_jax.report.rows import Row, of_kind

CAUSAL = "causal: "
_SEEDS = (("training", "seed"), ("data", "shuffle_seed"))
_SPLITS = ("train", "validation", "test")
_MODELS = ("unigram", "bigram", "trigram")


def what_was_run(rows: Sequence[Row], groups: Sequence[Group], origins: Provenance) -> list[str]:
    """Data sets, grids with what is missing of them, failures, commands."""
    return [
        *_data_sets(rows, groups),
        "### Grids",
        "",
        *_grids(groups),
        *_failures(rows),
        "### Causality",
        "",
        *_causality(rows, groups),
        "### Commands",
        "",
        *origins.lines(),
        *_renamed(rows),
        "",
    ]


def baselines(rows: Sequence[Row], groups: Sequence[Group], origins: Provenance) -> list[str]:
    """n-grams of the training split, and models against a source of known entropy."""
    found, floors = of_kind(rows, "baseline"), of_kind(rows, "markov")
    lines = ["### n-grams", ""]
    if found:
        heads = ("data", "split", "documents", "frames", *_MODELS)
        cells = [
            [row["data"], row["split"], f"{row['documents']:,}", f"{row['frames']:,}"]
            + [_with_error(row[f"{model}_nll"], row[f"{model}_nll_stderr"]) for model in _MODELS]
            for row in found
        ]
        lines += [*table(heads, cells), *origins.made_by(found)]
    absent = [name for name in data_names(groups) if name not in {row["data"] for row in found}]
    if absent or not found:
        said = f"Not there for {listed(absent)}; it is" if absent else "Not there; it is"
        lines += [f"{said} made by `python tools/baselines.py DATA --json`.", ""]
    lines += ["### A source of known entropy", ""]
    if not floors:
        return [*lines, "Not there; it is made by `python tools/markov_floor.py WORK`.", ""]
    heads = ("source", "model", "codebooks", "parameters", "entropy rate", "floor", "NLL", "excess", "excess %")
    cells = [_floor(row, prefix) for row in floors for prefix in ("", "total_") if f"{prefix}nll" in row]
    return [*lines, *table(heads, cells), *origins.made_by(floors)]


def data_names(groups: Sequence[Group]) -> list[str]:
    """Of the data sets that something was trained on."""
    return list(dict.fromkeys(group.data for group in groups))


def unproven(groups: Sequence[Group]) -> list[str]:
    """Arms without a leak on purpose whose proof of causality failed or was not made, in words."""
    lines = []
    for group in groups:
        for size in group.sizes:
            for arm in group.arms(size):
                runs = group.final(arm, size)
                said = [row["causality"] for row in runs if row["causality"]]
                if not said and not runs[0]["leaks"]:
                    lines.append(f"{group.experiment}, {group.name}, {size}, arm {arm}: not checked")
                bad = [line for line in said if not line.startswith(CAUSAL)]
                if bad and not runs[0]["leaks"]:
                    lines.append(f"{group.experiment}, {group.name}, {size}, arm {arm}: {bad[0]}")
    return lines


def _data_sets(rows: Sequence[Row], groups: Sequence[Group]) -> list[str]:
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
        lines += [*table(heads, cells), ""]
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
                f"{group.steps:,} x {group.batch} x {group.context}",
                str(group.codebooks),
                ", ".join(group.sizes),
                ", ".join(group.arms()),
                str(len(finals)),
                _tuning(tunes),
            ]
        )
    lines = [*table(heads, cells), ""]
    missing = [(group, line) for group in groups for line in group.missing()]
    if missing:
        lines += ["Not there (yet):", ""]
        lines += [f"- {group.experiment}, {group.name}: {line}" for group, line in missing] + [""]
    return [*lines, *_one_order(groups), *_code(groups)]


def _one_order(groups: Sequence[Group]) -> list[str]:
    """The groups whose seeds are of the initialisation alone."""
    lines = []
    for group in groups:
        finals = [row for row in group.rows if row["stage"] == "final"]
        seeds, orders = ({row["config"][part][key] for row in finals} for part, key in _SEEDS)
        if len(seeds) > 1 and len(orders) == 1:
            lines.append(f"- {group.experiment}, {group.name}")
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
    if not tunes:
        return "none"
    steps = listed(sorted({str(row["steps"]) for row in tunes}))
    return f"{len(tunes)} runs of {steps} steps, on {listed(sorted({row['data'] for row in tunes}))}"


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


def _causality(rows: Sequence[Row], groups: Sequence[Group]) -> list[str]:
    cells: dict[tuple[str, str, str, str], list[str]] = {}
    for row in of_kind(rows, "data"):
        cells.setdefault((f"{row['data']} ({row['data_fingerprint']})", row["causality"] or "not checked", "", ""), [])
    for group in groups:
        for size in group.sizes:
            for arm in group.arms(size):
                runs = group.final(arm, size)
                said = list(dict.fromkeys(row["causality"] for row in runs if row["causality"])) or ["not checked"]
                leaks = "leaks on purpose" if runs[0]["leaks"] else ""
                checked = f"{sum(bool(row['causality']) for row in runs)} of {len(runs)}"
                for line in said:
                    key = f"{group.experiment}, {group.name}, {size}", line, leaks, checked
                    cells.setdefault(key, []).append(arm)
    if not cells:
        return ["Nothing was checked: there are no runs.", ""]
    told = [[what, ", ".join(arms), checked, line, leaks] for (what, line, leaks, checked), arms in cells.items()]
    lines = [*table(("data or runs", "arms", "runs checked", "tools/verify_causality.py says", "label"), told), ""]
    return lines


def _renamed(rows: Sequence[Row]) -> list[str]:
    names = sorted({name for row in rows for name in row.get("renamed", ())})
    if not names:
        return []
    count = sum(bool(row.get("renamed")) for row in rows)
    said = f"Names that stand for folders of the machine that made the rows ({count} of {len(rows)}): {listed(names)}."
    return ["", said]


def _with_error(value: float, stderr: float | None) -> str:
    return f"{nats(value)} +- {nats(stderr)}" if stderr is not None else f"{nats(value)}, a single document"


def _floor(row: Row, prefix: str) -> list[str]:
    return [
        f"order {row['order']}, {row['vocabulary']} tokens",
        row["inputs"] + ("" if row["mel_source"] == "none" else f", {row['mel_source']}"),
        "all" if prefix else "1",
        f"{row['parameters']:,}",
        *(nats(row[f"{prefix}{key}"]) for key in ("entropy_rate", "floor", "nll")),
        f"{row[f'{prefix}excess']:+.5f} +- {row[f'{prefix}excess_stderr']:.5f}",
        f"{row[f'{prefix}excess_percent']:+.3f}",
    ]
