"""Where a figure comes from: the machine, the commit, the command."""

import shlex
import sys

from wgpt_jax.doctor.machine import checkout
from wgpt_jax.processor import available_cores, processor


def machine() -> str:
    """The devices of this process: GPUs or TPUs by their kind, else the processor and its cores."""
    import jax

    found = jax.devices()
    if found[0].platform == "cpu":
        return f"{processor()}, {available_cores()} cores"
    return f"{len(found)} x {found[0].device_kind}"


def provenance(tool: str) -> dict[str, str | None]:
    """``machine``, ``commit`` (None outside a checkout) and ``command`` of a row that ``python tool`` makes now."""
    command = shlex.join(["python", tool, *sys.argv[1:]])
    return {"machine": machine(), "commit": checkout(), "command": command}
