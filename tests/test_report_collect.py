"""Rows are gathered whole, without folders of the machine, and described."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_rows import PROSE, ROWS, document, loop_row, run_row, save
from synthetic import markov_document, markov_matrix, write_dataset

from wgpt_jax.data.index import file_sha256
from wgpt_jax.errors import RequestError
from wgpt_jax.report import describe as describing
from wgpt_jax.report.collect import CollectArgs, collect
from wgpt_jax.report.describe import shared_by
from wgpt_jax.report.main import ReportArgs, report
from wgpt_jax.report.rows import load_rows
from wgpt_jax.runs import training_data_fingerprint


@pytest.fixture
def left(tmp_path: Path, monkeypatch) -> Path:
    """A folder as tools leave it: data, rows that name it, and a picture beside a row."""
    rng, matrix = np.random.default_rng(0), markov_matrix()
    splits = {"train": 50, "test": 75}
    documents = {split: [markov_document(split, frames, matrix, rng)] for split, frames in splits.items()}
    index = write_dataset(tmp_path / "d", documents)
    monkeypatch.setattr(describing, "proof_of_causality", lambda of, folder: f"causal: 1 checks of {folder}")
    row = run_row("a", data_fingerprint=training_data_fingerprint(index))
    save(tmp_path / "results.jsonl", [row | {"command": f"wgpt ablate c.py --data piano={tmp_path}/d"}])
    (tmp_path / "loop").mkdir()
    save(tmp_path / "loop" / "closed_loop.json", [loop_row() | {"data": f"{tmp_path}/d"}])
    Image.new("RGB", (1200, 40)).save(tmp_path / "loop" / "closed_loop.png")
    return tmp_path


def test_what_is_collected_makes_a_document_that_agrees(left, capsys):
    out = left / "docs" / "results" / "results.jsonl"
    rows = left / "results.jsonl", left / "loop" / "closed_loop.json"
    collect(CollectArgs(rows=rows, data=(f"piano={left}/d",), out=out))
    kept = load_rows([out])
    assert [row["kind"] for row in kept] == ["run", "closed_loop", "data"]
    assert kept[0]["command"] == "wgpt ablate c.py --data piano=piano" and kept[1]["data"] == "piano"
    assert kept[2]["splits"]["test"] == {"hours": 1 / 3600, "documents": 1, "frames": 75}
    assert kept[2]["causality"] == "causal: 1 checks of piano"
    assert "piano stands for a folder in 3 rows" in capsys.readouterr().out
    (out.parent / "text.md").write_text(PROSE)
    report(ReportArgs(out=left / "docs" / "RESULTS.md"))
    report(ReportArgs(out=left / "docs" / "RESULTS.md", check=True))
    text = (left / "docs" / "RESULTS.md").read_text()
    assert "results/loop-piano-piano-d-hybrid.png" in text
    assert "folders of the machine that made the rows (3 of 3 rows):\n\n- piano: prepared data" in text
    assert kept[2]["tokens"].keys() == {"train", "test"}
    cut = loop_row()["sampling"] | {"top_p": 0.95, "temperature": 0.7}
    save(left / "loop" / "closed_loop.json", [loop_row() | {"data": f"{left}/d", "sampling": cut}])
    collect(CollectArgs(rows=(out, *rows), data=(f"piano={left}/d",), out=out))  # a picture of its own
    assert load_rows([out])[-1]["picture"]["file"] == "loop-piano-piano-d-hybrid-temperature0.7-top_p0.95.png"
    before = out.read_bytes()
    collect(CollectArgs(rows=(out, *rows), data=(f"piano={left}/d",), out=out))  # again: nothing is there twice
    assert out.read_bytes() == before


def test_pictures_of_equal_names_have_their_work_folders_names_only_where_they_differ(left):
    rows = [left / "loop" / "closed_loop.json"]
    for folder, colour in (("OTHER", 9), ("THIRD", 0)):  # another picture, and the first one again
        (left / folder).mkdir()
        rows.append(left / folder / "closed_loop.json")
        save(rows[-1], [loop_row() | {"data": f"{left}/d", "run": f"{folder}/piano-d"}])
        Image.new("RGB", (1200, 40), (colour, 0, 0)).save(left / folder / "closed_loop.png")
    out = left / "out.jsonl"
    collect(CollectArgs(rows=tuple(rows), name=(f"{left}/d=piano",), out=out))
    names = ["loop-piano-piano-d-hybrid.png", "loop-piano-OTHER-piano-d-hybrid.png", "loop-piano-piano-d-hybrid.png"]
    kept = load_rows([out])
    assert [row["picture"]["file"] for row in kept] == names
    for row in kept:
        assert file_sha256(left / row["picture"]["file"]) == row["picture"]["sha256"]
    before = out.read_bytes()
    collect(CollectArgs(rows=(*rows[::-1], out), name=(f"{left}/d=piano",), out=out))  # again, in another order
    assert sorted(out.read_bytes().split(b"\n")) == sorted(before.split(b"\n"))
    Image.new("RGB", (1200, 40), (0, 9, 0)).save(left / "OTHER" / "closed_loop.png")
    with pytest.raises(RequestError, match=r"another picture of OTHER/piano-d, .*; delete its row"):
        collect(CollectArgs(rows=(*rows, out), name=(f"{left}/d=piano",), out=out))


def test_documents_share_the_first_column_that_all_have_and_that_tells_them_apart():
    def test(name: str, **more) -> dict:
        return {"path": f"{name}.flac", "name": name, "fate": "used", "split": "test"} | more

    read = [test("a", speaker="x", metadata={"chapter_id": "1"}), test("b", speaker="y", metadata={"chapter_id": "1"})]
    other = [test("c", speaker="z") | {"split": "train"}, {"path": "d", "fate": "failed", "reason": "silence"}]
    assert shared_by([*read, *other]) == {"by": "speaker", "documents": [["a", "x"], ["b", "y"]]}
    works = [test("a", speaker="x", metadata={"work": 1}), test("b", speaker="x", metadata={"work": 2})]
    assert shared_by(works) == {"by": "work", "documents": [["a", "1"], ["b", "2"]]}
    plain = {"path": "e.flac", "fate": "used", "split": "test", "metadata": {"piece": "p"}}
    assert shared_by([*works, plain]) is None
    pieces = shared_by([plain, plain | {"path": "f.flac", "metadata": {"piece": "q"}}])
    assert pieces == {"by": "piece", "documents": [["e.flac", "p"], ["f.flac", "q"]]}


@pytest.mark.parametrize(
    ("resplit", "line", "said"),
    [
        (False, {"path": "a.flac", "split": "test"}, "its manifest"),
        (True, {"path": "a.flac", "split": "test"}, "file"),
        (False, {"path": "a.flac"}, "file"),
        (False, None, "its manifest, or file where that has no splits"),
    ],
)
def test_what_held_documents_out_is_the_manifest_where_it_says_so(left, resplit, line, said):
    manifest = left / "manifest.jsonl"
    if line is not None:
        save(manifest, [line])
    index = left / "d" / "index.json"
    options = {"source": str(manifest), "resplit": resplit, "split_by": "file"}
    index.write_text(json.dumps(json.loads(index.read_text()) | {"options": options}))
    assert describing.describe_data("piano", left / "d")["split_by"] == said


def test_a_row_whose_folder_has_no_name_is_not_collected(left):
    save(left / "results.jsonl", [run_row("a", command="wgpt ablate --workdir /scratch/runs")])
    with pytest.raises(RequestError, match=r"command; say what stands for it: --name /scratch/runs=NAME"):
        collect(CollectArgs(rows=(left / "results.jsonl",), out=left / "out.jsonl"))
    assert not (left / "out.jsonl").exists()


def test_what_was_collected_before_is_never_lost_by_forgetting_it(left):
    save(left / "results.jsonl", [run_row("a")])
    out = left / "out.jsonl"
    save(out, ROWS)
    with pytest.raises(RequestError, match=r"out\.jsonl is there and not among the rows: name it too"):
        collect(CollectArgs(rows=(left / "results.jsonl",), out=out))
    assert len(load_rows([out])) == len(ROWS)
    with pytest.raises(RequestError, match="there are no rows; name files"):
        collect(CollectArgs(out=left / "new.jsonl"))


def test_a_picture_with_a_folder_in_its_title_is_left_out_and_told(left, capsys):
    save(left / "loop" / "closed_loop.json", [loop_row() | {"run": "/scratch/piano-d"}])
    rows = (left / "loop" / "closed_loop.json",)
    collect(CollectArgs(rows=rows, name=("/scratch=runs",), out=left / "out.jsonl"))
    assert "closed_loop.png is left out: its title names /scratch/piano-d" in capsys.readouterr().out
    assert "picture" not in load_rows([left / "out.jsonl"])[0]


def test_a_name_for_a_folder_is_explained_where_rows_know_it():
    work = run_row("d", command="wgpt ablate c.py --workdir WORK") | {"renamed": ["WORK", "ELSE"]}
    command = "python tools/closed_loop_quality.py RUNS/piano-a-0.5m-seed1 --data piano --out LOOPS/a"
    loop = loop_row() | {"run": "RUNS/piano-a-0.5m-seed1", "command": command, "renamed": ["LOOPS", "RUNS"]}
    text = document([*ROWS[:3], work, loop])
    loops = "- LOOPS: closed loops, as they were measured\n"
    assert f"- ELSE: not recorded\n{loops}- RUNS: runs of synthetic\n- WORK: runs of synthetic" in text
