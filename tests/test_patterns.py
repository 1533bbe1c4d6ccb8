"""Several codebooks out, in whatever order: a likelihood of all of them, which sees nothing that comes later in it."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from flax import nnx
from synthetic import markov_document, markov_matrix, tiny_config

from wgpt_jax.audio.clock import Clock
from wgpt_jax.config import Config, ModelConfig
from wgpt_jax.data.batch import Batch
from wgpt_jax.data.records import Record, Segment, pack_documents
from wgpt_jax.data.windows import cut_window, stack_windows
from wgpt_jax.errors import RequestError
from wgpt_jax.model.decoder import Decoder
from wgpt_jax.model.patterns import delayed, flattened
from wgpt_jax.prepare.causality import verify_function
from wgpt_jax.training.step import token_nll
from wgpt_jax.verify import by_instant

K = 2
TINY = dataclasses.replace(tiny_config().model, inputs="tokens", output_codebooks=K, token_kernel=3)
ORDERS = {
    "depth": {"input_codebooks": K},
    "delay": {"input_codebooks": K},
    "flat": {},
}


def of(pattern: str, **changes) -> ModelConfig:
    return dataclasses.replace(TINY, pattern=pattern, **ORDERS[pattern] | changes)


def forward(config: ModelConfig):
    with nnx.use_eager_sharding(False):
        graph, params = nnx.split(Decoder(config, nnx.Rngs(0)))
    return jax.jit(lambda batch: nnx.merge(graph, params)(batch))


def window(lengths: list[int], context: int, start: int = 0) -> Batch:
    rng = np.random.default_rng(0)
    documents = [markov_document(f"d{i}", n, markov_matrix(), rng) for i, n in enumerate(lengths)]
    return stack_windows([cut_window(next(pack_documents(documents)), start, context)], 1)


@pytest.mark.parametrize("pattern", ORDERS)
def test_the_probabilities_of_all_sequences_add_up_to_one(pattern):
    vocabulary, frames = 3, 3
    config = of(pattern, vocabulary=vocabulary)
    every = np.array(list(itertools.product(range(vocabulary), repeat=frames * K)), np.int16).reshape(-1, frames, K)
    tokens = np.concatenate([np.zeros_like(every[:, :1]), every], axis=1)
    rows = len(every)
    batch = Batch(
        tokens=tokens,
        mel=np.zeros((rows, frames + 1, config.mel_bands), np.float16),
        segment_ids=np.ones((rows, frames), np.int32),
        positions=np.tile(np.arange(frames, dtype=np.int32), (rows, 1)),
        starts=np.tile([True] + [False] * (frames - 1), (rows, 1)),
    )
    nll = np.asarray(token_nll(forward(config)(batch), batch.codes(K)), np.float64).sum(axis=(1, 2))
    assert np.exp(-nll).sum() == pytest.approx(1.0, abs=1e-4)
    assert np.exp(-nll).std() > 1e-5, "the model prefers some"


@pytest.mark.parametrize("pattern", ORDERS)
def test_no_prediction_depends_on_its_token_on_later_ones_or_on_other_documents(pattern):
    model = forward(of(pattern))
    batch = window([9, 14, 12], context=32, start=4)  # the first document goes on from before the window
    t = batch.segment_ids.shape[1]
    before = np.asarray(model(batch))[0]
    segments = batch.segment_ids[0]

    def turn(frame: int, k: int) -> float:
        """When a token is predicted."""
        if pattern == "delay":
            return min(frame + k, last_step(segments, segments[frame]))
        return frame * K + k

    noticed = 0
    for frame, k in itertools.product(np.flatnonzero(segments), range(K)):
        tokens = batch.tokens.copy()
        tokens[0, frame + 1, k] = (tokens[0, frame + 1, k] + 1) % TINY.vocabulary
        changed = np.any(np.asarray(model(batch._replace(tokens=tokens)))[0] != before, axis=-1)
        for other, j in itertools.product(range(t), range(K)):
            if segments[other] == 0:
                continue
            later = segments[other] == segments[frame] and turn(other, j) > turn(frame, k)
            assert later or not changed[other, j], f"({frame}, {k}) changes ({other}, {j})"
            noticed += bool(changed[other, j])
    assert noticed > 5 * t, "later tokens of the same document do depend on it"


@pytest.mark.parametrize("pattern", ORDERS)
def test_the_proof_of_causality_knows_the_order(pattern):
    """Tokens of a toy codec, three codebooks; the proof passes, and fails on what is sorted a frame too early."""
    several = {"output_codebooks": 3} | ({} if pattern == "flat" else {"input_codebooks": 3})
    model, clock = forward(of(pattern, **several)), Clock(24000, 320)

    def logits(samples: np.ndarray) -> np.ndarray:
        sums = np.abs(samples.reshape(-1, clock.hop)).sum(axis=1)
        tokens = (np.stack([sums * 97, sums * 31, sums * 53], axis=1) % TINY.vocabulary).astype(np.int16)
        mel = np.zeros((1, len(tokens), TINY.mel_bands), np.float16)
        record = Record(tokens, mel, (Segment("signal", "", 0, len(tokens), 0),))
        return np.asarray(model(stack_windows([cut_window(record, 0, len(tokens))], 1)))[0]

    samples = np.random.default_rng(0).normal(0, 0.1, 24 * clock.hop).astype(np.float32)
    assert verify_function("logits", lambda x: by_instant(logits(x), pattern), samples, clock).passed
    if pattern == "delay":  # which the depth pattern's order does not know
        assert not verify_function("logits", lambda x: by_instant(logits(x), "depth"), samples, clock).passed
    early = verify_function("logits", lambda x: by_instant(logits(x), pattern)[1:], samples, clock)
    assert not early.passed and early.leaks


def test_delayed_steps_are_those_of_a_walk_through_the_window():
    batch, codebooks = window([9, 14, 12], context=32, start=4), 3
    batch = batch._replace(tokens=np.concatenate([batch.tokens, batch.tokens[..., :1] + 1], axis=-1))
    steps = jax.tree.map(np.asarray, delayed(jax.tree.map(jax.numpy.asarray, batch), codebooks))
    segments, starts = batch.segment_ids[0], batch.starts[0]
    for step in np.flatnonzero(segments):
        number = segments[step]
        members = np.flatnonzero(segments == number)
        for k in range(codebooks):
            frame = step - 1 - k
            inside = frame in members
            in_front = frame == members[0] - 1 and not starts[members[0]]
            assert steps.known[0, step, k] == (inside or in_front)
            if inside or in_front:
                assert steps.tokens[0, step, k] == batch.tokens[0, frame + 1, k]
            assert steps.predicts[0, step, k] == min(step + k, last_step(segments, number))
        assert steps.positions[0, step] == step - members[0] and steps.segment_ids[0, step] == number
    for step in np.flatnonzero(segments == 0):  # padding shows the last codebooks of the segment before it, no more
        members = np.flatnonzero(segments == segments[:step].max())
        for k in range(codebooks):
            assert steps.known[0, step, k] == (step - 1 - k in members)


def last_step(segments: np.ndarray, number: int) -> int:
    """A segment's last frame, and what is free behind it."""
    after = np.flatnonzero(segments > number)
    return (after[0] if len(after) else len(segments)) - 1


def test_flattened_steps_read_the_token_before_in_the_order():
    batch = window([9, 14, 12], context=32, start=4)
    steps = jax.tree.map(np.asarray, flattened(jax.tree.map(jax.numpy.asarray, batch), K))
    order = [(frame, k) for frame in range(-1, 32) for k in range(K)]
    for frame, k in itertools.product(range(32), range(K)):
        step = steps.predicts[0, frame, k]
        previous, codebook = order[order.index((frame, k)) - 1]
        assert steps.known[0, step].tolist() == [j == codebook for j in range(K)]
        assert steps.tokens[0, step, codebook] == batch.tokens[0, previous + 1, codebook]
        assert steps.starts[0, step] == (batch.starts[0, frame] and k == 0)
        assert steps.positions[0, step] == batch.positions[0, frame] * K + k


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"pattern": "delay", "output_codebooks": 1}, "model.pattern"),
        ({"pattern": "flat", "input_codebooks": 2}, "model.input_codebooks: is 2, must be 1"),
        ({"pattern": "delay", "input_codebooks": 1}, "model.input_codebooks: is 1, must be 2"),
        ({"pattern": "delay", "input_codebooks": K, "inputs": "hybrid"}, "too late to hear"),
    ],
)
def test_patterns_that_cannot_be_are_refused(changes, says):
    with pytest.raises(RequestError, match=says):
        Config(model=dataclasses.replace(TINY, **changes)).validate()
