"""Eight devices compute what one computes: data, fsdp, tensor and mixed meshes, in a process with virtual devices."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = """
import json, sys
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from synthetic import markov_document, markov_matrix, tiny_config
from wgpt_jax.config import MeshConfig
from wgpt_jax.data.records import pack_documents
from wgpt_jax.data.windows import cut_window, stack_windows
from wgpt_jax.model.attention import attend
from wgpt_jax.parallel.mesh import check_mesh_fits, make_mesh, sharded, to_devices
from wgpt_jax.training.optimizer import make_optimizer
from wgpt_jax.training.state import abstract_model, abstract_state, init_state
from wgpt_jax.training.step import make_train_step

rng = np.random.default_rng(0)
documents = [markov_document(str(i), 40, markov_matrix(), rng) for i in range(32)]
record = next(pack_documents(documents))
batches = [stack_windows([cut_window(record, 32 * (8 * step + i), 32) for i in range(8)], 8) for step in range(5)]
meshes = {
    "one": (1, 1, 1), "data": (8, 1, 1), "fsdp": (1, 8, 1), "tensor": (1, 1, 8), "mixed": (2, 2, 2),
    "mixed-in-parts": (2, 2, 2),
}
MIXED = ("one", "mixed", "mixed-in-parts")
sizes = {"depth": 1, "heads": 8, "mel_width": 16, "mel_heads": 8, "depformer_heads": 8}
losses = {}
for inputs, extra in (
    ("tokens", {"dropout": 0.1}),
    ("hybrid", {"dropout": 0.1, "mel_dropout": 0.2}),
    ("hybrid2", {"mel_dropout": 0.2, "output_codebooks": 2, "input_codebooks": 2}),
):
    for name, shape in meshes.items():
        parts = 2 if name.endswith("parts") else 1
        if inputs == "hybrid2" and name not in MIXED or inputs != "hybrid2" and parts == 2:
            continue
        config = tiny_config(inputs.rstrip("2"), model={**sizes, **extra}, training={"microbatches": parts})
        mesh = make_mesh(MeshConfig(*shape), jax.devices()[: int(np.prod(shape))])
        check_mesh_fits(config, mesh)
        optimizer = make_optimizer(config.optimizer, 10)
        graph, _ = abstract_model(config.model, mesh)
        abstract = abstract_state(config, optimizer, mesh)
        state = init_state(config, optimizer, mesh, abstract)
        step = make_train_step(config, graph, optimizer, mesh, abstract)
        losses[f"{inputs}-{name}"] = []
        for batch in batches:
            state, metrics = step(state, to_devices(batch, mesh))
            losses[f"{inputs}-{name}"].append(float(metrics["loss"]))
        if name == "fsdp":
            moment = state.opt_state[1][0].mu["head"]["kernel"][...]
            for kernel in (state.params["head"]["kernel"][...], moment):
                assert kernel.addressable_shards[0].data.shape[0] * 8 == kernel.shape[0], "the state is split"
q, k, v, w = np.random.default_rng(1).normal(size=(4, 4, 128, 4, 16)).astype(np.float32)
segments = np.repeat(np.arange(4)[:, None], 128, 1).astype(np.int32) + (np.arange(128) > 70)
gradients = {}
for kernel, shape in (("einsum", (1, 1, 1)), ("splash", (2, 2, 2))):
    weighted = lambda q, k, v: jnp.sum(attend(q, k, v, segments, kernel) * w)
    with sharded(make_mesh(MeshConfig(*shape), jax.devices()[: int(np.prod(shape))])):
        gradients[kernel] = jax.jit(jax.grad(weighted, argnums=(0, 1, 2)))(q, k, v)
for one, eight in zip(gradients["einsum"], gradients["splash"]):
    np.testing.assert_allclose(eight, one, atol=2e-5)
print("CONTROL", file=sys.stderr, flush=True)
mesh = make_mesh(MeshConfig(2, 2, 2))
rows, table = (NamedSharding(mesh, spec) for spec in (P(("data", "fsdp")), P(None, "fsdp")))
look_up = jax.jit(lambda table, rows: table[rows] * 2, in_shardings=(table, rows), out_shardings=rows)
look_up(jnp.ones((16, 16)), jnp.zeros((8, 32), jnp.int32))
print(json.dumps(losses))
"""
PHRASE = "nvoluntary full rematerialization"


@pytest.fixture(scope="module")
def outcome():
    # Many programs, each run five times: what LLVM would make faster is not worth its time.
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    env = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(Path(__file__).parent)}
    # A program from the cache is not compiled, and warns of nothing.
    env |= {"TF_CPP_MIN_LOG_LEVEL": "0", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    done = subprocess.run([sys.executable, "-c", WORKER], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


CASES = [(inputs, mesh) for inputs in ("tokens", "hybrid") for mesh in ("data", "fsdp", "tensor", "mixed")]


@pytest.mark.parametrize(("inputs", "mesh"), [*CASES, ("hybrid2", "mixed"), ("hybrid2", "mixed-in-parts")])
def test_losses_are_those_of_one_device(outcome, inputs, mesh):
    losses, _ = outcome
    assert losses[f"{inputs}-{mesh}"] == pytest.approx(losses[f"{inputs}-one"], rel=1e-5)


def test_no_array_is_rematerialised_on_every_device_unasked(outcome):
    ours, control = outcome[1].split("CONTROL")
    assert PHRASE not in ours
    assert PHRASE in control, "the compiler no longer says it in these words"
