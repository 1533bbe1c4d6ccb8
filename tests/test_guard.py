"""The guard of updates, what a step says of itself, and the average of the weights: from states before and after."""

import dataclasses
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
from synthetic import markov_dataset, tiny_config

from wgpt_jax.data.batch import Batch
from wgpt_jax.data.index import load_index
from wgpt_jax.data.pipeline import training_batches
from wgpt_jax.errors import WorkError
from wgpt_jax.evaluation import evaluate
from wgpt_jax.metrics import read_metrics
from wgpt_jax.parallel.mesh import make_mesh, to_devices
from wgpt_jax.training import loop
from wgpt_jax.training.checkpoint import Checkpoints
from wgpt_jax.training.guard import judge, new_guard
from wgpt_jax.training.logs import RunLog
from wgpt_jax.training.optimizer import make_optimizer
from wgpt_jax.training.state import TrainState, abstract_model, abstract_state, shardings_of
from wgpt_jax.training.step import make_train_step

STEPS = 12
CONFIG = tiny_config(
    model={"depth": 1, "mel_depth": 0},
    training={"steps": STEPS, "eval_every": STEPS, "eval_windows": 0, "max_skipped": 3},
    optimizer={"warmup": 0, "clip": 0.05, "ema": 0.25},
    checkpoint={"every": 1, "keep": STEPS},
)
MESH = make_mesh(CONFIG.mesh)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("markov")
    markov_dataset(folder)
    return folder


@pytest.fixture(scope="module")
def batches(data) -> list[Batch]:
    """What a run's steps see, the first step's first."""
    read = iter(training_batches(data, load_index(data), CONFIG.data, CONFIG.training.batch))
    return [next(read) for _ in range(STEPS)]


def damaged(batch: Batch, value: float = np.nan) -> Batch:
    """The batch with one window's mel gone bad."""
    mel = np.array(batch.mel)
    mel[2] = value
    return batch._replace(mel=mel)


def damage(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
    """Lets a run's batches of some steps, the first is 1, arrive damaged."""
    arrived = []

    def arrive(batch, mesh):
        arrived.append(batch)
        return to_devices(damaged(batch) if len(arrived) in steps else batch, mesh)

    monkeypatch.setattr(loop, "to_devices", arrive)


def record(monkeypatch: pytest.MonkeyPatch) -> dict[int, TrainState]:
    """The states, on the host, that a run draws and saves, by their step."""
    states, draw, save = {}, loop.init_state, Checkpoints.save

    def recorded(state: TrainState) -> TrainState:
        states[int(state.step)] = jax.device_get(state)
        return state

    monkeypatch.setattr(loop, "init_state", lambda *args: recorded(draw(*args)))
    monkeypatch.setattr(Checkpoints, "save", lambda self, state, *args: save(self, recorded(state), *args))
    return states


class History(NamedTuple):
    """A run whose third batch is damaged."""

    run: Path
    states: dict[int, TrainState]
    rows: dict[int, dict]


@pytest.fixture(scope="module")
def history(data, tmp_path_factory) -> History:
    run = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        damage(monkeypatch, {3})
        states = record(monkeypatch)
        assert loop.train(CONFIG, data, run) == STEPS
    assert sorted(states) == list(range(STEPS + 1))
    rows = [row for row in read_metrics(run / "metrics.jsonl") if row["kind"] == "train"]
    return History(run, states, {row["step"]: row for row in rows})


@pytest.fixture(scope="module")
def unclipped(batches) -> Callable[[TrainState, Batch], tuple[TrainState, dict]]:
    """The step of the same configuration but for the clipping, which never happens."""
    config = dataclasses.replace(CONFIG, optimizer=dataclasses.replace(CONFIG.optimizer, clip=1e9))
    optimizer = make_optimizer(config.optimizer, STEPS)
    graph, abstract = abstract_model(config.model, MESH)[0], abstract_state(config, optimizer, MESH)
    program = make_train_step(config, graph, optimizer, MESH, abstract)
    compiled = program.lower(abstract, to_devices(batches[0], MESH)).compile({"xla_backend_optimization_level": 0})

    def step(state, batch):
        put = jax.tree.map(jax.device_put, state, shardings_of(abstract))
        return jax.device_get(compiled(put, to_devices(batch, MESH)))

    return step


def in_float64(tree) -> list[np.ndarray]:
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]


def norm(arrays: list[np.ndarray]) -> float:
    return float(np.sqrt(sum(np.sum(np.square(array)) for array in arrays)))


def same_bits(first, second) -> bool:
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)


def learned(state: TrainState) -> tuple:
    """What a skipped update must leave alone."""
    return state.params, state.opt_state, state.ema


def gradient(before: TrainState, after: TrainState) -> list[np.ndarray]:
    """What AdamW was given, from its mean of gradients before and after."""
    beta = CONFIG.optimizer.beta1
    means = zip(*(in_float64(state.opt_state[1][0].mu) for state in (before, after)), strict=True)
    return [(new - beta * old) / (1 - beta) for old, new in means]


def with_gradient_too_large(state: TrainState) -> TrainState:
    """The same network, scaled so that its loss stays what it is and the norm of its gradient overflows."""
    factors = {"['head_norm']['scale']": 1e30, "['head']['kernel']": 1e-30}

    def scaled(path, leaf):
        name = jax.tree_util.keystr(path)
        return leaf * np.float32(next((factor for end, factor in factors.items() if name.startswith(end)), 1))

    return state._replace(params=jax.tree_util.tree_map_with_path(scaled, state.params))


@pytest.mark.parametrize("why", ["a nan", "an infinity", "the gradient alone"])
def test_an_update_that_is_not_finite_changes_nothing_and_the_next_is_applied(history, unclipped, batches, why):
    start = history.states[2]
    if why == "the gradient alone":
        start = with_gradient_too_large(start)
        skipped, metrics = unclipped(start, batches[2])
        assert np.isfinite(metrics["loss"])
        assert not np.isfinite(metrics["grad_norm"])
    else:
        skipped, metrics = unclipped(start, damaged(batches[2], np.nan if why == "a nan" else np.inf))
        assert not np.isfinite(metrics["loss"])
    assert same_bits(learned(skipped), learned(start))
    assert (skipped.step, skipped.guard.skipped, skipped.guard.in_row) == (3, 1, 1)
    assert (metrics["update_norm"], metrics["skipped"], metrics["skipped_in_row"]) == (0, 1, 1)

    # No randomness here: the next update is the one that would have come without the bad batch.
    applied, metrics = unclipped(skipped._replace(params=history.states[2].params), batches[3])
    expected, _ = unclipped(history.states[2], batches[3])
    assert same_bits(learned(applied), learned(expected))
    assert not same_bits(applied.params, history.states[2].params)
    assert (applied.step, applied.guard.skipped, applied.guard.in_row) == (4, 1, 0)
    assert metrics["update_norm"] > 0


def test_after_max_skipped_in_a_row_nothing_is_applied_any_more(history, unclipped, batches):
    def after(state: TrainState, pattern: str) -> TrainState:
        for batch, letter in zip(batches, pattern, strict=False):
            state, _ = unclipped(state, damaged(batch) if letter == "x" else batch)
        return state

    start = history.states[2]
    alive = after(start, "xx.xx.")
    assert (alive.guard.skipped, alive.guard.in_row) == (4, 0)
    assert not same_bits(alive.params, after(start, "xx.").params), "two in a row stop nothing"
    stuck = after(start, "xxx..")
    assert same_bits(learned(stuck), learned(start))
    assert (stuck.step, stuck.guard.skipped, stuck.guard.in_row) == (7, 5, 3)


def test_a_run_that_diverges_ends_at_its_last_good_checkpoint_from_which_another_begins(data, tmp_path, monkeypatch):
    """The host looks only when step 10 is to be saved, after two good batches."""
    config = dataclasses.replace(
        CONFIG,
        checkpoint=dataclasses.replace(CONFIG.checkpoint, every=5),
        logging=dataclasses.replace(CONFIG.logging, every=50),
    )
    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        damage(patched, {6, 7, 8})
        with pytest.raises(WorkError, match="not finite in 3 steps in a row until step 10") as told:
            loop.train(config, data, run)
    sentence = str(told.value)
    assert "\n" not in sentence
    assert "checkpoint 5 is the last good one" in sentence
    source = re.search(r"--from (\S+)", sentence)[1]
    assert source == f"{run}@5"
    with Checkpoints(run / "checkpoints") as checkpoints:
        assert checkpoints.steps == [5]
        good, _ = checkpoints.restore_params(abstract_model(config.model, MESH)[1], 5)
    assert not any(row["kind"] == "validation" for row in read_metrics(run / "metrics.jsonl"))

    states = record(monkeypatch)
    assert loop.train(config, data, tmp_path / "other", start_from=source) == STEPS
    assert same_bits(states[0].params, good)
    assert (states[STEPS].guard.skipped, states[STEPS].step) == (0, STEPS)
    assert not same_bits(states[STEPS].params, good)


def test_logged_norms_and_learning_rate_are_those_of_the_states(history):
    """AdamW's equations in NumPy; every gradient is clipped here."""
    chosen, done = CONFIG.optimizer, 0
    for step in range(1, STEPS + 1):
        before, after, row = history.states[step - 1], history.states[step], history.rows[step]
        old, new = in_float64(before.params), in_float64(after.params)
        change = [b - a for a, b in zip(old, new, strict=True)]
        assert row["param_norm"] == pytest.approx(norm(new), rel=1e-5)
        if step == 3:
            assert (row["loss"], row["grad_norm"], row["update_norm"], row["skipped"]) == (None, None, 0, 1)
            assert same_bits(learned(before), learned(after))
            continue
        assert row["skipped"] == int(step > 3)
        assert row["update_norm"] == pytest.approx(norm(change), rel=1e-4)
        assert row["grad_norm"] > chosen.clip
        assert norm(gradient(before, after)) == pytest.approx(chosen.clip, rel=1e-5)

        cosine = 0.5 * (1 + np.cos(np.pi * done / STEPS))
        rate = chosen.learning_rate * (chosen.final_fraction + (1 - chosen.final_fraction) * cosine)
        assert row["learning_rate"] == pytest.approx(rate, rel=1e-5), "of the updates done, not of the steps"
        done += 1
        moments = after.opt_state[1][0]
        for i, (path, value) in enumerate(jax.tree_util.tree_leaves_with_path(before.params)):
            mean = in_float64(moments.mu)[i] / (1 - chosen.beta1**done)
            square = in_float64(moments.nu)[i] / (1 - chosen.beta2**done)
            decay = chosen.weight_decay * value if "kernel" in jax.tree_util.keystr(path) else 0.0
            expected = -rate * (mean / (np.sqrt(square) + chosen.epsilon) + decay)
            np.testing.assert_allclose(change[i], expected, rtol=1e-4, atol=1e-7)


def test_logged_gradient_norm_is_of_the_gradient_before_it_is_clipped(history, unclipped, batches):
    for step in (1, 6):
        before, after = history.states[step - 1], history.states[step]
        whole, metrics = unclipped(before, batches[step - 1])
        raw, clipped = gradient(before, whole), gradient(before, after)
        assert history.rows[step]["grad_norm"] == pytest.approx(norm(raw), rel=1e-5)
        assert metrics["grad_norm"] == pytest.approx(norm(raw), rel=1e-5)
        for array, small in zip(raw, clipped, strict=True):
            np.testing.assert_allclose(small, array * CONFIG.optimizer.clip / norm(raw), rtol=1e-3, atol=1e-7)


def test_the_average_follows_its_recursion_and_rests_in_a_skipped_step(history):
    average, done, decays = in_float64(history.states[0].params), 0, []
    for step in range(1, STEPS + 1):
        if step == 3:
            assert same_bits(history.states[3].ema, history.states[2].ema)
            continue
        decays.append(min(CONFIG.optimizer.ema, (1 + done) / (10 + done)))
        done += 1
        new = in_float64(history.states[step].params)
        average = [decays[-1] * a + (1 - decays[-1]) * p for a, p in zip(average, new, strict=True)]
        for mine, theirs in zip(average, in_float64(history.states[step].ema), strict=True):
            np.testing.assert_allclose(theirs, mine, rtol=1e-5, atol=1e-6)
    assert decays[:3] == [0.1, 2 / 11, 0.25], "both sides of the minimum were seen"


def test_evaluation_scores_the_averaged_weights_if_asked(history, data):
    (row,) = [row for row in read_metrics(history.run / "metrics.jsonl") if row["kind"] == "validation"]
    nll = {
        weights: evaluate(history.run, data, weights=weights, mel="original", progress=False).summary["nll"]
        for weights in ("raw", "ema")
    }
    assert nll == {"raw": row["nll"], "ema": row["ema_nll"]}
    assert nll["raw"] != nll["ema"]


def rule(losses: np.ndarray, norms: np.ndarray, sigma: float, max_skipped: int) -> tuple[list, list, list, np.ndarray]:
    """The guard's rule with lists: what is applied, skipped until then and in a row, and the ring at the end."""
    seen, flags, skipped, in_row, row_now = [], [], [], [], 0
    for loss, size in zip(losses, norms, strict=True):
        finite, stopped = bool(np.isfinite(loss) and np.isfinite(size)), row_now >= max_skipped
        ok = finite and not stopped
        window = np.array([pair for pair in seen[-128:] if np.isfinite(pair).all()], np.float64)
        if ok and len(window) >= 64:
            ok = bool(np.all([loss, size] <= window.mean(axis=0) + sigma * window.std(axis=0, ddof=1)))
        if not stopped:
            row_now = 0 if finite else row_now + 1
        seen.append((loss, size) if finite else (np.nan, np.nan))
        flags.append(ok)
        skipped.append(flags.count(False))
        in_row.append(row_now)
    ring = np.full((128, 2), np.nan, np.float32)
    for place, pair in enumerate(seen):
        ring[place % 128] = pair
    return flags, skipped, in_row, ring


@pytest.mark.parametrize("sigma", [0.0, 1.0, 4.0])
def test_judgement_is_the_rule_over_300_steps_with_spikes(sigma):
    rng = np.random.default_rng(0)
    losses = (2 + 2 * np.exp(-np.arange(300) / 60) + 0.1 * rng.normal(size=300)).astype(np.float32)
    norms = np.exp(0.2 * rng.normal(size=300)).astype(np.float32)
    losses[[40, 100, 150, 220]] += 4
    norms[[50, 101, 150, 250]] += 9
    losses[3:40:3] = np.nan
    losses[[4, 290, 291, 292]] = np.inf  # the last three stop everything
    norms[[130, 131]] = np.inf, np.nan
    config = tiny_config(training={"spike_sigma": sigma, "max_skipped": 3}).training

    def body(guard, now):
        apply, guard = judge(guard, config, *now)
        return guard, (apply, guard.skipped, guard.in_row)

    steps = np.arange(300, dtype=np.int32)
    end, found = jax.jit(lambda guard: jax.lax.scan(body, guard, (steps, losses, norms)))(new_guard(config))
    flags, skipped, in_row, ring = rule(losses, norms, sigma or np.inf, config.max_skipped)
    assert [np.asarray(part).tolist() for part in found] == [flags, skipped, in_row]
    assert in_row[-1] == 3 and not any(flags[290:]), "good batches at the end, and none is applied"
    if sigma:
        np.testing.assert_array_equal(end.recent, ring)
        assert flags[40] and flags[50], "there is too little to judge them by"
        assert not np.array(flags)[[100, 101, 150, 220, 250]].any()
    else:
        assert end.recent is None
        assert sum(flags) == 290 - 16, "all but what is not finite"


def test_a_loss_that_rises_for_good_is_learned_from_again():
    """A change of the data, say: its first steps stand out, but what has become usual is no spike."""
    rng = np.random.default_rng(1)
    losses = (2 + 0.02 * rng.normal(size=600)).astype(np.float32)
    losses[300:] += 0.5
    config = tiny_config(training={"spike_sigma": 6.0}).training

    def body(guard, now):
        apply, guard = judge(guard, config, *now)
        return guard, apply

    steps = np.arange(600, dtype=np.int32)
    norms = np.ones(600, np.float32)
    _, applied = jax.jit(lambda guard: jax.lax.scan(body, guard, (steps, losses, norms)))(new_guard(config))
    assert np.asarray(applied[:300]).all() and not applied[300]
    assert np.asarray(applied[330:]).all()


def test_a_run_that_skips_spikes_resumes_bit_for_bit(data, tmp_path, monkeypatch):
    config = tiny_config(
        "tokens",
        model={"depth": 1},
        training={"steps": 110, "eval_every": 0, "spike_sigma": 0.1},
        optimizer={"learning_rate": 1e-4},
        checkpoint={"every": 1000},
        logging={"every": 10},
    )
    with monkeypatch.context() as patched:
        states = record(patched)
        loop.train(config, data, tmp_path / "whole")
    whole = states[110]

    write = RunLog.train

    def interrupting(log, step, values):
        write(log, step, values)
        if step == 90:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(RunLog, "train", interrupting)
        stopped = loop.train(config, data, tmp_path / "halves")
    assert 90 <= stopped < 100
    states = record(monkeypatch)
    assert loop.train(config, data, tmp_path / "halves") == 110
    assert list(states) == [110]
    assert same_bits(states[110], whole)
    rows = {row["step"]: row["skipped"] for row in read_metrics(tmp_path / "halves/metrics.jsonl")}
    assert 0 < rows[90] < rows[110] < 110 - 64, "updates were skipped and applied before and after"
