"""Section 2: what anything must beat: n-grams of the training split, and a source of known entropy."""

from collections.abc import Sequence

from wgpt_jax.report.groups import Group, data_names
from wgpt_jax.report.numbers import listed, nats, table
from wgpt_jax.report.provenance import Provenance
from wgpt_jax.report.rows import Row, of_kind

_MODELS = ("unigram", "bigram", "trigram")


def baselines(rows: Sequence[Row], groups: Sequence[Group], origins: Provenance) -> list[str]:
    """n-grams of the training split, and models against a source of known entropy."""
    found, floors = _once(of_kind(rows, "baseline")), of_kind(rows, "markov")
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


def best_ngram(rows: Sequence[Row], data: str, fingerprint: str, split: str) -> tuple[str, float] | None:
    """The n-gram model with the lowest NLL on a split of some data, and that NLL; None if none was scored."""
    wanted = data, fingerprint, split
    scores = [
        (row[f"{model}_nll"], model)
        for row in of_kind(rows, "baseline")
        if (row["data"], row.get("data_fingerprint"), row["split"]) == wanted
        for model in _MODELS
    ]
    return min(scores)[::-1] if scores else None


def _once(found: Sequence[Row]) -> list[Row]:
    """Baselines without those of the same data, made again elsewhere, that say the same in every digit."""
    seen: dict[tuple, Row] = {}
    for row in found:
        scores = tuple(row[f"{model}_nll{part}"] for model in _MODELS for part in ("", "_stderr"))
        seen.setdefault((row["data"], row.get("data_fingerprint"), row["split"], *scores), row)
    return list(seen.values())


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
