"""The closed loop's measures are told from held-out audio only beyond their errors."""

import pytest
from report_rows import ROWS, cells, document, loop_row

from wgpt_jax.report.document import PASSAGES, make_document


def test_distances_of_a_closed_loop_are_above_their_floor_only_beyond_their_error():
    text = document([*ROWS, loop_row()])
    said = [
        cells(text, f"| piano | piano-d | hybrid | 1 | 16 x 20 | {what}")[-1]
        for what in ("div", "its", "Fréchet distance of m")
    ]
    assert said == ["above the floor", "cannot be told from the floor with these samples", "below the floor"]


def test_few_samples_or_documents_want_more_of_an_excess_than_a_normal_would():
    row = loop_row()
    row["drift"]["rise"] = row["drift"]["rise"] | {"excess": 0.205}  # 2.05 errors: Student asks 2.13 of 16, 1.97 of 200
    for samples, documents, said in (
        (16, 200, "cannot be told"),
        (200, 16, "cannot be told"),
        (200, 200, "above the floor"),
    ):
        text = document([*ROWS, row | {"num_samples": samples, "documents": documents}])
        start = f"| piano | piano-d | hybrid | 1 | {samples} x 20 | its"
        assert cells(text, start)[-1].startswith(said)


def test_repetition_has_a_verdict_by_its_errors():
    row = loop_row()  # 0.1 +- 0.01 against 0.2 +- 0.01
    row["repetition"] = row["repetition"] | {"looped": row["repetition"]["looped"] | {"held_out": 0.129}}
    text = document([*ROWS, row])  # 0.029 is 2.05 errors of the difference, Student asks 2.13 of 16 samples
    start = "| piano | piano-d | hybrid | 1 | 16 x 20 | token"
    repeated, looped = (cells(text, f"{start} {what}") for what in ("as", "in"))
    assert repeated[-2:] == ["-0.1000 +- 0.0141", "below held-out audio"]
    assert looped[-2:] == ["-0.0290 +- 0.0141", "cannot be told from held-out audio with these samples"]
    short = text[text.index("## In short") : text.index("## 1.")]
    assert "2 of 6 measures of 1 runs cannot be told from held-out audio" in short
    assert "token as the one before below" in short and "token in a loop" not in short


def test_a_closed_loop_is_called_by_the_run_that_it_was_measured_on():
    loop = loop_row() | {"run": "RUNS/piano-d-0.5m-seed1", "step": 1000}
    assert "| piano | d, 0.5m, seed 1 (synthetic) | hybrid |" in document([*ROWS, loop])
    assert "| piano | piano-d-0.5m-seed1 | hybrid |" in document([*ROWS, loop | {"step": 500}])  # of another length
    again = document([*ROWS, loop, loop | {"run": "OTHER/piano-d-0.5m-seed1"}])
    assert "seed 1 (synthetic), RUNS/piano-d" in again and "seed 1 (synthetic), OTHER/piano-d" in again


def test_a_closed_loop_says_how_its_tokens_were_drawn_unless_from_the_model_s_own_distribution():
    loop = loop_row() | {"run": "RUNS/piano-d-0.5m-seed1", "step": 1000}
    cut = loop | {"sampling": loop["sampling"] | {"top_p": 0.95}}
    text = document([*ROWS, loop, cut])
    assert "| piano | d, 0.5m, seed 1 (synthetic) |" in text
    assert "| piano | d, 0.5m, seed 1, top_p 0.95 (synthetic) |" in text


def test_drift_has_a_panel_for_each_number_of_codebooks_and_error_bars_apart():
    loops = [loop_row(), loop_row() | {"run": "runs/piano-c"}, loop_row() | {"codebooks": 4}]
    made = make_document([*ROWS, *loops], {name: "" for name in PASSAGES})
    one, four = next(figure for figure in made.figures if figure.name == "drift-piano").panels
    assert [len(one.series), len(four.series)] == [2, 1] and four.series[0].x == (1.25, 3.75)
    first, second = (series.x for series in one.series)
    assert second[0] - first[0] == pytest.approx(0.06) and (first[0] + second[0]) / 2 == pytest.approx(1.25)
