"""Runs stand together where they may be compared, with the sweeps behind them, and nowhere else."""

import copy
import re

import pytest
from report_rows import (
    ROWS,
    cells,
    contest_row,
    data_row,
    document,
    lasting,
    run_row,
    tune_row,
)

from wgpt_jax.errors import RequestError
from wgpt_jax.report.document import PASSAGES, make_document
from wgpt_jax.report.groups import make_groups
from wgpt_jax.report.pairs import pairs_of
from wgpt_jax.report.sweeps import swept
from wgpt_jax.report.verdicts import difference


def test_a_sweep_says_what_it_tried_and_where_its_best_point_lies():
    tunes = [tune_row("a", rate, std, nll) for rate, std, nll in ((1e-3, 0.3, 4.3), (2e-3, 0.3, 4.2), (4e-3, 0.3, 4.4))]
    found = swept(make_groups([*ROWS, *tunes])[0], "a", "0.5m")
    assert (found.tried, found.chosen, found.spread) == ("3", "", "4.2000 to 4.4000")
    broken = {key: value for key, value in tunes[0].items() if key != "evaluation"} | {"kind": "failed", "reason": "x"}
    found = swept(make_groups([*ROWS, broken, *tunes[1:]])[0], "a", "0.5m")
    assert (found.tried, found.chosen) == ("3, 1 failed", "lowest rate")


def test_only_the_points_among_which_the_choice_was_made_count():
    """Three short runs, then three longer ones; the final runs took a rate of 0.002."""
    rates = 1e-3, 2e-3, 4e-3
    short = [lasting(tune_row("a", rate, 0.3, nll), 100) for rate, nll in zip(rates, (4.9, 4.8, 4.7), strict=True)]
    longer = [lasting(tune_row("a", rate, 0.3, nll), 500) for rate, nll in zip(rates, (4.3, 4.2, 4.4), strict=True)]
    found = swept(make_groups([*ROWS, *short, *longer])[0], "a", "0.5m")
    assert (found.tried, found.spread) == ("3", "4.2000 to 4.4000")  # the best of all six rows, which are three points
    lower = [row | {"evaluation": row["evaluation"] | {"total_nll": 4.1}} for row in short[2:]]
    found = swept(make_groups([*ROWS, *short[:2], *lower, *longer])[0], "a", "0.5m")
    assert found.tried == "3; apart from them 3 of 100 steps, seed 0" and found.chosen == ""
    assert found.spread == "4.2000 to 4.4000"
    found = swept(make_groups([*ROWS, *short])[0], "a", "0.5m")
    assert (found.tried, found.chosen) == ("3; the choice is not the best of them", "")


def test_the_choice_is_known_by_its_rate_scaled_to_the_size():
    wide = {"config": ROWS[0]["config"] | {"model": ROWS[0]["config"]["model"] | {"width": 256}}}
    finals = [row | wide | {"learning_rate": 0.001, "size": "2m", "parameters": 2_000_000} for row in ROWS[:3]]
    tunes = [tune_row("a", rate, 0.3, nll) for rate, nll in ((2e-3, 4.2), (4e-3, 4.4))]
    found = swept(make_groups([*finals, *tunes])[0], "a", "2m")
    assert (found.tried, found.chosen) == ("2 (at 0.5m on piano)", "lowest rate")


def test_another_ones_sweep_is_told_once_and_referred_to():
    tunes = [tune_row("a", rate, 0.3, nll) for rate, nll in ((2e-3, 4.2), (4e-3, 4.4))]
    reading = [row | {"data": "reading", "data_fingerprint": "f" * 16} for row in ROWS[:3]]
    larger = [row | {"size": "2m", "parameters": 2_000_000} for row in (*ROWS[:3], *reading)]
    text = document([*ROWS[:3], *tunes, *reading, *larger])
    parts = text[text.index("### synthetic, piano") :].split("### synthetic, reading")
    own, other = (cells(part, "| 0.5m | a | title of a |")[6:9] for part in parts[:2])
    assert own == ["2", "lowest rate", "4.2000 to 4.4000"] and other == ["as on piano", "", ""]
    own, other = (cells(part, "| 2m | a | title of a |")[6:9] for part in parts[:2])
    assert own == ["as at 0.5m", "", ""] and other == ["as at 0.5m on piano", "", ""]
    alone = document([*tunes, *reading])  # nothing of piano stands in a table
    assert cells(alone, "| 0.5m | a | title of a |")[6:9] == ["2 (at 0.5m on piano)", "lowest rate", "4.2000 to 4.4000"]


def test_rows_of_other_data_or_length_are_never_in_one_table():
    longer = copy.deepcopy(ROWS[0])
    longer["config"]["training"]["steps"] = 2000
    other = ROWS[0] | {"data_fingerprint": "f" * 16}
    assert len(make_groups([*ROWS, longer, other])) == 3
    with pytest.raises(RequestError, match=r"two final rows of piano, arm a, size 0\.5m, seed 0"):
        make_groups([*ROWS, ROWS[0] | {"train_seconds": 1.0}])


def test_groups_of_other_data_under_one_name_are_told_apart_in_all_that_names_them():
    other = [row | {"data_fingerprint": "f" * 16} for row in ROWS]
    tunes = [tune_row("a", 2e-3, 0.3, 4.2), tune_row("a", 4e-3, 0.3, 4.4) | {"data_fingerprint": "f" * 16}]
    shorter = copy.deepcopy(ROWS)
    for row in shorter:
        row["config"]["data"]["context"] = 128
    groups = make_groups([*ROWS, *other, *shorter, *tunes])
    assert [[row["learning_rate"] for row in each.rows if row["stage"] == "tune"] for each in groups] == [
        [2e-3],
        [4e-3],
        [],
    ]
    made = make_document([*ROWS, *other, *shorter], {name: "" for name in PASSAGES})
    assert len({figure.file for figure in made.figures}) == len(made.figures) == 6
    assert len({each.name for each in groups}) == 3
    for each in groups:
        assert f"### {each.title}" in made.text and f"| {each.name}, 0.5m (synthetic) |" in made.text
    names = [each.name for each in make_groups([*ROWS, *shorter])]
    assert names == ["piano (1,000 x 8 x 256)", "piano (1,000 x 8 x 128)"]


def test_what_is_missing_is_told_by_the_grids_own_file_whatever_the_runs_length():
    rows = [row | {"experiment": "ablation_sizes"} for row in ROWS if row["seed"] < 2]
    group = make_groups(rows)[0]
    grid = group.missing()
    sizes = "all of 1m; all of 2m; all of 4m; all of 10m"
    assert grid == f"{sizes}; ac and cc at 0.5m; seed 2 of a at 0.5m; seed 2 of c at 0.5m"
    text = document([*rows, data_row(), data_row(data="reading", data_fingerprint="f" * 16)])
    assert f"- ablation_sizes, piano: {grid}\n" in text and "- ablation_sizes: nothing on reading\n" in text
    longer = document([lasting(row, 2000) for row in rows])
    assert f"- ablation_sizes, piano (2,000 x 8 x 256; in the file 1,000 x 8 x 256): {grid}\n" in longer


def test_missing_seeds_and_failed_runs_are_shown():
    failed = {key: value for key, value in run_row("d", 2).items() if key not in ("evaluation", "documents")}
    text = document([*ROWS[:-1], failed | {"kind": "failed", "reason": "out of memory"}])
    assert "- synthetic, piano: seed 2 of d at 0.5m" in text
    assert re.search(r"- synthetic, piano, 0\.5m, arm d, final, seed 2, .*: out of memory", text)
    again = document([*ROWS, failed | {"kind": "failed", "reason": "out of memory"}])
    assert "out of memory (made since)" in again and "seed 2 of d" not in again


def test_a_pair_has_one_interval_and_stands_once_in_a_table():
    levels = {"a": 4.0, "c": 3.8, "ac": 3.9}
    rows = [run_row(arm, seed, level=level) for arm, level in levels.items() for seed in range(3)]
    ours, theirs = ([row for row in rows if row["arm"] == arm] for arm in ("a", "c"))
    there, back = difference(ours, theirs, None), difference(theirs, ours, None)
    assert (there.value, there.low, there.high) == (-back.value, -back.high, -back.low)
    text = document(rows)
    section = text[text.index("## 3.") : text.index("## 4.")]
    pairs = re.findall(r"^\| 0\.5m \| ([\w']+) - ([\w']+) \|", section, re.M)
    assert pairs == [("c", "a"), ("ac", "a"), ("ac", "c")]  # as the questions have them, and none the other way round
    contest = [contest_row(arm, 0, 12.0) for arm in ("g", "g2c", "h")]
    assert pairs_of(make_groups(contest)[0], "0.5m") == [("h", "g"), ("g2c", "g"), ("h", "g2c")]


def test_only_seeds_that_both_arms_have_make_a_difference():
    """Seed 3 of c alone, of other levels, moves c's own NLL and no difference."""
    odd = run_row("c", 3, level=9.0)
    odd["evaluation"]["by_position"][2]["nll"] = 99.0
    rows = [row for row in ROWS if row["arm"] != "d"]
    before, after = (cells(document(each), "| 0.5m | c - a |") for each in (rows, [*rows, odd]))
    assert before == after and before[2] == "3"
    assert float(cells(document([*rows, odd]), "| 0.5m | c | 4 |")[3]) > 5


def test_a_size_with_a_single_arm_has_no_figures_and_titles_tell_grids_apart():
    single = [row | {"size": "2m", "parameters": 2_000_000} for row in ROWS if row["arm"] == "a"]
    longer = [lasting(row, 2000) for row in ROWS]
    made = make_document([*ROWS, *single, *longer], {name: "" for name in PASSAGES})
    assert [figure.name for figure in made.figures if "2m" in figure.name] == []
    titles = [panel.title for figure in made.figures for panel in figure.panels]
    assert len(titles) == len(set(titles)) and any("2,000 steps" in title for title in titles)


def test_positions_are_shown_as_differences_from_the_first_token_only_arm():
    made = make_document(ROWS, {name: "" for name in PASSAGES})
    seen = next(figure for figure in made.figures if figure.name.startswith("position-")).panels[0]
    levels = dict(zip("acd", (series.y for series in seen.series), strict=True))
    assert levels["a"] == (0.0, 0.0) and levels["c"] == pytest.approx((0.0, -0.2)) and len(seen.series[0].x) == 2
    assert "minus a's" in seen.ylabel and len({panel.title for panel in made.figures[-1].panels}) == 3
