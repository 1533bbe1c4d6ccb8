"""The ladder: one dial, twins of equal size, presets that are what their docstrings say."""

import dataclasses
import runpy
from pathlib import Path

import jax
import pytest

from wgpt_jax.config import MeshConfig, ModelConfig, load_config
from wgpt_jax.errors import RequestError
from wgpt_jax.parallel.mesh import make_mesh
from wgpt_jax.sizes import LADDER, hybrid, tokens
from wgpt_jax.training.state import abstract_model, count_parameters

CONFIGS = Path(__file__).parents[1] / "configs"
NOMINAL = {"1m": 1e6, "4m": 4e6, "15m": 15e6, "40m": 40e6, "150m": 150e6, "400m": 400e6, "1b": 1e9, "3b": 3e9}


def parameters(model: ModelConfig) -> int:
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    return count_parameters(abstract_model(model, mesh)[1])


@pytest.mark.parametrize("size", LADDER)
def test_a_size_has_the_parameters_of_its_name_and_so_has_its_twin(size):
    count = parameters(hybrid(size))
    assert count == pytest.approx(NOMINAL[size], rel=0.15)
    assert parameters(tokens(size)) == pytest.approx(count, rel=0.03)


def test_the_paper_s_hybrid_is_a_rung_of_the_ladder():
    assert load_config(CONFIGS / "paper_hybrid.py").model == hybrid("4m")


@pytest.mark.parametrize("size", [size for size in LADDER if size != "4m"])
def test_the_files_of_a_size_differ_in_the_model_alone(size):
    one, other = (load_config(CONFIGS / f"{inputs}_{size}.py") for inputs in ("hybrid", "tokens"))
    assert one.model == dataclasses.replace(hybrid(size), remat=one.model.remat)
    assert dataclasses.replace(other, model=one.model) == one
    assert other.model == dataclasses.replace(tokens(size), remat=one.model.remat)


def test_an_unknown_size_names_the_known_ones():
    with pytest.raises(RequestError, match="no size '2b'; there are 1m, 4m"):
        hybrid("2b")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("[!a]*.py")), ids=lambda path: path.stem)
def test_every_configuration_says_its_command_and_its_target(path):
    file = runpy.run_path(str(path))
    assert f"wgpt train configs/{path.name} --data" in file["__doc__"]
    assert ":" in file["target"]
    load_config(path)
