"""How much memory a conversion takes, whatever the length of what it converts."""

import dataclasses
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

from wgpt_jax.benchmark.signals import signal, write_long
from wgpt_jax.benchmark.timing import in_own_process
from wgpt_jax.prepare.inspection import Inspector
from wgpt_jax.prepare.items import Item
from wgpt_jax.prepare.request import PrepareArgs, conversion_of
from wgpt_jax.prepare.shards import ShardMaker, ShardTask
from wgpt_jax.prepare.sources.opening import open_source
from wgpt_jax.prepare.storage import open_storage

SHORT_SECONDS = 60.0
_MEL_SOURCES = "original,codec1"  # the decoder too is then in memory, at work


@dataclasses.dataclass(frozen=True)
class _Task:
    folder: Path
    file: str
    codec: str
    codebooks: int | None


def measure_memory(audio: Path | None, codec: str, codebooks: int | None, hours: float) -> dict[str, Any]:
    """Peak memory of a process that converts a long WAV, and of one that converts a short one, on the CPU.

    Args:
        audio: whose first minute is repeated; None for a synthetic signal.
        codec: name or folder.
        codebooks: K.
        hours: length of the long file.

    Returns:
        JSON values: in ``files`` the seconds, bytes and mel sources of each.
    """
    files = []
    with tempfile.TemporaryDirectory() as scratch:
        minute = signal(audio, SHORT_SECONDS)
        for name, seconds in (("short", SHORT_SECONDS), ("long", 3600 * hours)):
            write_long(Path(scratch) / f"{name}.wav", minute, seconds)
            found = in_own_process(_convert, _Task(Path(scratch), f"{name}.wav", codec, codebooks))
            files.append({"seconds": seconds, **found})
    return {"mel_sources": _MEL_SOURCES, "files": files}


def _convert(task: _Task) -> dict[str, int]:
    """Inspects and converts a file; bytes at the peak before and after."""
    from wgpt_jax.prepare.codec import cached_codec

    codec = cached_codec(task.codec, False, "cpu")
    flags = PrepareArgs(
        str(task.folder), "", codec=task.codec, num_codebooks=task.codebooks, mel_sources=_MEL_SOURCES, batch=1
    )
    conversion = conversion_of(flags, codec, ("cpu",))
    loaded = peak_memory()
    source, storage = open_source(str(task.folder)), open_storage(str(task.folder / "out"), beam=False)
    found = Inspector(source, codec.clock, None).inspect(Item(task.file, task.file))
    ShardMaker(source, storage, conversion, codec.codebook_size)(ShardTask("train-00000", "train", (found,)))
    return {"codec_loaded_bytes": loaded, "peak_bytes": peak_memory()}


def peak_memory() -> int:
    """Bytes of memory that this process has had at most."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, getrusage counts what the parent had when it started this process
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
