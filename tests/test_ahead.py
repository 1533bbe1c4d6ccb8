"""Steps compiled for TPUs that are not here: every configuration for its own target."""

import dataclasses
import json
import re
import runpy
from pathlib import Path

import jax
import pytest

from wgpt_jax.ahead.compile import CompiledStep, compile_step
from wgpt_jax.ahead.main import main
from wgpt_jax.ahead.topology import topology_devices
from wgpt_jax.config import MeshConfig, load_config, read_target
from wgpt_jax.errors import RequestError
from wgpt_jax.parallel.mesh import make_mesh
from wgpt_jax.sizes import experiment

CONFIGS = Path(__file__).parents[1] / "configs"
DEFAULT = ("demo_hybrid", "demo_tokens", "paper_hybrid", "paper_gpt_s", "paper_gpt_l", "hybrid_generate", "hybrid_1b")
"""Compiled in every run of the tests; the rest is `slow`."""
GIB = 2**30


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Optimises less, and keeps programs for absent devices out of the cache."""
    jax.config.update("jax_optimization_level", "O1")
    jax.config.update("jax_enable_compilation_cache", False)
    yield
    jax.config.update("jax_optimization_level", "UNKNOWN")
    jax.config.update("jax_enable_compilation_cache", True)


def compiled(config, topology: str, num_slices: int = 1) -> CompiledStep:
    return compile_step(config, make_mesh(config.mesh, topology_devices(topology, num_slices)))


def on_mesh(config, **mesh):
    return dataclasses.replace(config, mesh=MeshConfig(**mesh))


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[] if path.stem in DEFAULT else pytest.mark.slow)
        for path in sorted(CONFIGS.glob("[!a]*.py"))  # not the grids of wgpt ablate
    ],
)
def test_a_configuration_fits_its_target_in_the_memory_it_states(path):
    step = compiled(load_config(path), read_target(path))
    assert step.fits and step.hbm_peak_bytes < step.hbm_available_bytes
    stated = re.search(r"([\d.]+)\s+GiB\s+of\s+([\d.]+)\s+per\s+chip", runpy.run_path(str(path))["__doc__"])
    assert step.hbm_peak_bytes / GIB == pytest.approx(float(stated[1]), rel=0.1, abs=0.02)
    assert step.hbm_available_bytes / GIB == pytest.approx(float(stated[2]), abs=0.01)


def test_what_cannot_fit_says_so_with_its_size_and_exit_code_1(capsys):
    config = str(CONFIGS / "hybrid_1b.py")
    code = main([config, "--topology", "v5e:2x2", "--mesh.fsdp", "4", "--model.remat", "none", "--quick", "--json"])
    out, error = capsys.readouterr()
    answer = json.loads(out)
    assert code == 1 and not answer["fits"]
    assert answer["hbm_peak_bytes"] > answer["hbm_available_bytes"] == pytest.approx(15.75 * GIB, rel=0.01)
    needed = f"{answer['hbm_peak_bytes'] / GIB:.2f} GiB per chip"
    assert error.count("error:") == 1 and "does not fit v5e:2x2" in error and needed in error


def test_the_answer_has_the_names_that_scripts_rely_on(capsys):
    config = str(CONFIGS / "demo_hybrid.py")
    assert main([config, "--topology", "v5e:1x1", "--quick", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {"parameters", "hbm_peak_bytes", "hbm_available_bytes", "fits", "model_flops_per_step", "mfu_ceiling"} < set(
        answer
    )
    assert answer["parameters"] == 606_304 and answer["fits"] and answer["compile_seconds"] > 0
    assert not any(answer["collectives"].values()), "one chip talks to nobody"
    assert main([config, "--topology", "v5e:1x1", "--quick"]) == 0
    text = capsys.readouterr().out
    assert "606,304" in text and "MFU ceiling" in text and "collectives       none" in text


def test_copies_of_the_model_only_sum_their_gradients():
    step = compiled(on_mesh(experiment("hybrid", "1m", batch=16), data=4), "v5e:2x2")
    assert {kind for kind, count in step.collectives.items() if count} == {"all-reduce"}


def test_split_models_gather_parameters_and_scatter_gradients():
    config = experiment("tokens", "1b", batch=32)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, depth=2))
    step = compiled(on_mesh(config, data=4, fsdp=4), "v5e:4x4")
    assert step.collectives["all-gather"] and step.collectives["reduce-scatter"]
    assert not step.collectives["all-to-all"], "activations stay where their rows are"
    whole = compiled(on_mesh(config, data=16, fsdp=1), "v5e:4x4")
    assert step.hbm_argument_bytes < whole.hbm_argument_bytes / 3.5, "the state is split four ways"


def test_two_slices_train_side_by_side():
    config = on_mesh(experiment("hybrid", "1m", batch=32), data=4, fsdp=2)
    step = compiled(config, "v5e:2x2", num_slices=2)
    assert step.devices == 8 and step.fits
    with pytest.raises(RequestError, match="multiple of 2, the number of slices"):
        compiled(on_mesh(config, data=1, fsdp=8), "v5e:2x2", num_slices=2)


def test_parts_of_a_batch_need_less_memory():
    config = on_mesh(experiment("hybrid", "4m", batch=16), data=1)
    parts = dataclasses.replace(config, training=dataclasses.replace(config.training, microbatches=4))
    whole, parted = (compiled(each, "v5e:1x1").hbm_peak_bytes for each in (config, parts))
    assert parted < whole / 2


@pytest.mark.slow
def test_a_search_finds_the_largest_batch_of_each_policy(capsys):
    flags = ["--topology", "v5e:1x1", "--search", "--quick", "--json", "--data.context", "32768", "--training.batch"]
    assert main([str(CONFIGS / "demo_tokens.py"), *flags, "8"]) == 0
    answer = json.loads(capsys.readouterr().out)
    largest = {row["remat"]: row["batch"] for row in answer["largest"]}
    assert list(largest) == ["none", "dots", "full"]
    assert largest["none"] < largest["full"] and answer["cheapest_remat"] in largest
    assert all(row["fits"] for row in answer["largest"])


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--topology", "v9:2x2"], "--topology v9:2x2"),
        (["--topology", "v5e:3x3"], "--topology v5e:3x3"),
        (["--topology", "v5e:2x2", "--mesh.data", "3"], "the product must be 4"),
        (["--topology", "v5e:2x2", "--training.batch", "6"], "training.batch 6 is not a multiple of 4"),
        (["--topology", "v5e:2x2", "--num-slices", "0"], "--num-slices 0"),
        (["--topology", "v5e:2x2", "--model.attention", "cudnn"], "cudnn runs on gpu, not on tpu"),
    ],
)
def test_a_wrong_request_is_one_sentence(flags, sentence, capsys):
    assert main([str(CONFIGS / "demo_hybrid.py"), *flags]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error:") and error.count("\n") == 0 and sentence in error


def test_a_file_without_a_target_asks_for_a_topology(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text("from wgpt_jax.config import Config\n\nconfig = Config()\n")
    assert main([str(path)]) == 2
    assert "--topology" in capsys.readouterr().err
