"""Answers and promises follow from the rows, with what limits them beside them."""

import re

import numpy as np
import pytest
from report_rows import (
    FRAMES,
    ROWS,
    SIZES,
    baseline_row,
    cells,
    contest_row,
    data_row,
    document,
    run_row,
    sized,
    tune_row,
)

from wgpt_jax.ablation.analysis import Estimate
from wgpt_jax.report.verdicts import difference, verdict

TENFOLD = "equals a token-only model ({}) of 10 times"


def short(rows: list[dict]) -> str:
    text = document(rows)
    return text[text.index("## In short") : text.index("## 1.")]


def tenfold(rows: list[dict], pair: str) -> tuple[str, str]:
    """The answer to the tenfold question for "arm against base", and what stands behind it."""
    line = next(line for line in short(rows).split("\n") if line.startswith(f"  - {pair}, "))
    return re.fullmatch(r".*?\*\*(.*)\*\*, (.*)\.", line).groups()


def in_order(row: dict, seed: int) -> dict:
    """A run over one of the orders of the data."""
    return row | {"config": row["config"] | {"data": row["config"]["data"] | {"shuffle_seed": seed}}}


def caveats_of(rows: list[dict], pair: str) -> str:
    """The last cell of a pair's line in the first table."""
    return next(line for line in short(rows).split("\n") if f"| {pair} |" in line).strip("| ").split("|")[-1].strip()


# Answers


def test_a_verdict_follows_from_the_interval():
    def of(low: float | None, high: float | None, seeds: int = 3) -> str:
        return verdict(Estimate(0.0 if low is None else (low + high) / 2, low, high, seeds, 9))

    assert of(-0.2, -0.1) == "wins"
    assert of(0.1, 0.2) == "loses"
    assert of(-0.1, 0.2) == "no difference shown"
    assert of(-0.2, -0.1, seeds=2) == "undecided: 2 seeds" and of(-0.2, -0.1, seeds=1) == "undecided: 1 seed"
    assert of(None, None) == "undecided: a single document"
    assert verdict(None) == "no seed in common"
    assert verdict(Estimate(-1.0, -1.1, -0.9, 3, 9), leaks=True) == "a leak, no result (wins)"


def test_the_document_begins_with_wins_losses_and_nulls_as_its_tables_have_them():
    same = [run_row("ac", seed, level=4.0) for seed in range(3)]
    for row, base in zip(same, ROWS, strict=False):
        row["documents"], row["evaluation"] = base["documents"], row["evaluation"] | {"nll": base["evaluation"]["nll"]}
        row["evaluation"]["total_nll"] = base["evaluation"]["total_nll"]
    text = document([*ROWS, *same])
    first = text[text.index("## In short") : text.index("## 1.")]
    for pair, said in (("c - a", "c wins"), ("d - a", "d loses"), ("ac - a", "no difference shown")):
        line = next(line for line in first.split("\n") if f"| piano, 0.5m (synthetic) | {pair} |" in line)
        told = [cell.strip() for cell in line.split("|")[4:8]]
        assert told == ["3", *cells(text, f"| 0.5m | {pair} |")[3:5], f"**{said}**"]
        assert cells(text, f"| 0.5m | {pair} |")[5] == said


def test_data_sets_stand_side_by_side_under_their_question():
    reading = [row | {"data": "reading", "data_fingerprint": "f" * 16} for row in ROWS]
    lines = [line for line in short([*ROWS, *reading]).split("\n") if "| c - a |" in line]
    assert lines[0].startswith("| the original's mel") and lines[1].startswith("|  | reading, 0.5m")


def test_a_leak_is_labelled_wherever_it_stands():
    leaky = [run_row("c'", seed, level=3.0, causality="1 of 1 checks failed") for seed in range(3)]
    text = document([*ROWS, *leaky])
    assert cells(text, "| 0.5m | c' - a |")[5] == cells(text, "| 0.5m | c' - c |")[5] == "a leak, no result (wins)"
    assert cells(text, "| 0.5m | c' | 3 |")[-1] == "0 of 3, 3 leak on purpose"
    assert "no result: this mel looks ahead" in text
    assert caveats_of([*ROWS, *leaky], "c' - c").startswith("c' sees the future: a leak, no result")


def test_the_letters_of_the_first_tables_arms_are_explained_below_it():
    more = [run_row("b", seed) for seed in range(3)]  # b - a is a question of section 1
    line = next(line for line in short([*ROWS, *more]).split("\n") if line.startswith("The arms read: "))
    assert line == "The arms read: **a**: title of a; **c**: title of c; **d**: title of d."


def test_where_the_gain_comes_from_is_told_once():
    rows = [*ROWS, *(run_row(arm, seed, level=3.9) for arm in "be" for seed in range(3))]
    text = document(rows)
    section = text[text.index("## 1.") : text.index("### Promises")]
    assert re.findall(r"\| (\w+ - \w+) \|", section) == ["b - a"]
    gain = next(line for line in section.split("\n") if " nats in all: " in line)
    e, d = ([row for row in rows if row["arm"] == arm] for arm in "ed")
    step = difference(e, d, None)
    assert f"{step.value:+.3f} ({step.low:+.3f} to {step.high:+.3f}) from what the other codebooks add" in gain
    assert "side information: e and c; not tuned: d, a, e and c." in gain
    without = document([row for row in rows if row["arm"] != "d"])  # no ladder: the question stands by itself
    assert "| c - e |" in without[without.index("## 1.") : without.index("### Promises")]


# Caveats


def test_what_an_nll_is_of_is_said_beside_an_answer():
    assert caveats_of(ROWS, "c - a").startswith("side information: c;")
    assert caveats_of(ROWS, "d - a").startswith("likelihoods;")


def test_how_the_arms_were_tuned_is_said_beside_an_answer():
    assert "not tuned: c and a" in caveats_of(ROWS, "c - a")
    tunes = [tune_row("a", rate, 0.3, nll) for rate, nll in ((2e-3, 4.2), (4e-3, 4.4))]
    tunes += [tune_row("c", rate, 0.3, nll) for rate, nll in ((1e-3, 4.3), (2e-3, 4.2), (4e-3, 4.4))]
    assert caveats_of([*ROWS, *tunes], "c - a") == "side information: c; edge: a"
    elsewhere = [row | {"data": "reading", "data_fingerprint": "f" * 16} for row in tunes]
    assert "; tuned on reading; " in caveats_of([*ROWS, *elsewhere], "c - a")
    smaller = [row | {"size": "0.1m"} if row["arm"] == "a" else row for row in tunes]
    assert "; rate of a scaled from 0.1m, not tuned at 0.5m; " in caveats_of([*ROWS, *smaller], "c - a")


def test_seeds_over_one_order_of_the_data_are_said_to_be_of_the_initialisation():
    assert "initialisation" not in caveats_of(ROWS, "c - a")
    one = [in_order(row, 0) for row in ROWS]
    assert caveats_of(one, "c - a").endswith("; seeds of the initialisation alone")
    assert "- synthetic, piano: a, c and d\n" in document(one)


def test_orders_of_the_data_are_told_by_a_pairs_own_runs_whatever_other_arms_have():
    one = [in_order(row, 0) if row["arm"] == "a" else row for row in ROWS]
    assert caveats_of(one, "c - a").endswith("; seeds of the initialisation alone: a; different orders of the data")
    assert "- synthetic, piano: a\n" in document(one)
    pair = [in_order(row, 0) if row["arm"] in "ac" else row for row in ROWS]  # d has orders of its own
    assert caveats_of(pair, "c - a").endswith("; seeds of the initialisation alone")
    assert caveats_of(pair, "d - a").endswith("; seeds of the initialisation alone: a; different orders of the data")
    more = [*pair, run_row("a", 3)]  # of a seed that c lacks, and of another order
    assert caveats_of(more, "c - a").endswith("; seeds of the initialisation alone")
    mixed = [*pair, run_row("a", 3), run_row("c", 3, level=3.8)]
    assert "; some seeds in one order of the data: c and a; " in caveats_of(mixed, "c - a")
    other = [in_order(row, row["seed"] + 7) if row["arm"] == "a" else row for row in ROWS]
    assert caveats_of(other, "c - a").endswith("; different orders of the data")
    assert "initialisation" not in caveats_of(other, "c - a")


def test_seeds_beyond_the_usual_ones_stand_alone_beside_the_verdict():
    rows = [row for row in ROWS if row["arm"] != "d"]
    later = [run_row(arm, seed, level=level) for arm, level in (("a", 4.0), ("c", 3.9)) for seed in (3, 4)]
    alone = difference(*([row for row in later if row["arm"] == arm] for arm in ("c", "a")), None)
    said = f"{alone.value:+.3f} ({alone.low:+.3f} to {alone.high:+.3f})"
    assert caveats_of([*rows, *later], "c - a").endswith(f"seeds 3 and 4 beyond the first 3, alone {said}")
    assert cells(document([*rows, *later]), "| 0.5m | c - a | 5 |")[-1] == f"{said} (seeds 3 and 4)"
    assert "beyond the first" not in document(rows)
    of_file = [row | {"experiment": "ablation_sizes"} for row in (*rows, *later)]
    assert caveats_of(of_file, "c - a").endswith(f"seeds 3 and 4 beyond the file's seeds, alone {said}")
    assert "| seeds beyond the file's seeds, alone |" in document(of_file)
    assert "seeds 3 and 4" not in document([row for row in of_file if row["seed"] > 2])  # all are beyond: none is


# Ten times the parameters


def ladder_of_sizes() -> list[dict]:
    return [row for name, (_, nll) in SIZES.items() for row in sized("a", name, nll)]


def test_ten_times_the_size_is_decided_by_the_difference_from_a_model_of_that_size():
    """c at s has a tenth of the parameters of a at m, whose NLL is near 3.5."""
    claim = f"| c {TENFOLD.format('a')}"
    for level, holds in ((3.2, "yes"), (3.9, "NO")):
        rows = [*ladder_of_sizes(), *sized("c", "s", level)]
        said = tenfold(rows, "c against a")
        assert said[0] == holds and said[1].startswith("minus a at m, 10.0 times its parameters: ")
        assert said[1].count("side information: c") == 1
        # The table of promises repeats the verdict alone.
        assert cells(document(rows), claim)[1:] == ["piano, s (synthetic): [in short](#in-short)", holds]
    ours, theirs = sized("c", "s", 3.5), [row for row in ladder_of_sizes() if row["size"] == "m"]
    for number, (row, other) in enumerate(zip(ours, theirs, strict=True)):
        shift = 0.01 * (number - 1)
        row["documents"] = [[name, n, x + shift * n, y + shift * n] for name, n, x, y in other["documents"]]
        row["evaluation"] |= {key: other["evaluation"][key] + shift for key in ("nll", "total_nll")}
    rows = [*ladder_of_sizes(), *ours]
    assert cells(document(rows), claim)[-1] == "not decided: no difference shown"
    assert "c against a, piano, s (synthetic): **not decided: no difference shown**" in short(rows)
    assert cells(document([*ladder_of_sizes(), *sized("c", "s", 3.2, seeds=2)]), claim)[-1] == "not decided: 2 seeds"


def test_without_a_model_of_ten_times_the_size_nothing_is_decided():
    said = tenfold([*ladder_of_sizes(), *sized("c", "l", 2.0)], "c against a")
    assert said[0] == "not decided: no a so large"
    assert said[1] == "the largest a has 1.0 times its parameters; side information: c"


@pytest.mark.parametrize(
    ("middle", "large", "holds"),
    [
        (3.6, 3.9, "not decided: a of 3.0 times is better"),  # beats the larger one, and not the smaller
        (3.7, 3.9, "not decided: a of 3.0 times may be as good"),
        (3.8, 3.9, "yes"),  # beats both
        (3.8, 3.6, "NO"),
    ],
)
def test_a_token_only_model_that_was_trained_badly_makes_no_ten_times(middle, large, holds):
    """a has 1, 3 and 10 times the parameters of c, whose NLL is that of 3.7; the largest is not always the best."""
    levels = ((100_000, 4.0), (300_000, middle), (1_000_000, large))
    tokens = [
        run_row("a", seed, level=level, size=f"{count // 1000}k", parameters=count)
        for count, level in levels
        for seed in range(3)
    ]
    hybrid = [run_row("c", seed, level=3.7, size="100k", parameters=100_000) for seed in range(3)]
    if middle == 3.7:  # no more apart than seeds are
        for number, (row, other) in enumerate(zip(hybrid, tokens[3:6], strict=True)):
            shift = 0.01 * (number - 1)
            row["documents"] = [[name, n, x + shift * n, y + shift * n] for name, n, x, y in other["documents"]]
            row["evaluation"] |= {key: other["evaluation"][key] + shift for key in ("nll", "total_nll")}
    found, said = tenfold([*tokens, *hybrid], "c against a")
    assert found == holds
    assert ("; minus a at 300k, 3.0 times its parameters: " in said) == (holds != "NO")


def test_ten_times_and_the_best_of_the_smaller_ones_is_one_model_where_the_largest_is_the_best():
    said = tenfold([*ladder_of_sizes(), *sized("c", "s", 3.2)], "c against a")[1]
    assert said.count("minus a at") == 1


@pytest.mark.parametrize(("parameters", "decided"), [(102_900, True), (103_200, False)])
def test_ten_times_is_meant_within_the_tolerance_of_equal_sizes(parameters, decided):
    """Of the largest token-only model, of a million parameters, that is 9.72 or 9.69 times."""
    tokens = [row for row in ladder_of_sizes() if row["size"] != "l"]
    hybrid = [row | {"parameters": parameters} for row in sized("c", "s", 3.2)]
    said = cells(document([*tokens, *hybrid]), f"| c {TENFOLD.format('a')}")
    assert (said[-1] == "yes") == decided


def test_only_arms_that_read_a_mel_and_do_not_leak_are_held_against_ten_times_their_size():
    convolved = [row for name, (_, nll) in SIZES.items() for row in sized("ac", name, nll - 0.2)]
    for row in convolved:
        row["evaluation"]["mel_source"] = "none"
    arms = ("c", 3.2), ("e", 3.3), ("f", 3.1), ("cc", 2.9), ("c'", 2.0), ("b", 3.5)
    hybrids = [row for arm, level in arms for row in sized(arm, "s", level)]
    for row in (*convolved, *(row for row in hybrids if row["arm"] == "cc")):
        row["config"] = row["config"] | {"model": row["config"]["model"] | {"token_kernel": 16}}
    text = document([*ladder_of_sizes(), *convolved, *hybrids])
    found = re.findall(r"^\| ([\w']+) equals a token-only model \((\w+)\)", text, re.M)
    assert found == [("c", "a"), ("e", "a"), ("f", "a"), ("cc", "a"), ("cc", "ac")]


def test_a_token_only_rate_that_was_scaled_limits_the_answer():
    tunes = [tune_row(arm, rate, 0.3, nll) for arm in "ac" for rate, nll in ((1e-3, 4.3), (2e-3, 4.2), (4e-3, 4.4))]
    rows = [*ladder_of_sizes(), *sized("c", "s", 3.2), *(row | {"size": "s"} for row in tunes)]
    assert "; rate of a scaled from s, not tuned at m" in tenfold(rows, "c against a")[1]


def test_an_arm_is_compared_with_the_largest_token_only_model_whatever_its_multiplier_says():
    rows, hybrid = ladder_of_sizes(), sized("c", "s", 2.0)
    levels = [
        np.mean([sum(n for *_, n in row["documents"]) / sum(FRAMES) for row in arm])
        for arm in (hybrid, [row for row in rows if row["size"] == "l"])
    ]
    said = cells(document([*rows, *hybrid]), "| synthetic | piano | c | s | a |")[7:]
    assert said[:3] == ["l", "100.00", f"{levels[0] - levels[1]:+.3f}"] and said[-1] == "c wins"


def test_a_curve_is_named_only_where_it_says_which_size_matches():
    rows = ladder_of_sizes()
    beyond = cells(document([*rows, *sized("c", "s", 2.0)]), "| synthetic | piano | c | s | a |")
    inside = cells(document([*rows, *sized("c", "s", 3.3)]), "| synthetic | piano | c | s | a |")
    assert beyond[5].startswith("more than") and beyond[6] == ""
    assert "more than" not in inside[5] and "log N" in inside[6]


def test_a_leak_is_worth_no_parameters():
    text = document([*ladder_of_sizes(), *sized("c'", "s", 2.0)])
    assert "equals a token-only model" not in text
    assert cells(text, "| synthetic | piano | c' | s | a |")[5].startswith("a leak, no result: more than 100.00")


# Promises


def test_a_leak_that_is_not_on_purpose_breaks_the_promise():
    said = cells(document([data_row(), *ROWS]), "| nothing sees the future")
    assert said[-1] == "yes, 3 of 9 runs checked"  # seed 0 of each arm
    bad = [*ROWS[:3], ROWS[3] | {"causality": "1 of 1 checks failed"}, *ROWS[4:]]
    unseen = [run_row("c'", seed, causality="causal: 1 checks") for seed in range(3)]
    for rows in (
        [data_row(causality="2 of 6 checks failed"), *ROWS],
        ROWS,  # no proof of the data
        [data_row(), *bad],
        [data_row(), *ROWS, *(row | {"arm": "e", "causality": None} for row in ROWS[:3])],
        [data_row(), *ROWS, *unseen],  # a leak that the check does not see says that it sees none
    ):
        assert cells(document(rows), "| nothing sees the future")[-1] == "NO"


def test_the_line_of_the_causality_command_is_printed_with_the_table_of_arms():
    bad = [*ROWS[:3], ROWS[3] | {"causality": "1 of 1 checks failed"}, *ROWS[4:]]
    text = document([data_row(), *bad])
    section = text[text.index("## 3.") : text.index("## 4.")]
    assert cells(section, "| 0.5m | a | 3 |")[-1] == "1 of 3"
    assert cells(section, "| 0.5m | c | 3 |")[-1] == "0 of 3, 1 FAILED"
    line = '`tools/verify_causality.py --run`, of 3 of 9 runs: "causal: 1 checks, nothing sees the future" (a, d); '
    assert line + '"1 of 1 checks failed" (c).' in section


def test_token_only_arms_are_held_against_the_best_n_gram():
    promise = "| every token-only arm beats the best n-gram"
    assert cells(document(ROWS), promise)[-1] == "not decided"
    good = cells(document([*ROWS, baseline_row(trigram_nll=5.9, bigram_nll=5.7)]), promise)
    assert good[-1] == "yes" and good[0].endswith("by the point estimates, without errors")
    assert "piano: best n-gram bigram, 5.7000; the last of 1 is a, 0.5m (synthetic), 4." in good[1]
    bad = cells(document([*ROWS, baseline_row(trigram_nll=4.1)]), promise)
    assert bad[-1] == "NO" and "NOT a, 0.5m (synthetic) 4." in bad[1] and "c, 0.5m" not in bad[1]
    contest = [contest_row("g2", seed, 12.0) for seed in range(3)]  # its total is above, its coarse token is below
    assert cells(document([*contest, baseline_row(trigram_nll=5.9, bigram_nll=5.7)]), promise)[-1] == "yes"
