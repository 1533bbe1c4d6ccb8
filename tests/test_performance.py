"""Model FLOPs are those that XLA counts, the roofline is a bound, and a profile holds whole steps."""

import dataclasses
import gzip
import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from flax import nnx
from jax.experimental.pallas import tpu
from synthetic import markov_dataset, tiny_config

from wgpt_jax.cli import main
from wgpt_jax.config import Config, DataConfig, MeshConfig, ModelConfig, TrainingConfig, load_config
from wgpt_jax.data.batch import Batch
from wgpt_jax.errors import RequestError
from wgpt_jax.metrics import read_metrics
from wgpt_jax.model.layers import Stack
from wgpt_jax.parallel.mesh import make_mesh, sharded
from wgpt_jax.performance.chips import CHIPS, chip_of
from wgpt_jax.performance.flops import Matmul, flops_per_frame, flops_per_step, matmuls
from wgpt_jax.performance.roofline import OPTIMIZER_BYTES, mfu_ceiling, product_seconds
from wgpt_jax.training.loop import train
from wgpt_jax.training.optimizer import make_optimizer
from wgpt_jax.training.state import abstract_model, abstract_state, count_parameters
from wgpt_jax.training.step import make_train_step
from wgpt_jax.training.throughput import Throughput

CONFIGS = Path(__file__).parent.parent / "configs"
V5E, V5P, V6E, H100 = (chip_of(kind) for kind in ("TPU v5 lite", "TPU v5", "TPU v6 lite", "NVIDIA H100 80GB HBM3"))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("markov")
    markov_dataset(folder)
    return folder


# Chips.


@pytest.mark.parametrize(
    ("version", "kinds"),
    {"v2": ["TPU v2"], "v3": ["TPU v3"], "v4": ["TPU v4"], "v5e": ["TPU v5 lite", "TPU v5e"],
     "v5p": ["TPU v5", "TPU v5p"], "v6e": ["TPU v6 lite", "TPU v6e"], "7x": ["TPU7x"]}.items(),
)  # fmt: skip
def test_tpus_are_those_of_jaxs_own_table_within_the_rounding_of_vendors(version, kinds):
    """JAX's figures are per core; its v3 clock and its v5p bandwidth are 14 and 11 % from Google's documents."""
    version = tpu.ChipVersion(version)
    core = tpu.get_tpu_info_for_chip(version, 1)
    cores = version.num_physical_tensor_cores_per_chip if version.supports_megacore else 1
    for kind in kinds:
        chip = chip_of(kind)
        assert chip.peak_bf16_flops == pytest.approx(cores * core.bf16_ops_per_second, rel=0.15)
        assert chip.hbm_bandwidth == pytest.approx(cores * core.mem_bw_bytes_per_second, rel=0.15)
        assert chip.hbm_bytes == pytest.approx(cores * core.hbm_capacity_bytes, rel=0.1)
        assert chip.matrix_tile == core.mxu_column_size


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA H200", "H200 SXM"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA A100-SXM4-40GB", "A100 40 GB"),
        ("NVIDIA A100-SXM4-80GB", "A100 80 GB"),
        ("NVIDIA A100 80GB PCIe", "A100 80 GB PCIe"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        # No wrong yardstick: slices, relatives and strangers have none.
        ("cpu", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA L40S", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("TPU v4 lite", None),
        ("Tesla V100-SXM2-16GB", None),  # multiplies no bfloat16
    ],
)
def test_a_gpu_is_known_by_its_device_kind_and_a_stranger_by_none(kind, name):
    chip = chip_of(kind)
    assert (chip and chip.name) == name


def test_every_chip_names_its_source():
    assert all(chip.source.startswith("http") or "https://doi.org" in chip.source for chip in CHIPS.values())


# FLOPs.

WINDOWS, CONTEXT = 2, 256


def sized(fraction: float = 1.0, **model) -> Config:
    """Wide enough that elementwise work is small beside products; each of these is some per cent of the whole."""
    mel = {"mel_width": 256, "mel_heads": 4, "mel_kernel": 16}
    model = {"dtype": "float32", "attention": "einsum", "depth": 2, "hidden": 256, **mel, **model}
    return Config(
        model=ModelConfig(**model),
        data=DataConfig(context=CONTEXT),
        training=TrainingConfig(batch=WINDOWS, depformer_fraction=fraction),
    )


def some_batch(config: Config) -> Batch:
    b, t, m = WINDOWS, CONTEXT, config.model
    tokens, mel = np.zeros((b, t + 1, m.output_codebooks), np.int16), np.zeros((b, t + 1, m.mel_bands), np.float16)
    return Batch(tokens, mel, np.ones((b, t), np.int32), np.zeros((b, t), np.int32), np.zeros((b, t), bool))


def with_full_attention(config: Config) -> int:
    """The analytic forward pass as the einsum computes it: with the half that causality masks."""
    return sum(full_flops(product) for product in matmuls(config))


def full_flops(product: Matmul) -> int:
    return product.flops * (2 if product.attention else 1)


@pytest.fixture
def unrolled(monkeypatch):
    """Stacks of layers as plain loops: XLA counts the body of a scan once, whatever its length."""

    def call(self, x, segment_ids, positions, dropout_key=None):
        for block in self.unrolled():
            x = block(x, segment_ids, positions)
        return x

    monkeypatch.setattr(Stack, "__call__", call)


@pytest.mark.parametrize(
    "model",
    [
        {"inputs": "tokens"},
        {"inputs": "tokens", "mlp": "swiglu", "depth": 3},
        {"inputs": "hybrid"},
        {"inputs": "hybrid", "fusion": "add"},
        {"inputs": "hybrid", "mel_depth": 0},
        {"inputs": "tokens", "token_kernel": 16, "token_width": 256},
        {"inputs": "hybrid", "output_codebooks": 4},
        {"inputs": "tokens", "output_codebooks": 4, "input_codebooks": 4, "pattern": "delay"},
        {"inputs": "tokens", "output_codebooks": 2, "pattern": "flat"},
    ],
)
def test_the_forward_pass_has_the_flops_that_xla_counts(model, unrolled):
    """XLA also counts elementwise operations, about 1 % here; a product left out would show."""
    config = sized(**model)
    mesh = make_mesh(MeshConfig(1, 1, 1))
    graph, params = abstract_model(config.model, mesh)
    with sharded(mesh):
        lowered = nnx.jit(lambda params, batch: nnx.merge(graph, params)(batch)).lower(params, some_batch(config))
    ratio = lowered.cost_analysis()["flops"] / with_full_attention(config)
    assert 1.0 <= ratio < 1.016
    seen = [product for product in matmuls(config) if product.name not in ("depth scores", "depth values")]
    assert min(map(full_flops, seen)) > 0.016 * with_full_attention(config), "the tolerance hides none of them"


@pytest.mark.parametrize("fraction", [1.0, 0.2])
def test_a_step_is_worth_three_forward_passes_of_the_frames_that_are_drawn(fraction, unrolled):
    config = sized(fraction, output_codebooks=8)
    mesh, optimizer = make_mesh(MeshConfig(1, 1, 1)), make_optimizer(config.optimizer, 10)
    graph, _ = abstract_model(config.model, mesh)
    abstract = abstract_state(config, optimizer, mesh)
    lowered = make_train_step(config, graph, optimizer, mesh, abstract).lower(abstract, some_batch(config))
    assert lowered.cost_analysis()["flops"] / (3 * with_full_attention(config)) == pytest.approx(1.02, abs=0.015)


def test_the_papers_hybrid_has_the_flops_of_a_count_by_hand():
    config = load_config(CONFIGS / "paper_hybrid.py")
    # Per position, attention over 512 keys on average: QKV, out, MLP, scores and values of each block.
    decoder = 4 * (2 * 256 * 768 + 2 * 256 * 256 + 2 * 2 * 256 * 1024 + 2 * 2 * 512 * 256)
    mel = 2 * (2 * 96 * 288 + 2 * 96 * 96 + 2 * 2 * 96 * 384 + 2 * 2 * 512 * 96) + 2 * 3 * 64 * 96
    rest = 2 * 352 * 256 + 2 * 256 * 1024
    assert 3 * (decoder + mel + rest) == 29_896_704
    assert flops_per_frame(config) == 29_896_704
    assert flops_per_step(config) == 64 * 1024 * 29_896_704


def test_remat_is_no_work_of_the_model():
    again = load_config(CONFIGS / "paper_hybrid.py", ["--model.remat", "full"])
    assert flops_per_step(again) == flops_per_step(load_config(CONFIGS / "paper_hybrid.py"))


# Roofline.


def wide(width: int) -> Config:
    return Config(
        model=ModelConfig(inputs="tokens", width=width, heads=4, hidden=4 * width),
        data=DataConfig(context=1024),
        training=TrainingConfig(batch=64),
    )


@pytest.mark.parametrize(
    ("chip", "inner", "outer", "percent"),
    [(V5E, 256, 256, 53), (V5P, 256, 256, 77), (V6E, 256, 256, 23), (H100, 256, 256, 43),
     (V5E, 256, 1024, 85), (V6E, 256, 1024, 37), (H100, 256, 1024, 69)],
)  # fmt: skip
def test_one_narrow_product_reaches_its_intensity_over_the_ridge_point(chip, inner, outer, percent):
    """k n / (k + n) FLOP/byte in bfloat16 with many rows, over peak / bandwidth: worked out elsewhere, by hand."""
    product = Matmul("one", 2**20, inner, outer, 1)
    mfu = 3 * product.flops / (product_seconds(product, chip) * chip.peak_bf16_flops)
    assert 100 * mfu == pytest.approx(percent, abs=1)


def test_sizes_short_of_the_tile_cost_a_whole_one():
    """Compute-bound, 640 of 1024 channels filled on v6e, whose tile is 256: 640 / 768."""
    full = product_seconds(Matmul("one", 2**14, 8192, 1024, 1), V6E)
    assert product_seconds(Matmul("one", 2**14, 8192, 640, 1), V6E) == pytest.approx(full * 768 / 1024)


@pytest.mark.parametrize("chip", sorted(CHIPS))
def test_the_ceiling_is_a_fraction_that_grows_with_the_width(chip):
    """Until products are bound by compute; then the optimiser's share grows from nothing to a per cent."""
    widths = (128, 256, 512, 1024, 2048, 4096)
    ceilings = [mfu_ceiling(wide(width), CHIPS[chip], parameters=4 * 12 * width**2).mfu for width in widths]
    assert all(wider > narrower - 0.005 for narrower, wider in itertools.pairwise(ceilings))
    assert 0 < ceilings[0] < 0.75 and 0.9 < ceilings[-1] <= 1


@pytest.mark.parametrize("name", ["paper_hybrid", "paper_gpt_s", "paper_gpt_l", "hybrid_generate"])
def test_the_presets_use_v6e_worse_than_v5p(name):
    config = load_config(CONFIGS / f"{name}.py")
    parameters = count_parameters(abstract_model(config.model, make_mesh(MeshConfig(1, 1, 1)))[1])
    assert mfu_ceiling(config, V6E, parameters).mfu < 0.7 * mfu_ceiling(config, V5P, parameters).mfu


def test_the_ceiling_counts_what_one_device_does():
    config, parameters = wide(1024), 10**8
    one = mfu_ceiling(config, V6E, parameters)
    # Twice the devices and twice the windows: the same work for each.
    doubled = dataclasses.replace(config, training=TrainingConfig(batch=128))
    assert mfu_ceiling(doubled, V6E, parameters, data=2).seconds == pytest.approx(one.seconds)
    # Split parameters are updated once between the devices that share them, whole ones everywhere.
    saved = OPTIMIZER_BYTES * parameters / 2 / V6E.hbm_bandwidth
    assert mfu_ceiling(doubled, V6E, parameters, fsdp=2).seconds == pytest.approx(one.seconds - saved)
    # Heads, hidden channels and vocabulary in two: half the FLOPs for each device, but thinner products.
    split = mfu_ceiling(config, V6E, parameters, tensor=2)
    assert 0.5 * one.seconds < split.seconds < one.seconds
    assert split.mfu < one.mfu


# Throughput. When it is measured is in test_no_waiting.py.


def test_speed_is_frames_per_second_and_mfu_of_all_positions(monkeypatch):
    from wgpt_jax.training import throughput

    config, clock = load_config(CONFIGS / "paper_hybrid.py"), iter([10.0, 14.0])
    monkeypatch.setattr(throughput, "chip_of", lambda kind: V5E)
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    throughput = Throughput(config, make_mesh(MeshConfig(1, 1, 1)), 4_003_104)
    assert throughput.rate(100, 60_000) == {}, "no window yet"
    speed = throughput.rate(200, 60_000)  # of 65,536 positions
    assert speed["frames_per_second"] == speed["frames_per_second_per_device"] == 25 * 60_000
    assert speed["mfu"] == pytest.approx(25 * 65_536 * 29_896_704 / 197e12)
    assert throughput.ceiling == mfu_ceiling(config, V5E, 4_003_104)


def test_a_cpu_has_no_mfu(data, tmp_path, capsys):
    train(tiny_config(training={"steps": 4, "eval_every": 0}), data, tmp_path / "run")
    rows = read_metrics(tmp_path / "run/metrics.jsonl")
    assert any("frames_per_second_per_device" in row for row in rows)
    assert not any("mfu" in row for row in rows)
    captured = capsys.readouterr()
    assert "MFU" not in captured.out + captured.err


# Profiles.


def traced_steps(folder: Path) -> list[str]:
    return [event["args"]["step_num"] for event in traced(folder) if event.get("name") == "train"]


def traced(folder: Path) -> list[dict]:
    """Events of the one trace in a folder."""
    (file,) = folder.glob("plugins/profile/*/perfetto_trace.json.gz")
    return json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]


def test_a_profile_holds_the_steps_asked_for_whole(data, tmp_path, capsys):
    config = tiny_config(training={"steps": 9, "eval_every": 0}, logging={"every": 4})
    train(config, data, tmp_path / "run", profile="3:7")
    assert traced_steps(tmp_path / "run/profile") == ["4", "5", "6", "7"]
    # Every operation of the compiled step ran four times, or that often in a loop: none was cut off.
    details = [event.get("args", {}) for event in traced(tmp_path / "run/profile")]
    names = [detail["hlo_op"] for detail in details if detail.get("hlo_module", "").startswith("jit_step")]
    assert {names.count(name) % 4 for name in set(names)} == {0}
    assert f"profile of steps 4 to 7 in {tmp_path / 'run/profile'}" in capsys.readouterr().out


def test_a_window_counts_the_runs_steps_and_says_if_it_was_not_reached(data, tmp_path, capsys):
    train(tiny_config(training={"steps": 4, "eval_every": 0}), data, tmp_path / "run")
    config = tiny_config(training={"steps": 8, "eval_every": 0})
    train(config, data, tmp_path / "run", profile="6:7")
    train(config, data, tmp_path / "run", profile="2:3")
    told = "nothing was profiled: step 3, with which --profile begins, was not among the steps taken"
    assert told in capsys.readouterr().out
    assert traced_steps(tmp_path / "run/profile") == ["7"]


def test_a_profile_that_cannot_be_written_ends_no_run(data, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/profile").write_text("in the way")
    assert train(tiny_config(training={"steps": 4, "eval_every": 0}), data, tmp_path / "run", profile="1:2") == 4
    captured = capsys.readouterr().out
    assert f"warning: no profile could be written to {tmp_path / 'run/profile'}" in captured
    assert "profile of steps" not in captured


@pytest.mark.parametrize(
    ("window", "meant"),
    [
        ("5", "'5' is no window of steps; give START:STOP, as in 100:110"),
        ("a:b", "'a:b' is no window of steps"),
        ("-1:3", "'-1:3' is no window of steps"),
        ("3:3", "3:3: no step lies between 3 and 3"),
        ("3:2", "3:2: no step lies between 3 and 2"),
        ("3:11", "3:11: the run ends at step 10"),
    ],
)
def test_a_wrong_window_is_one_sentence(window, meant, data, tmp_path):
    with pytest.raises(RequestError, match=meant):
        train(tiny_config(), data, tmp_path / "run", profile=window)
    assert not (tmp_path / "run").exists(), "asked before anything is made"


def test_the_command_takes_a_window(data, tmp_path, capsys):
    argv = ["train", str(CONFIGS / "demo_hybrid.py"), "--data", str(data), "--workdir", str(tmp_path / "run")]
    assert main([*argv, "--profile", "9:9"]) == 2
    assert capsys.readouterr().err.startswith("error: --profile 9:9: no step lies between")
