"""The experiment on these devices: parameters, mesh, batch, speed at most, memory about. Shapes only."""

import jax
from jax.sharding import Mesh

from wgpt_jax.ahead.compile import abstract_batch, bytes_on_one_device
from wgpt_jax.audio.clock import Clock
from wgpt_jax.config import Config, MeshConfig
from wgpt_jax.doctor.machine import memory
from wgpt_jax.doctor.section import Section, in_bytes
from wgpt_jax.errors import RequestError
from wgpt_jax.model.attention import kernel_for
from wgpt_jax.model.decoder import compute_dtype
from wgpt_jax.parallel.hosts import own_rows
from wgpt_jax.parallel.mesh import batch_sharding, check_mesh_fits, make_mesh, sharded
from wgpt_jax.performance.chips import chip_of
from wgpt_jax.performance.flops import flops_per_step
from wgpt_jax.performance.memory import activations
from wgpt_jax.performance.roofline import mfu_ceiling
from wgpt_jax.training.optimizer import make_optimizer
from wgpt_jax.training.state import abstract_model, abstract_state, count_parameters, parameters_by_group


def examine_experiment(config: Config, file: str, clock: Clock | None) -> tuple[Section, Mesh | None]:
    """What a configuration asks of the devices that are here.

    Args:
        config: the experiment.
        file: where it stands.
        clock: of the data, if they are known.

    Returns:
        the section, and the mesh; None if training cannot begin on it.
    """
    section = Section("experiment")
    try:
        config.validate()
        one = make_mesh(MeshConfig(1, 1, 1), jax.local_devices()[:1])
        parameters = _say_parameters(section, config, one)
        mesh = make_mesh(config.mesh)
        section.say("mesh", _axes(mesh), mesh=dict(mesh.shape))
        check_mesh_fits(config, mesh)
        own_rows(config.training.batch, batch_sharding(mesh))
    except RequestError as error:
        section.stop(error)
        return section, None
    _say_batch(section, config, mesh, clock)
    _say_speed(section, config, mesh, parameters)
    _say_memory(section, config, mesh, file)
    return section, mesh


def _say_parameters(section: Section, config: Config, mesh: Mesh) -> int:
    _, params = abstract_model(config.model, mesh)
    groups, count = parameters_by_group(params), count_parameters(params)
    text = ", ".join(f"{name} {size:,}" for name, size in groups.items())
    section.say("parameters", f"{count:,}: {text}", parameters=count, parameters_by_group=groups)
    return count


def _axes(mesh: Mesh) -> str:
    return ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items())


def _say_batch(section: Section, config: Config, mesh: Mesh, clock: Clock | None) -> None:
    windows, context, parts = config.training.batch, config.data.context, config.training.microbatches
    rows, frames = mesh.shape["data"] * mesh.shape["fsdp"], windows * context
    hours = clock.seconds(frames) / 3600 if clock else None
    heard = f"{hours:.3f} hours of audio" if clock else "--data says how much audio that is"
    text = f"{windows:,} windows of {context:,} frames over all devices: {frames:,} frames a step, {heard}"
    section.say("global batch", text, batch=windows, frames_per_step=frames, hours_per_step=hours)
    text = f"{windows // rows:,} windows" + (f", in {parts} microbatches" if parts > 1 else "")
    section.say("per device", text, windows_per_device=windows // rows, microbatches=parts)


def _say_speed(section: Section, config: Config, mesh: Mesh, parameters: int) -> None:
    dtype, kernel = _dtype_and_kernel(config, mesh)
    section.say("compute", f"{dtype}, attention by {kernel}", dtype=str(dtype), attention=kernel)
    flops, chip = flops_per_step(config), chip_of(mesh.devices.flat[0].device_kind)
    ceiling = mfu_ceiling(config, chip, parameters, **mesh.shape) if chip else None
    section.say("model FLOPs", f"{flops:.3e} a step", model_flops_per_step=flops)
    section.facts["mfu_ceiling"] = ceiling and ceiling.mfu
    section.facts["shortest_step_seconds"] = ceiling and ceiling.seconds
    if ceiling:
        text = f"{100 * ceiling.mfu:.1f} %, a step in {1000 * ceiling.seconds:.2f} ms: roofline of {chip.name}"
        section.say("MFU at most", text)


def _dtype_and_kernel(config: Config, mesh: Mesh) -> tuple[jax.numpy.dtype, str]:
    """The compute type and the attention kernel that ``auto`` means on a mesh."""
    m = config.model
    with sharded(mesh):
        dtype = compute_dtype(m)
        query = jax.ShapeDtypeStruct((1, config.data.context, m.heads, m.width // m.heads), dtype)
        return dtype, kernel_for(query, m.attention)


def estimate_memory(config: Config, mesh: Mesh) -> dict[str, int]:
    """About what a training step needs on one device, in bytes: exactly its arguments, the rest by formula."""
    abstract = abstract_state(config, make_optimizer(config.optimizer, config.training.steps), mesh)
    dtype, kernel = _dtype_and_kernel(config, mesh)
    parts = config.training.microbatches
    rows = config.training.batch / parts / mesh.shape["data"] / mesh.shape["fsdp"]
    kept = activations(config, rows=rows, itemsize=dtype.itemsize, attention=kernel, tensor=mesh.shape["tensor"])
    return {
        "state": bytes_on_one_device(abstract),
        "batch": bytes_on_one_device(abstract_batch(config, mesh)),
        # Microbatches add to a sum: a second set.
        "gradients": bytes_on_one_device(abstract.params) * (2 if parts > 1 else 1),
        "saved_activations": kept.saved,
        "working_activations": kept.working,
    }


def _say_memory(section: Section, config: Config, mesh: Mesh, file: str) -> None:
    sizes, (available, _) = estimate_memory(config, mesh), memory(mesh.local_devices[0])
    if mesh.local_devices[0].platform == "cpu":  # they share the host's
        available //= len(mesh.local_devices)
    total, remat = sum(sizes.values()), config.model.remat
    text = ", ".join(f"{name.replace('_', ' ')} {in_bytes(size)}" for name, size in sizes.items())
    section.say(
        "memory",
        f"about {in_bytes(total)} of {in_bytes(available)} a device: {text} (remat {remat})",
        remat=remat,
        memory_estimate_bytes=total,
        memory_estimate_parts=sizes,
        memory_available_bytes=available,
    )
    section.say("", f"an estimate by formula; of TPUs and GPUs the compiler's own: python tools/compile_for.py {file}")
    if total > available:
        section.warn(
            f"a step needs about {in_bytes(total)} of a device's {in_bytes(available)}: ask python "
            f"tools/compile_for.py {file}; a smaller --training.batch, --training.microbatches, --model.remat dots or "
            "full, or more --mesh.fsdp need less"
        )
