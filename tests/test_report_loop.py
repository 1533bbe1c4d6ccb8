"""The closed loop's measures are told from held-out audio only beyond their errors."""

import pytest
import scipy.stats
from report_rows import ROWS, cells, document, lasting, loop_row

from wgpt_jax.report.document import PASSAGES, make_document
from wgpt_jax.report.loop_runs import behind, loops_of

NAMED = "d - a, 0.5m (synthetic, 1,000 steps), 3 seeds: difference (95 % interval)"
COLUMNS = (
    "divergence of",
    "rise of",
    "Fréchet distance of frames",
    "Fréchet distance of means",
    "token as",
    "token in",
)


def scores(text: str, run: str) -> dict[str, str]:
    """The cells of a run's line by the first words of their column."""
    section = text[text.index("## 7.") : text.index("## 8.")]
    heads, line = cells(section, "| run | mode |"), cells(section, f"| {run} |")
    return {what: line[next(n for n, head in enumerate(heads) if head.startswith(what))] for what in COLUMNS}


def of_seed(seed: int, excess: float = 0.5, **more) -> dict:
    """A closed loop of arm d with some excess of divergence."""
    row = loop_row() | {"run": f"RUNS/piano-d-0.5m-seed{seed}", "step": 1000}
    row["drift"] = row["drift"] | {"overall": row["drift"]["overall"] | {"excess": excess}}
    row["drift"]["divergence_bits"] = row["drift"]["divergence_bits"] | {"excess": [0.1 * seed, 0.2]}
    return row | {"picture": {"file": f"loop-{seed}.png", "sha256": "0" * 64}} | more


def test_distances_of_a_closed_loop_are_bold_only_beyond_their_error():
    text = document([*ROWS, loop_row()])
    said = scores(text, "piano-d")
    assert said["divergence of"] == "**+0.500 +- 0.100**"
    assert said["rise of"] == "+0.150 +- 0.100"
    assert said["Fréchet distance of means"] == "**-0.5 +- 0.1**"
    levels = scores(text, "held-out audio")
    assert levels["divergence of"] == "1.000 +- 0.100" and levels["token in"] == "0.200 +- 0.010"
    assert "**piano, 1 codebook out, 16 samples of 20 s, 20 documents:**" in text


def test_few_samples_or_documents_want_more_of_an_excess_than_a_normal_would():
    row = loop_row()
    row["drift"]["rise"] = row["drift"]["rise"] | {"excess": 0.205}  # 2.05 errors: Student asks 2.13 of 16, 1.97 of 200
    for samples, documents, bold in ((16, 200, False), (200, 16, False), (200, 200, True)):
        text = document([*ROWS, row | {"num_samples": samples, "documents": documents}])
        assert scores(text, "piano-d")["rise of"].startswith("**") == bold


def test_repetition_is_told_apart_by_its_errors():
    row = loop_row()  # 0.1 +- 0.01 against 0.2 +- 0.01
    row["repetition"] = row["repetition"] | {"looped": row["repetition"]["looped"] | {"held_out": 0.129}}
    text = document([*ROWS, row])  # 0.029 is 2.05 errors of the difference, Student asks 2.13 of 16 samples
    assert scores(text, "piano-d")["token as"] == "**-0.100 +- 0.014**"
    assert scores(text, "piano-d")["token in"] == "-0.029 +- 0.014"
    short = text[text.index("## In short") : text.index("## 1.")]
    assert "2 of 6 measures of 1 run cannot be told from held-out audio" in short
    assert "token as the one before below in 1 run" in short and "token in a loop" not in short
    two = document([*ROWS, row, row | {"run": "runs/piano-c"}])
    assert "4 of 12 measures of 2 runs cannot" in two and "token as the one before below in 2 runs" in two


def test_runs_of_other_data_or_length_have_a_table_of_their_own():
    others = loop_row() | {"data": "reading"}, loop_row() | {"seconds": 10.0}, loop_row() | {"codebooks": 4}
    text = document([*ROWS, loop_row(), *others])
    assert text.count("| held-out audio |  |") == 4 and "**piano, 4 codebooks out, 16 samples of 20 s" in text


def test_a_closed_loop_is_called_by_the_run_that_it_was_measured_on():
    loop = loop_row() | {"run": "RUNS/piano-d-0.5m-seed1", "step": 1000}
    assert "| d, 0.5m, seed 1 (synthetic, 1,000 steps) | hybrid |" in document([*ROWS, loop])
    assert "| piano-d-0.5m-seed1 | hybrid |" in document([*ROWS, loop | {"step": 500}])  # of another length
    again = document([*ROWS, loop, loop | {"run": "OTHER/piano-d-0.5m-seed1"}])
    assert all(f"seed 1 (synthetic, 1,000 steps), {folder}/piano-d" in again for folder in ("RUNS", "OTHER"))


def test_a_closed_loop_whose_path_names_an_experiment_is_of_that_one():
    alike = [*ROWS, *(row | {"experiment": "other"} for row in ROWS)]
    loop = loop_row() | {"run": "runs/piano-d-0.5m-seed1", "step": 1000}
    assert "| d, 0.5m, seed 1 (other or synthetic, 1,000 steps) |" in document([*alike, loop])
    assert "| d, 0.5m, seed 1 (other, 1,000 steps) |" in document(
        [*alike, loop | {"run": "WORK/other/runs/piano-d-0.5m-seed1"}]
    )


@pytest.mark.parametrize("step", [1000, 500])  # of a run that rows know, and of none
def test_no_two_closed_loops_have_one_name_in_a_figure(step):
    loops = [of_seed(1, run=f"{folder}/piano-d-0.5m-seed1", step=step) for folder in ("RUNS", "OTHER")]
    names = [loop.short for loop in loops_of([*ROWS, *loops])]
    assert len(set(names)) == 2 and all(folder in name for folder, name in zip(("RUNS", "OTHER"), names, strict=True))
    made = make_document([*ROWS, *loops], {name: "" for name in PASSAGES})
    drift = next(figure for figure in made.figures if figure.name == "drift-piano")
    assert len({series.label for series in drift.panels[0].series}) == 2


def test_a_short_name_has_its_experiment_only_where_another_one_s_is_the_same():
    wider = [lasting(row, 2000) | {"experiment": "other"} for row in ROWS]
    rows = [*ROWS, *wider, of_seed(1), of_seed(1, step=2000), of_seed(2)]
    assert [loop.short for loop in loops_of(rows)] == [
        "d, 0.5m, seed 1 (synthetic, 1,000 steps)",
        "d, 0.5m, seed 1 (other, 2,000 steps)",
        "d, 0.5m, seed 2",
    ]


def test_a_closed_loop_says_how_its_tokens_were_drawn_unless_from_the_model_s_own_distribution():
    loop = loop_row() | {"run": "RUNS/piano-d-0.5m-seed1", "step": 1000}
    cut = loop | {"sampling": loop["sampling"] | {"top_p": 0.95}}
    text = document([*ROWS, loop, cut])
    assert "| d, 0.5m, seed 1 (synthetic, 1,000 steps) |" in text
    assert "| d, 0.5m, seed 1, top_p 0.95 (synthetic, 1,000 steps) |" in text
    assert "mean of" not in text


def test_several_seeds_of_an_arm_have_their_mean_and_deviation_and_one_line_in_the_figure():
    loops = [of_seed(seed, excess) for seed, excess in ((0, 0.2), (2, 0.5), (1, 0.8))]
    cut = of_seed(0) | {"sampling": loops[0]["sampling"] | {"top_p": 0.95}}
    other = of_seed(0, run="RUNS/piano-c-0.5m-seed0")
    text = document([*ROWS, loops[0], other, *loops[1:], cut])
    mean = scores(text, "d, 0.5m (synthetic, 1,000 steps), mean of 3 seeds +- their deviation")
    assert mean["divergence of"] == "+0.500 +- 0.300" and mean["token in"] == "-0.100 +- 0.000"
    assert text.count("mean of ") == 1 and "Some arms were measured with 3 seeds" in text
    assert "One seed of each arm" in document([*ROWS, loops[0], other, cut])
    made = make_document([*ROWS, *loops, cut], {name: "" for name in PASSAGES})
    lines = next(figure for figure in made.figures if figure.name == "drift-piano").panels[0].series
    assert [line.label for line in lines] == [
        "d, 0.5m (synthetic, 1,000 steps), 3 seeds, hybrid",
        "d, 0.5m, seed 0, top_p 0.95, hybrid",
    ]
    assert lines[0].y == pytest.approx((0.1, 0.2)) and lines[0].half == pytest.approx((0.1, 0.0))


def of_tokens(seed: int, excess: float, **more) -> dict:
    """A closed loop of arm a."""
    return of_seed(seed, excess, run=f"RUNS/piano-a-0.5m-seed{seed}", mode="tokens", **more)


def test_a_hybrid_is_compared_with_tokens_over_the_seeds_of_both():
    ours, theirs = (0.62, 0.50, 0.56, 0.9), (0.21, 0.15, 0.12)
    loops = [of_seed(seed, excess) for seed, excess in enumerate(ours)]
    plain = [of_tokens(seed, excess) for seed, excess in enumerate(theirs)]
    said = scores(document([*ROWS, *loops, *plain]), NAMED)
    expected = scipy.stats.ttest_rel(ours[:3], theirs).confidence_interval(0.95)  # the fourth seed has no partner
    mean = sum(ours[:3]) / 3 - sum(theirs) / 3
    assert said["divergence of"] == f"**{mean:+.3f} ({expected.low:+.3f} to {expected.high:+.3f})**"
    assert said["token in"] == "+0.000 (+0.000 to +0.000)"
    wide = [of_seed(seed, excess) for seed, excess in enumerate((0.9, 0.1, 0.2))]
    assert not scores(document([*ROWS, *wide, *plain]), NAMED)["divergence of"].startswith("**")


def test_closed_loops_are_compared_only_where_three_seeds_were_drawn_alike():
    loops, plain = [of_seed(seed, 0.5) for seed in range(3)], [of_tokens(seed, 0.1) for seed in range(3)]
    cut = loop_row()["sampling"] | {"top_p": 0.95}
    assert "| a - d" not in document([*ROWS, *loops, *plain])
    for theirs in (plain[:2], [row | {"sampling": cut} for row in plain], [row | {"step": 2000} for row in plain]):
        assert "seeds: difference" not in document([*ROWS, *(lasting(row, 2000) for row in ROWS), *loops, *theirs])
    seen = behind(plain[0], ROWS)[0]["config"]
    fewer = seen | {"training": seen["training"] | {"batch": 1}}
    other = [row | {"config": fewer} if row["arm"] == "a" else row for row in ROWS]
    assert "seeds: difference" in document([*ROWS, *loops, *plain])
    assert "seeds: difference" not in document([*other, *loops, *plain])


def test_the_first_run_of_an_arm_has_its_spectrograms_shown_and_the_others_linked():
    bare = {key: value for key, value in of_seed(2).items() if key != "picture"}
    cut = of_seed(0, picture={"file": "loop-cut.png", "sha256": "0" * 64}, sampling=loop_row()["sampling"])
    cut["sampling"] = cut["sampling"] | {"top_p": 0.95}
    text = document([*ROWS, bare, of_seed(0), of_seed(1), cut])
    assert (
        text.count("![Held-out and generated spectrograms") == 1 and "mode, and its drift](results/loop-0.png)" in text
    )
    links = "[d, 0.5m, seed 1](results/loop-1.png) and [d, 0.5m, seed 0, top_p 0.95](results/loop-cut.png)"
    assert f"The same of {links}." in text
    assert "No spectrogram of piano, d, 0.5m, seed 2 (synthetic, 1,000 steps): " in text


def test_drift_has_a_panel_for_each_number_of_codebooks_and_error_bars_apart():
    loops = [loop_row(), loop_row() | {"run": "runs/piano-c"}, loop_row() | {"codebooks": 4}]
    made = make_document([*ROWS, *loops], {name: "" for name in PASSAGES})
    one, four = next(figure for figure in made.figures if figure.name == "drift-piano").panels
    assert [len(one.series), len(four.series)] == [2, 1] and four.series[0].x == (1.25, 3.75)
    first, second = (series.x for series in one.series)
    assert second[0] - first[0] == pytest.approx(0.06) and (first[0] + second[0]) / 2 == pytest.approx(1.25)
