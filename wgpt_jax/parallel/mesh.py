"""Devices in a mesh, and where each array lies on it.

Parameters name logical axes (``embed``, ``heads``, ...); ``RULES`` maps those to mesh axes. Nothing else in the
package names a mesh axis.
"""

import contextlib
import math
from collections.abc import Iterator

import jax
import numpy as np
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from wgpt_jax.config import Config, MeshConfig
from wgpt_jax.data.batch import Batch
from wgpt_jax.errors import RequestError

AXES = ("data", "fsdp", "tensor")
RULES = (("embed", "fsdp"), ("heads", "tensor"), ("mlp", "tensor"), ("vocab", "tensor"), ("layers", None))
BATCH_SPEC = P(("data", "fsdp"))
"""The first axis of every batch array is split over these mesh axes."""


def make_mesh(config: MeshConfig, devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh of all devices with axes ``data``, ``fsdp`` and ``tensor``.

    Raises:
        RequestError: if the axis sizes do not multiply to the number of devices.
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
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def check_mesh_fits(config: Config, mesh: Mesh) -> None:
    """Raises RequestError unless the batch and every sharded size divide evenly over the mesh."""
    m, hybrid = config.model, config.model.inputs == "hybrid"
    fsdp, tensor = mesh.shape["fsdp"], mesh.shape["tensor"]
    rows = mesh.shape["data"] * fsdp
    sizes = [("training.batch", config.training.batch, rows, "mesh.data x mesh.fsdp")]
    sizes += [("model.width", m.width, fsdp, "mesh.fsdp"), ("model.heads", m.heads, tensor, "mesh.tensor")]
    sizes += [(f"model.{name}", getattr(m, name), tensor, "mesh.tensor") for name in ("hidden", "vocabulary")]
    if hybrid:
        sizes += [("model.mel_width", m.mel_width, fsdp, "mesh.fsdp")]
    if hybrid and m.mel_depth:
        sizes += [("model.mel_heads", m.mel_heads, tensor, "mesh.tensor")]
    if m.output_codebooks > 1:
        sizes += [("model.depformer_width", m.depformer_width, fsdp, "mesh.fsdp")]
        sizes += [("model.depformer_heads", m.depformer_heads, tensor, "mesh.tensor")]
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


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of every array of a batch."""
    return NamedSharding(mesh, BATCH_SPEC)


def to_devices(batch: Batch, mesh: Mesh) -> Batch:
    """Puts this host's rows of a global batch onto its devices."""
    sharding = batch_sharding(mesh)
    return Batch(*(jax.make_array_from_process_local_data(sharding, np.asarray(field)) for field in batch))
