"""GPUs that are not here: what XLA needs to know of them to compile."""

import dataclasses
import re
from importlib.util import find_spec

import jax
from jax.experimental import topologies

from wgpt_jax.errors import RequestError

PREALLOCATED = 0.75
"""Of a GPU's memory, what JAX takes by default (XLA_PYTHON_CLIENT_MEM_FRACTION)."""


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A Hopper GPU, as it describes itself."""

    kind: str
    memory: int
    """Bytes, as the driver reports them."""
    bandwidth: int
    """Bytes per second."""


GPUS = {
    "h100": Gpu("NVIDIA H100 80GB HBM3", 81_559 * 2**20, 3_352_320_000_000),
    "h200": Gpu("NVIDIA H200", 143_771 * 2**20, 4_800_000_000_000),
}

# The fields of xla/service/gpu/... GpuTargetConfigProto; figures that both have in common are Hopper's.
_TARGET = """
gpu_device_info {{
  cuda_compute_capability {{ major: 9 minor: 0 feature_extension: ACCELERATED_FEATURES }}
  core_count: 132 fpus_per_core: 128 threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  registers_per_core_limit: 65536 registers_per_block_limit: 65536 clock_rate_ghz: 1.98
  memory_bandwidth: {gpu.bandwidth} l2_cache_size: 52428800 device_memory_size: {gpu.memory}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
runtime_version {{ major: 12 minor: 8 }}
device_description_str: "{gpu.kind}"
"""


def cuda_devices(name: str) -> list[jax.Device]:
    """The GPUs of one host, or of several: ``h100x8``, ``h200x8x4`` (8 GPUs on each of 4 hosts).

    Raises:
        RequestError: if the name is no such thing, or the CUDA plugin is not installed.
    """
    parts = re.fullmatch(r"(\w+?)x(\d+)(?:x(\d+))?", name)
    if parts is None or parts[1] not in GPUS:
        known = ", ".join(f"cuda:{gpu}x8" for gpu in GPUS)
        raise RequestError(f"--topology cuda:{name}: the like of {known}, cuda:h100x8x4 (of 4 hosts) are known")
    try:
        topology = topologies.get_topology_desc(
            platform="cuda",
            topology_name="",
            target_config=_TARGET.format(gpu=GPUS[parts[1]]),
            topology=f"1x{parts[3] or 1}x{parts[2]}",
        )
    except NotImplementedError as error:
        raise RequestError(
            "compiling for GPUs needs JAX's CUDA plugin, which is not installed; pip install 'wgpt_jax[aot-cuda]'"
        ) from error
    return list(topology.devices)


def cuda_memory(device: jax.Device) -> int:
    """Bytes that JAX would take of a device from :func:`cuda_devices`; the compiler itself refuses nothing."""
    return int(PREALLOCATED * next(gpu.memory for gpu in GPUS.values() if gpu.kind == device.device_kind))


def has_cudnn() -> bool:
    """Whether cuDNN's wheel is installed: JAX asks for it before it traces a call."""
    return find_spec("nvidia") is not None and find_spec("nvidia.cudnn") is not None
