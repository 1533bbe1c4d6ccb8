"""Where runs go: a GPU each, a part of the cores each, or the one process that a TPU allows."""

import dataclasses
import glob
import importlib.util
import os
import subprocess

from wgpt_jax.errors import RequestError


@dataclasses.dataclass(frozen=True)
class Place:
    """What a run's process gets of the machine."""

    label: str
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    cores: tuple[int, ...] | None = None
    """Cores it is pinned to; None for all."""


def places(jobs: int | None) -> list[Place]:
    """Divides the machine; touches no device.

    Args:
        jobs: processes at the same time; None for one per GPU, or one.

    Raises:
        RequestError: if there cannot be as many.
    """
    if jobs is not None and jobs < 1:
        raise RequestError(f"--jobs {jobs}: at least one run at a time")
    gpus = _gpus()
    if gpus:
        return _on_gpus(gpus, jobs or len(gpus))
    if _has_tpu():
        if jobs is not None and jobs > 1:
            raise RequestError(f"--jobs {jobs}: a TPU belongs to one process; leave --jobs out")
        return [Place("TPU")]
    return _on_cores(jobs or 1)


def _on_gpus(gpus: list[str], jobs: int) -> list[Place]:
    """Round and round the GPUs; where several runs share one, its memory is divided."""
    shared = -(-jobs // len(gpus))
    memory = {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.9 / shared:.3f}"} if shared > 1 else {}
    chosen = [gpus[job % len(gpus)] for job in range(jobs)]
    return [Place(f"GPU {gpu}", {"CUDA_VISIBLE_DEVICES": gpu} | memory) for gpu in chosen]


def _on_cores(jobs: int) -> list[Place]:
    if not hasattr(os, "sched_getaffinity"):
        if jobs > 1:
            raise RequestError(f"--jobs {jobs}: processes cannot be pinned to cores here; leave --jobs out")
        return [Place("CPU")]
    cores = sorted(os.sched_getaffinity(0))
    if jobs > len(cores):
        raise RequestError(f"--jobs {jobs}: there are {len(cores)} cores; give at most that many")
    if jobs == 1:
        return [Place("CPU")]
    parts = [tuple(cores[job * len(cores) // jobs : (job + 1) * len(cores) // jobs]) for job in range(jobs)]
    return [Place(f"cores {','.join(map(str, part))}", _threads(len(part)), part) for part in parts]


def _threads(cores: int) -> dict[str, str]:
    """XLA would start a thread per core of the machine, and pay for their meetings."""
    if cores > 1:
        return {}
    flags = [os.environ.get("XLA_FLAGS", ""), "--xla_cpu_multi_thread_eigen=false"]
    return {"XLA_FLAGS": " ".join(flags).strip(), "OMP_NUM_THREADS": "1"}


def _asked() -> str:
    return os.environ.get("JAX_PLATFORMS", "").lower()


def _gpus() -> list[str]:
    """Numbers of the GPUs that JAX would use."""
    if _asked().split(",")[0] not in ("", "cuda", "gpu"):
        return []
    if not any(importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13)):
        return []
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [each.strip() for each in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if each.strip()]
    try:
        done = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return [path.removeprefix("/dev/nvidia") for path in sorted(glob.glob("/dev/nvidia[0-9]*"))]
    return [str(number) for number, line in enumerate(done.stdout.splitlines()) if line.startswith("GPU")]


def _has_tpu() -> bool:
    """Whether JAX would start on a TPU: its compiler alone, installed for tools/compile_for.py, is none."""
    if _asked().split(",")[0] not in ("", "tpu") or importlib.util.find_spec("libtpu") is None:
        return False
    return bool(glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*"))
