"""Hybrid audio language models on JAX (WHISPER-GPT, arXiv 2412.11449).

The names below are imported when first used, so that ``import wgpt_jax`` costs nothing.
"""

import importlib
from typing import Any

_HOMES = {
    "Config": "wgpt_jax.config",
    "load_config": "wgpt_jax.config",
    "train": "wgpt_jax.training.loop",
    "evaluate": "wgpt_jax.evaluation",
    "ablate": "wgpt_jax.ablation.main",
    "export": "wgpt_jax.training.weights",
    "generate": "wgpt_jax.generation",
    "Generator": "wgpt_jax.closed_loop.generator",
    "read_run": "wgpt_jax.runs",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
