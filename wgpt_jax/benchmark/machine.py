"""The machine that something was measured on, as far as it says."""

import importlib.metadata
import os
from typing import Any

from wgpt_jax.doctor.machine import versions
from wgpt_jax.processor import available_cores, processor

_PACKAGES = ("torch", "transformers", "soundfile", "soxr")


def describe_machine() -> dict[str, Any]:
    """Processor, cores, load, versions and commit, as JSON values."""
    facts = versions().facts
    packages = facts["packages"] | {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "processor": processor(),
        "cores": available_cores(),
        "load": round(os.getloadavg()[0], 2),
        "python": facts["python"],
        "packages": packages,
        "commit": facts["commit"],
    }
