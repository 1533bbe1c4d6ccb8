"""Where a figure comes from: the machine, the commit, the command."""

import shlex
import sys
from typing import Any

from wgpt_jax.doctor.machine import checkout
from wgpt_jax.processor import available_cores, processor
from wgpt_jax.runs import versions


def machine() -> str:
    """The devices of this process: GPUs or TPUs by their kind, else the processor and its cores."""
    import jax

    found = jax.devices()
    if found[0].platform == "cpu":
        cores = available_cores()
        return f"{processor()}, {cores} core{'s' if cores > 1 else ''}"
    return f"{len(found)} x {found[0].device_kind}"


def provenance(tool: str) -> dict[str, Any]:
    """``machine``, ``commit`` (None outside a checkout), ``versions`` and ``command`` of a row that a tool makes now.

    Args:
        tool: its file; the row's command is ``python`` with it and with this process's arguments.
    """
    command = shlex.join(["python", tool, *sys.argv[1:]])
    return {"machine": machine(), "commit": checkout(), "versions": versions(), "command": command}
