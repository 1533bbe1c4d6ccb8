"""The cached step is the full-sequence decoder, position by position."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from flax import nnx
from synthetic import VOCABULARY, markov_document, markov_matrix, tiny_config

from wgpt_jax.config import ModelConfig
from wgpt_jax.data.batch import Batch
from wgpt_jax.data.records import pack_documents
from wgpt_jax.data.windows import cut_window, stack_windows
from wgpt_jax.model.cached import CachedDecoder, empty_cache
from wgpt_jax.model.decoder import Decoder

TINY = tiny_config().model


@functools.cache
def build(config: ModelConfig):
    with nnx.use_eager_sharding(False):
        return nnx.split(Decoder(config, nnx.Rngs(0)))


def windows(lengths: list[int], context: int, rows: int = 1) -> Batch:
    rng = np.random.default_rng(0)
    batch = []
    for _ in range(rows):
        documents = [markov_document(f"d{i}", n, markov_matrix(), rng) for i, n in enumerate(lengths)]
        batch.append(cut_window(next(pack_documents(documents)), 0, context))
    return stack_windows(batch, rows)


def stepped(config: ModelConfig, batch: Batch, window: int, null_mel=None) -> np.ndarray:
    """Coarse logits [B, T, V] of the cached step, fed the batch frame by frame."""
    graph, params = build(config)
    null_mel = np.zeros(batch.starts.shape, bool) if null_mel is None else null_mel

    @jax.jit
    def run(params, batch: Batch):
        decoder = nnx.merge(graph, params)
        cached = CachedDecoder(decoder)

        def step(cache, frame):
            hidden, cache = cached.step(cache, *frame)
            return cache, decoder.head(hidden[:, None])[:, 0]

        frames = (batch.tokens[:, :-1], batch.mel[:, :-1].astype(np.float32), batch.starts, null_mel)
        frames = jax.tree.map(lambda x: jnp.swapaxes(jnp.asarray(x), 0, 1), frames)
        return jax.lax.scan(step, empty_cache(decoder, len(batch.tokens), window), frames)[1]

    return np.swapaxes(np.asarray(run(params, batch)), 0, 1)


CONFIGS = [
    {"inputs": "tokens"},
    {},
    {"fusion": "add", "mlp": "swiglu"},
    {"mel_depth": 0, "mel_kernel": 1},
    {"input_codebooks": 2},
    {"mel_depth": 2, "mel_kernel": 4},
    {"token_kernel": 5, "token_width": 6},
    {"inputs": "tokens", "token_kernel": 3, "input_codebooks": 2},
]


@pytest.mark.parametrize("changes", CONFIGS)
def test_logits_are_those_of_the_whole_sequence_also_across_documents(changes):
    config = dataclasses.replace(TINY, **changes)
    graph, params = build(config)
    batch = windows([12, 15, 9], context=36, rows=2)
    whole = np.asarray(jax.jit(lambda p, b: nnx.merge(graph, p)(b))(params, batch))[:, :, 0]
    np.testing.assert_allclose(stepped(config, batch, window=36), whole, atol=1e-4)


def test_in_bfloat16_it_errs_as_little_as_the_whole_sequence():
    """Both round at other places: they differ, but each is as near to the exact logits as the other."""
    config = dataclasses.replace(TINY, dtype="bfloat16")
    graph, params = build(config)
    batch = windows([12, 15, 9], context=36)
    pure = jax.tree.map(lambda x: np.asarray(x, np.float64), nnx.to_pure_dict(params))
    exact = reference.decoder(pure, config.fusion, *(field[0] for field in batch))
    whole = np.asarray(jax.jit(lambda p, b: nnx.merge(graph, p)(b))(params, batch))[0, :, 0]
    ours, theirs = (np.sqrt(np.mean((x - exact) ** 2)) for x in (stepped(config, batch, window=36)[0], whole))
    assert theirs > 1e-3 * exact.std(), "it is rounded to 8 bits, or this proves nothing"
    assert ours < 1.25 * theirs


@pytest.mark.parametrize("changes", CONFIGS[:2])
@pytest.mark.parametrize("window", [1, 7])
def test_past_the_window_logits_are_those_of_a_windowed_reference(changes, window):
    """Frames by far more than the ring holds, and a second document that begins while the ring is full of the first."""
    config = dataclasses.replace(TINY, **changes)
    batch = windows([40, 20], context=60)
    pure = jax.tree.map(lambda x: np.asarray(x, np.float64), nnx.to_pure_dict(build(config)[1]))
    expected = reference.decoder(pure, config.fusion, *(field[0] for field in batch), window=window)
    np.testing.assert_allclose(stepped(config, batch, window)[0], expected, atol=1e-4)
    unlimited = reference.decoder(pure, config.fusion, *(field[0] for field in batch))
    assert np.abs(expected - unlimited).max() > 1e-2, "the window must matter for this to prove anything"


def test_null_mel_is_the_token_only_mode():
    graph, params = build(TINY)
    batch = windows([20], context=20)
    null = np.ones((1, 20), bool)
    whole = np.asarray(jax.jit(lambda p, b: nnx.merge(graph, p)(b, null_mel=null))(params, batch))[:, :, 0]
    np.testing.assert_allclose(stepped(TINY, batch, 20, null), whole, atol=1e-4)


def test_codebooks_drawn_one_by_one_have_the_logits_of_the_whole_frame():
    config = dataclasses.replace(TINY, output_codebooks=4)
    with nnx.use_eager_sharding(False):
        depformer = Decoder(config, nnx.Rngs(0)).depformer
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.normal(size=(5, config.width)), jnp.float32)
    codes = rng.integers(VOCABULARY, size=(5, 4)).astype(np.int32)
    seen = {}

    def draw(logits, k):
        seen[k] = np.asarray(logits)
        return jnp.asarray(codes[:, k])

    np.testing.assert_array_equal(depformer.sample(hidden, jnp.asarray(codes[:, 0]), draw), codes)
    whole = np.asarray(depformer(hidden, codes))
    np.testing.assert_allclose(np.stack([seen[k] for k in (1, 2, 3)], axis=1), whole, atol=1e-5)
