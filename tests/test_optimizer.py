"""The optimiser: learning rates by formula, Muon matrix by matrix, the same update on any mesh and in any parts."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import markov_dataset, tiny_config

from wgpt_jax.config import Config, OptimizerConfig
from wgpt_jax.data.pipeline import training_batches
from wgpt_jax.parallel.mesh import make_mesh, to_devices
from wgpt_jax.training.optimizer import learning_rate, make_optimizer
from wgpt_jax.training.state import abstract_model, abstract_state, init_state
from wgpt_jax.training.step import make_train_step

# LLVM's work on programs that run a few times would not pay.
QUICKLY = {"xla_backend_optimization_level": 0}


def drawn(config: Config, seed: int = 0) -> nnx.State:
    """Parameters as the network of a configuration has them, of any values: drawing its own takes long to compile."""
    rng, (_, abstract) = np.random.default_rng(seed), abstract_model(config.model, make_mesh(config.mesh))
    return jax.tree.map(lambda leaf: rng.normal(scale=0.3, size=leaf.shape).astype(np.float32), abstract)


def rates(config: OptimizerConfig, steps: int, at: np.ndarray) -> np.ndarray:
    return np.asarray(learning_rate(config, steps)(at.astype(np.int32)))


WSD = OptimizerConfig(schedule="wsd", learning_rate=2e-3, warmup=50, decay_fraction=0.25, final_fraction=0.1)


def test_wsd_rises_stays_and_falls_by_one_minus_the_square_root():
    step = np.arange(1001.0)
    expected = np.where(step < 50, 2e-3 * step / 50, 2e-3)
    falling = step >= 750
    expected[falling] = 2e-4 + 1.8e-3 * (1 - np.sqrt((step[falling] - 750) / 250))
    np.testing.assert_allclose(rates(WSD, 1000, step), expected, rtol=1e-5, atol=1e-10)
    assert expected[-1] == pytest.approx(0.1 * WSD.learning_rate), "the formula ends where it should"


def test_more_steps_leave_the_learning_rates_of_wsd_before_its_decay_as_they_were():
    step = np.arange(601)
    short, long = rates(WSD, 600, step), rates(WSD, 1000, step)
    np.testing.assert_array_equal(short[:450], long[:450])
    assert (short[451:] < long[451:]).all(), "a quarter of 600 steps decays"


def test_a_warm_up_longer_than_the_run_ends_with_it():
    config = dataclasses.replace(WSD, warmup=200)
    assert rates(config, 11, np.arange(11)) == pytest.approx(WSD.learning_rate * np.arange(11) / 10, rel=1e-5)


@settings(deadline=None, derandomize=True)
@given(
    warmup=st.integers(0, 3000),
    decay_fraction=st.floats(0, 1, exclude_min=True),
    final_fraction=st.floats(0, 1),
    steps=st.integers(1, 2000),
)
def test_wsd_is_finite_and_between_zero_and_the_peak_whatever_is_asked(warmup, decay_fraction, final_fraction, steps):
    config = dataclasses.replace(WSD, warmup=warmup, decay_fraction=decay_fraction, final_fraction=final_fraction)
    values = rates(config, steps, np.arange(2001))  # also past the end
    assert np.isfinite(values).all()
    assert values.min() >= 0
    assert values.max() <= np.float32(config.learning_rate)
    assert values[steps] == pytest.approx(config.learning_rate * final_fraction, rel=1e-5, abs=1e-12)


# Every kind of matrix that there is.
MODEL = {
    "width": 24, "depth": 2, "heads": 4, "hidden": 40, "mlp": "swiglu", "mel_width": 16, "mel_depth": 1,
    "output_codebooks": 3, "depformer_width": 12,
}  # fmt: skip
MATRICES = {
    "qkv": lambda x: [layer[:, i].reshape(len(layer), -1) for layer in x for i in range(3)],  # [L, D, 3, H, C]
    "out": lambda x: [layer.reshape(-1, layer.shape[-1]) for layer in x],  # [L, H, C, D]
    "up": lambda x: [layer[:, gate] for layer in x for gate in range(layer.shape[1])],  # [L, D, gates, F]
    "down": list,  # [L, F, D]
    "fuse": lambda x: [x],  # [D + E, D]
    "project": list,  # [K - 1, D, E]
}


def in_two(tree: nnx.State) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The matrices of blocks, heads merged, one by one; the rest as it is. By name."""
    matrices, rest = {}, {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(tree)):
        keys = [key.key for key in path]
        split = MATRICES.get(keys[-2]) if keys[-1] == "kernel" else None
        if split is None:
            rest[".".join(keys)] = np.asarray(leaf)
        else:
            matrices |= {".".join([*keys, str(i)]): part for i, part in enumerate(split(np.asarray(leaf)))}
    return matrices, rest


def times(tree: nnx.State, factor: float) -> nnx.State:
    return jax.tree.map(lambda leaf: leaf * np.float32(factor), tree)


def test_muon_is_that_of_each_plain_matrix_alone_and_adamw_for_everything_else():
    """Two updates of the real network's parameters; the first gradient is clipped, the second is not."""
    config = tiny_config(
        model=MODEL,
        optimizer={"name": "muon", "schedule": "wsd", "warmup": 0, "momentum": 0.9, "weight_decay": 0.3, "clip": 2.0},
    )
    params, chosen = drawn(config), config.optimizer
    optimizer, rate = make_optimizer(chosen, 10), chosen.learning_rate
    muon = optax.contrib.muon(rate, beta=0.9, weight_decay=0.3, eps=chosen.epsilon, consistent_rms=0.2)
    adam = optax.adamw(rate, chosen.beta1, chosen.beta2, chosen.epsilon, weight_decay=0.0, nesterov=True)
    matrices, rest = in_two(params)
    norms = {"token_norm", "mel_norm", "attention_norm", "mlp_norm", "head_norm"}
    names = {name.removesuffix(".kernel").removesuffix(".scale").split(".")[-1] for name in rest}
    assert names == {"embedding", "bos", "null", "stem", "head", *norms}
    state, plain, others = optimizer.init(params), muon.init(matrices), adam.init(rest)
    update, plain_update, other_update = (
        jax.jit(rule.update, compiler_options=QUICKLY) for rule in (optimizer, muon, adam)
    )
    rng = np.random.default_rng(0)
    for norm in (50.0, 1.5):
        draws = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), params)
        unit = np.sqrt(sum(np.sum(np.square(leaf, dtype=np.float64)) for leaf in jax.tree.leaves(draws)))
        updates, state = update(times(draws, norm / unit), state, params)
        of_matrices, of_rest = in_two(times(draws, min(norm, 2.0) / unit))
        expected, plain = plain_update(of_matrices, plain, matrices)
        expected_rest, others = other_update(of_rest, others, rest)
        got, got_rest = in_two(updates)
        for name, value in {**got, **got_rest}.items():
            reference = {**expected, **expected_rest}[name]
            np.testing.assert_allclose(value, reference, rtol=1e-3, atol=1e-5 * rate, err_msg=name)


SHARDS = """
import json
import jax
import numpy as np
from synthetic import markov_document, markov_matrix, tiny_config
from wgpt_jax.config import MeshConfig
from wgpt_jax.data.records import pack_documents
from wgpt_jax.data.windows import cut_window, stack_windows
from wgpt_jax.parallel.mesh import make_mesh, to_devices
from wgpt_jax.training.optimizer import make_optimizer
from wgpt_jax.training.state import abstract_model, abstract_state, init_state
from wgpt_jax.training.step import make_train_step

rng = np.random.default_rng(0)
record = next(pack_documents([markov_document(str(i), 40, markov_matrix(), rng) for i in range(32)]))
batches = [stack_windows([cut_window(record, 32 * (8 * step + i), 32) for i in range(8)], 8) for step in range(5)]
model = {"depth": 2, "mel_width": 16, "mel_depth": 0}
config = tiny_config(model=model, optimizer={"name": "muon", "warmup": 0, "learning_rate": 1e-2})
optimizer, losses = make_optimizer(config.optimizer, 10), {}
for name, devices in (("one", 1), ("fsdp", 8)):
    mesh = make_mesh(MeshConfig(1, devices, 1), jax.devices()[:devices])
    abstract = abstract_state(config, optimizer, mesh)
    rng = np.random.default_rng(1)
    drawn = lambda leaf: jax.device_put(rng.normal(scale=0.3, size=leaf.shape).astype(np.float32), leaf.sharding)
    state = init_state(config, optimizer, mesh, abstract, jax.tree.map(drawn, abstract.params))
    step = make_train_step(config, abstract_model(config.model, mesh)[0], optimizer, mesh, abstract)
    losses[name] = []
    for batch in batches:
        state, metrics = step(state, to_devices(batch, mesh))
        losses[name].append(float(metrics["loss"]))
layout = lambda leaf: [str(leaf.sharding.spec), leaf.shape, leaf.addressable_shards[0].data.shape]
leaves = lambda tree: [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
state_of = leaves(state.opt_state)
layouts = {
    path: [layout(leaf), {other: layout(array) for other, array in state_of if other.endswith(path)}]
    for path, leaf in leaves(state.params)
}
print(json.dumps([losses, layouts]))
"""


@pytest.fixture(scope="module")
def on_8_devices() -> tuple[dict[str, list[float]], dict]:
    """Losses of 5 steps by mesh; of every parameter after them its layout and those of its moments, by path."""
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    env = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", SHARDS], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def test_muon_on_8_devices_has_the_losses_of_one(on_8_devices):
    losses, _ = on_8_devices
    assert losses["fsdp"] == pytest.approx(losses["one"], rel=1e-5)


def test_muons_state_lies_as_its_parameters_do(on_8_devices):
    _, layouts = on_8_devices
    split = 0
    for path, (parameter, moments) in layouts.items():
        spec, whole, part = parameter
        kinds = sorted(name.rpartition(path)[0].rpartition(".")[2] for name in moments)
        is_matrix = any(f"['{name}']['kernel']" in path for name in MATRICES)
        assert kinds == (["mu"] if is_matrix else ["mu", "nu"]), path
        assert all(moment == parameter for moment in moments.values()), path
        split += is_matrix and "fsdp" in spec and np.prod(part) * 8 == np.prod(whole)
    assert split == len([path for path in layouts if any(f"['{name}']['kernel']" in path for name in MATRICES)]) > 0


def test_four_parts_of_a_batch_make_the_step_of_the_whole(tmp_path):
    """Random numbers of the mel and of the depth transformer's frames are drawn, dropout is off."""
    config = tiny_config(
        model={"output_codebooks": 2, "mel_dropout": 0.2, "depth": 1, "mel_depth": 0},
        training={"depformer_fraction": 0.5},
        optimizer={"warmup": 0},
    )
    mesh, optimizer = make_mesh(config.mesh), make_optimizer(config.optimizer, 10)
    graph, abstract = abstract_model(config.model, mesh)[0], abstract_state(config, optimizer, mesh)
    index = markov_dataset(tmp_path, train=40, frames=(10, 60), max_frames=24)  # windows longer than what fills them
    read = iter(training_batches(tmp_path, index, config.data, config.training.batch))
    batches = [to_devices(next(read), mesh) for _ in range(3)]
    assert len(set(batches[0].weights.sum(axis=1).tolist())) > 1, "parts with as many frames each would prove less"
    losses, norms, params = {}, {}, {}
    for parts in (1, 4):
        training = dataclasses.replace(config.training, microbatches=parts)
        program = make_train_step(dataclasses.replace(config, training=training), graph, optimizer, mesh, abstract)
        state = init_state(config, optimizer, mesh, abstract, drawn(config))
        step = program.lower(state, batches[0]).compile(QUICKLY)
        losses[parts], norms[parts] = [], []
        for batch in batches:
            state, metrics = step(state, batch)
            losses[parts].append(float(metrics["loss"]))
            norms[parts].append(float(metrics["grad_norm"]))
        params[parts] = jax.device_get(state.params)
    assert losses[4] == pytest.approx(losses[1], rel=1e-6)
    assert norms[4] == pytest.approx(norms[1], rel=1e-6)
    for whole, in_parts in zip(*map(jax.tree.leaves, params.values()), strict=True):
        assert np.linalg.norm(in_parts - whole) <= 1e-6 * np.linalg.norm(whole)
