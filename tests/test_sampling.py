"""Sampling against transformers' warpers, against softmax frequencies, and against NumPy; nothing recompiles."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from wgpt_jax.closed_loop.sampling import (
    MAX_REPETITION_WINDOW,
    filter_logits,
    make_sampling,
    no_tokens,
    penalise,
    remember,
    sample,
)
from wgpt_jax.errors import RequestError

V = 64
_filter, _sample = jax.jit(filter_logits), jax.jit(sample)
_penalise, _remember = jax.jit(penalise), jax.jit(remember)


def random_logits(seed: int, batch: int = 3, vocabulary: int = V, scale: float = 3.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(batch, vocabulary), scale=scale).astype(np.float32)


def transformers_filter(logits, temperature, top_k, top_p, min_p) -> np.ndarray:
    """The warpers in the order of ``GenerationMixin._get_logits_processor``, each only where it is on."""
    warpers = [TemperatureLogitsWarper(temperature)]
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    if min_p:
        warpers.append(MinPLogitsWarper(min_p))
    scores = torch.from_numpy(logits)
    for warper in warpers:
        scores = warper(None, scores)
    return scores.numpy()


def on_the_edge(row, index, temperature, top_k, top_p, min_p) -> bool:
    """Whether float32 rounding may decide if ``index`` stays, found in float64."""
    scaled = row.astype(np.float64) / temperature
    kept = scaled >= np.sort(scaled)[-top_k] if top_k else np.full(len(row), True)
    weights = np.where(kept, np.exp(scaled - scaled.max()), 0)
    above = weights[scaled > scaled[index]].sum() / weights.sum()
    return abs(above - top_p) < 1e-5 or abs(weights[index] - min_p) < 1e-5


@settings(deadline=None, max_examples=300)
@given(
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([0.1, 1.0, 3.0, 30.0]),
    temperature=st.floats(0.05, 20),
    top_k=st.integers(0, V),
    top_p=st.one_of(st.just(1.0), st.floats(1e-6, 1)),
    min_p=st.one_of(st.just(0.0), st.floats(0, 1)),
)
def test_the_same_entries_survive_as_in_transformers(seed, scale, temperature, top_k, top_p, min_p):
    logits = random_logits(seed, scale=scale)
    expected = transformers_filter(logits, temperature, top_k, top_p, min_p)
    sampling = make_sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, vocabulary=V)
    filtered = np.asarray(_filter(logits, sampling))
    assert np.isfinite(filtered).any(axis=1).all()
    differ = np.isfinite(filtered) != np.isfinite(expected)
    for row, index in np.argwhere(differ):
        assert on_the_edge(logits[row], index, temperature, top_k, top_p, min_p)
    np.testing.assert_allclose(filtered[~differ], expected[~differ], rtol=1e-6)


def test_top_k_alone_survives_exactly_as_in_transformers_ties_included():
    logits = np.random.default_rng(0).integers(-3, 4, size=(20, V)).astype(np.float32) / 2
    logits[:, ::5] *= -0.0
    for top_k in range(1, V + 1):
        filtered = _filter(logits, make_sampling(top_k=top_k, vocabulary=V))
        np.testing.assert_array_equal(filtered, transformers_filter(logits, 1.0, top_k, 1.0, 0.0))


def test_top_p_keeps_a_tie_at_the_edge_whole():
    logits = np.log(np.array([[0.4, 0.2, 0.2, 0.2]], np.float32))
    survivors = np.isfinite(_filter(logits, make_sampling(top_p=0.5, vocabulary=4)))
    np.testing.assert_array_equal(survivors, [[True, True, True, True]])
    survivors = np.isfinite(_filter(logits, make_sampling(top_p=0.39, vocabulary=4)))
    np.testing.assert_array_equal(survivors, [[True, False, False, False]])


@pytest.mark.parametrize(
    "harshest",
    [{"top_k": 1}, {"top_p": 1e-45}, {"min_p": 1.0}, {"temperature": 1e-6}, {"temperature": 0.0}],
    ids=str,
)
def test_one_entry_survives_the_harshest_filter(harshest):
    logits = random_logits(0)
    logits[:, 5:] = -np.inf  # entries that the caller has excluded
    filtered = np.asarray(_filter(logits, make_sampling(**harshest, vocabulary=V)))
    assert not np.isnan(filtered).any()
    assert np.isfinite(filtered[np.arange(3), logits.argmax(1)]).all()
    if harshest != {"temperature": 1e-6}:
        assert (np.isfinite(filtered).sum(axis=1) == 1).all()


def test_switched_off_filters_leave_the_logits():
    logits = random_logits(0)
    np.testing.assert_array_equal(_filter(logits, make_sampling(vocabulary=V)), logits)


@pytest.mark.parametrize(
    "settings",
    [{}, {"temperature": 0.7, "top_k": 20}, {"temperature": 2.0, "top_p": 0.8}, {"min_p": 0.1}],
    ids=str,
)
def test_frequencies_are_the_softmax(settings):
    draws, vocabulary = 40_000, 32
    logits = random_logits(1, batch=1, vocabulary=vocabulary, scale=2.0)
    sampling = make_sampling(**settings, vocabulary=vocabulary)
    keys = jax.random.split(jax.random.key(0), draws)
    tokens = np.asarray(_sample(np.repeat(logits, draws, axis=0), sampling, keys))
    counts = np.bincount(tokens, minlength=vocabulary)
    expected = np.asarray(jax.nn.softmax(_filter(logits, sampling)[0])) * draws
    assert (counts[expected == 0] == 0).all()
    rare = expected < 5
    observed, predicted = counts[~rare], expected[~rare]
    if rare.any():
        observed, predicted = np.append(observed, counts[rare].sum()), np.append(predicted, expected[rare].sum())
    some = predicted > 0
    chi_square, freedom = ((observed - predicted)[some] ** 2 / predicted[some]).sum(), some.sum() - 1
    assert abs(chi_square - freedom) < 4 * math.sqrt(2 * freedom)


def test_the_first_and_the_last_entry_can_be_drawn_and_excluded_ones_cannot():
    logits = np.full((4096, V), -np.inf, np.float32)
    logits[:, [0, 30, V - 1]] = 0.0
    tokens = _sample(logits, make_sampling(vocabulary=V), jax.random.split(jax.random.key(1), 4096))
    assert set(np.asarray(tokens).tolist()) == {0, 30, V - 1}


def test_greedy_is_the_argmax_and_what_a_low_temperature_gives():
    logits = random_logits(2, batch=50)
    keys = jax.random.split(jax.random.key(0), 50)
    greedy = _sample(logits, make_sampling(temperature=0, vocabulary=V), keys)
    assert greedy.dtype == jnp.int32
    np.testing.assert_array_equal(greedy, logits.argmax(1))
    np.testing.assert_array_equal(greedy, _sample(logits, make_sampling(temperature=1e-6, vocabulary=V), keys))
    ties = np.zeros((50, V), np.float32)
    np.testing.assert_array_equal(_sample(ties, make_sampling(temperature=0, vocabulary=V), keys), 0)


def remembered(history: np.ndarray) -> jax.Array:
    """The ring after tokens int32 [B, n]."""
    recent = no_tokens(len(history))
    for step, tokens in enumerate(history.T):
        recent = _remember(recent, jnp.asarray(tokens), jnp.int32(step))
    return recent


def test_new_values_do_not_recompile():
    traces = 0

    @jax.jit
    def step(logits, recent, sampling, keys):
        nonlocal traces
        traces += 1
        return sample(penalise(logits, recent, jnp.int32(3), sampling), sampling, keys)

    logits, recent = random_logits(3, batch=2), no_tokens(2)
    keys = jax.random.split(jax.random.key(0), 2)
    for values in (
        {},
        {"temperature": 0},
        {"temperature": 0.5, "top_k": 7},
        {"top_p": 0.9, "min_p": 0.2},
        {"repetition_penalty": 1.3, "repetition_window": 20},
    ):
        step(logits, recent, make_sampling(**values, vocabulary=V), keys)
    assert traces == 1


def test_a_row_does_not_depend_on_its_batch_and_a_seed_gives_the_same_again():
    logits, keys = random_logits(4, batch=8), jax.random.split(jax.random.key(5), 8)
    sampling = make_sampling(temperature=0.9, top_k=40, top_p=0.95, min_p=0.01, vocabulary=V)
    together = np.asarray(_sample(logits, sampling, keys))
    np.testing.assert_array_equal(together, _sample(logits, sampling, keys))
    alone = [int(_sample(logits[i : i + 1], sampling, keys[i : i + 1])[0]) for i in range(8)]
    np.testing.assert_array_equal(together, alone)
    order = np.random.default_rng(0).permutation(8)
    np.testing.assert_array_equal(together[order], _sample(logits[order], sampling, keys[order]))
    others = _sample(np.repeat(logits[:1], 100, axis=0), sampling, jax.random.split(jax.random.key(6), 100))
    assert len(np.unique(others)) > 1


@settings(deadline=None, max_examples=40)
@given(
    prompt=st.sampled_from([0, 1, 5, MAX_REPETITION_WINDOW, MAX_REPETITION_WINDOW + 3]),
    steps=st.integers(0, 20),
    window=st.one_of(st.integers(0, 30), st.just(MAX_REPETITION_WINDOW)),
    penalty=st.floats(1, 5),
    seed=st.integers(0, 1000),
)
def test_repetition_penalty_against_numpy(prompt, steps, window, penalty, seed):
    vocabulary = 2 * MAX_REPETITION_WINDOW
    rng = np.random.default_rng(seed)
    history = rng.integers(0, vocabulary, size=(2, prompt + steps)).astype(np.int32)
    recent = remembered(history)
    assert recent.shape == (2, MAX_REPETITION_WINDOW)
    logits = random_logits(seed, batch=2, vocabulary=vocabulary)
    sampling = make_sampling(
        repetition_penalty=penalty if window else 1.0, repetition_window=window, vocabulary=vocabulary
    )
    expected = logits.copy()
    for row in range(2):
        for token in set(history[row, max(0, prompt + steps - window) :].tolist()) if window else ():
            expected[row, token] -= np.log(np.float32(penalty))
    penalised = _penalise(logits, recent, jnp.int32(prompt + steps), sampling)
    np.testing.assert_allclose(penalised, expected, rtol=1e-5, atol=1e-6)


def test_the_penalty_divides_the_probability_and_ignores_a_shift_of_the_logits():
    logits, recent = random_logits(6, batch=1), remembered(np.array([[9, 9, 4]], np.int32))
    sampling = make_sampling(repetition_penalty=2.0, repetition_window=3, vocabulary=V)
    before = np.asarray(jax.nn.softmax(logits))[0]
    for shift in (0.0, 10.0, -10.0):
        after = np.asarray(jax.nn.softmax(_penalise(logits + np.float32(shift), recent, jnp.int32(3), sampling)))[0]
        odds = (after / before) / (after[0] / before[0])
        np.testing.assert_allclose(odds, [0.5 if token in (4, 9) else 1.0 for token in range(V)], rtol=1e-5)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"temperature": -1.0}, "--temperature -1: "),
        ({"temperature": math.nan}, "--temperature nan: "),
        ({"temperature": math.inf}, "--temperature inf: "),
        ({"top_k": -1}, "--top-k -1: "),
        ({"top_k": 2000}, "--top-k 2000: the codebook has 1024 entries"),
        ({"top_p": 0.0}, "--top-p 0: "),
        ({"top_p": 1.1}, "--top-p 1.1: "),
        ({"top_p": math.nan}, "--top-p nan: "),
        ({"min_p": -0.1}, "--min-p -0.1: "),
        ({"min_p": 1.5}, "--min-p 1.5: "),
        ({"min_p": math.nan}, "--min-p nan: "),
        ({"repetition_penalty": 0.5, "repetition_window": 5}, "--repetition-penalty 0.5: "),
        ({"repetition_penalty": math.nan, "repetition_window": 5}, "--repetition-penalty nan: "),
        ({"repetition_penalty": math.inf, "repetition_window": 5}, "--repetition-penalty inf: "),
        ({"repetition_window": -1}, "--repetition-window -1: "),
        ({"repetition_window": MAX_REPETITION_WINDOW + 1}, "--repetition-window 513: from 0 .off. to 512 frames"),
        ({"repetition_penalty": 1.2}, "--repetition-penalty 1.2 does nothing with --repetition-window 0"),
    ],
    ids=str,
)
def test_wrong_values_name_their_flag(values, message):
    with pytest.raises(RequestError, match=f"^{message}"):
        make_sampling(**values, vocabulary=1024)
