"""Devices that are not there, as the compilers know them (jax.experimental.topologies)."""

import os
import re
from collections.abc import Sequence
from importlib.util import find_spec

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from wgpt_jax.ahead.cuda import cuda_devices, cuda_memory
from wgpt_jax.errors import RequestError

EXAMPLES = "v5e:2x2, v5e:16x16, v5p:4x4x4, v6e:16x16, tpu7x:2x2x1, cuda:h100x8"
_FAR_TOO_MUCH = 2**50  # bytes


def topology_devices(name: str, num_slices: int = 1) -> list[jax.Device]:
    """The devices of a topology, to compile for; none of them is needed.

    A name is a TPU generation and its chips along each axis: ``v5e:16x16`` is what Google calls v5litepod-256,
    ``v5p:4x4x4`` is v5p-128 (which counts cores, two to a chip). Or it is ``cuda:`` and GPUs, as in ``cuda:h100x8``.

    Args:
        name: as above.
        num_slices: that many of them, connected by the data centre's network.

    Raises:
        RequestError: if the compiler is not installed, or knows no such topology.
    """
    if name.startswith("cuda:"):
        if num_slices > 1:
            raise RequestError("--num-slices is of TPUs; hosts of GPUs are part of the topology, as in cuda:h100x8x4")
        return cuda_devices(name.removeprefix("cuda:"))
    if find_spec("libtpu") is None:
        raise RequestError("compiling for TPUs needs libtpu, which is not installed; pip install 'wgpt_jax[aot]'")
    # libtpu would ask the network what machine this is; it needs an answer, but nothing depends on it.
    for key, value in (
        ("TPU_SKIP_MDS_QUERY", "1"),
        ("TPU_ACCELERATOR_TYPE", "v5litepod-16"),
        ("TPU_WORKER_HOSTNAMES", "localhost"),
        ("TPU_WORKER_ID", "0"),
        ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
    ):
        os.environ.setdefault(key, value)
    extra = {} if num_slices == 1 else {"num_slices": num_slices}
    if re.fullmatch(r"\w+:1(x1)*", name):
        extra["chips_per_host_bounds"] = (1, 1, 1)  # a host of one chip, which the compiler does not take by itself
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=name, **extra).devices
    except (RuntimeError, ValueError) as error:
        raise RequestError(f"--topology {name}: {_first_line(error)}; the like of {EXAMPLES} are known") from error
    return list(devices)


def memory_of(device: jax.Device) -> int:
    """Bytes of a device's memory that a program can have, some less than the vendor's figure.

    The TPU compiler is asked itself: it refuses a program that is far too large, and names the limit.

    Raises:
        RequestError: if it does not.
    """
    if device.platform == "gpu":
        return cuda_memory(device)
    far_too_much = jax.ShapeDtypeStruct((_FAR_TOO_MUCH,), jnp.uint8, sharding=SingleDeviceSharding(device))
    try:
        jax.jit(lambda x: x + 1).lower(far_too_much).compile()
    except jax.errors.JaxRuntimeError as error:
        if (limits := out_of_memory(error)) is not None:
            return limits[1]
    raise RequestError(f"this version of the compiler does not say how much memory a {device.device_kind} has")


def out_of_memory(error: Exception) -> tuple[int, int] | None:
    """Bytes needed for temporaries and bytes available, if that is what a compile error is about."""
    sizes = re.search(r"\(([\d.]+)([KMGTP]?)\) exceeds available HBM \(([\d.]+)([KMGTP]?)\)", str(error))
    if sizes is None:
        return None
    unit = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50}
    return int(float(sizes[1]) * unit[sizes[2]]), int(float(sizes[3]) * unit[sizes[4]])


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__


def describe(devices: Sequence[jax.Device]) -> str:
    """``256 x TPU v5 lite``."""
    return f"{len(devices)} x {devices[0].device_kind}"
