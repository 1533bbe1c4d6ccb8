"""What fits: the largest batch under each remat policy."""

import dataclasses
from collections.abc import Callable, Iterator

from jax.sharding import Mesh

from wgpt_jax.ahead.compile import CompiledStep, compile_step
from wgpt_jax.ahead.topology import memory_of
from wgpt_jax.config import Config

POLICIES = ("none", "dots", "full")
"""Remat policies, the cheapest first: nothing is computed twice, then all but the products, then everything."""
_MOST_WINDOWS = 1024  # on one device: more is no longer a training batch


def search(config: Config, mesh: Mesh, tell: Callable[[CompiledStep], None]) -> Iterator[CompiledStep]:
    """The step of the largest batch that fits, for every remat policy under which any does.

    Batches are powers of two windows per row of the mesh (``data x fsdp``), times ``training.microbatches``.

    Args:
        config: the experiment; its batch and remat policy are replaced.
        mesh: where it would run.
        tell: called with every step that was compiled on the way.
    """
    available = memory_of(mesh.devices.flat[0])
    rows = mesh.shape["data"] * mesh.shape["fsdp"] * config.training.microbatches
    for policy in POLICIES:
        best, windows = None, 1
        while windows <= _MOST_WINDOWS:
            tried = dataclasses.replace(
                config,
                model=dataclasses.replace(config.model, remat=policy),
                training=dataclasses.replace(config.training, batch=rows * windows),
            )
            step = compile_step(tried, mesh, available)
            tell(step)
            if not step.fits:
                break
            best, windows = step, 2 * windows
        if best is not None:
            yield best
