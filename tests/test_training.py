"""Training learns what there is to learn, resumes bit for bit, and refuses what does not belong together."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from scipy.special import log_softmax
from synthetic import markov_dataset, markov_document, markov_matrix, tiny_config, write_dataset

from wgpt_jax.ahead.topology import topology_devices
from wgpt_jax.config import MeshConfig
from wgpt_jax.data.index import load_index, save_index
from wgpt_jax.data.pipeline import training_batches
from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.evaluation import evaluate
from wgpt_jax.metrics import read_metrics
from wgpt_jax.model.decoder import Decoder
from wgpt_jax.parallel.mesh import check_mesh_fits, make_mesh, to_devices
from wgpt_jax.runs import RunFolder, copy_codec
from wgpt_jax.training.checkpoint import Checkpoints
from wgpt_jax.training.logs import RunLog
from wgpt_jax.training.loop import train
from wgpt_jax.training.optimizer import learning_rate, make_optimizer
from wgpt_jax.training.state import abstract_model, abstract_state, init_state
from wgpt_jax.training.step import drawn_frames, make_train_step


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("markov")
    markov_dataset(folder)
    return folder


MIX = {"codec1": 3.0, "original": 1.0}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    """Data of two mel sources."""
    folder = tmp_path_factory.mktemp("mixed")
    markov_dataset(folder, mel_sources=("original", "codec1"))
    return folder


def saved_state(config, run):
    optimizer = make_optimizer(config.optimizer, config.training.steps)
    with Checkpoints(RunFolder(run).checkpoints) as checkpoints:
        return checkpoints.restore_latest(abstract_state(config, optimizer, make_mesh(config.mesh)), pytest.fail)[:2]


def equal(first, second) -> bool:
    return all(jax.tree.leaves(jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), first, second)))


def without_speed(path):
    return [{k: v for k, v in row.items() if "per_second" not in k} for row in read_metrics(path)]


# Everything random is on; 5 steps are not a whole epoch of the data.
RANDOM = {"dropout": 0.1, "mel_dropout": 0.2, "mel_dropout_window": 0.1}


def test_5_steps_and_5_resumed_are_10_steps_bit_for_bit(mixed, tmp_path, monkeypatch):
    model, training = RANDOM | {"output_codebooks": 2}, {"depformer_fraction": 0.5}
    config = tiny_config(model=model, training=training, data={"mel_mix": MIX})
    assert train(config, mixed, tmp_path / "whole") == 10

    # The interruption comes from a signal, as a user's Ctrl-C does, in the middle of the run.
    real = RunLog.train

    def interrupting(log, step, values):
        real(log, step, values)
        if step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(RunLog, "train", interrupting)
    assert train(config, mixed, tmp_path / "halves") == 5
    monkeypatch.setattr(RunLog, "train", real)
    assert train(config, mixed, tmp_path / "halves") == 10

    whole, position = saved_state(config, tmp_path / "whole")
    halves, resumed_position = saved_state(config, tmp_path / "halves")
    assert position == resumed_position
    assert equal(whole, halves)
    assert without_speed(tmp_path / "whole/metrics.jsonl") == without_speed(tmp_path / "halves/metrics.jsonl")


def test_a_killed_run_continues_from_its_last_checkpoint(data, tmp_path):
    """kill -9 in the middle: the steps after the last save are done again, and the end is the same."""
    config = tiny_config(model=RANDOM)
    train(config, data, tmp_path / "whole")
    script = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from synthetic import tiny_config
from wgpt_jax.training import loop
real = loop.RunLog.train
def dying(log, step, values):
    real(log, step, values)
    if step == 7:
        os.kill(os.getpid(), 9)
loop.RunLog.train = dying
if __name__ == "__main__":
    loop.train(tiny_config(model={RANDOM!r}), {str(data)!r}, {str(tmp_path / "killed")!r})
"""
    file = tmp_path / "dying.py"
    file.write_text(script)
    assert subprocess.run([sys.executable, str(file)], capture_output=True).returncode == -9
    assert [row["step"] for row in read_metrics(tmp_path / "killed/metrics.jsonl")][-1] == 7
    assert train(config, data, tmp_path / "killed") == 10
    assert equal(saved_state(config, tmp_path / "whole"), saved_state(config, tmp_path / "killed"))
    assert without_speed(tmp_path / "whole/metrics.jsonl") == without_speed(tmp_path / "killed/metrics.jsonl")


def test_data_workers_change_no_batch(mixed, tmp_path):
    threads = tiny_config(training={"steps": 3}, data={"mel_mix": MIX})
    train(threads, mixed, tmp_path / "threads")
    train(dataclasses.replace(threads, data=dataclasses.replace(threads.data, workers=1)), mixed, tmp_path / "workers")
    assert equal(saved_state(threads, tmp_path / "threads"), saved_state(threads, tmp_path / "workers"))


def test_windows_show_each_mel_source_as_often_as_the_mix_says_at_the_same_places(tmp_path):
    rng = np.random.default_rng(0)
    documents = [markov_document(f"d{i}", 60, markov_matrix(), rng, sources=3) for i in range(20)]
    for document in documents:
        document.mel[:] = np.array([1, 2, 3])[:, None, None]  # says which source it is
    index = write_dataset(tmp_path, {"train": documents}, mel_sources=("original", "codec1", "codec8"))

    def first_batches(reads_mel=True, **mix):
        data = tiny_config(data={"mel_mix": mix}).data
        batches = iter(training_batches(tmp_path, index, data, 8, reads_mel=reads_mel))
        rows = [next(batches) for _ in range(50)]
        return np.concatenate([batch.tokens for batch in rows]), np.concatenate(
            [batch.mel.max((1, 2)) for batch in rows]
        )

    tokens, sources = first_batches(codec8=3, original=1)
    counts = np.bincount(sources.astype(int), minlength=4)
    assert counts.tolist() == [0, counts[1], 0, 400 - counts[1]]
    assert abs(counts[1] - 100) < 4 * np.sqrt(400 * 0.25 * 0.75)
    np.testing.assert_array_equal(first_batches(original=0.25, codec8=0.75)[1], sources)
    for other, expected in ((first_batches(codec1=2), 2), (first_batches(codec8=1, reads_mel=False), 1)):
        np.testing.assert_array_equal(other[0], tokens)
        assert (other[1] == expected).all()


def test_a_mel_source_that_the_data_does_not_have_is_named(data, tmp_path):
    config = {"data": {"mel_mix": {"original": 1.0, "codec8": 1.0}}, "training": {"steps": 1}}
    with pytest.raises(
        RequestError, match=r"mel_mix names codec8, but .* has the mel of original; .* --mel-sources original,codec8"
    ):
        train(tiny_config(**config), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert train(tiny_config("tokens", **config), data, tmp_path / "tokens") == 1, "a token-only model does not care"
    assert read_metrics(tmp_path / "tokens/metrics.jsonl")[-1]["mel_source"] == "none"


def test_validation_hears_the_main_mel_source(mixed, tmp_path):
    config = tiny_config(training={"steps": 1, "eval_windows": 0}, data={"mel_mix": MIX})
    train(config, mixed, tmp_path / "run")
    row = read_metrics(tmp_path / "run/metrics.jsonl")[-1]
    summary = evaluate(tmp_path / "run", mixed, mel="codec1", progress=False).summary
    assert (row["mel_source"], row["nll"]) == ("codec1", summary["nll"])


def test_one_batch_is_learned_by_heart(tmp_path):
    markov_dataset(tmp_path / "one", train=1, frames=(30, 31), validation=1)
    config = tiny_config(
        model={"width": 32, "hidden": 64},
        training={"steps": 300, "batch": 1, "eval_every": 0},
        optimizer={"learning_rate": 1e-2, "weight_decay": 0.0},
        logging={"every": 50},
        checkpoint={"every": 300},
    )
    train(config, tmp_path / "one", tmp_path / "run")
    assert read_metrics(tmp_path / "run/metrics.jsonl")[-1]["loss"] < 0.02


def test_divergence_is_told_and_never_saved(data, tmp_path):
    config = tiny_config(training={"steps": 40, "eval_every": 0}, optimizer={"learning_rate": 1e30, "clip": 1e30})
    with pytest.raises(WorkError, match=r"training diverged: .* (is inf|not finite)"):
        train(config, data, tmp_path / "run")
    with Checkpoints(tmp_path / "run/checkpoints") as checkpoints:
        for step in checkpoints.steps:
            params, _ = checkpoints.restore_params(abstract_model(config.model, make_mesh(config.mesh))[1], step)
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(("embedding_std", "limit"), [(0.3, 3), (0.01, 20)])
def test_gradients_are_tame_at_the_start_with_mel_dropout(data, embedding_std, limit):
    """A null mel of zeros once gave a gradient norm of 50 here; small embeddings have larger ones of their own."""
    config = tiny_config(model={"mel_dropout": 0.9, "embedding_std": embedding_std})
    mesh, optimizer = make_mesh(config.mesh), make_optimizer(config.optimizer, 10)
    graph, _ = abstract_model(config.model, mesh)
    abstract = abstract_state(config, optimizer, mesh)
    state = init_state(config, optimizer, mesh, abstract)
    batch = next(iter(training_batches(data, load_index(data), config.data, 8)))
    _, metrics = make_train_step(config, graph, optimizer, mesh, abstract)(state, to_devices(batch, mesh))
    assert float(metrics["grad_norm"]) < limit


def test_drawn_frames_stand_for_all_of_their_window():
    """Windows of 12 frames to predict, of 2, of 18 and of none; 5 of 18 are drawn."""
    weights = np.zeros((4, 18), bool)
    weights[0, 3:15] = weights[1, [2, 9]] = weights[2] = True
    rows, have = np.arange(4)[:, None], weights.sum(axis=1)
    draw = jax.jit(jax.vmap(lambda key: drawn_frames(key, weights, 0.25)))
    frames, counts = map(np.asarray, draw(jax.random.split(jax.random.key(0), 4000)))
    assert frames.shape == counts.shape == (4000, 4, 5)
    assert np.diff(np.sort(frames), axis=-1).min() > 0, "no frame is drawn twice"
    real = weights[rows, frames]
    assert (real == (np.arange(5) < have[:, None])).all(), "padding comes last, and only where frames run out"
    assert ((counts > 0) == real).all()
    np.testing.assert_allclose(counts.sum(axis=-1), np.tile(have, (4000, 1)), rtol=1e-6)
    # Any sum over a window is expected whole: each frame counts for one on average.
    shares = np.zeros(weights.shape)
    np.add.at(shares, (rows, frames), counts)
    np.testing.assert_allclose(shares / 4000, weights, atol=0.12)
    values = np.random.default_rng(0).normal(size=weights.shape)
    means = ((counts * values[rows, frames]).sum(axis=-1) / np.maximum(have, 1)).mean(axis=0)
    np.testing.assert_allclose(means, (values * weights).sum(axis=1) / np.maximum(have, 1), atol=0.04)

    frames, counts = drawn_frames(jax.random.key(1), weights, 1.0)
    np.testing.assert_array_equal(np.sort(frames), np.tile(np.arange(18), (4, 1)))
    np.testing.assert_array_equal(counts, weights[rows, frames], "all are drawn: each stands for itself")


@pytest.mark.parametrize(
    ("inputs", "model"),
    [
        ("hybrid", {}),
        ("hybrid", {"input_codebooks": 2}),
        ("tokens", {"pattern": "delay", "input_codebooks": 2}),
        ("tokens", {"pattern": "flat"}),
    ],
)
def test_logged_nll_of_each_codebook_is_that_of_the_models_logits(inputs, model, run, tmp_path):
    index = markov_dataset(tmp_path / "data", train=10, frames=(10, 60), max_frames=24)
    config = tiny_config(inputs, model=model | {"output_codebooks": 2}, training={"steps": 1, "eval_every": 0})
    train(config, tmp_path / "data", tmp_path / "run")
    (row,) = read_metrics(tmp_path / "run/metrics.jsonl")

    batch = next(iter(training_batches(tmp_path / "data", index, config.data, config.training.batch)))
    assert not batch.weights.all(axis=1).any(), "in every window some positions must not count"
    with nnx.use_eager_sharding(False):
        graph, params = nnx.split(Decoder(config.model, nnx.Rngs(config.training.seed)))
    logits = jax.jit(lambda params: nnx.merge(graph, params)(batch))(params)
    log_probabilities = log_softmax(np.asarray(logits, np.float64), axis=-1)
    nll = -np.take_along_axis(log_probabilities, batch.tokens[:, 1:, :, None].astype(int), axis=-1)[..., 0]
    nll = nll[batch.segment_ids > 0].mean(axis=0)
    assert [row["nll_codebook_1"], row["nll_codebook_2"]] == pytest.approx(nll, rel=1e-5)
    assert row["loss"] == pytest.approx(nll.mean(), rel=1e-5)
    assert not any("codebook" in key for row in read_metrics(run / "metrics.jsonl") for key in row), "one codebook"


def test_mesh_that_cannot_split_the_model_is_refused():
    devices = jax.devices() * 2
    mesh = make_mesh(MeshConfig(1, 1, 2), topology_devices("v5e:2x2")[:2])
    with pytest.raises(RequestError, match=r"model\.heads 3 is not a multiple of 2 \(mesh\.tensor\)"):
        check_mesh_fits(tiny_config(model={"width": 18, "heads": 3}), mesh)
    parts = tiny_config(training={"batch": 8, "microbatches": 3})
    with pytest.raises(RequestError, match=r"training\.batch 8 is not a multiple of 3 .*training\.microbatches"):
        check_mesh_fits(parts, mesh)
    with pytest.raises(RequestError, match=r"mesh\.data 3"):
        make_mesh(MeshConfig(data=3), devices)


def test_learning_rate_rises_and_falls_as_configured():
    config = tiny_config(optimizer={"learning_rate": 1e-3, "warmup": 10, "final_fraction": 0.1}).optimizer
    schedule = learning_rate(config, 100)
    assert [float(schedule(step)) for step in (0, 5, 10, 100)] == pytest.approx([0, 5e-4, 1e-3, 1e-4], rel=1e-5)


def test_weight_decay_spares_embeddings_and_norms():
    config = tiny_config()
    from wgpt_jax.training.optimizer import decayed

    state = abstract_state(config, make_optimizer(config.optimizer, 10), make_mesh(config.mesh))
    for path, flag in jax.tree_util.tree_leaves_with_path(decayed(state.params)):
        assert flag == ("kernel" in jax.tree_util.keystr(path)), jax.tree_util.keystr(path)


def test_checkpoints_keep_the_latest_and_the_best(data, tmp_path):
    config = tiny_config(  # a learning rate that only rises, to where it does harm
        training={"steps": 12, "eval_every": 2},
        checkpoint={"every": 2, "keep": 2},
        optimizer={"learning_rate": 3.0, "warmup": 12},
    )
    train(config, data, tmp_path / "run")
    rows = [row for row in read_metrics(tmp_path / "run/metrics.jsonl") if row["kind"] == "validation"]
    best = min(rows, key=lambda row: row["nll"])["step"]
    assert best < 10, "with this learning rate the best is early, or the test proves nothing"
    with Checkpoints(tmp_path / "run/checkpoints", evaluated=RunFolder(tmp_path / "run").evaluated()) as checkpoints:
        assert set(checkpoints.steps) == {10, 12, best}
        assert checkpoints.best_step == best


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(tiny_config(), data, folder)
    return folder


def test_run_folder_of_another_configuration_is_refused(data, run):
    with pytest.raises(RequestError, match=r"model.depth is 2 there and 3 here"):
        train(tiny_config(model={"depth": 3}), data, run)


def test_more_steps_continue_a_finished_run(data, tmp_path):
    train(tiny_config(training={"steps": 4}), data, tmp_path / "run")
    assert train(tiny_config(training={"steps": 6}), data, tmp_path / "run") == 6


def test_one_validation_document_is_enough(tmp_path):
    markov_dataset(tmp_path / "data", train=4, validation=1)
    (tmp_path / "data/codec.safetensors").write_bytes(b"a decoder")
    config = tiny_config(training={"steps": 2}, logging={"tensorboard": True})
    assert train(config, tmp_path / "data", tmp_path / "run") == 2
    row = read_metrics(tmp_path / "run/metrics.jsonl")[-1]
    assert (row["nll_stderr"], row["mel_source"]) == (None, "original")
    assert list((tmp_path / "run/tensorboard").iterdir())
    assert (tmp_path / "run/codec.safetensors").read_bytes() == b"a decoder", "the run generates without its data"


def test_a_stale_codec_in_the_run_folder_is_replaced(tmp_path):
    data, run = tmp_path / "data", tmp_path / "run"
    for folder, content in ((data, b"the data's"), (run, b"stale")):
        folder.mkdir()
        (folder / "codec.safetensors").write_bytes(content)
    copy_codec(data, run)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == {"codec.safetensors": b"the data's"}
    (data / "codec.safetensors").unlink()  # the data of a codec that looks ahead has none
    copy_codec(data, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    (data / "codec.safetensors").write_bytes(b"again")
    with pytest.raises(RequestError, match="cannot write to the run folder"):
        copy_codec(data, tmp_path / "other")


def test_other_data_is_refused_for_a_run(run, tmp_path):
    markov_dataset(tmp_path / "other", seed=9)
    with pytest.raises(RequestError, match="was trained on other data"):
        train(tiny_config(), tmp_path / "other", run)


@pytest.mark.parametrize("what", ["codec", "mel"])
def test_data_of_another_codec_or_mel_is_refused(data, run, tmp_path, what):
    index = load_index(data)
    if what == "codec":
        index = dataclasses.replace(index, codec=dataclasses.replace(index.codec, fingerprint="0ther"))
    else:
        index = dataclasses.replace(index, mel=dataclasses.replace(index.mel, n_fft=512))
    for name in ("ngrams.npz", *(shard.file for shard in index.shards)):
        (tmp_path / name).symlink_to(data / name)
    save_index(index, tmp_path)
    with pytest.raises(RequestError, match=f"made with another {what}"):
        evaluate(run, tmp_path)
    with pytest.raises(RequestError, match=f"made with another {what}"):
        train(tiny_config(), tmp_path, run)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ({"vocabulary": 1024}, r"vocabulary is 1024, but .* has 16 .*; set --model\.vocabulary 16$"),
        ({"mel_bands": 64}, r"mel_bands is 64, but .* has 8 mel bands; set --model\.mel_bands 8$"),
        (
            {"output_codebooks": 3},
            r"output_codebooks is 3, but .* has 2; .* more --num-codebooks, or set --model\.output-codebooks 2$",
        ),
        (
            {"input_codebooks": 3},
            r"input_codebooks is 3, but .* has 2; .* more --num-codebooks, or set --model\.input-codebooks 2$",
        ),
    ],
)
def test_model_that_does_not_fit_the_data_is_refused(data, tmp_path, model, sentence):
    with pytest.raises(RequestError, match=rf"^model\.{sentence}"):
        train(tiny_config(model=model), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_missing_shard_is_named(data, tmp_path):
    for file in data.iterdir():
        if not file.name.startswith("validation"):
            (tmp_path / file.name).symlink_to(file)
    with pytest.raises(RequestError, match=r"validation-00000\.array_record is missing"):
        load_index(tmp_path)


def test_damaged_checkpoint_is_one_sentence(run, data, tmp_path):
    import shutil

    shutil.copytree(run, tmp_path / "run")
    for step in (tmp_path / "run/checkpoints").iterdir():
        for file in (step / "params").rglob("*"):
            if file.is_file():
                file.write_bytes(b"")
    with pytest.raises(RequestError, match="cannot be read"):
        evaluate(tmp_path / "run", data)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_damaged_shard_is_named(data, tmp_path, split):
    for file in data.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    shard = tmp_path / f"{split}-00000.array_record"
    content = bytearray(shard.read_bytes())
    content[200:2000] = bytes(1800)
    shard.write_bytes(content)
    with pytest.raises(WorkError, match=f"{split}-00000.array_record is damaged"):
        train(tiny_config(), tmp_path, tmp_path / "run")


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", None])
def test_damaged_ngrams_are_one_sentence_before_training(data, tmp_path, damage):
    for file in data.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    file = tmp_path / "ngrams.npz"
    file.write_bytes(file.read_bytes()[:200] if damage is None else damage)
    with pytest.raises(RequestError, match=r"cannot read .*ngrams\.npz"):
        train(tiny_config(), tmp_path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("config", [[], {"model": 3}, {"model": {"width": "x"}}])
def test_damaged_run_file_is_one_sentence(run, data, tmp_path, config):
    fields = json.loads((run / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**fields, "config": config}))
    with pytest.raises(RequestError):
        evaluate(tmp_path, data)


def test_evaluation_needs_a_run_and_a_checkpoint(data, run, tmp_path):
    with pytest.raises(RequestError, match="is no run folder"):
        evaluate(tmp_path, data)
    (tmp_path / "run.json").write_text((run / "run.json").read_text())
    with pytest.raises(RequestError, match="no checkpoint in"):
        evaluate(tmp_path, data)
    with pytest.raises(RequestError, match="no checkpoint of step 7"):
        evaluate(run, data, step=7)


def test_run_of_a_newer_version_is_refused(run, data, tmp_path):
    fields = json.loads((run / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**fields, "version": 99}))
    with pytest.raises(RequestError, match="is of version 99"):
        evaluate(tmp_path, data)


def test_signals_do_not_outlive_training(data, run):
    before = signal.getsignal(signal.SIGINT)
    train(tiny_config(), data, run)
    assert signal.getsignal(signal.SIGINT) is before
