"""Evaluation counts every frame of every document once, whatever the windows, and says how sure it is."""

import json
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import markov_dataset, markov_document, markov_matrix, tiny_config, write_dataset

from wgpt_jax.config import MeshConfig
from wgpt_jax.data.index import load_index
from wgpt_jax.data.ngrams import count_ngrams
from wgpt_jax.data.pipeline import evaluation_batches
from wgpt_jax.data.records import pack_documents
from wgpt_jax.data.windows import random_start, tile_record
from wgpt_jax.errors import RequestError
from wgpt_jax.evaluation import evaluate, format_table, main_source, meaning, score_split
from wgpt_jax.parallel.mesh import make_mesh
from wgpt_jax.scores import DocumentScores, SplitScores, paired_difference, ratio
from wgpt_jax.training.loop import train
from wgpt_jax.training.step import Scores, score_tokens


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("evaluation")
    markov_dataset(folder / "data", train=20, validation=7, frames=(3, 300), max_frames=128)
    config = tiny_config(model={"output_codebooks": 2}, training={"steps": 4})
    train(config, folder / "data", folder / "run")
    return folder / "run", folder / "data"


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=8),
    context=st.integers(1, 40),
    max_frames=st.integers(2, 64),
)
def test_tiled_windows_hold_every_frame_once_with_the_one_before(lengths, context, max_frames):
    rng = np.random.default_rng(0)
    documents = {f"d{i}": markov_document(f"d{i}", n, markov_matrix(), rng) for i, n in enumerate(lengths)}
    seen = {name: [] for name in documents}
    for record in pack_documents(documents.values(), max_frames):
        for _, window in tile_record(record, context):
            for t in np.flatnonzero(window.weights):
                segment = record.segments[window.segment_ids[t] - 1]
                tokens = documents[segment.document].tokens
                frame = len(seen[segment.document])
                assert (window.tokens[t + 1] == tokens[frame]).all()
                assert window.starts[t] == (frame == 0)
                if frame:
                    assert (window.tokens[t] == tokens[frame - 1]).all()
                    assert (window.mel[t] == documents[segment.document].mel[0, frame - 1]).all()
                seen[segment.document].append(frame)
    assert {name: len(frames) for name, frames in seen.items()} == {n: len(d.tokens) for n, d in documents.items()}


@given(frames=st.integers(1, 3000), context=st.integers(1, 1024), seed=st.integers(0, 99))
def test_random_windows_stay_inside_the_record(frames, context, seed):
    start = random_start(frames, context, np.random.default_rng(seed))
    assert 0 <= start <= max(frames - context, 0)


def test_random_windows_reach_edges_as_often_as_the_middle():
    rng = np.random.default_rng(0)
    covered = np.zeros(1000)
    for _ in range(20_000):
        start = random_start(1000, 200, rng)
        covered[start : start + 200] += 1
    assert covered.min() > 0.45 * covered.max()
    assert abs(covered[0] / covered[500] - 1) < 0.1


def test_summary_counts_each_document_and_frame_once(trained):
    run, data = trained
    result = evaluate(run, data, progress=False)
    index_frames = json.loads((data / "index.json").read_text())["shards"][1]["frames"]
    assert result.summary["frames"] == index_frames
    assert result.summary["documents"] == 7
    assert sum(row["frames"] for row in result.summary["by_position"]) == index_frames
    assert result.summary["ppl"] == pytest.approx(math.exp(result.summary["nll"]))
    assert result.summary["bits_per_second"] == pytest.approx(result.summary["nll"] / math.log(2) * 75)
    assert set(result.summary["by_domain"]) == {"a", "b"}
    assert 0 <= result.summary["top1"] <= result.summary["top10"] <= 1
    written = json.loads((run / "evaluation/validation-4-original.json").read_text())
    assert written == result.summary


def test_scores_match_a_sum_by_hand(tmp_path):
    """Every number again, from logits made up for the purpose: NLL, ranks with ties, nans, positions, documents."""
    rng = np.random.default_rng(0)
    documents = [markov_document(f"d{i}", n, markov_matrix(), rng) for i, n in enumerate((5, 50, 33))]
    index = write_dataset(tmp_path, {"train": documents, "validation": documents}, max_frames=40)
    table, fine_table = np.round(rng.normal(size=(2, 16, 16)) * 2)  # ties on purpose

    def eval_fn(params, batch, no_mel):
        previous = np.where(batch.starts, 0, batch.tokens[:, :-1, 0])
        logits = np.stack([table[previous], fine_table[batch.tokens[:, 1:, 0]]], axis=2)
        return score_tokens(jnp.asarray(logits, jnp.float32), batch.codes(2))

    scores = score_split(
        eval_fn,
        None,
        tmp_path,
        index,
        "validation",
        tiny_config(data={"context": 16}),
        make_mesh(MeshConfig()),
        mel="original",
    )

    def by_hand(table, given, tokens):
        log_table = table - np.log(np.exp(table).sum(axis=1, keepdims=True))
        order = np.argsort(-table[given], axis=1, kind="stable")
        hits = order == tokens[:, None]
        return pytest.approx([-log_table[given, tokens].sum(), hits[:, 0].sum(), hits[:, :10].sum()], rel=1e-5)

    for document in documents:
        tokens, fine = document.tokens.T.astype(int)
        row = scores.documents[document.name]
        assert row.frames == len(tokens)
        assert [row.nll, row.top1, row.top10] == by_hand(table, np.concatenate([[0], tokens[:-1]]), tokens)
        assert row.fine == [by_hand(fine_table, tokens, fine)]
    assert scores.position_frames.sum() == sum(len(document.tokens) for document in documents)
    assert scores.position_frames[0] == 3, "only a document's first frame sees nothing"
    log_table = table - np.log(np.exp(table).sum(axis=1, keepdims=True))
    tokens = [document.tokens[:, 0].astype(int) for document in documents]
    nats = np.concatenate([-log_table[np.concatenate([[0], row[:-1]]), row] for row in tokens])
    places = np.concatenate([np.arange(len(row)) for row in tokens])
    for row in scores.by_document_position():
        inside = (places >= row["first"]) & (places <= row["last"])
        assert (row["frames"], row["nll"]) == (inside.sum(), pytest.approx(nats[inside].mean(), rel=1e-5))
    assert sum(row["frames"] for row in scores.by_document_position()) == len(places)

    probabilities = np.exp(table) / np.exp(table).sum(axis=1, keepdims=True)
    bins: dict[int, list[tuple[float, bool]]] = {}
    for document in documents:
        tokens = document.tokens[:, 0].astype(int)
        for before, token in zip([0, *tokens[:-1]], tokens, strict=True):
            sure = probabilities[before].max()
            bins.setdefault(int(sure * 15), []).append((sure, table[before].argmax() == token))
    rows = scores.calibration()
    for (number, frames), row in zip(sorted(bins.items()), rows, strict=True):
        assert (row["low"], row["high"], row["frames"]) == pytest.approx((number / 15, (number + 1) / 15, len(frames)))
        assert [row["confidence"], row["accuracy"]] == pytest.approx(np.mean(frames, axis=0), rel=1e-5)
    gaps = [len(frames) * abs(np.subtract(*np.mean(frames, axis=0))) for frames in bins.values()]
    assert scores.ece() == pytest.approx(sum(gaps) / 88, rel=1e-4)


def test_a_model_that_knows_how_sure_it_is_is_calibrated():
    """Right as often as its probability says: no error; as sure of everything: it is off by what it overstates."""
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.2, 1, 200_000).astype(np.float32)
    correct = rng.uniform(size=len(confidence)) < confidence
    honest, certain = SplitScores(1), SplitScores(1)
    for part in range(4):
        honest.add_confidence(confidence[part::4], correct[part::4])
        certain.add_confidence(np.ones_like(confidence[part::4]), correct[part::4])
    assert honest.ece() < 0.005
    assert [row["frames"] for row in certain.calibration()] == [len(confidence)]
    assert certain.ece() == pytest.approx(0.4, abs=0.01)


def three_codebooks() -> SplitScores:
    """Two documents of three codebooks: of 2 frames, added one by one, and of 1 frame."""
    scores = SplitScores(4)
    frames = {
        "a": [([1.0, 2.0, 4.0], [0, 9, 10]), ([3.0, 2.0, 0.0], [1, 0, 3])],
        "b": [([2.0, 1.0, 6.0], [0, 0, 12])],
    }
    for name, rows in frames.items():
        scores.documents[name] = DocumentScores(domain=name)
        for nll, rank in rows:
            scores.documents[name].add(np.array([nll], np.float32), np.array([rank]))
    return scores


def test_codebooks_are_summed_each_on_its_own_and_together():
    scores = three_codebooks()
    a, b = scores.documents["a"], scores.documents["b"]
    assert a == DocumentScores("a", frames=2, nll=4.0, top1=1, top10=2, fine=[[4.0, 1.0, 2.0], [4.0, 0.0, 1.0]])
    assert (a.total_nll, b.total_nll) == (12.0, 9.0)
    summary = scores.summary(75.0)
    expected = [
        {"codebook": 1, "nll": 2.0, "ppl": math.exp(2), "top1": 2 / 3, "top10": 1.0},
        {"codebook": 2, "nll": 5 / 3, "ppl": math.exp(5 / 3), "top1": 2 / 3, "top10": 1.0},
        {"codebook": 3, "nll": 10 / 3, "ppl": math.exp(10 / 3), "top1": 0.0, "top10": 1 / 3},
    ]
    for row, by_hand in zip(summary["by_codebook"], expected, strict=True):
        assert row == pytest.approx(by_hand)
    assert (summary["nll"], summary["total_nll"]) == pytest.approx((2.0, 7.0))
    assert summary["total_bits_per_second"] == pytest.approx(7.0 * 75 / math.log(2))
    # Documents miss the mean of 7 per frame by 12 - 14 and 9 - 7; they have the coarse mean of 2 exactly.
    assert summary["total_bits_per_second_stderr"] == pytest.approx(4 / 3 * 75 / math.log(2))
    assert summary["nll_stderr"] == pytest.approx(0.0)
    assert scores.summary(75.0, "b")["total_nll"] == 9.0


def test_paired_difference_of_all_codebooks():
    first, second = three_codebooks(), SplitScores(4)
    second.documents = {
        "a": DocumentScores("a", 2, nll=3.0, fine=[[4.0, 0.0, 0.0], [1.0, 0.0, 0.0]]),
        "b": DocumentScores("b", 1, nll=2.0, fine=[[1.0, 0.0, 0.0], [2.0, 0.0, 0.0]]),
    }
    # By document 1 and 0 coarse nats of 2 and 1 frames, and 4 and 4 of all codebooks.
    assert paired_difference(first, second) == pytest.approx((1 / 3, 2 / 9))
    assert paired_difference(first, second, total=True) == pytest.approx((8 / 3, 8 / 9))


def test_the_table_has_a_row_for_every_codebook_and_one_for_all(trained):
    run, data = trained
    summary = evaluate(run, data, progress=False).summary
    part = format_table(summary).partition("\ncodebook ")[2].split("\n\n")[0]
    rows = {line.split()[0]: line.split() for line in part.splitlines()}
    sources = summary["by_mel_source"]
    assert list(sources) == ["original", "null"]
    for k in (1, 2):
        shown = [float(value) for value in rows[str(k)][1:]]
        assert shown == pytest.approx([row["by_codebook"][k - 1]["nll"] for row in sources.values()], abs=1e-4)
    totals = [float(value) for value in rows["bits/s"][1:3]]
    assert totals == pytest.approx([row["total_bits_per_second"] for row in sources.values()], abs=0.1)
    for shown, column in zip(totals, zip(rows["1"][1:], rows["2"][1:], strict=True), strict=True):
        assert shown == pytest.approx(sum(map(float, column)) * 75 / math.log(2), abs=0.1), "they add up"


def test_a_target_among_nans_counts_as_wrong():
    scores = score_tokens(jnp.full((1, 1, 1, 16), jnp.nan), jnp.zeros((1, 1, 1), int))
    assert scores.rank[0, 0, 0] == 16
    table = SplitScores(4)
    table.add_confidence(np.asarray(scores.confidence)[0], np.array([False]))
    assert math.isnan(table.ece()), "and is no calibrated model's"


def test_a_single_document_has_no_standard_error():
    scores = SplitScores(4)
    scores.documents["only"] = DocumentScores("x", 10, nll=9000.0)
    summary = scores.summary(75.0)
    assert summary["nll_stderr"] is None
    assert math.isfinite(summary["ppl"])
    json.dumps(summary, allow_nan=False)


def test_the_batch_size_changes_no_score(trained, tmp_path):
    run, data = trained
    expected = evaluate(run, data, progress=False).summary
    fields = json.loads((run / "run.json").read_text())
    fields["config"]["training"]["batch"] = 3
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text(json.dumps(fields))
    (tmp_path / "run/checkpoints").symlink_to(run / "checkpoints")
    ours = evaluate(tmp_path / "run", data, progress=False).summary
    assert ours["nll"] == pytest.approx(expected["nll"], rel=1e-6)
    assert ours["top10"] == expected["top10"]


def test_null_mel_is_reported_as_such(trained):
    run, data = trained
    null = evaluate(run, data, mel="null", progress=False).summary
    assert null["mel_source"] == "null"
    assert null["nll"] != evaluate(run, data, progress=False).summary["nll"]


SOURCES = ("original", "codec1", "codec4")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> tuple[Path, Path, dict]:
    """A run on data of three mel sources, and its evaluation under all of them."""
    folder = tmp_path_factory.mktemp("mixed")
    markov_dataset(folder / "data", train=20, validation=7, frames=(3, 300), max_frames=128, mel_sources=SOURCES)
    config = tiny_config(training={"steps": 4, "eval_every": 0}, data={"mel_mix": {"original": 1.0, "codec4": 2.0}})
    train(config, folder / "data", folder / "run")
    return folder / "run", folder / "data", evaluate(folder / "run", folder / "data", progress=False).summary


def test_a_hybrid_is_scored_under_every_mel_of_the_data_its_main_one_first(mixed):
    run, data, summary = mixed
    assert list(summary["by_mel_source"]) == ["codec4", "original", "codec1", "null"]
    assert len({row["nll"] for row in summary["by_mel_source"].values()}) == 4
    assert summary["mel_source"] == "codec4"
    for name, row in summary["by_mel_source"].items():
        alone = evaluate(run, data, mel=name, progress=False).summary
        assert alone["mel_source"] == name and "by_mel_source" not in alone
        for whole in (alone, summary) if name == "codec4" else (alone,):
            assert row.items() <= whole.items()
    assert {"nll", "nll_stderr", "ppl", "top1", "top10", "documents", "frames", "by_domain", "by_position"} <= set(row)
    written = {path.name for path in (run / "evaluation").glob("*.documents.jsonl")}
    assert written == {f"validation-4-{name}.documents.jsonl" for name in summary["by_mel_source"]}


def test_each_source_is_scored_under_its_own_slices(tmp_path):
    rng = np.random.default_rng(0)
    document = markov_document("d", 50, markov_matrix(), rng, sources=3)
    document.mel[:] = np.array([1, 2, 3])[:, None, None]
    index = write_dataset(tmp_path, {"train": [document]}, mel_sources=SOURCES)

    def eval_fn(params, batch, no_mel):  # an NLL that says which mel it saw
        nll = batch.mel[:, 1:, :1].astype(np.float32) + 10 * no_mel
        return Scores(nll, jnp.zeros(nll.shape, int), jnp.ones(nll.shape[:2]))

    for name, expected in {"original": 1, "codec1": 2, "codec4": 3, "null": 11, "none": 1}.items():
        scores = score_split(eval_fn, None, tmp_path, index, "train", tiny_config(), make_mesh(MeshConfig()), mel=name)
        assert scores.summary(75.0)["nll"] == expected


def test_the_main_source_is_the_heaviest_or_what_the_data_has(mixed):
    index = load_index(mixed[1])
    for inputs, mix, expected in (
        ("hybrid", {"original": 1.0, "codec4": 2.0}, "codec4"),
        ("hybrid", {"codec8": 1.0}, "original"),
        ("tokens", {"codec4": 1.0}, "none"),
    ):
        assert main_source(tiny_config(inputs, data={"mel_mix": mix}), index) == expected


def test_the_table_says_what_each_nll_means(mixed):
    text = format_table(mixed[2])
    rows = [line.split()[0] for line in text.splitlines() if line.startswith((*SOURCES, "null", "  a", "  b"))]
    assert rows == ["codec4", "a", "b", "original", "codec1", "null", "codec4", "original", "codec1", "null"]
    for name, words in (
        ("original", "conditional on side information"),
        ("codec1", "a likelihood of the token sequence: this mel is a function of the tokens before"),
        ("codec4", "conditional on side information: codebooks that the model does not predict"),
        ("null", "a likelihood of the token sequence: no mel is read"),
    ):
        assert any(line.startswith(f"{name} ") and words in line for line in text.splitlines())
    assert meaning("codec4", output_codebooks=4, input_codebooks=1).startswith("a likelihood of all 4")
    for source, read, predicted in (("codec1", 4, 1), ("codec4", 8, 4), ("none", 4, 1), ("latent", 1, 4)):
        assert meaning(source, predicted, read).startswith("conditional on side information"), source
    assert meaning("centred", 1, 1).startswith("no result")


def test_a_mel_that_is_not_there_is_named(mixed, tmp_path):
    run, data, _ = mixed
    for name in ("codec2", "none", "al"):
        with pytest.raises(RequestError, match=f"--mel {name}: the data in .* has original, codec1, codec4; give one"):
            evaluate(run, data, mel=name)
    train(tiny_config("tokens", training={"steps": 1, "eval_every": 0}), data, tmp_path / "run")
    summary = evaluate(tmp_path / "run", data, progress=False).summary
    assert summary["mel_source"] == "none" and "by_mel_source" not in summary
    with pytest.raises(RequestError, match="--mel original: a token-only model reads no mel"):
        evaluate(tmp_path / "run", data, mel="original")


def test_limit_takes_windows_from_the_whole_split(trained):
    _, data = trained
    batches = list(evaluation_batches(data, load_index(data), "validation", 32, 4, limit=6))
    assert [len(batch.origins) for batch in batches] == [4, 2]
    assert batches[1].batch.tokens.shape[0] == 4, "the last batch is padded"
    assert not batches[1].batch.weights[2:].any()
    everything = [b for batch in evaluation_batches(data, load_index(data), "validation", 32, 4) for b in batch.origins]
    assert len(everything) > 12
    documents = {record.segments[0].document for batch in batches for record, _ in batch.origins}
    first = {record.segments[0].document for record, _ in everything[:6]}
    assert documents != first, "not just the first six windows"


def test_ratio_and_its_standard_error_match_a_bootstrap():
    rng = np.random.default_rng(0)
    counts = rng.integers(20, 400, 60)
    sums = counts * (2 + rng.normal(size=60) * 0.3)
    mean, stderr = ratio(list(sums), counts)
    draws = rng.integers(60, size=(4000, 60))
    bootstrap = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    assert mean == pytest.approx(sums.sum() / counts.sum())
    assert stderr == pytest.approx(bootstrap.std(), rel=0.08)
    assert math.isnan(ratio([1.0], np.array([5]))[1])


def test_paired_difference_cancels_what_documents_share():
    rng = np.random.default_rng(0)
    first, second = SplitScores(1), SplitScores(1)
    for i in range(50):
        hardness = rng.normal()
        first.documents[str(i)] = DocumentScores("x", 100, nll=100 * (3 + hardness) + rng.normal())
        second.documents[str(i)] = DocumentScores("x", 100, nll=100 * (2.9 + hardness) + rng.normal())
    mean, stderr = paired_difference(first, second)
    assert mean == pytest.approx(0.1, abs=4 * stderr)
    assert stderr < 0.01 < first.summary(75.0)["nll_stderr"]
    second.documents["0"].frames = 99
    with pytest.raises(ValueError, match="different frames"):
        paired_difference(first, second)


def test_ngrams_are_counts_over_predicted_frames(tmp_path):
    rng = np.random.default_rng(0)
    documents = [markov_document(f"d{i}", 50 + i, markov_matrix(), rng) for i in range(5)]
    ngrams = count_ngrams(pack_documents(documents, max_frames=32), 16)
    expected = np.zeros((17, 16), int)
    for document in documents:
        previous = 16
        for token in document.tokens[:, 0]:
            expected[previous, token] += 1
            previous = token
    np.testing.assert_array_equal(ngrams.pairs, expected)
    np.testing.assert_allclose(ngrams.bigram().sum(axis=1), 1)
    np.testing.assert_allclose(ngrams.unigram().sum(), 1)


def test_a_split_that_is_not_there_is_named(trained, tmp_path):
    run, data = trained
    with pytest.raises(RequestError, match="has no test split"):
        evaluate(run, data, split="test")
    with pytest.raises(RequestError, match="unknown split 'tset'"):
        evaluate(run, data, split="tset")


def test_bigram_baseline_is_scored_on_the_same_frames(tmp_path):
    """A process in which each token follows from the last: the bigram model knows it, the unigram model cannot."""
    rng = np.random.default_rng(0)
    documents = []
    for i in range(30):
        document = markov_document(f"d{i}", 100, markov_matrix(), rng)
        document.tokens[:, 0] = (document.tokens[0, 0] + np.arange(100)) % 16
        documents.append(document)
    write_dataset(tmp_path / "data", {"train": documents[:20], "validation": documents[20:]})
    train(tiny_config("tokens", training={"steps": 1}), tmp_path / "data", tmp_path / "run")
    summary = evaluate(tmp_path / "run", tmp_path / "data", progress=False).summary
    assert summary["unigram_nll"] == pytest.approx(math.log(16), abs=0.01)
    assert summary["bigram_nll"] < 0.15
