"""A digest of arrays: the formula, any change of an element, any layout."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from wgpt_jax.training.digest import digest

BITS = {"float32": np.uint32, "int32": np.uint32, "bfloat16": np.uint16, "float16": np.uint16, "bool": np.uint8}


def by_formula(x: np.ndarray) -> int:
    """One array's number, of Python's integers: each element's bits times the mixed index, made odd."""
    total = 0
    for place, bits in enumerate(np.ascontiguousarray(x).reshape(-1).view(BITS[str(x.dtype)]).tolist()):
        h = place
        h = (h ^ h >> 16) * 0x85EBCA6B % 2**32
        h = (h ^ h >> 13) * 0xC2B2AE35 % 2**32
        total += bits * ((h ^ h >> 16) | 1)
    return total % 2**32


def of_bits(bits: np.ndarray, dtype: str) -> np.ndarray:
    """An array of some type that has these bits; bool is 0 or 1."""
    return bits.astype(np.uint8).view(bool) if dtype == "bool" else bits.astype(BITS[dtype]).view(dtype)


def random_array(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> np.ndarray:
    return of_bits(rng.integers(0, 2 if dtype == "bool" else 2 ** (8 * np.dtype(dtype).itemsize), shape), dtype)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (257,), (3, 0, 2), (5, 7), (2, 3, 4, 5)])
def test_digest_is_the_formula(shape):
    rng = np.random.default_rng(len(shape))
    arrays = {dtype: random_array(shape, dtype, rng) for dtype in BITS}
    assert digest(jax.tree.map(jnp.asarray, arrays)) == {f"['{name}']": by_formula(x) for name, x in arrays.items()}


def test_every_array_has_the_number_of_its_own_path():
    tree = {"a": [jnp.ones(3), jnp.zeros((2, 2))], "b": (jnp.arange(4), None)}
    assert digest(tree) == {
        "['a'][0]": by_formula(np.ones(3, np.float32)),
        "['a'][1]": 0,
        "['b'][0]": by_formula(np.arange(4, dtype=np.int32)),
    }


SHAPE = (3, 5)
DRAWN = {dtype: random_array(SHAPE, dtype, np.random.default_rng(0)) for dtype in BITS}
BEFORE = digest(DRAWN)
ODD_FLOATS = {  # bits of 0.0, -0.0, infinities, and nans with several payloads, quiet and signalling
    "float32": [0x0, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7FC00001, 0x7F800001, 0xFFFFFFFF, 0x1],
    "bfloat16": [0x0, 0x8000, 0x7F80, 0xFF80, 0x7FC0, 0x7FC1, 0x7F81, 0xFFFF, 0x1],
    "float16": [0x0, 0x8000, 0x7C00, 0xFC00, 0x7E00, 0x7E01, 0x7C01, 0xFFFF, 0x1],
}


def bits_of(dtype: str) -> st.SearchStrategy[int]:
    anything = st.integers(0, 1 if dtype == "bool" else 2 ** (8 * np.dtype(dtype).itemsize) - 1)
    return anything | st.sampled_from(ODD_FLOATS[dtype]) if dtype in ODD_FLOATS else anything


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.data())
def test_any_change_of_an_element_changes_the_number_of_its_array_and_no_other(data):
    dtype = data.draw(st.sampled_from(sorted(BITS)))
    place = data.draw(st.integers(0, 14))
    old, new = data.draw(bits_of(dtype)), data.draw(bits_of(dtype))
    assume(old != new)
    numbers = []
    for bits in (old, new):
        array = DRAWN[dtype].copy()
        array.reshape(-1)[place] = of_bits(np.array([bits]), dtype)[0]
        numbers.append(digest({**DRAWN, dtype: array}))
    assert {path for path in BEFORE if numbers[0][path] != numbers[1][path]} == {f"['{dtype}']"}


@pytest.mark.parametrize("dtype", sorted(ODD_FLOATS))
def test_zeros_of_both_signs_and_nans_of_any_payload_have_different_numbers(dtype):
    numbers = []
    for bits in ODD_FLOATS[dtype]:
        array = DRAWN[dtype].copy()
        array[1, 2] = of_bits(np.array(bits), dtype)
        numbers.append(digest([array])["[0]"])
    assert len(set(numbers)) == len(numbers)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.sampled_from(sorted(BITS)), st.integers(0, 14), st.integers(0, 14))
def test_two_elements_that_change_places_change_the_number(dtype, first, second):
    """But for one pair in 2^32; the pairs here are always the same."""
    array = DRAWN[dtype].copy()
    flat = array.reshape(-1)
    assume(flat[[first]].tobytes() != flat[[second]].tobytes())
    flat[[first, second]] = flat[[second, first]]
    after = digest({**DRAWN, dtype: array})
    assert {path for path in BEFORE if BEFORE[path] != after[path]} == {f"['{dtype}']"}


WORKER = """
import json
import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from synthetic import tiny_config
from test_digest import BITS, by_formula, random_array
from wgpt_jax.config import MeshConfig
from wgpt_jax.parallel.mesh import make_mesh
from wgpt_jax.training.digest import digest
from wgpt_jax.training.optimizer import make_optimizer
from wgpt_jax.training.state import abstract_state

rng, numbers, split = np.random.default_rng(0), {}, {}
arrays = {dtype: random_array((8, 16, 3), dtype, rng) for dtype in BITS}
numbers["formula"] = {f"['{name}']": by_formula(x) for name, x in arrays.items()}
mesh = jax.make_mesh((2, 4), ("a", "b"))
for spec in (P(), P("a"), P(("a", "b")), P("b", "a"), P(None, ("b", "a")), P(None, "b")):
    numbers[str(spec)] = digest({name: jax.device_put(x, NamedSharding(mesh, spec)) for name, x in arrays.items()})

config = tiny_config(
    model={"heads": 4, "hidden": 32, "mel_width": 16},
    optimizer={"name": "muon", "ema": 0.9},
    training={"spike_sigma": 6.0},
)
optimizer, states = make_optimizer(config.optimizer, 10), {}
host = None
for shape in ((1, 1, 1), (8, 1, 1), (1, 8, 1), (2, 2, 2)):
    mesh = make_mesh(MeshConfig(*shape), jax.devices()[: np.prod(shape)])
    abstract = abstract_state(config, optimizer, mesh)
    host = host or jax.tree.map(lambda leaf: random_array(leaf.shape, str(leaf.dtype), rng), abstract)
    state = jax.tree.map(lambda x, leaf: jax.device_put(x, leaf.sharding), host, abstract)
    states[str(shape)] = digest(state)
    split[str(shape)] = sum(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state))
paths = jax.tree_util.tree_leaves_with_path(host)
states["formula"] = {jax.tree_util.keystr(path): by_formula(x) for path, x in paths}
print(json.dumps([numbers, states, split]))
"""


@pytest.fixture(scope="module")
def on_8_devices() -> list[dict]:
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    env = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", WORKER], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_arrays_have_the_same_numbers_however_8_devices_share_them(on_8_devices):
    numbers, _, _ = on_8_devices
    for layout, found in numbers.items():
        assert found == numbers["formula"], layout


def test_the_training_state_has_the_same_numbers_on_any_mesh(on_8_devices):
    _, states, split = on_8_devices
    assert len(states["formula"]) > 50
    for mesh, found in states.items():
        assert found == states["formula"], mesh
    assert split["(1, 1, 1)"] == split["(8, 1, 1)"] == 0
    assert min(split["(1, 8, 1)"], split["(2, 2, 2)"]) > 20, "there the state is split over devices"
