"""What training carries from step to step, and where it lies: shapes and shardings before arrays."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from wgpt_jax.config import ModelConfig
from wgpt_jax.model.decoder import Decoder
from wgpt_jax.parallel.mesh import sharded


class TrainState(NamedTuple):
    """Everything that a step changes. Randomness is a function of the seed and ``step``, so no key is kept."""

    step: jax.Array
    """int32 []; optimiser steps done."""
    params: nnx.State
    """float32 parameters."""
    opt_state: Any
    """Optax state, sharded like the parameters."""


def abstract_model(config: ModelConfig, mesh: Mesh) -> tuple[nnx.GraphDef, nnx.State]:
    """The network without arrays: its graph, and each parameter's shape, type and sharding on ``mesh``."""
    with sharded(mesh):
        graph, abstract = nnx.get_abstract_model(lambda: Decoder(config, nnx.Rngs(0)), mesh)
    return graph, abstract


def abstract_state(config: ModelConfig, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Shapes, types and shardings of the training state."""
    _, params = abstract_model(config, mesh)
    everywhere = NamedSharding(mesh, P())
    shardings = jax.tree.map(lambda leaf: leaf.sharding, params)
    opt_state = jax.eval_shape(optimizer.init, params)
    opt_shardings = optax.tree.map_params(
        optimizer, lambda _, sharding: sharding, opt_state, shardings, transform_non_params=lambda _: everywhere
    )
    opt_state = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), opt_state, opt_shardings
    )
    return TrainState(jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere), params, opt_state)


def init_state(
    config: ModelConfig, optimizer: optax.GradientTransformation, mesh: Mesh, abstract: TrainState, seed: int
) -> TrainState:
    """Initialises the state straight into its shards; equal on every mesh."""

    def init() -> TrainState:
        params = nnx.state(Decoder(config, nnx.Rngs(seed)), nnx.Param)
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))

    with sharded(mesh):
        return jax.jit(init, out_shardings=shardings_of(abstract))()


def shardings_of(abstract: Any) -> Any:
    """The sharding of every leaf."""
    return jax.tree.map(lambda leaf: leaf.sharding, abstract)


def count_parameters(params: Any) -> int:
    """Number of parameters, arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def parameters_by_group(params: nnx.State) -> dict[str, int]:
    """Number of parameters of each top-level part of the network."""
    return {name: count_parameters(part) for name, part in nnx.to_pure_dict(params).items()}
