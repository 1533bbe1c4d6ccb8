"""``wgpt doctor --bench``: what a training step costs the host, which must be less than it costs the device."""

import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from wgpt_jax.config import Config
from wgpt_jax.data.batch import Batch
from wgpt_jax.data.index import DataIndex
from wgpt_jax.data.pipeline import describe_damage, training_batches
from wgpt_jax.doctor.section import Section, in_bytes
from wgpt_jax.interrupt import deaf_to_interrupts
from wgpt_jax.parallel.mesh import to_devices
from wgpt_jax.training.optimizer import make_optimizer
from wgpt_jax.training.state import abstract_model, abstract_state, init_state
from wgpt_jax.training.step import make_train_step

WARM_UP, TIMES = 10, 100
_CONTEXT = 8


@dataclasses.dataclass(frozen=True)
class _Times:
    """Seconds."""

    call: float
    """Median until a call returned."""
    fastest: float
    """The shortest of these."""
    wait: float
    """Median from then until what it returned was there."""


def bench(config: Config, mesh: Mesh, data: Path | None, index: DataIndex | None) -> Section:
    """Times what the host does for a training step of a configuration.

    Args:
        config: the experiment.
        mesh: of the devices that are here.
        data: prepared data that the experiment can train on, to time the pipeline too; None for none.
        index: its index.
    """
    section = Section("bench")
    _time_dispatch(section, config, mesh)
    batch = zeros(config) if index is None else _time_pipeline(section, config, data, index)
    if batch is not None:
        _time_transfer(section, batch, mesh)
    section.say("", f"each is the median of {TIMES} after {WARM_UP} more; a step costs the host their sum")
    return section


def tiny(config: Config, mesh: Mesh) -> Config:
    """A network of the same arrays, each as small as the mesh allows: blocks are stacked, so depth makes no arrays."""
    fsdp, heads = mesh.shape["fsdp"], mesh.shape["tensor"]
    width, m = 2 * fsdp * heads, config.model
    model = dataclasses.replace(
        m,
        width=width,
        depth=1,
        heads=heads,
        hidden=heads,
        token_width=width,
        mel_width=width,
        mel_depth=min(m.mel_depth, 1),
        mel_heads=heads,
        vocabulary=2 * heads,
        depformer_width=width,
        depformer_depth=1,
        depformer_heads=heads,
    )
    rows = mesh.shape["data"] * fsdp * config.training.microbatches
    return dataclasses.replace(
        config,
        model=model,
        data=dataclasses.replace(config.data, context=_CONTEXT),
        training=dataclasses.replace(config.training, batch=rows),
    )


def zeros(config: Config) -> Batch:
    """This process's rows of a batch of silence, [B, ...] on the host."""
    rows, t, m = config.training.batch // jax.process_count(), config.data.context, config.model
    return Batch(
        tokens=np.zeros((rows, t + 1, m.output_codebooks), np.int16),
        mel=np.zeros((rows, t + 1, m.mel_bands), np.float16),
        segment_ids=np.ones((rows, t), np.int32),
        positions=np.broadcast_to(np.arange(t, dtype=np.int32), (rows, t)),
        starts=np.zeros((rows, t), bool),
    )


def returns_early(mesh: Mesh) -> bool:
    """Whether a call returns before its computation is done, tried with one that keeps a CPU busy for a while."""
    if mesh.devices.flat[0].platform != "cpu":
        return True
    # Products, because the CPU computes at once what it holds to be cheap.
    work = jax.jit(lambda x: jax.lax.fori_loop(0, 500, lambda _, y: x @ y, x))
    times = _times(lambda: work(jnp.eye(128)), times=5, warm_up=1)
    return times.wait > times.call


def _time_dispatch(section: Section, config: Config, mesh: Mesh) -> None:
    small = tiny(config, mesh)
    optimizer = make_optimizer(small.optimizer, small.training.steps)
    graph, _ = abstract_model(small.model, mesh)
    abstract = abstract_state(small, optimizer, mesh)
    step = make_train_step(small, graph, optimizer, mesh, abstract)
    held = [init_state(small, optimizer, mesh, abstract)]
    batch = to_devices(zeros(small), mesh)

    def once() -> tuple:
        state, metrics = step(held.pop(), batch)
        held.append(state)
        return state, metrics

    times = _times(once)
    arrays, early = len(jax.tree.leaves(abstract)), returns_early(mesh)
    section.say(
        "dispatch",
        f"{1e3 * times.call:.3f} ms (fastest {1e3 * times.fastest:.3f}): the call of the step alone, on an idle device "
        f"with the batch on it; all {arrays} arrays of the configuration's state, shrunk",
        dispatch_seconds=times.call,
        dispatch_fastest_seconds=times.fastest,
        dispatch_arrays=arrays,
        dispatch_is_asynchronous=early,
    )
    after = (
        f"the device was done {1e3 * times.wait:.3f} ms after the call"
        if early
        else ("here a call returns only when its computation is done: this small one's is in the time")
    )
    section.say("", after, done_after_seconds=times.wait)


def _time_pipeline(section: Section, config: Config, data: Path, index: DataIndex) -> Batch | None:
    reads_mel, size = config.model.inputs == "hybrid", config.training.batch
    batches = iter(training_batches(data, index, config.data, size, reads_mel=reads_mel))
    try:
        with deaf_to_interrupts():
            batch = next(batches)
        fetch = _times(lambda: next(batches)).call
    except (RuntimeError, OSError, ValueError) as error:
        section.stop(describe_damage(data, index, "train", error))
        return None
    finally:
        batches.close()
    workers = f"{config.data.workers} worker processes" if config.data.workers else "threads"
    section.say(
        "next batch",
        f"{1e3 * fetch:.3f} ms: this process's rows from {workers}, asked for back to back, so that nothing is ready "
        "in advance; beside a slower device some are",
        next_batch_seconds=fetch,
    )
    return batch


def _time_transfer(section: Section, batch: Batch, mesh: Mesh) -> None:
    times = _times(lambda: to_devices(batch, mesh))
    size = sum(field.nbytes for field in batch)
    section.say(
        "to devices",
        f"{1e3 * times.call:.3f} ms: the call that puts a batch of this process, {in_bytes(size)}, on its devices, "
        f"where it is {1e3 * times.wait:.3f} ms later",
        to_devices_seconds=times.call,
        on_devices_after_seconds=times.wait,
    )


def _times(work: Callable[[], object], *, times: int = TIMES, warm_up: int = WARM_UP) -> _Times:
    """Times ``work`` again and again, each time from idle."""
    calls, waits = [], []
    for _ in range(warm_up + times):
        begin = time.perf_counter()
        result = work()
        returned = time.perf_counter()
        jax.block_until_ready(result)
        waits.append(time.perf_counter() - returned)
        calls.append(returned - begin)
    calls, waits = calls[warm_up:], waits[warm_up:]
    return _Times(statistics.median(calls), min(calls), statistics.median(waits))
