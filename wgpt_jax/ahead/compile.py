"""Compiles the real training step for a mesh, and says what it would cost there."""

import dataclasses
import math
import re
import time
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from wgpt_jax.ahead.cuda import has_cudnn
from wgpt_jax.ahead.topology import memory_of, out_of_memory
from wgpt_jax.config import Config
from wgpt_jax.data.batch import Batch
from wgpt_jax.model.attention import kernel_for
from wgpt_jax.model.decoder import compute_dtype
from wgpt_jax.parallel.mesh import batch_sharding, check_mesh_fits, sharded
from wgpt_jax.performance.chips import chip_of
from wgpt_jax.performance.flops import flops_per_step
from wgpt_jax.performance.roofline import mfu_ceiling
from wgpt_jax.training.optimizer import make_optimizer
from wgpt_jax.training.state import abstract_model, abstract_state, count_parameters
from wgpt_jax.training.step import make_train_step

STORED_CODEBOOKS = 8
"""Codebooks in the records that the preparation tool writes by default; all of them travel with a batch."""
_COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """What the compiler says of a training step on one chip of a mesh; the fields are those of ``--json``."""

    devices: int
    device_kind: str
    mesh: dict[str, int]
    batch: int
    """Windows per step over all devices."""
    frames_per_step: int
    """Positions of those windows, all of which are computed."""
    remat: str
    attention: str
    """The kernel that windows go through."""
    parameters: int
    hbm_argument_bytes: int
    """The state and the batch, on one device."""
    hbm_temporary_bytes: int
    """What the step needs besides, if all of it lived at once."""
    hbm_peak_bytes: int
    """The most that is in use at once."""
    hbm_available_bytes: int
    fits: bool
    model_flops_per_step: int
    """Over all devices; :func:`wgpt_jax.performance.flops.flops_per_step`."""
    mfu_ceiling: float | None
    """:func:`wgpt_jax.performance.roofline.mfu_ceiling`; None for a chip whose figures are not known."""
    collectives: dict[str, int] | None
    """Operations in the compiled program by kind, loop bodies once; None if it does not fit."""
    compile_seconds: float


def abstract_batch(config: Config, mesh: Mesh) -> Batch:
    """Shapes, types and shardings of a training batch."""
    b, t, sharding = config.training.batch, config.data.context, batch_sharding(mesh)
    shapes = (
        ((b, t + 1, max(STORED_CODEBOOKS, config.model.output_codebooks)), jnp.int16),
        ((b, t + 1, config.model.mel_bands), jnp.float16),
        ((b, t), jnp.int32),
        ((b, t), jnp.int32),
        ((b, t), jnp.bool_),
    )
    return Batch(*(jax.ShapeDtypeStruct(shape, dtype, sharding=sharding) for shape, dtype in shapes))


def compile_step(config: Config, mesh: Mesh, available: int | None = None) -> CompiledStep:
    """Compiles the step that ``wgpt train`` would run on ``mesh``, whose devices need not be there.

    Args:
        config: the experiment.
        mesh: from :func:`wgpt_jax.parallel.mesh.make_mesh`.
        available: bytes of one device's memory, if they are known already.

    Raises:
        RequestError: if the batch or the network does not divide over the mesh.
    """
    check_mesh_fits(config, mesh)
    device = mesh.devices.flat[0]
    if device.platform == "gpu" and config.model.attention == "auto" and not has_cudnn():
        # Needed to compile a call of it. The einsum needs more memory, so that what fits with it fits without.
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, attention="einsum"))
    available = memory_of(device) if available is None else available
    optimizer = make_optimizer(config.optimizer, config.training.steps)
    graph, params = abstract_model(config.model, mesh)
    state = abstract_state(config, optimizer, mesh)
    batch = abstract_batch(config, mesh)
    step = make_train_step(config, graph, optimizer, mesh, state)

    begin = time.perf_counter()
    arguments = bytes_on_one_device((state, batch))
    try:
        compiled = step.lower(state, batch).compile()
    except jax.errors.JaxRuntimeError as error:
        if (sizes := out_of_memory(error)) is None:
            raise
        temporaries, peak, collectives = sizes[0], arguments + sizes[0], None
    else:
        memory = compiled.memory_analysis()
        arguments, temporaries = memory.argument_size_in_bytes, memory.temp_size_in_bytes
        peak, collectives = memory.peak_memory_in_bytes, count_collectives(compiled)
    seconds = time.perf_counter() - begin

    with sharded(mesh):
        window = jax.ShapeDtypeStruct((1, config.data.context, 1, 1), compute_dtype(config.model))
        attention = kernel_for(window, config.model.attention)
    parameters, chip = count_parameters(params), chip_of(device.device_kind)
    return CompiledStep(
        devices=mesh.size,
        device_kind=device.device_kind,
        mesh=dict(mesh.shape),
        batch=config.training.batch,
        frames_per_step=config.training.batch * config.data.context,
        remat=config.model.remat,
        attention=attention,
        parameters=parameters,
        hbm_argument_bytes=arguments,
        hbm_temporary_bytes=temporaries,
        hbm_peak_bytes=peak,
        hbm_available_bytes=available,
        fits=peak <= available,
        model_flops_per_step=flops_per_step(config),
        mfu_ceiling=mfu_ceiling(config, chip, parameters, **mesh.shape).mfu if chip else None,
        collectives=collectives,
        compile_seconds=seconds,
    )


def count_collectives(compiled: jax.stages.Compiled) -> dict[str, int]:
    """Collective operations in a compiled program by kind.

    On TPU a reduce-scatter is an all-reduce in a fusion that is named for both, and is counted as what it is.
    """
    text = compiled.as_text()
    counts, scatters = dict.fromkeys(_COLLECTIVES, 0), False
    for line in text.splitlines():
        if line and not line[0].isspace():  # the head of a computation
            scatters = "all-reduce-scatter" in line.split(" (")[0]
        for kind in re.findall(rf" ({'|'.join(_COLLECTIVES)})(?:-start)?\(", line):
            counts["reduce-scatter" if scatters and kind == "all-reduce" else kind] += 1
    return counts


def bytes_on_one_device(tree: Any) -> int:
    """Bytes of one device's shards of a tree of arrays, or of shapes with shardings."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
