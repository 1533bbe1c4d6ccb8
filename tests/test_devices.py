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
from synthetic import BANDS, markov_document, markov_matrix, tiny_config
import numpy as np
from wgpt_jax.config import MeshConfig
from wgpt_jax.data.records import pack_documents
from wgpt_jax.data.windows import cut_window, stack_windows
from wgpt_jax.parallel.mesh import make_mesh, to_devices
from wgpt_jax.training.optimizer import make_optimizer
from wgpt_jax.training.state import abstract_model, abstract_state, init_state
from wgpt_jax.training.step import make_train_step

rng = np.random.default_rng(0)
documents = [markov_document(str(i), 40, markov_matrix(), rng) for i in range(32)]
record = next(pack_documents(documents))
batches = [stack_windows([cut_window(record, 32 * (8 * step + i), 32) for i in range(8)], 8) for step in range(5)]
meshes = {
    "one": MeshConfig(1, 1, 1), "data8": MeshConfig(8, 1, 1), "fsdp8": MeshConfig(1, 8, 1), "mixed": MeshConfig(2, 2, 2)
}
losses = {}
for inputs, names in (("tokens", ("one", "data8")), ("hybrid", tuple(meshes))):
    config = tiny_config(inputs, model={"depth": 1, "dropout": 0.1, "mel_dropout": 0.2, "output_codebooks": 2})
    for name in names:
        sizes = meshes[name]
        mesh = make_mesh(sizes, jax.devices()[: sizes.data * sizes.fsdp * sizes.tensor])
        optimizer = make_optimizer(config.optimizer, 10)
        graph, _ = abstract_model(config.model, mesh)
        abstract = abstract_state(config.model, optimizer, mesh)
        state = init_state(config.model, optimizer, mesh, abstract, seed=0)
        step = make_train_step(config, graph, optimizer, mesh, abstract)
        losses[f"{inputs}-{name}"] = []
        for batch in batches:
            state, metrics = step(state, to_devices(batch, mesh))
            losses[f"{inputs}-{name}"].append(float(metrics["loss"]))
        if name == "fsdp8":
            kernel = state.params["head"]["kernel"][...]
            assert kernel.addressable_shards[0].data.shape[0] * 8 == kernel.shape[0], "parameters are split"
print(json.dumps(losses))
"""


@pytest.fixture(scope="module")
def outcome():
    flags = "--xla_force_host_platform_device_count=8"
    env = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", WORKER], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("inputs", "mesh"), [("tokens", "data8"), ("hybrid", "data8"), ("hybrid", "fsdp8"), ("hybrid", "mixed")]
)
def test_losses_are_those_of_one_device(outcome, inputs, mesh):
    assert outcome[f"{inputs}-{mesh}"] == pytest.approx(outcome[f"{inputs}-one"], rel=1e-5)
