"""What training carries from step to step, and where it lies: shapes and shardings before arrays."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from wgpt_jax.config import Config, ModelConfig
from wgpt_jax.model.decoder import Decoder
from wgpt_jax.parallel.mesh import sharded
from wgpt_jax.training.guard import Guard, new_guard


class TrainState(NamedTuple):
    """Everything that a step changes. Randomness is a function of the seed and ``step``, so no key is kept."""

    step: jax.Array
    """int32 []; steps done, skipped updates among them."""
    params: nnx.State
    """float32 parameters."""
    opt_state: Any
    """Optax state, sharded like the parameters."""
    ema: nnx.State | None
    """float32 average of the parameters over the updates; None if the configuration keeps none."""
    guard: Guard
    """What is known of skipped updates."""


def abstract_model(config: ModelConfig, mesh: Mesh) -> tuple[nnx.GraphDef, nnx.State]:
    """The network without arrays: its graph, and each parameter's shape, type and sharding on ``mesh``."""
    with sharded(mesh):
        graph, abstract = nnx.get_abstract_model(lambda: Decoder(config, nnx.Rngs(0)), mesh)
    return graph, abstract


def abstract_state(config: Config, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Shapes, types and shardings of the training state."""
    _, params = abstract_model(config.model, mesh)
    everywhere = NamedSharding(mesh, P())

    def on_every_device(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), tree)

    shardings = jax.tree.map(lambda leaf: leaf.sharding, params)
    opt_state = jax.eval_shape(optimizer.init, params)
    opt_shardings = optax.tree.map_params(
        optimizer,
        # Where an optimiser has several rules, each one's state has gaps for the parameters of the others.
        lambda leaf, sharding: leaf if isinstance(leaf, optax.MaskedNode) else sharding,
        opt_state,
        shardings,
        transform_non_params=lambda _: everywhere,
        is_leaf=lambda leaf: isinstance(leaf, optax.MaskedNode),
    )
    return TrainState(
        step=on_every_device(jax.ShapeDtypeStruct((), jnp.int32)),
        params=params,
        opt_state=jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            opt_state,
            opt_shardings,
        ),
        ema=params if config.optimizer.ema else None,
        guard=on_every_device(jax.eval_shape(lambda: new_guard(config.training))),
    )


def init_state(
    config: Config,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    abstract: TrainState,
    params: nnx.State | None = None,
) -> TrainState:
    """The state before the first step, straight in its shards; equal on every mesh.

    Args:
        config: the experiment; its seed draws the parameters.
        optimizer: from :func:`~wgpt_jax.training.optimizer.make_optimizer`.
        mesh: where it lies.
        abstract: from :func:`abstract_state`.
        params: parameters to start from instead of drawn ones, laid out as in ``abstract``; they are used up.
    """

    def begin(params: nnx.State) -> TrainState:
        ema = jax.tree.map(jnp.copy, params) if config.optimizer.ema else None
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), ema, new_guard(config.training))

    def draw() -> TrainState:
        return begin(nnx.state(Decoder(config.model, nnx.Rngs(config.training.seed)), nnx.Param))

    with sharded(mesh):
        if params is None:
            return jax.jit(draw, out_shardings=shardings_of(abstract))()
        return jax.jit(begin, out_shardings=shardings_of(abstract), donate_argnums=0)(params)


def shardings_of(abstract: Any) -> Any:
    """The sharding of every leaf."""
    return jax.tree.map(lambda leaf: leaf.sharding, abstract)


def count_parameters(params: Any) -> int:
    """Number of parameters, arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def parameters_by_group(params: nnx.State) -> dict[str, int]:
    """Number of parameters of each top-level part of the network."""
    return {name: count_parameters(part) for name, part in nnx.to_pure_dict(params).items()}
