"""The arms of the experiment: ways to feed the model, and ways to predict several codebooks."""

import dataclasses
from typing import Any

from wgpt_jax.ablation.grid import Arm
from wgpt_jax.mel_sources import ORIGINAL

CODEBOOKS = 4
"""Codebooks of the arms that read or predict several."""
_SLICE = {"fusion": "add", "mel_depth": 0, "mel_kernel": 1}
"""A mel that brings no network of its own: the slice, projected and added to the tokens."""
_CONVOLVED = {"token_kernel": 16}
_SUMMED = {"input_codebooks": CODEBOOKS}
_OUT = {"output_codebooks": CODEBOOKS}

INPUTS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("a", "coarse token", {}, keep_checkpoints=True),
        Arm("b", f"{CODEBOOKS} codebooks summed", _SUMMED),
        Arm("c", "mel of the original", {}, mel=ORIGINAL),
        Arm("d", "mel of the 1-codebook decode", {}, mel="codec1", keep_checkpoints=True),
        Arm("e", f"mel of the {CODEBOOKS}-codebook decode", {}, mel=f"codec{CODEBOOKS}"),
        Arm("f", "latent before quantisation", {}, mel="latent"),
        Arm("c'", "centred mel (leaks)", {}, mel="centred", leaks=True),
        Arm("ac", "coarse token, convolved", _CONVOLVED, keep_checkpoints=True),
        Arm("cc", "coarse token, convolved, and the original's mel", _CONVOLVED | _SLICE, mel=ORIGINAL),
        Arm("dc", "coarse token, convolved, and the mel of its decode", _CONVOLVED | _SLICE, mel="codec1"),
    )
}
"""The ladder of inputs; all predict the coarse token."""

CONTEST: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("g", "codebooks summed, delay", _SUMMED | _OUT | {"pattern": "delay"}),
        Arm("g2", "codebooks summed, depth", _SUMMED | _OUT | {"pattern": "depth"}, keep_checkpoints=True),
        Arm(
            "h",
            "codebooks summed and their own mel, depth",
            _SUMMED | _OUT | _SLICE | {"pattern": "depth"},
            mel=f"codec{CODEBOOKS}",
            keep_checkpoints=True,
        ),
        Arm(
            "g2c",
            "codebooks summed and convolved, depth",
            _SUMMED | _OUT | _CONVOLVED | {"pattern": "depth"},
            keep_checkpoints=True,
        ),
        Arm(
            "hc",
            "codebooks summed and convolved, and their own mel, depth",
            _SUMMED | _OUT | _CONVOLVED | _SLICE | {"pattern": "depth"},
            mel=f"codec{CODEBOOKS}",
            keep_checkpoints=True,
        ),
        Arm("i", "flattened, equal compute", _OUT | {"pattern": "flat"}, batch_divisor=CODEBOOKS),
    )
}
"""The contest at several codebooks out; the total over all of them is compared."""


def chosen(*names: str) -> tuple[Arm, ...]:
    """Arms by name, in that order."""
    return tuple((INPUTS | CONTEST)[name] for name in names)


def variant(arm: Arm, name: str, change: str, **model: Any) -> Arm:
    """An arm with keys of its model changed, and a title that says how."""
    return dataclasses.replace(arm, name=name, title=f"{arm.title}; {change}", model={**arm.model, **model})
