"""Data that was made again elsewhere counts as one, if its tokens are shown to be the same, and only then."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from report_rows import ROWS, baseline_row, cells, data_row, document, run_row, tune_row
from synthetic import markov_document, markov_matrix, write_dataset

from wgpt_jax.data.identity import token_hashes
from wgpt_jax.data.records import Document
from wgpt_jax.errors import RequestError
from wgpt_jax.report.groups import make_groups
from wgpt_jax.report.same_data import unify
from wgpt_jax.report.sweeps import swept

OTHER = "f" * 16
HASHES = {"train": "1" * 16, "test": "2" * 16}


def made_again(**more) -> dict:
    return data_row(data_fingerprint=OTHER, **more)


def elsewhere(rows: list[dict]) -> list[dict]:
    return [row | {"data_fingerprint": OTHER} for row in rows]


# Hashes of tokens


@pytest.fixture
def documents() -> list[Document]:
    rng, matrix = np.random.default_rng(0), markov_matrix()
    return [markov_document(f"train/{n}", 40 + n, matrix, rng) for n in range(4)]


def hashes(folder: Path, documents: list[Document], max_frames: int = 64) -> dict[str, str]:
    return token_hashes(folder, write_dataset(folder, {"train": documents, "test": documents[:1]}, max_frames))


def test_tokens_have_one_hash_whatever_their_order_their_records_and_their_mels(tmp_path, documents):
    first = hashes(tmp_path / "a", documents)
    rounded = [dataclasses.replace(each, mel=each.mel + np.float16(0.01)) for each in documents]
    again = hashes(tmp_path / "b", rounded[:1] + rounded[:0:-1], max_frames=32)
    assert first == again and first.keys() == {"train", "test"}


@pytest.mark.parametrize("codebook", [0, 1])
def test_another_token_of_any_codebook_or_another_name_is_another_hash(tmp_path, documents, codebook):
    first = hashes(tmp_path / "a", documents)
    tokens = documents[2].tokens.copy()
    tokens[7, codebook] = (tokens[7, codebook] + 1) % 16
    changed = dataclasses.replace(documents[2], tokens=tokens)
    renamed = dataclasses.replace(documents[2], name="train/other")
    for number, other in enumerate((changed, renamed)):
        found = hashes(tmp_path / str(number), [*documents[:2], other, documents[3]])
        assert found["train"] != first["train"] and found["test"] == first["test"]


# One data set of two preparations


def fingerprints(rows: list[dict]) -> set[str]:
    return {group.fingerprint for group in make_groups(unify(rows)[0])}


def test_equal_hashes_of_all_tokens_make_one_data_set():
    rows = [data_row(tokens=HASHES), *ROWS[:6], made_again(tokens=HASHES), *elsewhere(ROWS[6:])]
    assert fingerprints(rows) == {ROWS[0]["data_fingerprint"]}
    text = document(rows)
    assert f"piano was prepared twice, 0123456789abcdef and {OTHER}, and is taken as one data set" in text
    assert "the tokens of all codebooks of every document are equal" in text and "may differ in rounding" in text
    assert cells(text, "| 0.5m | d - a |")[2] == "3"


def test_rows_are_unified_in_memory_only():
    rows = [data_row(tokens=HASHES), *ROWS[:3], made_again(tokens=HASHES), *elsewhere(ROWS[6:])]
    before = copy.deepcopy(rows)
    document(rows)
    assert rows == before


def test_older_rows_without_hashes_need_equal_n_gram_scores_of_both():
    rows = [data_row(), *ROWS[:6], made_again(tokens=HASHES), *elsewhere(ROWS[6:])]
    assert len(fingerprints(rows)) == 2
    scores = [baseline_row(), baseline_row(data_fingerprint=OTHER, machine="another")]
    assert len(fingerprints([*rows, scores[0]])) == 2
    assert len(fingerprints([*rows, *scores])) == 1
    text = document([*rows, *scores])
    assert "the coarse tokens of the test split have the same NLL, with the same standard error, in every digit" in text
    assert text.count("| piano | test |") == 1  # equal baselines stand once
    for key in ("unigram_nll", "trigram_nll_stderr", "frames"):
        other = scores[1] | {key: scores[1][key] + 1e-12 if "nll" in key else scores[1][key] + 1}
        assert len(fingerprints([*rows, scores[0], other])) == 2, key
        said = document([*rows, scores[0], other])
        assert f"{OTHER} is not taken as the same data as 0123456789abcdef" in said
        assert said.count("| piano | test |") == 2


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": HASHES | {"test": "3" * 16}},
        {"codec": "another"},
        {"codec_fingerprint": "b"},
        {"codec_causal": False},
        {"codebooks": 8},
        {"mel_sources": ["original", "codec1"]},
        {"mel": "b"},
        {"splits": {"test": {"hours": 1.0, "documents": 2, "frames": 3}}},
        {"test_groups": {"by": "work", "documents": [[f"d{n}", "x"] for n in range(5)]}},
        {"data": "reading"},
    ],
)
def test_whatever_else_differs_makes_two(change):
    first = data_row(tokens=HASHES, mel="a", codec_fingerprint="a")
    scores = [baseline_row(), baseline_row(data_fingerprint=OTHER)]
    again = first | {"data_fingerprint": OTHER}
    rest = [*ROWS[:3], *elsewhere(ROWS[:3]), *scores]
    assert len({row["data_fingerprint"] for row in unify([first, again, *rest])[0] if row["kind"] == "run"}) == 1
    rows = [first, again | change, *rest]
    if "data" in change:
        rows = [row | {"data": "reading"} if row["data_fingerprint"] == OTHER else row for row in rows]
    assert len(fingerprints(rows)) == 2


def test_the_same_run_on_both_is_there_twice():
    rows = [data_row(tokens=HASHES), *ROWS[:3], made_again(tokens=HASHES), *elsewhere(ROWS[:1])]
    with pytest.raises(RequestError, match=r"two final rows of piano, arm a, size 0\.5m, seed 0"):
        document(rows)


def test_points_of_a_sweep_on_both_are_one_sweep():
    tunes = [tune_row("a", rate, 0.3, nll) for rate, nll in ((1e-3, 4.3), (2e-3, 4.2), (4e-3, 4.4))]
    rows = [data_row(tokens=HASHES), *ROWS, *tunes[:2], made_again(tokens=HASHES), *elsewhere(tunes[2:])]
    assert swept(make_groups(unify(rows)[0])[0], "a", "0.5m").tried == "3"


def test_a_point_that_was_tried_on_both_is_one():
    tunes = [tune_row("a", rate, 0.3, nll) for rate, nll in ((1e-3, 4.3), (2e-3, 4.2))]
    again = [row | {"commit": "def5678"} for row in elsewhere(tunes[1:])]
    rows = [data_row(tokens=HASHES), *ROWS, *tunes, made_again(tokens=HASHES), *again]
    assert cells(document(rows), "| synthetic | piano (0123456789abcdef) | 1,000 x 8 x 256 |")[-1] == (
        "2 runs of 500 steps, on piano"
    )
    apart = [data_row(tokens=HASHES), *ROWS, *tunes, *(row | {"seed": 1} for row in tunes)]  # another seed, other runs
    assert "| 4 runs of 500 steps, on piano |" in document(apart)
    assert "| 1 run of 500 steps, on piano |" in document([*ROWS, tunes[1]])


def test_what_a_row_does_not_record_is_said_not_to_be_compared():
    scores = [baseline_row(), baseline_row(data_fingerprint=OTHER)]
    new = {"tokens": HASHES, "mel": "a", "codec_fingerprint": "a"}
    rows = [*ROWS[:3], *elsewhere(ROWS[3:6]), *scores]
    older = (
        "; not recorded of 0123456789abcdef, hence not compared: the mel's definition, the codec's hash and tokens of "
    )
    assert f"{older}the codebooks above the first. Its mels" in document([data_row(), made_again(**new), *rows])
    both = document([data_row(mel="a"), made_again(mel="a"), *rows])
    assert f"; not recorded of 0123456789abcdef and {OTHER}, hence not compared: the codec's hash and tokens" in both
    assert "not recorded of" not in document([data_row(**new), made_again(**new), *rows])


def test_the_proof_of_causality_of_both_must_hold():
    rows = [data_row(tokens=HASHES), *ROWS, made_again(tokens=HASHES, causality="1 of 6 checks failed")]
    said = cells(document(rows), "| nothing sees the future")
    assert said[-1] == "NO" and said[1] == f"data piano ({OTHER}): 1 of 6 checks failed"


def test_a_third_preparation_is_compared_with_the_first():
    third = data_row(data_fingerprint="e" * 16, tokens=HASHES)
    rows = [data_row(tokens=HASHES), made_again(tokens=HASHES), third, *ROWS[:1], *elsewhere([run_row("a", 1)])]
    rows, matches = unify([*rows, run_row("a", 2, data_fingerprint="e" * 16)])
    assert {row["data_fingerprint"] for row in rows if row["kind"] == "run"} == {ROWS[0]["data_fingerprint"]}
    assert [match.first for match in matches] == [ROWS[0]["data_fingerprint"]] * 2
