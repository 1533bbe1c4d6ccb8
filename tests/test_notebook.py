"""The notebook in its tiny mode, run from its first cell to its last as CI runs it."""

import base64
import configparser
import io
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import ipykernel.kernelspec
import matplotlib.colors
import matplotlib.image
import nbclient
import nbformat
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "notebooks/ablation.ipynb"


@pytest.fixture(scope="module")
def committed() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> tuple[Path, nbformat.NotebookNode]:
    """The notebook after all its cells, and the folder that it ran in."""
    work = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patched:
        # The kernel of this interpreter, and none of the user's own.
        ipykernel.kernelspec.install(prefix=str(work / "jupyter"), kernel_name="this-python")
        patched.setenv("JUPYTER_PATH", str(work / "jupyter/share/jupyter"))
        patched.setenv("JUPYTER_RUNTIME_DIR", str(work / "runtime"))
        patched.setenv("IPYTHONDIR", str(work / "ipython"))
        patched.setenv("WGPT_NOTEBOOK_MODE", "tiny")
        patched.setenv("WGPT_NOTEBOOK_RUNS", str(work / "runs"))
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        place = {"metadata": {"path": str(work)}}
        client = nbclient.NotebookClient(
            notebook, timeout=3600, startup_timeout=600, kernel_name="this-python", resources=place
        )
        client.execute()
    return work, notebook


@pytest.fixture(scope="module")
def finals(executed) -> dict[str, list[dict]]:
    """The rows of the final runs by what they read, each sorted by parameters."""
    rows = sorted((row for row in rows_of(executed[0]) if row["stage"] == "final"), key=lambda row: row["parameters"])
    return {inputs: [row for row in rows if row["inputs"] == inputs] for inputs in ("tokens", "hybrid")}


def rows_of(work: Path) -> list[dict]:
    """The rows of all runs."""
    (results,) = work.glob("runs/*/results.jsonl")
    return [json.loads(line) for line in results.read_text().splitlines()]


def text_of(notebook: nbformat.NotebookNode, cell_id: str) -> str:
    """All text that a cell has put out."""
    parts = []
    for output in outputs_of(notebook, cell_id):
        data = output.get("data", {})
        parts += [output.get("text", ""), data.get("text/markdown", ""), data.get("text/plain", "")]
    return "\n".join(parts)


def outputs_of(notebook: nbformat.NotebookNode, cell_id: str) -> list[nbformat.NotebookNode]:
    return cell_of(notebook, cell_id).outputs


def cell_of(notebook: nbformat.NotebookNode, cell_id: str) -> nbformat.NotebookNode:
    return next(cell for cell in notebook.cells if cell.id == cell_id)


def test_every_cell_runs_without_an_error_and_nothing_is_installed(executed):
    work, notebook = executed
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert text_of(notebook, "install").strip() == "wgpt_jax is installed"
    assert not (work / "wgpt").exists(), "nothing was cloned"


def test_table_before_training_has_the_parameters_of_the_models_that_were_trained(executed, finals):
    table = text_of(executed[1], "counts")
    ids = [cell.id for cell in executed[1].cells]
    assert ids.index("counts") < ids.index("train")
    assert len(finals["tokens"]) == len(finals["hybrid"]) == 2
    for row in (*finals["tokens"], *finals["hybrid"]):
        (line,) = (line for line in table.splitlines() if line.split()[:2] == [row["size"], row["arm"]])
        assert f"{row['parameters']:,}" in line.split()
        run = executed[0] / f"runs/notebook_tiny_synthetic/runs/synthetic-{row['arm']}-{row['size']}-seed0/run.json"
        assert sum(json.loads(run.read_text())["parameters"].values()) == row["parameters"], "as training counted them"


def test_curves_and_the_last_figure_are_pictures(executed):
    for cell_id in ("train", "figure"):
        found = [output.get("data", {}).get("image/png") for output in outputs_of(executed[1], cell_id)]
        pngs = [png for png in found if png]
        assert len(pngs) == 1, cell_id
        picture = matplotlib.image.imread(io.BytesIO(base64.b64decode(pngs[0])), format="png")[..., :3]
        assert min(picture.shape[:2]) > 300, cell_id
        colours = np.unique(picture.reshape(-1, 3), axis=0)
        for colour in (matplotlib.colors.to_rgb("C0"), matplotlib.colors.to_rgb("C1")):
            assert np.abs(colours - colour).sum(axis=1).min() < 0.02, f"{cell_id}: an arm is not drawn"
    assert "\nresults in " in text_of(executed[1], "train"), "under the curves stands what wgpt ablate says at its end"


def test_what_is_shown_are_the_scores_of_the_test_split_with_their_proofs(executed, finals):
    table = text_of(executed[1], "results").splitlines()
    for row in (*finals["tokens"], *finals["hybrid"]):
        assert row["split"] == "test"
        (line,) = (line for line in table if f"| {row['parameters']:,} |" in line and row["title"] in line)
        nll = sum(document[2] for document in row["documents"]) / sum(document[1] for document in row["documents"])
        assert f"| {nll:.3f} |" in line
        assert row["causality"].startswith("causal: ") and row["causality"] in line


def test_multiplier_is_where_the_line_through_the_token_only_sizes_has_the_hybrids_nll(executed, finals):
    said = text_of(executed[1], "figure").splitlines()
    small, large = ((math.log(row["parameters"]), row["evaluation"]["nll"]) for row in finals["tokens"])
    for row in finals["hybrid"]:
        (line,) = (line for line in said if f"hybrid of {row['parameters']:,} parameters" in line)
        nll = row["evaluation"]["nll"]
        if small[1] <= nll or large[1] > nll:
            side, end = ("less", small[0]) if small[1] <= nll else ("more", large[0])
            assert f"multiplier {side} than {math.exp(end) / row['parameters']:.2f}: " in line
        else:
            reached = small[0] + (nll - small[1]) * (large[0] - small[0]) / (large[1] - small[1])
            ratio = math.exp(reached) / row["parameters"]
            assert float(re.search(r"multiplier ([\d.]+)", line)[1]) == pytest.approx(ratio, abs=0.006)


def test_the_end_says_how_long_the_runs_took(executed):
    (seconds,) = re.findall(r"took (\d+) s of wall time", text_of(executed[1], "figure"))
    trained = sum(row["train_seconds"] for row in rows_of(executed[0]))
    assert 0 < trained / 2 <= int(seconds) < 3600, "two runs at a time at most"


def test_it_is_committed_without_outputs_or_places_of_a_machine(committed):
    nbformat.validate(committed)
    for cell in committed.cells:
        assert not re.search(r"(^|[\s\"'(=])/(home|root|tmp|work|content|Users|opt|mnt)\b", cell.source), cell.id
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None, f"clear the outputs of {cell.id}"
            assert len(cell.source.splitlines()) <= 45, f"{cell.id} is long"
    assert committed.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize(
    ("device", "extras", "wanted"),
    [
        (None, "prepare", []),
        ("tpu", "prepare,tpu", []),
        ("580.65.06", "prepare", ["jax[cuda13]"]),
        ("550.54.15", "prepare", ["jax[cuda12]"]),
    ],
)
def test_first_cell_clones_and_installs_for_the_machine(committed, tmp_path, monkeypatch, device, extras, wanted):
    calls = []

    def run(words, check):
        assert check
        calls.append(words)
        if words[0] == "git":
            Path(words[-1]).mkdir()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("glob.glob", lambda pattern: ["/dev/accel0"] if device == "tpu" else [])
    monkeypatch.setattr("shutil.which", lambda name: name if device not in (None, "tpu") else None)
    monkeypatch.setattr(subprocess, "check_output", lambda *_, **__: f"{device}\n{device}\n")
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys, "path", list(sys.path))
    names = {}
    source = cell_of(committed, "install").source
    with pytest.raises(SystemExit, match="where wgpt_jax is"):
        exec(compile(source, "install", "exec"), {})
    source = source.replace('"REPOSITORY"  #', '"https://example.org/wgpt"  #')
    exec(compile(source, "install", "exec"), names)
    clone = tmp_path / "wgpt"
    assert calls[0] == ["git", "clone", "https://example.org/wgpt", str(clone)]
    assert calls[1] == [sys.executable, "-m", "pip", "install", "-q", "-e", f"{clone}[{extras}]", *wanted]
    assert names["ROOT"] == clone and sys.path[0] == str(clone), "this very kernel can import it"
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert set(extras.split(",")) <= set(setup["options.extras_require"])
    calls.clear()
    exec(compile(source, "install", "exec"), {})
    assert len(calls) == 1, "a clone that is there is not made again"


def test_an_unknown_mode_is_named(committed, monkeypatch):
    monkeypatch.setenv("WGPT_NOTEBOOK_MODE", "medium")
    with pytest.raises(ValueError, match="MODE is 'medium'; give tiny or full"):
        exec(compile(cell_of(committed, "settings").source, "settings", "exec"), {"Path": Path, "ROOT": ROOT})
