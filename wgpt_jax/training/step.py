"""The training step and the evaluation step: pure functions, jitted once with the state's shardings."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from wgpt_jax.config import Config, ModelConfig
from wgpt_jax.data.batch import Batch
from wgpt_jax.parallel.mesh import batch_sharding, sharded
from wgpt_jax.training.guard import judge
from wgpt_jax.training.optimizer import learning_rate
from wgpt_jax.training.state import TrainState, shardings_of


def null_mel_mask(config: ModelConfig, key: jax.Array, shape: tuple[int, int]) -> jax.Array | None:
    """Mel dropout: bool [B, T], True where the null mel replaces a slice; None if the configuration has none."""
    if config.inputs == "tokens" or not (config.mel_dropout or config.mel_dropout_window):
        return None
    slice_key, window_key = jax.random.split(key)
    slices = jax.random.bernoulli(slice_key, config.mel_dropout, shape)
    return slices | jax.random.bernoulli(window_key, config.mel_dropout_window, (shape[0], 1))


def token_nll(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Negative log-likelihood of each target in nats: float32 [..., V], int [...] -> float32 [...]."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets.astype(jnp.int32))


def drawn_frames(key: jax.Array, weights: jax.Array, fraction: float) -> tuple[jax.Array, jax.Array]:
    """Draws frames of each window for the depth transformer, those with something to predict first.

    CSM (Sesame, 2025) trains its depth decoder on one frame in 16: the frames of a window say much the same.

    Args:
        key: PRNG key.
        weights: bool [B, T].
        fraction: of T.

    Returns:
        int32 [B, ceil(fraction * T)], indices without repetition; float32 of the same shape, how many of its window's
        frames each stands for, so that sums over them are unbiased: 0 for padding.
    """
    order = jnp.argsort(jax.random.uniform(key, weights.shape) - weights, axis=1)
    frames = order[:, : math.ceil(fraction * weights.shape[1])]
    drawn = jnp.take_along_axis(weights, frames, axis=1).astype(jnp.float32)
    count = jnp.sum(weights, axis=1, keepdims=True)
    return frames, drawn * count / jnp.maximum(jnp.sum(drawn, axis=1, keepdims=True), 1)


class MeshProgram:
    """A jitted function that is always traced and called inside its mesh."""

    def __init__(self, jitted: Callable, mesh: Mesh):
        self.jitted, self.mesh = jitted, mesh

    def __call__(self, *args: Any) -> Any:
        """The function's value."""
        with sharded(self.mesh):
            return self.jitted(*args)

    def lower(self, *args: Any) -> jax.stages.Lowered:
        """``jax.jit(...).lower``, which takes shapes in place of arrays."""
        with sharded(self.mesh):
            return self.jitted.lower(*args)


class _Part(NamedTuple):
    """Rows of a batch, with what was drawn for them: drawn for the whole batch, so that parts do not change it."""

    batch: Batch
    null_mel: jax.Array | None
    drawn: tuple[jax.Array, jax.Array] | None
    row: jax.Array
    """int32 [B], index in the whole batch."""


def _sum_nll(logits: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
    """[..., V], int [..., K], bool or float [...] -> [K], the weighted sum over all but the last axis."""
    return jnp.sum((token_nll(logits, targets) * weights[..., None]).reshape(-1, targets.shape[-1]), axis=0)


def make_train_step(
    config: Config, graph: nnx.GraphDef, optimizer: optax.GradientTransformation, mesh: Mesh, abstract: TrainState
) -> MeshProgram:
    """The jitted step: (state, batch) -> (next state, metrics); the state's buffers are donated.

    An update that the guard (:func:`~wgpt_jax.training.guard.judge`) rejects leaves parameters, optimiser and averages
    as they are; the step counts all the same, so that the data and the randomness go on.

    Metrics are float32 unless said otherwise: ``loss`` (nats per token over the global batch, the mean over the output
    codebooks K), ``nll`` [K] (nats per token of each codebook; those above the first estimated on the drawn frames),
    ``grad_norm`` (before clipping), ``update_norm`` (0 if skipped), ``param_norm`` (after the update),
    ``learning_rate``, ``skipped`` and ``skipped_in_row`` (int32; updates skipped until now), ``frames`` (predicted).
    """
    schedule = learning_rate(config.optimizer, config.training.steps)
    codebooks, rows, parts = config.model.output_codebooks, config.training.batch, config.training.microbatches

    def loss_of(params: nnx.State, part: _Part, frames: jax.Array, key: jax.Array | None):
        """What a part of the batch adds to the loss and to the NLL [K], both means over all its frames, float32 []."""
        model, batch = nnx.merge(graph, params), part.batch
        # Every part drops its own; its first row says which it is.
        key = None if key is None else jax.random.fold_in(key, part.row[0])
        if part.drawn is None:
            nll = _sum_nll(model(batch, null_mel=part.null_mel, dropout_key=key), batch.codes(codebooks), batch.weights)
            nll = nll / jnp.maximum(frames, 1)
            return jnp.mean(nll), nll
        hidden = model.hidden(batch, null_mel=part.null_mel, dropout_key=key)
        nll = _sum_nll(model.head(hidden)[:, :, None], batch.codes(1), batch.weights)
        drawn, weights = part.drawn
        hidden, codes = (jnp.take_along_axis(x, drawn[..., None], axis=1) for x in (hidden, batch.codes(codebooks)))
        flat = hidden.reshape(-1, hidden.shape[-1]), codes.reshape(-1, codebooks)
        fine = model.depformer(*flat, None if key is None else jax.random.fold_in(key, 2))
        nll = jnp.concatenate([nll, _sum_nll(fine, flat[1][:, 1:], weights.reshape(-1))])
        nll = nll / jnp.maximum(frames, 1)
        return jnp.mean(nll), nll

    gradient = optax.microbatching.microbatch(
        jax.value_and_grad(loss_of, has_aux=True), argnums=1, microbatch_size=rows // parts if parts > 1 else None
    )

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(config.training.seed), state.step)
        mel_key, dropout_key = jax.random.split(key)
        drawn = None
        if config.model.has_depformer:
            fraction = config.training.depformer_fraction
            drawn = drawn_frames(jax.random.fold_in(key, 2), batch.weights, fraction)
        null_mel = null_mel_mask(config.model, mel_key, batch.segment_ids.shape)
        part = _Part(batch, null_mel, drawn, jnp.arange(rows))
        frames = jnp.sum(batch.weights).astype(jnp.float32)
        (loss, nll), grads = gradient(state.params, part, frames, dropout_key if config.model.dropout else None)
        grad_norm = optax.tree.norm(grads)
        apply, guard = judge(state.guard, config.training, state.step, loss, grad_norm)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        done = state.step - state.guard.skipped
        params = optax.apply_updates(state.params, updates)
        ema = state.ema if state.ema is None else _averaged(state.ema, params, config.optimizer.ema, done)
        # Not jnp.where on the updates alone: the optimiser's moments have seen the rejected gradient as well.
        params, opt_state, ema = jax.tree.map(
            lambda new, old: jnp.where(apply, new, old),
            (params, opt_state, ema),
            (state.params, state.opt_state, state.ema),
        )
        metrics = {
            "loss": loss,
            "nll": nll,
            "grad_norm": grad_norm,
            "update_norm": jnp.where(apply, optax.tree.norm(updates), 0.0),
            "param_norm": optax.tree.norm(params),
            "learning_rate": jnp.asarray(schedule(done), jnp.float32),
            "skipped": guard.skipped,
            "skipped_in_row": guard.in_row,
            "frames": frames,
        }
        return TrainState(state.step + 1, params, opt_state, ema, guard), metrics

    shardings = shardings_of(abstract)
    jitted = jax.jit(
        step,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, NamedSharding(mesh, P())),
        donate_argnums=0,
    )
    return MeshProgram(jitted, mesh)


def _averaged(ema: nnx.State, params: nnx.State, decay: float, updates: jax.Array) -> nnx.State:
    """The average after one more update; over few updates its memory is shorter, so that it forgets where it began.

    The decay is ``min(decay, (1 + n) / (10 + n))`` after n updates, as in TensorFlow's ``ExponentialMovingAverage``.
    """
    decay = jnp.minimum(decay, (1 + updates) / (10 + updates))
    return optax.incremental_update(params, ema, 1 - decay)


class Scores(NamedTuple):
    """What evaluation keeps of every position; equal on every host."""

    nll: jax.Array
    """float32 [B, T, K]; nats, of each output codebook."""
    rank: jax.Array
    """int32 [B, T, K]; entries that come before the target when sorted by logit (0: the target came first)."""
    confidence: jax.Array
    """float32 [B, T]; probability of the most likely coarse token."""


def score_tokens(logits: jax.Array, targets: jax.Array) -> Scores:
    """Scores of each target: float32 [B, T, K, V], int [B, T, K] -> :class:`Scores`."""
    targets = targets.astype(jnp.int32)
    target_logit = jnp.take_along_axis(logits, targets[..., None], axis=-1)
    # As argmax decides ties: the lower entry comes first. `not <=` also ranks a target last among nans.
    earlier = jnp.arange(logits.shape[-1]) < targets[..., None]
    ahead = ~(logits <= target_logit) | ((logits == target_logit) & earlier)
    coarse = logits[..., 0, :]
    confidence = jnp.exp(jnp.max(coarse, axis=-1) - jax.nn.logsumexp(coarse, axis=-1))
    return Scores(token_nll(logits, targets), jnp.sum(ahead, axis=-1), confidence)


def make_eval_step(config: ModelConfig, graph: nnx.GraphDef, mesh: Mesh, params: nnx.State) -> MeshProgram:
    """The jitted evaluation: (parameters, batch, no_mel) -> scores of each position.

    ``no_mel`` (bool []) replaces every slice by the null mel: the token-only mode of a hybrid network.
    """

    def step(params: nnx.State, batch: Batch, no_mel: jax.Array) -> Scores:
        null_mel = None if config.inputs == "tokens" else jnp.broadcast_to(no_mel, batch.segment_ids.shape)
        logits = nnx.merge(graph, params)(batch, null_mel=null_mel)
        return score_tokens(logits, batch.codes(config.output_codebooks))

    everywhere = NamedSharding(mesh, P())
    shardings = shardings_of(params)
    jitted = jax.jit(step, in_shardings=(shardings, batch_sharding(mesh), everywhere), out_shardings=everywhere)
    return MeshProgram(jitted, mesh)
