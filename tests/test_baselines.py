"""n-gram baselines: what a slow dictionary says, whatever records the documents are cut into."""

import json
import math
import runpy
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import markov_dataset, markov_document, markov_matrix, write_dataset

from wgpt_jax.command import run_command
from wgpt_jax.data import trigrams as trigrams_module
from wgpt_jax.data.baselines import documents, score_baselines, score_documents
from wgpt_jax.data.index import load_index
from wgpt_jax.data.ngrams import NGrams
from wgpt_jax.data.trigrams import count_trigrams, last_two
from wgpt_jax.errors import RequestError, WorkError

ROOT = Path(__file__).parents[1]


class ByHand:
    """Interpolated Witten-Bell of any order, with a dictionary from each history to what followed it."""

    def __init__(self, training, vocabulary):
        self.vocabulary = vocabulary
        self.followed = defaultdict(Counter)
        for tokens in training:
            padded = [vocabulary, vocabulary, *map(int, tokens)]
            for t in range(2, len(padded)):
                for order in range(3):
                    self.followed[tuple(padded[t - order : t])][padded[t]] += 1

    def probability(self, history, token):
        counts = self.followed[tuple(history)]
        if not history:
            return (counts[token] + 1) / (counts.total() + self.vocabulary)
        kinds = max(len(counts), 1)
        return (counts[token] + kinds * self.probability(history[1:], token)) / (counts.total() + kinds)

    def nats(self, tokens, order):
        padded = [self.vocabulary] * order + [int(token) for token in tokens]
        pairs = ((padded[t - order : t], padded[t]) for t in range(order, len(padded)))
        return -sum(math.log(self.probability(history, token)) for history, token in pairs)


def bigrams_of(training, vocabulary) -> NGrams:
    pairs = np.zeros((vocabulary + 1, vocabulary), np.int64)
    for tokens in training:
        for previous, token in zip([vocabulary, *tokens[:-1]], tokens, strict=True):
            pairs[previous, token] += 1
    return NGrams(pairs)


corpora = st.integers(1, 5).flatmap(
    lambda size: st.tuples(
        st.just(size), st.lists(st.lists(st.integers(0, size - 1), min_size=1, max_size=30), min_size=1, max_size=8)
    )
)


@settings(deadline=None, max_examples=60)
@given(corpora, st.integers(1, 40))
def test_trigrams_are_what_a_dictionary_says_and_sum_to_one(corpus, pending):
    vocabulary, lists = corpus
    training = [np.array(tokens) for tokens in lists]
    by_hand = ByHand(training, vocabulary)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trigrams_module, "_PENDING", pending)
        trigrams = count_trigrams(training, bigrams_of(training, vocabulary))
    for before in range(vocabulary + 1):
        for previous in range(vocabulary + 1):
            history = np.full(vocabulary, before), np.full(vocabulary, previous)
            row = trigrams.probability(*history, np.arange(vocabulary))
            assert row.sum() == pytest.approx(1)
            expected = [by_hand.probability((before, previous), token) for token in range(vocabulary)]
            np.testing.assert_allclose(row, expected, rtol=1e-12)


def test_without_training_documents_every_token_is_as_likely():
    trigrams = count_trigrams([], NGrams(np.zeros((5, 4), np.int64)))
    np.testing.assert_allclose(trigrams.probability(np.full(4, 2), np.full(4, 4), np.arange(4)), 0.25)


def test_the_two_tokens_before_a_frame_are_its_documents():
    before, previous = last_two(np.array([5, 6, 7]), bos=9)
    assert (before.tolist(), previous.tolist()) == ([9, 9, 5], [9, 5, 6])


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """Documents of up to 200 frames in records of 32: most begin in the middle of one."""
    rng = np.random.default_rng(0)
    splits = {
        split: [
            markov_document(f"{split}/{i}", int(rng.integers(1, 200)), markov_matrix(), rng, domain="ab"[i % 2])
            for i in range(count)
        ]
        for split, count in (("train", 20), ("validation", 9))
    }
    folder = tmp_path_factory.mktemp("baselines")
    write_dataset(folder, splits, max_frames=32)
    return folder, splits


def test_documents_come_whole_out_of_their_records(cut):
    folder, splits = cut
    for split, written in splits.items():
        read = list(documents(folder, load_index(folder), split))
        assert [(name, domain) for name, domain, _ in read] == [(d.name, d.domain) for d in written]
        for (_, _, tokens), document in zip(read, written, strict=True):
            np.testing.assert_array_equal(tokens, document.tokens[:, 0])


def test_every_document_is_scored_as_by_hand(cut):
    folder, splits = cut
    by_hand = ByHand([document.tokens[:, 0] for document in splits["train"]], 16)
    rows = {row.document: row for row in score_documents(folder, "validation")}
    assert list(rows) == [document.name for document in splits["validation"]]
    for document in splits["validation"]:
        row = rows[document.name]
        assert (row.frames, row.domain) == (len(document.tokens), document.domain)
        expected = [by_hand.nats(document.tokens[:, 0], order) for order in range(3)]
        assert [row.unigram, row.bigram, row.trigram] == pytest.approx(expected, rel=1e-10)


def test_the_summary_is_a_ratio_over_documents(cut):
    folder, _ = cut
    rows, summary = score_documents(folder, "validation"), score_baselines(folder, "validation")
    frames = np.array([row.frames for row in rows])
    assert (summary["documents"], summary["frames"]) == (9, frames.sum())
    rng = np.random.default_rng(0)
    for model in ("unigram", "bigram", "trigram"):
        nats = np.array([getattr(row, model) for row in rows])
        assert summary[f"{model}_nll"] == pytest.approx(nats.sum() / frames.sum())
        draws = rng.integers(9, size=(4000, 9))
        bootstrap = (nats[draws].sum(axis=1) / frames[draws].sum(axis=1)).std()
        assert summary[f"{model}_nll_stderr"] == pytest.approx(bootstrap, rel=0.35)


def test_a_trigram_knows_what_only_two_tokens_tell(tmp_path):
    """A token that is the sum of the two before it: the trigram model learns it, the bigram model cannot."""
    rng = np.random.default_rng(0)
    written = []
    for i in range(60):
        document = markov_document(f"d{i}", 100, markov_matrix(), rng)
        for t in range(2, 100):
            document.tokens[t, 0] = document.tokens[t - 2 : t, 0].sum() % 16
        written.append(document)
    write_dataset(tmp_path, {"train": written[:40], "test": written[40:]}, max_frames=64)
    summary = score_baselines(tmp_path, "test")
    assert summary["bigram_nll"] > 2
    assert summary["trigram_nll"] < 0.6


def test_the_command_prints_a_row_for_the_results(cut, capsys, monkeypatch):
    folder, _ = cut
    tool = runpy.run_path(str(ROOT / "tools/baselines.py"))
    argv = [str(folder), "--split", "validation"]
    monkeypatch.setattr(sys, "argv", ["baselines.py", *argv, "--json"])
    assert run_command(tool["main"], tool["Args"], [*argv, "--json"]) == 0
    row, summary = json.loads(capsys.readouterr().out), score_baselines(folder, "validation")
    assert row["kind"] == "baseline" and summary.items() <= row.items()
    assert row["command"].endswith("--split validation --json")
    assert run_command(tool["main"], tool["Args"], argv) == 0
    assert f"trigram  {summary['trigram_nll']:8.4f}" in capsys.readouterr().out


def test_a_split_that_is_not_there_and_a_damaged_shard_are_named(tmp_path):
    markov_dataset(tmp_path, train=3, validation=2)
    with pytest.raises(RequestError, match="has no test split"):
        score_baselines(tmp_path, "test")
    shard = tmp_path / "validation-00000.array_record"
    damaged = bytearray(shard.read_bytes())
    damaged[100:400] = bytes(300)
    shard.write_bytes(damaged)
    with pytest.raises(WorkError, match=r"validation-00000\.array_record is damaged"):
        score_baselines(tmp_path, "validation")
