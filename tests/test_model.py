"""The network computes what the paper says, sees nothing of the future, and keeps documents apart."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from flax import nnx
from synthetic import BANDS, CODEBOOKS, VOCABULARY, markov_document, markov_matrix, tiny_config

from wgpt_jax.config import ModelConfig, load_config
from wgpt_jax.data.batch import Batch
from wgpt_jax.data.records import Record, Segment, pack_documents
from wgpt_jax.data.windows import cut_window, stack_windows
from wgpt_jax.model.attention import attend, rotate
from wgpt_jax.model.decoder import Decoder
from wgpt_jax.training.state import count_parameters
from wgpt_jax.training.step import null_mel_mask

CONFIGS = Path(__file__).parent.parent / "configs"
TINY = tiny_config().model


@functools.cache
def build(config: ModelConfig, seed=0):
    """A jitted forward pass with its parameters bound, and the parameters."""
    with nnx.use_eager_sharding(False):
        graph, params = nnx.split(Decoder(config, nnx.Rngs(seed)))
    forward = jax.jit(lambda batch, **kwargs: nnx.merge(graph, params)(batch, **kwargs))
    return forward, params


def documents(count, frames, seed=0):
    rng = np.random.default_rng(seed)
    return [markov_document(f"d{i}", frames + 3 * i, markov_matrix(), rng) for i in range(count)]


def one_window(record, start=0, context=48) -> Batch:
    return stack_windows([cut_window(record, start, context)], 1)


def random_qkv(shape, seed=0):
    return np.random.default_rng(seed).normal(size=(3, *shape)).astype(np.float32)


def test_attention_is_numpy_attention_within_segments():
    query, key, value = random_qkv((2, 20, 3, 8))
    segment_ids = np.stack([np.repeat([1, 2, 0], [7, 9, 4]), np.full(20, 1)])
    ours = attend(query, key, value, jnp.asarray(segment_ids))
    for row in range(2):
        expected = reference.attention(query[row], key[row], value[row], segment_ids[row])
        np.testing.assert_allclose(ours[row], expected, atol=2e-6)


def test_rotation_is_complex_multiplication_and_depends_on_distance_only():
    query, key, _ = random_qkv((1, 12, 2, 8))
    positions = np.arange(12)[None]
    np.testing.assert_allclose(
        rotate(jnp.asarray(query), positions, 10_000.0)[0], reference.rotate(query[0], positions[0]), atol=1e-5
    )

    def scores(offset):
        q, k = (rotate(jnp.asarray(x), positions + offset, 10_000.0) for x in (query, key))
        return jnp.einsum("bthc,bshc->bhts", q, k)

    np.testing.assert_allclose(scores(0), scores(500), atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": "tokens"},
        {},
        {"fusion": "add"},
        {"mlp": "swiglu", "mel_depth": 0},
        {"mel_kernel": 1, "mel_depth": 2},
        {"token_kernel": 4, "token_width": 6},
        {"inputs": "tokens", "token_kernel": 16, "token_width": 6},
    ],
)
def test_decoder_is_the_numpy_decoder(changes):
    config = dataclasses.replace(TINY, **changes)
    forward, params = build(config)
    record = next(pack_documents(documents(3, 12)))
    batch = one_window(record)
    pure = jax.tree.map(np.asarray, nnx.to_pure_dict(params))
    pure = jax.tree.map(lambda x: x.astype(np.float64), pure)
    expected = reference.decoder(pure, config.fusion, *(field[0] for field in batch))
    real = batch.weights[0]
    np.testing.assert_allclose(forward(batch)[0][real][:, 0], expected[real], atol=2e-5)


def test_finer_codebooks_are_the_numpy_depth_transformers():
    config = dataclasses.replace(TINY, output_codebooks=3, depformer_width=12, depformer_heads=3)
    forward, params = build(config)
    document = documents(1, 30)[0]
    codes = np.random.default_rng(1).integers(VOCABULARY, size=(30, 3)).astype(np.int16)
    batch = one_window(next(pack_documents([dataclasses.replace(document, tokens=codes)])), context=30)
    pure = jax.tree.map(lambda x: np.asarray(x, np.float64), nnx.to_pure_dict(params))
    hidden = reference.hidden(pure, config.fusion, *(field[0] for field in batch))
    logits = np.asarray(forward(batch))[0]
    assert logits.shape == (30, 3, VOCABULARY)
    for t in (0, 7, 29):
        np.testing.assert_allclose(
            logits[t, 1:], reference.depformer(pure["depformer"], hidden[t], codes[t]), atol=2e-5
        )


def test_a_codebooks_logits_see_the_codebooks_before_it_and_none_after():
    forward, _ = build(dataclasses.replace(TINY, output_codebooks=2))
    batch = one_window(next(pack_documents(documents(1, 48))))
    before = np.asarray(forward(batch))
    for codebook in (0, 1):
        tokens = batch.tokens.copy()
        tokens[:, 21, codebook] += 1  # frame 20 of the document
        after = np.asarray(forward(batch._replace(tokens=tokens % VOCABULARY)))
        changed = (after[0, 20] != before[0, 20]).any(axis=-1)
        assert changed.tolist() == [False, codebook == 0]


@pytest.mark.parametrize("inputs", ["tokens", "hybrid"])
def test_packed_documents_get_the_logits_they_get_alone(inputs):
    forward, _ = build(dataclasses.replace(TINY, inputs=inputs))
    alone = documents(3, 12)
    packed = forward(one_window(next(pack_documents(alone))))[0]
    offset = 0
    for document in alone:
        n = len(document.tokens)
        single = forward(one_window(next(pack_documents([document]))))[0][:n]
        np.testing.assert_allclose(packed[offset : offset + n], single, atol=1e-5)
        offset += n


@pytest.mark.parametrize("inputs", ["tokens", "hybrid"])
@pytest.mark.parametrize("t", [0, 1, 2, 20, 45])
def test_logits_up_to_t_plus_1_ignore_frames_after_t(inputs, t):
    forward, _ = build(dataclasses.replace(TINY, inputs=inputs))
    batch = one_window(next(pack_documents(documents(1, 48))))
    rng = np.random.default_rng(t)
    tokens, mel = batch.tokens.copy(), batch.mel.copy()
    tokens[:, t + 2 :] += rng.integers(1, VOCABULARY, size=tokens[:, t + 2 :].shape).astype(np.int16)
    tokens %= VOCABULARY
    mel[:, t + 2 :] = rng.normal(size=mel[:, t + 2 :].shape)
    before, after = forward(batch), forward(batch._replace(tokens=tokens, mel=mel))
    np.testing.assert_array_equal(before[:, : t + 2], after[:, : t + 2])
    assert (before[:, t + 2] != after[:, t + 2]).any(), "position t + 2 sees frame t + 1: it must change"


def test_every_input_matters():
    forward, _ = build(TINY)
    batch = one_window(next(pack_documents(documents(1, 48))))
    before = forward(batch)[0, 20]
    for change in (
        {"tokens": np.where(np.arange(49)[None, :, None] == 20, (batch.tokens + 1) % VOCABULARY, batch.tokens)},
        {"mel": np.where(np.arange(49)[None, :, None] == 20, batch.mel + 1, batch.mel)},
    ):
        assert (forward(batch._replace(**change))[0, 20] != before).any(), list(change)


def test_token_model_reads_neither_mel_nor_higher_codebooks():
    forward, _ = build(dataclasses.replace(TINY, inputs="tokens"))
    batch = one_window(next(pack_documents(documents(1, 48))))
    tokens = batch.tokens.copy()
    tokens[..., 1:] += 1
    np.testing.assert_array_equal(forward(batch), forward(batch._replace(mel=-batch.mel, tokens=tokens)))


def test_null_mel_hides_the_slices_it_replaces():
    forward, _ = build(TINY)
    batch = one_window(next(pack_documents(documents(1, 48))))
    hidden = jnp.ones((1, 48), bool)
    silent = forward(batch, null_mel=hidden)
    np.testing.assert_array_equal(silent, forward(batch._replace(mel=-batch.mel), null_mel=hidden))
    assert (silent != forward(batch)).any()


def test_mel_dropout_replaces_the_asked_share():
    config = dataclasses.replace(TINY, mel_dropout=0.25)
    mask = null_mel_mask(config, jax.random.key(0), (64, 256))
    assert abs(float(mask.mean()) - 0.25) < 0.02
    window = null_mel_mask(dataclasses.replace(TINY, mel_dropout_window=0.5), jax.random.key(0), (512, 4))
    rows = np.asarray(window).all(axis=1)
    assert (rows == np.asarray(window).any(axis=1)).all(), "a window is hidden whole or not at all"
    assert abs(rows.mean() - 0.5) < 0.1
    assert null_mel_mask(TINY, jax.random.key(0), (2, 2)) is None


def test_dropout_drops_in_training_only():
    forward, _ = build(dataclasses.replace(TINY, dropout=0.5))
    batch = one_window(next(pack_documents(documents(1, 48))))
    np.testing.assert_array_equal(forward(batch), forward(batch))
    with nnx.use_eager_sharding(False):
        model = Decoder(dataclasses.replace(TINY, dropout=0.5), nnx.Rngs(0))
        first, second = (model.hidden(batch, dropout_key=jax.random.key(seed)) for seed in (0, 1))
    assert (first != second).any()


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_rematerialisation_changes_no_gradient(remat):
    batch = one_window(next(pack_documents(documents(1, 48))))

    def gradients(config):
        with nnx.use_eager_sharding(False):
            graph, params = nnx.split(Decoder(config, nnx.Rngs(0)))
        return jax.jit(jax.grad(lambda p: jnp.square(nnx.merge(graph, p)(batch)).mean()))(params)

    expected = gradients(TINY)
    ours = gradients(dataclasses.replace(TINY, remat=remat))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours, expected)


def test_bfloat16_is_close_and_parameters_stay_float32():
    exact, params = build(TINY)
    rough, _ = build(dataclasses.replace(TINY, dtype="bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}
    batch = one_window(next(pack_documents(documents(1, 48))))
    assert rough(batch).dtype == jnp.float32
    np.testing.assert_allclose(rough(batch), exact(batch), atol=0.05)


@pytest.mark.parametrize(
    ("name", "millions", "tolerance"),
    [
        ("paper_gpt_s", 3.7, 0.02),
        ("paper_gpt_l", 40.0, 0.035),
        ("paper_hybrid", 4.0, 0.01),
        ("hybrid_generate", 8.4, 0.02),
        ("demo_tokens", 0.62, 0.05),
        ("demo_hybrid", 0.62, 0.05),
    ],
)
def test_presets_have_their_parameter_counts(name, millions, tolerance):
    config = load_config(CONFIGS / f"{name}.py").model
    with nnx.use_eager_sharding(False):
        abstract = nnx.eval_shape(lambda: Decoder(config, nnx.Rngs(0)))
    count = count_parameters(nnx.state(abstract))
    assert count == pytest.approx(millions * 1e6, rel=tolerance)


def test_window_shifts_by_one_and_leads_with_the_frame_before():
    tokens = np.arange(20, dtype=np.int16).reshape(10, CODEBOOKS)
    mel = np.tile(np.arange(10, dtype=np.float16)[None, :, None], (1, 1, BANDS))
    segments = (Segment("a", "x", 0, 4, 0), Segment("b", "x", 7, 6, 1))
    window = cut_window(Record(tokens, mel, segments), 2, 10)
    assert window.tokens[:, 0].tolist() == [2, 4, 6, 8, 10, 12, 14, 16, 18, 0, 0]
    assert window.mel[:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0]
    assert window.segment_ids.tolist() == [1, 1, 0, 2, 2, 2, 2, 2, 0, 0], "frame 4 is context: input only"
    assert window.positions.tolist() == [0, 1, 0, 0, 1, 2, 3, 4, 0, 0]
    assert not window.starts.any(), "neither document starts in this window"
    first = cut_window(Record(tokens, mel, segments), 0, 3)
    assert first.starts.tolist() == [True, False, False]
    assert first.tokens[0].tolist() == [0] * CODEBOOKS
