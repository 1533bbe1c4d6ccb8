"""Rows as the tools leave them, small and made up, and ways to look into a report of them."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np

from wgpt_jax.closed_loop.request import SamplingConfig
from wgpt_jax.report.document import PASSAGES, make_document

FRAMES = (100, 200, 300, 150, 250)
"""Of the documents of the synthetic test split."""
PROSE = "".join(f"<!-- {name} -->\nProse of {name}.\n" for name in PASSAGES)


def run_row(
    arm: str, seed: int = 0, *, level: float = 4.0, size: str = "0.5m", parameters: int = 500_000, **more
) -> dict:
    """A final run whose NLL is near ``level`` nats per token, in every document a bit different."""
    rng = np.random.default_rng([ord(arm[0]), len(arm), seed, parameters])
    nats = [frames * (level + 0.3 * number + 0.01 * rng.normal()) for number, frames in enumerate(FRAMES)]
    nll = sum(nats) / sum(FRAMES)
    hybrid = arm not in ("a", "b")
    evaluation = {
        "mel_source": {"c": "original", "c'": "centred", "d": "codec1"}.get(arm, "codec4") if hybrid else "none",
        "input_codebooks": 1,
        "output_codebooks": 1,
        "nll": nll,
        "total_nll": nll,
        "total_bits_per_second": nll * 75 / math.log(2),
        "ppl": math.exp(nll),
        "top1": 0.25,
        "top10": 0.5,
        "ece": 0.031,
        "by_position": [
            {"first": 0, "last": 0, "nll": 5.0, "frames": 5},
            {"first": 4, "last": 7, "nll": 4.0, "frames": 20},
            {"first": 16, "last": 31, "nll": level - 0.5, "frames": 80},
        ],
        "by_document_position": [{"first": 4, "last": 7, "nll": 5.0, "frames": 20}],
        "calibration": [{"low": 0.0, "high": 0.1, "frames": 1000, "confidence": 0.05, "accuracy": 0.06}],
    }
    config = {
        "model": {"output_codebooks": 1, "pattern": "depth", "width": 64},
        "training": {"steps": 1000, "batch": 8, "seed": seed},
        "data": {"context": 256, "shuffle_seed": seed},
    }
    return {
        "kind": "run",
        "experiment": "synthetic",
        "data": "piano",
        "data_fingerprint": "0123456789abcdef",
        "arm": arm,
        "title": f"title of {arm}",
        "size": size,
        "seed": seed,
        "stage": "final",
        "learning_rate": 0.002,
        "embedding_std": 0.3,
        "config": config,
        "parameters": parameters,
        "frames": 2_048_000,
        "train_seconds": 60.0,
        "evaluation": evaluation,
        "documents": [[f"d{n}", FRAMES[n], value, value] for n, value in enumerate(nats)],
        "curve": [[500, 4.5, 4.5], [1000, 4.1, 4.1]],
        "causality": "causal: 1 checks, nothing sees the future" if seed == 0 else None,
        "leaks": arm == "c'",
        "machine": "a machine",
        "commit": "abc1234",
        "versions": {"jax": "0.10.2"},
        "command": "wgpt ablate configs/synthetic.py --data piano=data/piano --workdir runs/synthetic",
    } | more  # fmt: skip


def tune_row(arm: str, rate: float, std: float, nll: float) -> dict:
    row = run_row(arm, learning_rate=rate, embedding_std=std)
    documents = [[f"d{n}", frames, frames * nll, frames * nll] for n, frames in enumerate(FRAMES)]
    evaluation = row["evaluation"] | {"nll": nll, "total_nll": nll}
    return row | {"stage": "tune", "steps": 500, "evaluation": evaluation, "documents": documents}


ROWS = [run_row(arm, seed, level=level) for arm, level in (("a", 4.0), ("c", 3.8), ("d", 4.2)) for seed in range(3)]
SIZES = {"s": (100_000, 4.0), "m": (1_000_000, 3.5), "l": (10_000_000, 3.0)}
"""Parameters and NLL of a token-only arm by size."""


def save(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def loop_row() -> dict:
    def compared(excess: float) -> dict:
        value = {"generated": 1.0 + excess, "floor": 1.0, "excess": excess}
        return value | {f"{name}_stderr": 0.1 for name in value}

    pair = {"generated": 0.1, "generated_stderr": 0.01, "held_out": 0.2, "held_out_stderr": 0.01}
    return {
        "kind": "closed_loop",
        "data": "piano",
        "run": "runs/piano-d",
        "mode": "hybrid",
        "codebooks": 1,
        "sampling": dataclasses.asdict(SamplingConfig()),
        "num_samples": 16,
        "documents": 20,
        "seconds": 20.0,
        "prompt_seconds": 0.0,
        "prompts": [],
        "drift": {
            "windows": [[0.0, 2.5], [2.5, 5.0]],
            "divergence_bits": {"excess": [0.1, 0.2], "excess_stderr": [0.01, 0.02]},
            "overall": compared(0.5),
            "rise": compared(0.15),
        },
        "repetition": {"repeated": pair, "looped": pair},
        "frechet": {"patch_frames": 37, "frames": compared(0.5), "patches": compared(-0.5)},
    }


def document(rows: list[dict]) -> str:
    return make_document(rows, {name: f"Prose of {name}." for name in PASSAGES}).text


def cells(text: str, start: str) -> list[str]:
    """The cells of the first table line that starts so."""
    line = next(line for line in text.split("\n") if line.startswith(start))
    return [cell.strip() for cell in line.strip("|").split("|")]


def contest_row(arm: str, seed: int, level: float) -> dict:
    """A final run that predicts four codebooks; the coarse one costs 4 nats, all of them ``4 + level``."""
    row = run_row(arm, seed)
    flat = arm == "i"
    model = {"output_codebooks": 4, "pattern": "flat" if flat else "depth"}
    training = row["config"]["training"] | {"batch": 2 if flat else 8}
    row["config"] = row["config"] | {"model": model, "training": training}
    row["documents"] = [[name, frames, coarse, coarse + frames * level] for name, frames, coarse, _ in row["documents"]]
    total = sum(document[3] for document in row["documents"]) / sum(FRAMES)
    scores = {"output_codebooks": 4, "input_codebooks": 4, "mel_source": "codec4" if arm.startswith("h") else "none"}
    row["evaluation"] |= scores | {"total_nll": total, "total_bits_per_second": total * 75 / math.log(2)}
    row["frames"] = 1000 * row["config"]["training"]["batch"] * 256
    return row


def lasting(row: dict, steps: int) -> dict:
    return row | {"config": row["config"] | {"training": row["config"]["training"] | {"steps": steps}}}


def data_row(**more) -> dict:
    row = {"kind": "data", "data": "piano", "data_fingerprint": ROWS[0]["data_fingerprint"], "codec": "bundled"}
    row |= {"codec_causal": True, "codebooks": 4, "mel_sources": ["original"], "split_by": "its manifest"}
    return row | {"splits": {}, "causality": "causal: 6 checks", "test_groups": None} | more


def baseline_row(**more) -> dict:
    row = {"kind": "baseline", "data": "piano", "data_fingerprint": ROWS[0]["data_fingerprint"], "split": "test"}
    row |= {"documents": 20, "frames": 64000}
    for at, model in enumerate(("unigram", "bigram", "trigram")):
        row |= {f"{model}_nll": 6.0 - at, f"{model}_nll_stderr": 0.25}
    return row | more


def sized(arm: str, name: str, level: float, seeds: int = 3) -> list[dict]:
    return [run_row(arm, seed, level=level, size=name, parameters=SIZES[name][0]) for seed in range(seeds)]
