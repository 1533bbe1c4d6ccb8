"""wgpt doctor: what it says is so, what is wrong stands at the end with its remedy, and nothing compiles to know it."""

import dataclasses
import importlib.metadata
import json
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from synthetic import CODEBOOKS, markov_dataset

from wgpt_jax.ahead.topology import topology_devices
from wgpt_jax.cli import main
from wgpt_jax.config import Config, DataConfig, MeshConfig, ModelConfig, load_config, read_target
from wgpt_jax.data.batch import Batch
from wgpt_jax.data.index import load_index, save_index
from wgpt_jax.doctor import bench, experiment, machine
from wgpt_jax.model.decoder import Decoder
from wgpt_jax.parallel.mesh import check_mesh_fits, make_mesh, sharded
from wgpt_jax.performance.chips import CHIPS
from wgpt_jax.performance.flops import flops_per_step
from wgpt_jax.performance.memory import activations
from wgpt_jax.performance.roofline import mfu_ceiling
from wgpt_jax.runs import new_run, training_data_fingerprint, write_run
from wgpt_jax.training.optimizer import make_optimizer
from wgpt_jax.training.state import abstract_model, abstract_state, count_parameters, parameters_by_group

CONFIGS = Path(__file__).parents[1] / "configs"
GIB = 2**30
TINY = """
import sys
sys.path.insert(0, {tests!r})
from synthetic import tiny_config
config = tiny_config(training={{"steps": 38, "batch": 4}})
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("doctor")
    markov_dataset(folder / "data")
    (folder / "tiny.py").write_text(TINY.format(tests=str(Path(__file__).parent)))
    return folder


@pytest.fixture
def ask(folder, capsys):
    """Runs the command; returns the exit code and what it printed as JSON, with what was wrong as one text."""

    def ask(*argv, code=0, file="tiny.py"):
        words = [folder / file] if file else []
        assert main(["doctor", *map(str, words), *map(str, argv), "--json"]) == code
        answer = json.loads(capsys.readouterr().out)
        return answer, "\n".join(each["text"] for each in answer["missing_or_wrong"])

    return ask


def config_and_params(folder):
    config = load_config(folder / "tiny.py")
    return config, abstract_model(config.model, make_mesh(MeshConfig(1, 1, 1)))[1]


# What is said is so.


def test_nothing_compiles_and_no_array_is_made(folder, ask):
    compiled, before = set(), {id(array) for array in jax.live_arrays()}
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, fun_name="", **__: compiled.add(fun_name) if "backend_compile" in event else None
    )
    ask("--data", folder / "data", "--workdir", folder / "run")
    made = [array for array in jax.live_arrays() if id(array) not in before and array.size > 1]
    assert not made and compiled <= {"jit(convert_element_type)"}, "of a scalar, by Optax"

    def control(x):
        return x + 41

    jax.jit(control)(1)
    assert "jit(control)" in compiled


def test_versions_are_those_installed(ask):
    packages = ask(file=None)[0]["versions"]["packages"]
    assert packages["jax"] == jax.__version__ and packages["numpy"] == np.__version__


def test_an_extra_says_what_it_lacks_and_how_it_is_added(ask, monkeypatch):
    ours = ['no-such-thing>=1; extra == "prepare"', 'numpy>=999; extra == "prepare"', 'jax[tpu]; extra == "tpu"']
    known = {machine._US: ["numpy", *ours], "jax": ["scipy", 'libtpu==999.*; extra == "tpu"']}
    monkeypatch.setattr(importlib.metadata, "requires", known.get)
    extras = ask(file=None)[0]["versions"]["extras"]
    assert extras["prepare"]["missing"] == ["no-such-thing>=1", "numpy>=999"]
    assert extras["tpu"]["missing"] == ["libtpu==999.*"], "not the very libtpu that this jax wants"
    assert extras["prepare"]["install"] == 'pip install -e ".[prepare]"'


def test_a_package_that_is_missing_or_too_old_stops_training_and_nothing_that_needs_it_is_tried(ask, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: ["flax>=999", "no-such-thing"])
    answer, wrong = ask(code=1)
    assert "flax>=999, no-such-thing missing or of another version; pip install" in wrong
    assert set(answer) == {"versions", "missing_or_wrong"}


def test_devices_are_jax_s(ask):
    devices = ask(file=None)[0]["devices"]
    assert devices["platform"] == "cpu" and devices["count"] == jax.device_count() and devices["processes"] == 1
    assert devices["peak_bf16_flops"] is None and devices["memory_bytes"] > 2**28


def test_memory_is_what_the_device_says_else_what_its_vendor_says():
    def device(kind, stats):
        return SimpleNamespace(platform="gpu", device_kind=kind, memory_stats=lambda: stats)

    assert machine.memory(device("NVIDIA H200", {"bytes_limit": 100 * GIB}))[0] == 100 * GIB
    assert machine.memory(device("NVIDIA H200", None)) == (
        141 * GIB,
        "each, https://www.nvidia.com/en-us/data-center/h200/",
    )


def test_no_devices_is_said_with_jax_s_reason(ask, monkeypatch):
    def devices():
        raise RuntimeError("Unable to initialize backend 'tpu': held by another\nstack")

    monkeypatch.setattr(jax, "devices", devices)
    answer, wrong = ask(code=1)
    assert "JAX finds no devices: Unable to initialize backend 'tpu': held by another; check the driver" in wrong
    assert "experiment" not in answer


def test_an_accelerator_that_jax_does_not_use_is_noticed(ask, monkeypatch, tmp_path):
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(machine, "_IDLE", {"cuda": ("GPU", str(tmp_path / "nvidia[0-9]"))})
    assert not ask(file=None)[1], "JAX was asked for the CPU"
    monkeypatch.delenv("JAX_PLATFORMS")
    assert 'has a GPU, but JAX runs on the CPU; pip install -e ".[cuda]"' in ask(file=None)[1]


def test_the_experiment_is_counted_as_training_counts_it(folder, ask):
    config, params = config_and_params(folder)
    facts = ask("--data", folder / "data")[0]["experiment"]
    assert facts["parameters"] == count_parameters(params) == sum(facts["parameters_by_group"].values())
    assert facts["mesh"] == {"data": jax.device_count(), "fsdp": 1, "tensor": 1}
    assert (facts["batch"], facts["frames_per_step"]) == (4, 4 * 32)
    assert facts["hours_per_step"] == pytest.approx(4 * 32 / 75 / 3600)
    assert (facts["dtype"], facts["attention"], facts["remat"]) == ("float32", "einsum", "none")
    assert facts["model_flops_per_step"] == flops_per_step(config) and facts["mfu_ceiling"] is None
    parts = facts["memory_estimate_parts"]
    assert parts["gradients"] == 4 * facts["parameters"]
    counters = 5 * 4  # of steps: the state's, AdamW's, the schedule's; of skipped ones: in all, in a row
    assert parts["state"] == 3 * parts["gradients"] + counters
    assert facts["memory_estimate_bytes"] == sum(parts.values())


def test_a_known_chip_has_a_ceiling(folder, ask, monkeypatch):
    config, params = config_and_params(folder)
    monkeypatch.setattr(experiment, "chip_of", lambda kind: CHIPS["TPU v5e"])
    facts = ask()[0]["experiment"]
    ceiling = mfu_ceiling(config, CHIPS["TPU v5e"], count_parameters(params), data=jax.device_count())
    assert (facts["mfu_ceiling"], facts["shortest_step_seconds"]) == (ceiling.mfu, ceiling.seconds)


def test_flags_override_the_file(ask):
    facts = ask("--training.batch", 6, "--training.microbatches", 3, "--model.dtype", "bfloat16")[0]["experiment"]
    assert facts["batch"] == facts["windows_per_device"] * jax.device_count() == 6
    assert facts["microbatches"] == 3 and facts["dtype"] == "bfloat16"
    assert facts["memory_estimate_parts"]["gradients"] == 2 * 4 * facts["parameters"], "a sum, and what is added to it"


@pytest.mark.parametrize("remat", ["none", "dots", "full"])
@pytest.mark.parametrize(
    ("model", "attention"),
    [
        ({"dtype": "bfloat16"}, "splash"),
        ({"dtype": "bfloat16", "mlp": "swiglu"}, "einsum"),
        ({"dtype": "float32", "output_codebooks": 5, "depformer_depth": 4}, "einsum"),
    ],
    ids=["splash", "swiglu", "depformer"],
)
def test_activations_are_those_that_autodiff_keeps(model, attention, remat):
    """The formula of the blocks against the residuals of JAX's own trace, in arrays as long as the stacks are deep."""
    sizes = {"width": 64, "hidden": 192, "heads": 2, "depth": 3, "mel_width": 32, "mel_heads": 2, "mel_depth": 2}
    config = Config(model=ModelConfig(attention=attention, remat=remat, **sizes, **model), data=DataConfig(context=128))
    rows, t, m = 7, 128, config.model
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    with sharded(mesh):
        graph, params = nnx.get_abstract_model(lambda: Decoder(m, nnx.Rngs(0)), mesh)
        integers = jax.ShapeDtypeStruct((rows, t), jnp.int32)
        batch = Batch(
            jax.ShapeDtypeStruct((rows, t + 1, 8), jnp.int16),
            jax.ShapeDtypeStruct((rows, t + 1, m.mel_bands), jnp.float16),
            integers,
            integers,
            jax.ShapeDtypeStruct((rows, t), jnp.bool_),
        )
        kept = jax.eval_shape(lambda p, b: jax.vjp(lambda p: nnx.merge(graph, p)(b), p)[1], params, batch)
    depths = {3: rows, 2: rows, 4: rows * t} if m.output_codebooks > 1 else {3: rows, 2: rows}
    of_blocks = [leaf for leaf in jax.tree.leaves(kept) if leaf.ndim > 2 and depths.get(leaf.shape[0]) == leaf.shape[1]]
    traced = sum(leaf.size * leaf.dtype.itemsize for leaf in of_blocks)
    itemsize = jnp.dtype(m.dtype).itemsize
    formula = activations(config, rows=rows, itemsize=itemsize, attention=attention)
    assert formula.saved == pytest.approx(traced, rel=0.05)
    assert formula.working > 0


def test_activations_are_split_as_the_mesh_splits_them():
    config = load_config(CONFIGS / "paper_gpt_l.py")
    one, rows, tensor = (
        activations(config, rows=rows, itemsize=2, attention="splash", tensor=tensor).saved
        for rows, tensor in ((8, 1), (4, 1), (8, 4))
    )
    assert rows == one / 2
    assert one / 4 < tensor < one, "the residual stream is whole on every device"


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem)
        for path in sorted(CONFIGS.glob("[!a]*.py"))  # not the grids of wgpt ablate
        if not read_target(path).startswith("cuda:")  # compiled without the kernel that runs there
    ],
)
def test_the_estimate_is_about_what_the_compiler_says(path):
    """Every configuration states the compiler's figure, which tests/test_ahead.py holds it to."""
    config = load_config(path)
    mesh = make_mesh(config.mesh, topology_devices(read_target(path)))
    estimate = sum(experiment.estimate_memory(config, mesh).values()) / GIB
    stated = re.search(r"([\d.]+) GiB of", " ".join(runpy.run_path(str(path))["__doc__"].split()))
    assert 1 / 1.5 < estimate / float(stated[1]) < 1.5


def test_more_than_there_is_warns_and_does_not_stop(ask, monkeypatch):
    monkeypatch.setattr(experiment, "memory", lambda device: (2**19, "a small one"))
    wrong = ask()[1]
    assert "a step needs about" in wrong and "0.50 MiB" in wrong and "tools/compile_for.py" in wrong


def test_the_data_are_those_of_the_index(folder, ask):
    facts, index = ask("--data", folder / "data")[0]["data"], load_index(folder / "data")
    train = facts["splits"]["train"]
    assert facts["codec"] == "synthetic" and facts["codebooks"] == CODEBOOKS
    assert train["frames"] == index.frames("train") and train["documents"] == 40
    assert train["hours"] == pytest.approx(index.frames("train") / 75 / 3600)
    assert facts["epochs"] == pytest.approx(38 * 4 / train["records"])
    assert facts["training_fingerprint"] == training_data_fingerprint(index)
    assert facts["shards_complete"] and facts["failed_inputs"] == 0


# What is wrong.


def test_all_that_is_wrong_stands_at_the_end_once_with_its_remedy(folder, capsys):
    flags = ["--data", str(folder / "none"), "--mesh.fsdp", "3"]
    assert main(["doctor", str(folder / "tiny.py"), *flags]) == 1
    out, error = capsys.readouterr()
    ending = out[out.index("missing or wrong") :].splitlines()
    assert len(ending) == 3 and all(line.startswith("  stops training: ") for line in ending[1:])
    assert "the product must be" in out and "tools/prepare_audio.py" in out
    assert error.startswith("error: training would stop: ") and error.endswith("(and 1 more)\n")
    assert main(["doctor", str(folder / "tiny.py")]) == 0
    assert capsys.readouterr().out.endswith("nothing is missing or wrong\n")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--model.vocabulary", "32"], "set --model.vocabulary 16"),
        (["--model.output-codebooks", "3"], "prepare it with more --num-codebooks"),
        (["--data.mel-mix", "codec8", "1"], "prepare it into another folder with --mel-sources original,codec8"),
        (["--model.heads", "3"], "model.heads: 3 heads must divide model.width 16"),
        (["--model.attention", "cudnn"], "model.attention cudnn runs on gpu, not on cpu"),
    ],
)
def test_a_configuration_that_does_not_fit_is_said_as_training_says_it(folder, ask, flags, sentence):
    assert sentence in ask("--data", folder / "data", *flags, code=1)[1]


def test_a_damaged_shard_and_a_lost_one_are_found(ask, tmp_path):
    index = markov_dataset(tmp_path / "data", train=5, validation=1)
    shard = index.split("train")[0]
    damaged = tuple(dataclasses.replace(each, records=each.records + 1) for each in index.shards)
    save_index(dataclasses.replace(index, shards=damaged), tmp_path / "data")
    answer, wrong = ask("--data", tmp_path / "data", code=1)
    assert f"hold {shard.records} records, the index says {shard.records + 1}; run the same" in wrong
    assert not answer["data"]["shards_complete"]
    (tmp_path / "data" / shard.file).unlink()
    assert f"shard {shard.file} is missing" in ask("--data", tmp_path / "data", code=1)[1]


def test_failures_of_the_preparation_are_counted_and_nothing_to_validate_on_is_noticed(ask, tmp_path, capsys):
    index = markov_dataset(tmp_path / "data", train=5, validation=1)
    failed = tuple({"path": f"{i}.wav", "reason": "is empty"} for i in range(3))
    only = index.split("train")
    save_index(dataclasses.replace(index, failed=failed, shards=only), tmp_path / "data")
    answer, wrong = ask("--data", tmp_path / "data")
    assert answer["data"]["failed_inputs"] == 3 and "has no validation split" in wrong
    main(["doctor", "--data", str(tmp_path / "data")])
    assert "3 inputs could not be used: 3 x is empty" in capsys.readouterr().out


@pytest.fixture
def run(folder, tmp_path) -> Path:
    """A run folder at step 20."""
    config, params = config_and_params(folder)
    write_run(tmp_path / "run", new_run(config, load_index(folder / "data"), parameters_by_group(params)))
    for name in ("10", "20", "30.orbax-checkpoint-tmp-1"):
        (tmp_path / "run/checkpoints" / name).mkdir(parents=True)
    return tmp_path / "run"


def test_a_run_says_where_it_stands_and_whether_it_would_continue(folder, ask, run, tmp_path):
    data = ["--data", folder / "data"]
    facts = ask(*data, "--workdir", run)[0]["run"]
    assert facts["checkpoints"] == [10, 20] and facts["continues"] and not facts["differs"]
    answer, wrong = ask(*data, "--workdir", run, "--training.steps", 50)
    assert answer["run"]["differs"] == {"training.steps": [38, 50]} and "schedule changes with it" in wrong
    answer, wrong = ask(*data, "--workdir", run, "--model.depth", 3, code=1)
    assert not answer["run"]["continues"] and "model.depth is 2 there and 3 here; use the same value" in wrong
    markov_dataset(tmp_path / "other", seed=1)
    assert "was trained on other data" in ask("--data", tmp_path / "other", "--workdir", run, code=1)[1]
    assert ask("--workdir", run, file=None)[0]["run"]["checkpoints"] == [10, 20]
    assert not ask("--workdir", tmp_path / "new")[0]["run"]["exists"]


def test_a_run_folder_that_cannot_be_is_found_before_training(ask, folder):
    assert "cannot write to the run folder" in ask("--workdir", folder / "tiny.py/run", code=1)[1]


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--bench"], "need a CONFIG-FILE"),
        (["--model.depth", "3"], "need a CONFIG-FILE"),
        (["nowhere.py"], "no configuration file nowhere.py"),
        (["--coordinator", "localhost:1", "--num-processes", "2", "--process-id", "0"], "need --workdir"),
    ],
)
def test_a_wrong_request_is_one_sentence(argv, sentence, capsys):
    assert main(["doctor", *argv]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


# The host's share of a step.


@pytest.mark.parametrize(
    "model", [{}, {"mlp": "swiglu", "mel_depth": 0}, {"inputs": "tokens"}, {"output_codebooks": 8}], ids=str
)
def test_the_benched_network_has_the_arrays_of_the_configured_one_on_any_mesh(model):
    mesh = make_mesh(MeshConfig(2, 2, 2), topology_devices("v5e:2x4"))
    config = Config(model=ModelConfig(**{"depth": 12, "width": 512, "heads": 8, **model}))
    small = bench.tiny(config, mesh).validate()
    check_mesh_fits(small, mesh)

    def arrays(config):
        optimizer = make_optimizer(config.optimizer, config.training.steps)
        return jax.tree.leaves(abstract_state(config, optimizer, mesh))

    assert len(arrays(small)) == len(arrays(config))
    assert sum(leaf.size for leaf in arrays(small)) < sum(leaf.size for leaf in arrays(config)) / 500
    assert flops_per_step(small) < 1e7, "nothing beside a millisecond"


def test_bench_times_the_call_the_pipeline_and_the_transfer(folder, ask):
    _, params = config_and_params(folder)
    facts = ask("--data", folder / "data", "--bench")[0]["bench"]
    assert all(facts[f"{name}_seconds"] > 0 for name in ("dispatch", "dispatch_fastest", "next_batch", "to_devices"))
    assert facts["dispatch_fastest_seconds"] <= facts["dispatch_seconds"]
    assert facts["dispatch_arrays"] == 3 * len(jax.tree.leaves(params)) + 5, (
        "the parameters, twice their moments, steps"
    )
    assert facts["dispatch_is_asynchronous"], "JAX's default on a CPU"


def test_a_call_that_computes_before_it_returns_is_noticed(monkeypatch):
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    assert bench.returns_early(mesh)
    real = jax.jit
    monkeypatch.setattr(jax, "jit", lambda work: lambda *args: jax.block_until_ready(real(work)(*args)))
    assert not bench.returns_early(mesh)
