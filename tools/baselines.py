"""Scores a split of prepared data under unigram, bigram and trigram models of its training split."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from wgpt_jax.command import run_command
from wgpt_jax.data.baselines import MODELS, score_baselines
from wgpt_jax.data.index import load_index
from wgpt_jax.provenance import provenance
from wgpt_jax.runs import training_data_fingerprint
from wgpt_jax.scores import format_stderr


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclass
class Args:
    """Print the NLL of a split's coarse tokens under n-gram models of the training split (Witten-Bell smoothing)."""

    data: Annotated[Path, tyro.conf.Positional]
    """Folder made by tools/prepare_audio.py."""
    split: str = "test"
    """train, validation or test."""
    json: bool = False
    """Print one JSON object, as results.jsonl has it, and nothing else."""


def main(args: Args) -> None:
    """Scores and prints."""
    summary = score_baselines(args.data, args.split)
    if args.json:
        row = {"kind": "baseline", "data": str(args.data), "split": args.split}
        row["data_fingerprint"] = training_data_fingerprint(load_index(args.data))
        print(json.dumps(row | summary | provenance("tools/baselines.py")))
        return
    print(f"{args.split} split, {summary['documents']} documents, {summary['frames']:,} frames")
    for model in MODELS:
        nll, stderr = summary[f"{model}_nll"], format_stderr(summary[f"{model}_nll_stderr"])
        print(f"{model:8} {nll:8.4f} +- {stderr} nats per coarse token")


if __name__ == "__main__":
    raise SystemExit(run_command(main, Args))
