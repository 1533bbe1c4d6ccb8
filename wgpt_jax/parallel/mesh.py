"""Devices in a mesh, and where each array lies on it.

Parameters name logical axes (``embed``, ``heads``, ...); ``RULES`` maps those to mesh axes. Nothing else in the
package names a mesh axis.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from flax import nnx
from jax.experimental.mesh_utils import create_device_mesh, create_hybrid_device_mesh
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from wgpt_jax.config import Config, MeshConfig
from wgpt_jax.data.batch import Batch
from wgpt_jax.errors import RequestError

AXES = ("data", "fsdp", "tensor")
RULES = (("embed", "fsdp"), ("heads", "tensor"), ("mlp", "tensor"), ("vocab", "tensor"), ("layers", None))
BATCH_SPEC = P(("data", "fsdp"))
"""The first axis of every batch array is split over these mesh axes."""


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of all devices with axes ``data``, ``fsdp`` and ``tensor``.

    Several TPU slices are laid side by side along ``data``: between them goes one sum of gradients per step, all else
    stays on the fast links within a slice.

    Raises:
        RequestError: if the axis sizes do not multiply to the number of devices, or ``data`` cannot span the slices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [config.data, config.fsdp, config.tensor]
    asked = ", ".join(f"mesh.{axis} {size}" for axis, size in zip(AXES, sizes, strict=True))
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise RequestError(f"mesh sizes must be positive, at most one of them -1; got {asked}")
    if -1 in sizes:
        known = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = len(devices) // known
    if math.prod(sizes) != len(devices):
        raise RequestError(f"{asked}: the product must be {len(devices)}, the number of devices")
    # Only devices of several TPU slices say which slice they are of.
    slices = len({getattr(device, "slice_index", None) for device in devices if device.platform == "tpu"}) or 1
    if sizes[0] % slices:
        raise RequestError(f"{asked}: mesh.data {sizes[0]} must be a multiple of {slices}, the number of slices")
    within = (sizes[0] // slices, *sizes[1:])
    if slices > 1:
        grid = create_hybrid_device_mesh(within, (slices, 1, 1), devices, allow_split_physical_axes=True)
    else:
        grid = create_device_mesh(within, devices, allow_split_physical_axes=True)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * 3)


def check_mesh_fits(config: Config, mesh: Mesh) -> None:
    """Raises RequestError unless every sharded size divides evenly over the mesh, and attention runs on it."""
    m, hybrid = config.model, config.model.inputs == "hybrid"
    fsdp, tensor = mesh.shape["fsdp"], mesh.shape["tensor"]
    rows = mesh.shape["data"] * fsdp
    microbatches = config.training.microbatches
    together = "mesh.data x mesh.fsdp" + (" x training.microbatches" if microbatches > 1 else "")
    sizes = [("training.batch", config.training.batch, rows * microbatches, together)]
    sizes += [("model.width", m.width, fsdp, "mesh.fsdp"), ("model.heads", m.heads, tensor, "mesh.tensor")]
    sizes += [(f"model.{name}", getattr(m, name), tensor, "mesh.tensor") for name in ("hidden", "vocabulary")]
    if m.token_kernel > 1:
        sizes += [("model.token_width", m.token_width, fsdp, "mesh.fsdp")]
    if hybrid:
        sizes += [("model.mel_width", m.mel_width, fsdp, "mesh.fsdp")]
    if hybrid and m.mel_depth:
        sizes += [("model.mel_heads", m.mel_heads, tensor, "mesh.tensor")]
    if m.has_depformer:
        sizes += [("model.depformer_width", m.depformer_width, fsdp, "mesh.fsdp")]
        sizes += [("model.depformer_heads", m.depformer_heads, tensor, "mesh.tensor")]
    here = mesh.devices.flat[0].platform
    for kernel, platforms in (("splash", ("tpu", "cpu")), ("cudnn", ("gpu",))):
        if m.attention == kernel and here not in platforms:
            raise RequestError(f"model.attention {kernel} runs on {platforms[0]}, not on {here}; leave it at auto")
    for key, size, parts, axes in sizes:
        if size % parts:
            raise RequestError(f"{key} {size} is not a multiple of {parts} ({axes})")


@contextlib.contextmanager
def sharded(mesh: Mesh) -> Iterator[None]:
    """Inside, modules are created and traced with their logical axes on ``mesh``."""
    with jax.set_mesh(mesh), nnx.logical_axis_rules(RULES):
        yield


def replicate(x: jax.Array) -> jax.Array:
    """Asks that ``x`` be whole on every device; the identity outside a mesh."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, P())


def split_rows(x: jax.Array) -> jax.Array:
    """Asks that ``x`` be split by its first axis alone, like the batch; the identity outside a mesh.

    Without it the compiler may follow the split of a kernel instead, and move activations where weights are smaller.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, BATCH_SPEC)


def over_mesh(attention: Callable[..., jax.Array], heads_axis: int) -> Callable[..., jax.Array]:
    """Runs an attention kernel on each device's rows and heads: a kernel knows nothing of meshes.

    Args:
        attention: (query, key, value, segment_ids [B, T]) -> output; all but the ids [B, ..., H, ...].
        heads_axis: where H is.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return attention
    heads = P(*BATCH_SPEC, *[None] * (heads_axis - 1), dict(RULES)["heads"])
    # A Pallas kernel does not say over which axes its output varies, so that cannot be checked.
    return jax.shard_map(attention, in_specs=(heads, heads, heads, BATCH_SPEC), out_specs=heads, check_vma=False)


def platform() -> str:
    """What is being compiled for (``cpu``, ``gpu``, ``tpu``): the mesh's devices, else the default backend.

    The two differ when a program is compiled ahead of time for devices that are not there.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of every array of a batch."""
    return NamedSharding(mesh, BATCH_SPEC)


def to_devices(batch: Batch, mesh: Mesh) -> Batch:
    """Puts this host's rows of a global batch onto its devices."""
    sharding = batch_sharding(mesh)
    return Batch(*(jax.make_array_from_process_local_data(sharding, np.asarray(field)) for field in batch))
