"""Measures how close models come to the entropy of a Markov source that they are trained on."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from wgpt_jax.command import run_command
from wgpt_jax.data.index import INDEX_NAME, DataIndex, load_index
from wgpt_jax.errors import RequestError
from wgpt_jax.markov.dataset import MarkovSet, make_markov_set
from wgpt_jax.markov.floor import floor_config, measure_floor, source_of
from wgpt_jax.provenance import provenance
from wgpt_jax.runs import training_data_fingerprint


@dataclass
class Args:
    """Make a Markov set in WORK, train a token-only model and a hybrid on it, and compare both with the source.

    Prints a table and, into WORK/markov.jsonl, a row for each, as results.jsonl has it.
    """

    work: Annotated[Path, tyro.conf.Positional]
    """Folder to make: the data and the runs."""
    asked: Annotated[MarkovSet, tyro.conf.arg(name="")] = field(default_factory=MarkovSet)
    steps: int = 1000
    """Steps of each model."""
    batch: int = 32
    """Windows per step."""
    learning_rate: float = 1e-2
    """Its peak, for both."""


def main(args: Args) -> None:
    """Makes, trains, scores, prints."""
    data, options = args.work / "data", {"batch": args.batch, "learning_rate": args.learning_rate}
    configs = {inputs: floor_config(args.asked, inputs, args.steps, **options) for inputs in ("tokens", "hybrid")}
    for config in configs.values():
        config.validate()
    index = _data_set(data, args.asked)
    rows = [measure_floor(data, args.work / inputs, config) for inputs, config in configs.items()]
    told = {"kind": "markov", "data": f"markov{args.asked.order}", "data_fingerprint": training_data_fingerprint(index)}
    made = provenance("tools/markov_floor.py")
    with open(args.work / "markov.jsonl", "w") as file:
        file.writelines(json.dumps(told | row | made) + "\n" for row in rows)
    print(format_floor(rows))


def _data_set(data: Path, asked: MarkovSet) -> DataIndex:
    """The set, made unless it is there."""
    if not (data / INDEX_NAME).exists():
        return make_markov_set(data, asked)
    index = load_index(data)
    if source_of(index)[0] != replace(asked, mel_sources=",".join(asked.sources())):
        raise RequestError(f"{data} was made with other flags; give another folder")
    return index


def format_floor(rows: list[dict]) -> str:
    """The measurements as a table."""
    heads = ("entropy", "floor", "NLL", "excess", "+-")
    lines = [f"{'model':8} {'of':8} {'parameters':>10} " + " ".join(f"{head:>8}" for head in heads) + f" {'%':>7}"]
    for row in rows:
        for prefix, of in (("", "coarse"), ("total_", "all")):
            if f"{prefix}nll" in row:
                values = " ".join(f"{row[prefix + name]:8.5f}" for name in _COLUMNS)
                lines.append(
                    f"{row['inputs']:8} {of:8} {row['parameters']:10,} {values} {row[prefix + 'excess_percent']:7.3f}"
                )
    return "\n".join(lines)


_COLUMNS = ("entropy_rate", "floor", "nll", "excess", "excess_stderr")

if __name__ == "__main__":
    raise SystemExit(run_command(main, Args))
