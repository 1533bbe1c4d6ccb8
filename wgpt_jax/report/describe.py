"""A row of kind ``data``: what prepared data is, how it was split, what its test documents share, that it is causal."""

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wgpt_jax.data.identity import token_hashes
from wgpt_jax.data.index import SPLITS, load_index, load_inputs
from wgpt_jax.proof import proof_of_causality
from wgpt_jax.provenance import checkout, machine
from wgpt_jax.report.rows import Row
from wgpt_jax.runs import training_data_fingerprint

_SHARED = ("speaker", "work", "book", "piece", "chapter_id")
"""What documents may have in common, so that they are no independent evidence; the first that all have counts."""


def describe_data(name: str, folder: str | os.PathLike) -> Row:
    """A row of kind ``data``: what is in prepared data, by split, and what the proof of causality says of it.

    Raises:
        RequestError: if there is no such data.
        WorkError: if a shard is damaged, or its causality cannot be checked.
    """
    index = load_index(folder)
    command = ["python", "tools/verify_causality.py", "--data", str(folder)]
    return {
        "kind": "data",
        "data": name,
        "data_fingerprint": training_data_fingerprint(index),
        "codec": index.codec.name,
        "codec_fingerprint": index.codec.fingerprint,
        "codec_causal": index.codec.causal,
        "codebooks": index.codebooks,
        "mel": index.mel.fingerprint(),
        "mel_sources": list(index.mel_sources),
        "tokens": token_hashes(folder, index),
        "splits": {
            split: {
                "hours": index.clock.seconds(index.frames(split)) / 3600,
                "documents": index.documents(split),
                "frames": index.frames(split),
            }
            for split in SPLITS
            if index.documents(split)
        },
        "split_by": _held_out_by(index.options),
        "test_groups": shared_by(load_inputs(folder)),
        "causality": proof_of_causality("--data", folder),
        "machine": machine(),
        "commit": checkout(),
        "command": shlex.join(command),
    }


def shared_by(inputs: Sequence[Mapping[str, Any]]) -> Row | None:
    """What the documents of the test split have in common, in pairs or more.

    Args:
        inputs: from :func:`wgpt_jax.data.index.load_inputs`.

    Returns:
        ``by``, the first of speaker, work, book, piece and chapter that all documents have and that not all share, and
        ``documents``: [name, its value]; None if there is none.
    """
    used = [row for row in inputs if row["fate"] == "used" and row["split"] == "test"]
    for key in _SHARED:
        found = [row.get(key, row.get("metadata", {}).get(key)) for row in used]
        values = ["" if value is None else str(value) for value in found]
        if all(values) and len(set(values)) > 1:
            names = [row.get("name", row["path"]) for row in used]
            return {"by": key, "documents": [list(pair) for pair in zip(names, values, strict=True)]}
    return None


def _held_out_by(options: Mapping[str, Any]) -> str:
    """What said which documents are held out: a manifest's or TFDS's own splits come before ``--split-by``."""
    if "split_by" not in options:
        return "its maker"
    source = options["source"]
    if options["resplit"] or (not source.startswith("tfds:") and not source.endswith(".jsonl")):
        return options["split_by"]
    if source.startswith("tfds:"):
        return "TFDS"
    try:
        lines = [json.loads(line) for line in Path(source).read_text().splitlines() if line.strip()]
    except (OSError, ValueError):
        return f"its manifest, or {options['split_by']} where that has no splits"
    return "its manifest" if any(line.get("split") for line in lines) else options["split_by"]
