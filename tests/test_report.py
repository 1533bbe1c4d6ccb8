"""The report says what the rows say, every digit of it, and notices when it does not."""

import copy
import hashlib
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from report_rows import (
    FRAMES,
    PROSE,
    ROWS,
    baseline_row,
    cells,
    contest_row,
    data_row,
    document,
    loop_row,
    run_row,
    save,
)

from wgpt_jax.ablation.sizing import groups
from wgpt_jax.command import guarded, run_command
from wgpt_jax.config import run_file
from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.figure import Figure, Panel, Series, stamp_of
from wgpt_jax.report.collect import portable, smaller
from wgpt_jax.report.document import PASSAGES
from wgpt_jax.report.main import ReportArgs, report
from wgpt_jax.report.paper import PAPER, slips
from wgpt_jax.report.rows import load_rows
from wgpt_jax.report.text import read_text

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A document with its rows, prose and figures."""
    return write(tmp_path, ROWS)


def write(folder: Path, rows: list[dict]) -> Path:
    results = folder / "results"
    results.mkdir()
    (results / "text.md").write_text(PROSE)
    save(results / "results.jsonl", rows)
    report(ReportArgs(out=folder / "RESULTS.md"))
    return folder / "RESULTS.md"


def check(out: Path) -> None:
    report(ReportArgs(out=out, check=True))


# Agreement


def test_the_committed_document_is_what_the_committed_rows_say():
    check(DOCS / "RESULTS.md")


def test_readme_quotes_differences_and_intervals_that_the_committed_document_has():
    number = r"[-+]\d\.\d{3}"
    readme = " ".join((ROOT / "README.md").read_text().split())
    quoted = re.findall(rf"({number}) \(({number} to {number})\)", readme)
    document = (DOCS / "RESULTS.md").read_text()
    assert len(quoted) > 5

    def there(value: str, interval: str) -> bool:
        return f"| {value} | {interval} |" in document or f"{value} ({interval})" in document

    assert [pair for pair in quoted if not there(*pair)] == []


def test_a_changed_digit_in_the_document_is_named_with_its_line(written, capsys):
    check(written)
    lines = written.read_text().split("\n")
    number = next(n for n, line in enumerate(lines) if line.startswith("| 0.5m | c | 3 |"))
    lines[number] = lines[number].replace("25.00", "25.01")
    written.write_text("\n".join(lines))
    assert guarded(lambda: check(written)) == 1
    said = capsys.readouterr().err
    assert f"line {number + 1}" in said and "25.01" in said and "25.00" in said and said.count("\n") == 1


def test_a_changed_row_is_noticed(written):
    rows = copy.deepcopy(ROWS)
    rows[2]["documents"][3][3] += 20.0
    save(written.parent / "results" / "results.jsonl", rows)
    with pytest.raises(RequestError, match=r"results\.jsonl: row 3 says NLL .* its documents say"):
        check(written)
    rows[2]["evaluation"]["total_nll"] += 20.0 / sum(FRAMES)
    save(written.parent / "results" / "results.jsonl", rows)
    with pytest.raises(WorkError, match="the rows say"):
        check(written)


def test_a_line_without_an_end_and_a_file_without_rows_are_no_rows(written):
    file = written.parent / "results" / "results.jsonl"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(RequestError, match="the last line has no end"):
        check(written)
    file.write_text("")
    with pytest.raises(RequestError, match="no rows; collect some"):
        check(written)


def test_a_missing_row_is_noticed(written):
    save(written.parent / "results" / "results.jsonl", ROWS[:-1])
    with pytest.raises(WorkError, match="the rows say"):
        check(written)


def test_a_missing_figure_is_noticed(written):
    figure = next((written.parent / "results").glob("curves-*.png"))
    figure.unlink()
    with pytest.raises(WorkError, match=f"{re.escape(figure.name)} is not there"):
        check(written)


def test_a_figure_of_other_numbers_is_noticed_and_one_of_other_pixels_is_not(written):
    """What matplotlib makes of the numbers differs between versions, so pixels do not count."""
    rows = copy.deepcopy(ROWS)
    rows[0]["evaluation"]["by_position"][1]["nll"] = 4.6  # in no table
    save(written.parent / "results" / "results.jsonl", rows)
    with pytest.raises(WorkError, match=r"position-.* shows other numbers"):
        check(written)
    save(written.parent / "results" / "results.jsonl", ROWS)
    figure = next((written.parent / "results").glob("curves-*.png"))
    stamp = PngInfo()
    stamp.add_text("Numbers", stamp_of(figure))
    Image.new("RGB", (9, 9)).save(figure, pnginfo=stamp)
    check(written)


def test_a_figure_that_the_document_no_longer_has_is_noticed_and_then_deleted(written):
    figure = next((written.parent / "results").glob("curves-*.png"))
    stray = shutil.copyfile(figure, figure.with_name("curves-of-old.png"))
    other = figure.with_name("from-elsewhere.png")
    Image.new("RGB", (9, 9)).save(other)
    with pytest.raises(WorkError, match=r"curves-of-old.png is a figure that the document does not have"):
        check(written)
    report(ReportArgs(out=written))
    check(written)
    assert other.exists() and not stray.exists()


def test_a_picture_that_a_row_refers_to_must_be_there_unchanged(tmp_path):
    (tmp_path / "picture").mkdir()
    source = tmp_path / "picture" / "closed_loop.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 1200, 3), np.uint8)).save(source)
    png = smaller(source)
    row = loop_row() | {"picture": {"file": "loop.png", "sha256": hashlib.sha256(png).hexdigest()}}
    with pytest.raises(WorkError, match=r"loop.png is not there"):
        write(tmp_path, [*ROWS, row])
    (tmp_path / "results" / "loop.png").write_bytes(png)
    out = tmp_path / "RESULTS.md"
    report(ReportArgs(out=out))
    check(out)
    assert "](results/loop.png)" in out.read_text()
    (tmp_path / "results" / "loop.png").write_bytes(png[:-20])
    with pytest.raises(WorkError, match="not the picture"):
        check(out)


# What is said


def test_an_nll_is_the_nats_of_all_frames_over_their_number_and_its_errors_are_over_documents_and_seeds():
    row = cells(document(ROWS), "| 0.5m | a | 3 |")
    runs = np.array([[nats for _, _, _, nats in run["documents"]] for run in ROWS[:3]])
    frames = np.array(FRAMES)
    by_seed = runs.sum(axis=1) / frames.sum()
    mean = runs.mean(axis=0)
    residuals = mean - by_seed.mean() * frames
    stderr = np.sqrt(len(frames) / (len(frames) - 1) * (residuals**2).sum()) / frames.sum()
    assert row[3:6] == [f"{by_seed.mean():.4f}", f"{stderr:.4f}", f"{by_seed.std(ddof=1):.4f}"]


def test_the_contest_is_of_all_codebooks_and_tells_frames_from_steps():
    levels = {"g": 12.0, "g2": 11.0, "h": 10.5, "h-add": 10.6, "i": 11.5}
    rows = [contest_row(arm, seed, level) for arm, level in levels.items() for seed in range(3)]
    text = document(rows)
    contest = text[text.index("## 4.") : text.index("## 5.")]
    assert "- h, h-add: a likelihood of all 4 codebooks, in their total" in contest
    made = {arm: cells(contest, f"| 0.5m | {arm} | title of") for arm in levels}
    assert made["h"][9:11] == ["2,048,000", "2,048,000"] and made["i"][9:11] == ["512,000", "2,048,000"]
    scored = {arm: cells(contest, f"| 0.5m | {arm} | 3 |") for arm in levels}
    h, g = ([row for row in rows if row["arm"] == arm] for arm in ("h", "g"))
    bits = [sum(n for *_, n in row["documents"]) / sum(FRAMES) * 75 / math.log(2) for row in h]
    assert scored["h"][7] == f"{np.mean(bits):.1f}"
    nats = [np.mean([sum(n for *_, n in row["documents"]) / sum(FRAMES) for row in arm]) for arm in (h, g)]
    pairs = {pair: cells(contest, f"| 0.5m | {pair} |") for pair in ("h - g", "h-add - h", "i - g2")}
    apart = nats[0] - nats[1]
    assert pairs["h - g"][2:4] == ["3", f"{apart:+.3f}"] and pairs["h - g"][5] == "h wins"
    assert pairs["h - g"][6] == f"{apart * 75 / math.log(2):+.1f}"
    assert pairs["h-add - h"][5] == "h-add loses" and pairs["i - g2"][5] == "i loses"
    nats = [sum(n for row in arm for *_, n, _ in row["documents"]) / (3 * sum(FRAMES)) for arm in (h, g)]
    assert pairs["h - g"][7].startswith(f"{nats[0] - nats[1]:+.3f} (")
    assert "i saw 0.25 of the frames of g" in cells(text, "| all codebooks out: flattened against delay")[-1]


def test_baselines_and_floors_stand_with_their_errors():
    floor = {
        "kind": "markov",
        "data": "markov1",
        "order": 1,
        "vocabulary": 32,
        "inputs": "tokens",
        "mel_source": "none",
    }
    floor |= {"output_codebooks": 1, "parameters": 60000, "entropy_rate": 1.05, "floor": 1.06, "nll": 1.065}
    floor |= {"excess": 0.005, "excess_stderr": 0.0004, "excess_percent": 0.4717}
    text = document([*ROWS, baseline_row(), floor, floor | {"inputs": "hybrid", "excess_percent": 1.2}])
    assert cells(text, "| piano | test |")[4:] == ["6.0000 +- 0.2500", "5.0000 +- 0.2500", "4.0000 +- 0.2500"]
    assert cells(text, "| order 1, 32 tokens | tokens |")[4:] == [
        "1.0500",
        "1.0600",
        "1.0650",
        "+0.00500 +- 0.00040",
        "+0.472",
    ]
    said = [line for line in text.split("\n") if "source of known entropy is learned" in line]
    assert [line.strip(" |").split("|")[-1].strip() for line in said] == ["yes", "NO"]


def test_a_section_without_rows_says_which_command_fills_it():
    text = document(ROWS)
    contest = text[text.index("## 4.") : text.index("## 5.")]
    assert "`wgpt ablate configs/ablation_codebooks.py --data piano=DATA --workdir runs/ablation_codebooks`" in contest
    assert (ROOT / "configs" / "ablation_codebooks.py").is_file()
    for tool in ("baselines", "markov_floor", "closed_loop_quality", "collect_results"):
        assert f"python tools/{tool}.py" in text and (ROOT / "tools" / f"{tool}.py").is_file()


def test_documents_of_one_speaker_count_as_one_where_the_data_says_so():
    """All documents but one are a speaker's: the mean's error is that of two groups."""
    speakers = {"by": "speaker", "documents": [[f"d{n}", "x" if n else "y"] for n in range(len(FRAMES))]}
    text = document([data_row(test_groups=speakers), *ROWS])
    assert cells(text, "| piano | 0123456789abcdef |")[-2:] == ["its manifest", "2, by speaker"]
    assert "Nothing says which test documents share" not in text
    runs = np.array([[nats for _, _, _, nats in run["documents"]] for run in ROWS[:3]]).mean(axis=0)
    nats, frames = (np.array([values[0], sum(values[1:])]) for values in (runs, FRAMES))
    residuals = nats - nats.sum() / frames.sum() * frames
    stderr = math.sqrt(2 * (residuals**2).sum()) / frames.sum()
    assert cells(text, "| 0.5m | a | 3 |")[4] == f"{stderr:.4f}"
    assert "Nothing says which test documents share a speaker or a work (piano)" in document([data_row(), *ROWS])
    lacking = speakers | {"documents": speakers["documents"][1:]}
    with pytest.raises(RequestError, match="which group the document d0 belongs"):
        document([data_row(test_groups=lacking), *ROWS])


def test_rows_of_several_commits_or_of_uncommitted_changes_are_named():
    said = "- synthetic, piano: abc1234 and def5678"
    assert said in document([*ROWS[:-1], ROWS[-1] | {"commit": "def5678"}])
    assert "- synthetic, piano: abc1234-dirty" in document([row | {"commit": "abc1234-dirty"} for row in ROWS])
    assert "Not made by one committed version" not in document(ROWS)


def test_versions_stand_once_below_the_table_of_commands():
    rows = [*ROWS[:-2], ROWS[-2] | {"versions": {"jax": "9.9.9"}}, ROWS[-1] | {"versions": None}]
    text = document(rows)
    made = text[text.index("### Commands") :]
    assert [cells(made, f"| {number} |")[4] for number in (1, 2, 3)] == ["A", "B", "not recorded"]
    assert "\nVersions A: jax 0.10.2.\n\nVersions B: jax 9.9.9.\n" in made and text.count("0.10.2") == 1


def test_what_the_grid_can_show_stands_behind_what_is_in_short():
    headings = re.findall(r"^##+ (.*)$", document(ROWS), re.M)
    assert headings[:3] == [
        "In short",
        "What this grid can and cannot show",
        "1. What holds and what does not",
    ]


def test_runs_that_only_show_that_it_works_are_called_no_result():
    tiny = [row | {"experiment": "ablation_tiny"} for row in ROWS]
    assert "**All runs of this document are of `ablation_tiny`: " in document(tiny)
    assert "**Some runs of this document are of `ablation_tiny`: " in document([*tiny, *ROWS])
    assert "no result" not in document(ROWS).split("## In short")[0]


def test_differences_are_shown_at_every_step_that_all_runs_were_evaluated_at():
    rows = [row | {"curve": [[500, 4.5, 4.5], [1000, 4.1, 4.1]]} for row in ROWS]
    for row in rows:
        if row["arm"] == "c":
            row["curve"] = [[500, 4.4, 4.4 + 0.1 * row["seed"]], [1000, 4.0, 3.9]]
    text = document(rows)
    assert cells(text, "| c - a | 3 | +") == ["c - a", "3", "+0.000", "-0.200"]
    rows[0]["curve"] = [[1000, 4.1, 4.1]]
    assert cells(document(rows), "| c - a | 3 | -0.200")[2:] == ["-0.200"]
    # A seed that one arm lacks counts for neither.
    fewer = document([row for row in rows if (row["arm"], row["seed"]) != ("a", 2)])
    assert cells(fewer, "| c - a | 2 | -")[2:] == ["-0.200"]
    other = [row | {"curve": [[1000, 4.1, 9.9]]} if (row["arm"], row["seed"]) == ("c", 2) else row for row in rows]
    fewer = document([row for row in other if (row["arm"], row["seed"]) != ("a", 2)])
    assert cells(fewer, "| c - a | 2 | -")[2:] == ["-0.200"]


def test_the_papers_only_slip_is_the_hybrids_perplexity_on_librispeech():
    found = [
        (model.name, at)
        for model in PAPER
        for at, (nll, _, ppl) in enumerate((model.librispeech, model.music))
        if slips(nll, ppl)
    ]
    assert found == [("hybrid", 0)]
    assert "PPL of 6.96 on LibriSpeech is not that of its NLL of 1.93, which gives 6.89" in document(ROWS)


def test_help_says_where_rows_are_looked_for(capsys):
    with pytest.raises(SystemExit):
        run_command(report, ReportArgs, ["--help"], prog="report.py")
    said = capsys.readouterr().out
    assert "results/*.jsonl beside --out" in " ".join(said.split()) and "(default: )" not in said


# What is refused


def test_a_row_that_names_a_folder_of_a_machine_is_refused(tmp_path):
    row = run_row("a", command="wgpt ablate configs/x.py --data piano=/scratch/piano --workdir runs/x")
    save(tmp_path / "r.jsonl", [ROWS[0], row])
    with pytest.raises(RequestError, match="row 2 names a folder of one machine, /scratch/piano, in its command"):
        load_rows([tmp_path / "r.jsonl"])


def test_renaming_a_folder_leaves_a_mark_and_touches_no_longer_name():
    row = {"kind": "run", "command": "--data p=/scratch/p --workdir /scratch/p2", "config": {"mel": ["/scratch/p"]}}
    changed = portable(row, {"/scratch/p": "data/p"})
    assert changed["command"] == "--data p=data/p --workdir /scratch/p2" and changed["config"] == {"mel": ["data/p"]}
    assert changed["renamed"] == ["data/p"]
    assert "renamed" not in portable(row, {"/elsewhere": "data/p"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text + "The hybrid wins by 0.21 nats.\n", r"'0\.21' looks like a result typed by hand"),
        (lambda text: text + "It wins by 3 %.\n", "'3 %' looks like a result"),
        (lambda text: text.replace("<!-- why -->", ""), "has no passage why"),
        (lambda text: text + "<!-- more -->\n", "has a passage more"),
    ],
)
def test_prose_holds_no_result_and_every_passage(tmp_path, change: Callable[[str], str], said: str):
    path = tmp_path / "text.md"
    path.write_text(PROSE + "arXiv 2412.11449 is no result.\n")
    assert set(read_text(path, PASSAGES)) == set(PASSAGES)
    path.write_text(change(PROSE))
    with pytest.raises(RequestError, match=said):
        read_text(path, PASSAGES)


def test_a_figures_digest_follows_every_number_to_six_digits():
    def figure(y: float) -> str:
        return Figure("f", "caption", (Panel("t", "x", "y", (Series("a", (1.0, 2.0), (y, 3.0)),)),)).digest()

    assert figure(1.0) == figure(1.0 + 1e-9) != figure(1.00001)


@pytest.mark.parametrize("counts", [[3], [5], [6], [9], [0, 0, 9], [4, 5], [9, 9], [7, 3]], ids=str)
def test_a_legend_lies_on_no_line_and_on_no_other_legend(tmp_path, monkeypatch, counts: list[int]):
    def panel(count: int) -> Panel:
        x = tuple(np.linspace(0, 1, 30).tolist())
        lines = [Series(f"arm {n}", x, (float(n),) * 30, (2.0,) * 30, colour=n) for n in range(count)]
        return Panel("t", "x", "y", tuple(lines) or (Series("", x, x),))

    panels = tuple(map(panel, counts))
    monkeypatch.setattr(plt, "close", lambda figure: None)
    Figure("f", "caption", panels).draw(tmp_path / "f.png")
    monkeypatch.undo()
    figure = plt.gcf()
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    boxes = [legend.get_window_extent() for legend in legends]
    taken = [
        axes.transData.transform((x, y + up))
        for axes, shown in zip(figure.axes, panels, strict=True)
        for line in shown.series
        for x, y in zip(line.x, line.y, strict=True)
        for up in (-2, 0, 2)
        if line.half or not up
    ]
    plt.close(figure)
    assert sorted(len(legend.get_texts()) for legend in legends) == sorted(filter(None, counts))
    assert not any(box.contains(*point) for box in boxes for point in taken)
    assert not any(box.overlaps(other) for n, box in enumerate(boxes) for other in boxes[:n])
    assert all(figure.bbox.padded(1).contains(*corner) for box in boxes for corner in box.corners())


# Model cards


def test_every_released_configuration_has_its_card_with_its_number_of_parameters():
    text = (DOCS / "model_cards.md").read_text()
    rows = dict(re.findall(r"^\| `configs/(\w+)\.py` \| ([\d,]+) \|", text, re.M))
    released = {path.stem for path in (ROOT / "configs").glob("*.py")}
    released -= {name for name in released if name.startswith(("ablation_", "gpu_", "pod_"))}
    assert set(rows) == released
    for name, told in rows.items():
        model = run_file(ROOT / "configs" / f"{name}.py")["config"].model
        assert f"{sum(groups(model).values()):,}" == told, name
