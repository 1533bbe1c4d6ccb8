"""The machine that something was measured on, as far as it says."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from wgpt_jax.doctor.machine import versions
from wgpt_jax.prepare.engines.local import available_cores

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


def processor() -> str:
    """The model of the CPU, as the system names it."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
