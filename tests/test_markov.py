"""A Markov source of known entropy, through the whole pipeline: a model reaches the floor, and does not go below it."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wgpt_jax.data.baselines import documents, score_documents
from wgpt_jax.data.index import load_index
from wgpt_jax.data.pipeline import evaluation_batches
from wgpt_jax.errors import RequestError
from wgpt_jax.markov.dataset import MarkovSet, make_markov_set, mel_of
from wgpt_jax.markov.floor import floor_config, floor_in_windows, measure_floor, source_of
from wgpt_jax.markov.source import draw_source
from wgpt_jax.scores import ratio

ROOT = Path(__file__).parents[1]
SMALL = {"frames": 60_000, "held_out": 20_000, "mel_bands": 8}


def dense(rows, vocabulary) -> np.ndarray:
    """Probabilities [states, V] of a sparse table."""
    table = np.zeros((len(rows.tokens), vocabulary))
    np.put_along_axis(table, rows.tokens, rows.probabilities, axis=1)
    return table


def by_eigenvector(matrix) -> np.ndarray:
    """Stationary distribution of transition probabilities [N, N]."""
    values, vectors = np.linalg.eig(matrix.T)
    stationary = np.real(vectors[:, np.argmin(np.abs(values - 1))])
    return stationary / stationary.sum()


def pairs_matrix(table, vocabulary) -> np.ndarray:
    """Transition probabilities between pairs of tokens, [V^2, V^2]."""
    matrix = np.zeros((vocabulary**2, vocabulary**2))
    for state in range(vocabulary**2):
        for token in range(vocabulary):
            matrix[state, state % vocabulary * vocabulary + token] += table[state, token]
    return matrix


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("order", [1, 2])
def test_the_entropy_rate_is_that_of_the_chain_by_linear_algebra(order, seed):
    source = draw_source(vocabulary=7, order=order, codebooks=4, branching=3, seed=seed)
    table = dense(source.coarse, 7)
    np.testing.assert_allclose(table.sum(axis=1), 1)
    stationary = by_eigenvector(table if order == 1 else pairs_matrix(table, 7))
    np.testing.assert_allclose(source.stationary, stationary, atol=1e-9)

    def entropy(weights, table):
        return -np.sum(weights[:, None] * table * np.log(np.where(table > 0, table, 1)))

    expected, weights = [entropy(stationary, table)], stationary.reshape(-1, 7).sum(axis=0)
    for rows in source.finer:
        expected.append(entropy(weights, dense(rows, 7)))
        weights = weights @ dense(rows, 7)
    assert source.entropy_rates() == pytest.approx(expected, rel=1e-9)
    assert expected[2] == 0.0, "the third codebook is a function of the second"
    assert 0 < expected[0] < math.log(3) < math.log(7)


@pytest.mark.parametrize("order", [1, 2])
def test_the_likelihoods_of_all_short_documents_sum_to_one(order):
    source = draw_source(vocabulary=4, order=order, codebooks=2, branching=3, seed=1)
    frames = np.stack(np.meshgrid(*[np.arange(4)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    for length in (1, 2, 3):
        choices = np.stack(np.meshgrid(*[np.arange(16)] * length, indexing="ij"), axis=-1).reshape(-1, length)
        total = sum(np.exp(-source.nll(frames[choice]).sum()) for choice in choices)
        assert total == pytest.approx(1)


@pytest.mark.parametrize("order", [1, 2])
def test_the_true_models_nll_is_the_entropy_within_the_sampling_error(tmp_path, order):
    index = make_markov_set(tmp_path, MarkovSet(order=order, vocabulary=12, codebooks=3, **SMALL))
    known, (_, source) = index.options["markov"], source_of(index)
    seen = [(name, tokens) for name, _, tokens in documents(tmp_path, index, "test")]
    assert {name for name in known["documents"] if name.startswith("test/")} == {name for name, _ in seen}
    starts, rates = known["start_entropies"], known["entropy_rates"]
    for kind, rate in ((1, rates[0]), (2, known["entropy_rate"])):
        nats, excess, frames = [], [], []
        for name, tokens in seen:
            row = known["documents"][name]
            assert row[0] == len(tokens)
            # The first tokens are less certain than those that follow: their entropy is known too.
            expected = sum(starts) - len(starts) * rates[0] + len(tokens) * rate
            nats.append(row[kind])
            excess.append(row[kind] - expected)
            frames.append(len(tokens))
            if kind == 1:
                coarse = source.nll(np.stack([tokens] * 3, axis=1))[:, 0]
                assert row[1] == pytest.approx(coarse.sum())
        mean, stderr = ratio(excess, np.array(frames))
        assert abs(mean) < 4 * stderr < 0.05 * rate
        assert np.sum(nats) / np.sum(frames) == pytest.approx(rate, rel=0.05)


def test_what_can_follow_is_drawn_as_often_as_it_is_likely():
    source = draw_source(vocabulary=6, order=2, codebooks=1, branching=3, seed=0)
    tokens = np.concatenate(source.sample(np.full(400, 500), np.random.default_rng(0)), axis=0).reshape(400, 500)
    counts = np.zeros((36, 6))
    np.add.at(counts, (tokens[:, :-2] * 6 + tokens[:, 1:-1], tokens[:, 2:]), 1)
    expected = counts.sum(axis=1, keepdims=True) * dense(source.coarse, 6)
    assert (counts[expected == 0] == 0).all()
    z = (counts - expected)[expected > 0] / np.sqrt(expected[expected > 0])
    assert np.abs(z).max() < 5
    np.testing.assert_allclose(counts.sum(axis=1) / counts.sum(), source.stationary, atol=0.01)


def test_the_trigram_model_reaches_the_floor_of_order_2_and_the_bigram_model_does_not(tmp_path):
    """The pipeline against a learner without a network: what is in the records is the source's."""
    index = make_markov_set(tmp_path, MarkovSet(order=2, vocabulary=12, **SMALL))
    floor, rows = index.options["markov"]["documents"], score_documents(tmp_path, "test")
    truth, frames = sum(floor[row.document][1] for row in rows), sum(row.frames for row in rows)
    assert 0 < (sum(row.trigram for row in rows) - truth) / frames < 0.02
    assert (sum(row.bigram for row in rows) - truth) / frames > 0.3


def test_a_slice_is_a_function_of_its_frames_first_tokens(tmp_path):
    asked = MarkovSet(vocabulary=12, codebooks=3, mel_sources="original,codec1", **SMALL)
    tokens = draw_source(12, 1, 3, 4, 0).sample(np.array([200]), np.random.default_rng(0))[0]
    mel, other = mel_of(tokens, asked), tokens.copy()
    other[100:] = (other[100:] + 1) % 12
    other[50, 2] = (other[50, 2] + 1) % 12
    changed = mel_of(other, asked) != mel
    assert not changed[:, :50].any() and not changed[:, 51:100].any(), "nothing before what changed"
    assert changed[0, 50].all() and not changed[1, 50].any(), "codec1 knows the first codebook alone"
    assert changed[:, 100:].any(axis=2).all()


def test_with_one_token_before_a_source_of_order_1_is_as_sure_as_with_all(tmp_path):
    index = make_markov_set(tmp_path, MarkovSet(order=1, vocabulary=12, codebooks=2, **SMALL))
    known = {name: row for name, row in index.options["markov"]["documents"].items() if name.startswith("test/")}
    windows = floor_in_windows(source_of(index)[1], tmp_path, "test", 64)
    assert {name: [nats[0], nats.sum()] for name, nats in windows.items()} == {
        name: pytest.approx(row[1:]) for name, row in known.items()
    }


def test_where_a_window_begins_inside_a_document_a_source_of_order_2_knows_one_token_of_two(tmp_path):
    index = make_markov_set(tmp_path, MarkovSet(order=2, vocabulary=12, **SMALL))
    _, source = source_of(index)
    table, joint = dense(source.coarse, 12), source.stationary.reshape(12, 12)
    after_one = np.einsum("ab,abc->bc", joint, table.reshape(12, 12, 12)) / joint.sum(axis=0)[:, None]
    tokens = {name: frames for name, _, frames in documents(tmp_path, index, "test")}
    expected = {name: index.options["markov"]["documents"][name][1] for name in tokens}
    begun = 0
    for evaluated in evaluation_batches(tmp_path, index, "test", 64, 8):
        batch = evaluated.batch
        for row, t in zip(*np.nonzero(batch.weights & ~batch.starts & (batch.positions == 0)), strict=True):
            (record, start), number = evaluated.origins[row], batch.segment_ids[row, t] - 1
            segment, edge = record.segments[number], sum(s.length for s in record.segments[:number])
            frame, document = segment.start + start + t - edge, tokens[segment.document]
            if frame > 1:  # the second frame of a document has but one before it anyway
                two, one, token = document[frame - 2 : frame + 1]
                expected[segment.document] += np.log(table[two * 12 + one, token]) - np.log(after_one[one, token])
                begun += 1
    windows = floor_in_windows(source, tmp_path, "test", 64)
    assert begun > 200
    assert {name: nats[0] for name, nats in windows.items()} == pytest.approx(expected)


@pytest.fixture(scope="module")
def markov(tmp_path_factory) -> tuple[Path, MarkovSet]:
    # About as many frames as the models are shown: those seen often are learned by heart, at the others' cost.
    asked = MarkovSet(vocabulary=16, branching=8, codebooks=2, frames=400_000, held_out=20_000, mel_bands=8)
    folder = tmp_path_factory.mktemp("markov")
    make_markov_set(folder / "data", asked)
    return folder, asked


@pytest.mark.parametrize("inputs", ["tokens", "hybrid"])
def test_a_model_reaches_the_floor_within_one_percent_and_does_not_go_below(markov, inputs):
    """Everything between an array and a table: a leak would be below the floor, a wrong frame above it."""
    folder, asked = markov
    shape = {"width": 32, "depth": 1, "hidden": 64, "output_codebooks": 1}
    config = floor_config(asked, inputs, steps=400, batch=16, learning_rate=2e-2, **shape)
    row = measure_floor(folder / "data", folder / inputs, config)
    assert row["mel_source"] == ("none" if inputs == "tokens" else "codec2")
    assert row["frames"] == load_index(folder / "data").frames("test")
    assert row["floor"] == pytest.approx(row["entropy_rate"], rel=0.05)
    assert row["nll"] == pytest.approx(row["floor"] + row["excess"])
    assert row["floor"] < 0.7 * math.log(asked.vocabulary)
    assert -4 * row["excess_stderr"] < row["excess"] < 0.01 * row["floor"]


def test_the_data_set_is_verified_but_for_the_codec_it_does_not_have(markov):
    folder, _ = markov
    command = [sys.executable, "tools/dataset.py", "verify", str(folder / "data"), "--documents", "0", "--json"]
    done = subprocess.run([*command, "--workers", "1"], cwd=ROOT, capture_output=True, text=True)
    checks = json.loads(done.stdout)["checks"]
    assert {check["name"] for check in checks if check["outcome"] == "FAILED"} <= {"codec"}
    assert {"plan", "shards", "records", "documents", "inputs", "statistics", "ngrams"} <= {c["name"] for c in checks}


def test_an_equal_request_makes_an_equal_set_and_another_seed_another(tmp_path):
    hashes = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        index = make_markov_set(tmp_path / name, MarkovSet(seed=seed, **SMALL))
        hashes.append(tuple(shard.sha256 for shard in index.shards))
    assert hashes[0] == hashes[1]
    assert not set(hashes[0]) & set(hashes[2])


def test_what_cannot_be_made_is_named(tmp_path):
    for fields, told in (
        ({"order": 3}, "--order 3: 1 and 2 can be"),
        ({"branching": 1}, "--branching 1: 2 to 32 can be"),
        ({"order": 2, "vocabulary": 2048}, "--vocabulary 2048: a source has at most 2,097,152 states"),
        ({"mel_sources": "codec2"}, "--mel-sources codec2: original and codec1 to codec1 can be"),
        ({"held_out": 10}, "--held-out 10: at least 3,000 are needed"),
    ):
        with pytest.raises(RequestError, match=told):
            make_markov_set(tmp_path / "out", MarkovSet(**fields))
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="is not empty"):
        make_markov_set(tmp_path, MarkovSet())


def test_the_command_makes_the_set_without_torch(tmp_path):
    code = (
        "import atexit, runpy, sys; sys.argv[0] = 'tools/make_markov.py';"
        "atexit.register(lambda: print('torch' in sys.modules));"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "out"), "--order", "2", "--frames", "3000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    rate = load_index(tmp_path / "out").options["markov"]["entropy_rate"]
    assert f"entropy rate {rate:.6f} nats per frame" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"
