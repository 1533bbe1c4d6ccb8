"""What the rows say together, against closed forms: means, paired differences, known curves and multipliers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wgpt_jax.ablation.analysis import final_runs, mean_over_seeds, multiplier, paired_difference
from wgpt_jax.ablation.curve import fit_curves
from wgpt_jax.ablation.resampling import draw_means, draw_weights, interval

SIZES = np.array([5e5, 1e6, 2e6, 4e6, 1e7])
A, B, C = 2.0, 40.0, 0.3


def power(sizes):
    return A + B * np.asarray(sizes, float) ** -C


def run(arm="a", *, nll, seed=0, parameters=1_000_000, frames=(100, 200, 300), fine=0.0, **fields) -> dict:
    """A row whose documents have ``nll`` nats per frame (one number, or one per document), and ``fine`` above it."""
    per_frame = np.broadcast_to(nll, len(frames))
    documents = [[f"d{i}", n, n * x, n * (x + fine)] for i, (n, x) in enumerate(zip(frames, per_frame, strict=True))]
    row = {"kind": "run", "stage": "final", "arm": arm, "seed": seed, "parameters": parameters, "documents": documents}
    return row | {"size": str(parameters)} | fields


def test_the_mean_over_seeds_has_student_s_interval():
    rows = [run(nll=value, seed=seed) for seed, value in enumerate((3.0, 3.2, 3.7))]
    found = mean_over_seeds(rows)
    assert (found.value, found.seeds, found.groups) == (pytest.approx(3.3), 3, 3)
    half = 4.302653 * np.std([3.0, 3.2, 3.7], ddof=1) / math.sqrt(3)  # t of 2 degrees of freedom, from a table
    assert (found.low, found.high) == (pytest.approx(3.3 - half, abs=1e-5), pytest.approx(3.3 + half, abs=1e-5))
    assert mean_over_seeds(rows[:1]).low is None


def test_the_mean_weighs_documents_by_their_frames_and_all_codebooks_where_asked():
    row = run(nll=(1.0, 2.0, 6.0), fine=0.5)
    assert mean_over_seeds([row], total=False).value == pytest.approx((100 + 400 + 1800) / 600)
    assert mean_over_seeds([row]).value == pytest.approx((100 + 400 + 1800) / 600 + 0.5)


def test_a_paired_difference_leaves_out_what_documents_and_seeds_share():
    rng = np.random.default_rng(0)
    frames = tuple(rng.integers(50, 500, 40))
    hard, luck = rng.normal(3, 2, 40), rng.normal(0, 1, 3)
    first = [run("c", nll=hard + luck[seed] - 0.1, seed=seed, frames=frames) for seed in range(3)]
    second = [run("a", nll=hard + luck[seed], seed=seed, frames=frames) for seed in range(3)]
    found = paired_difference(first, second)
    assert (found.value, found.low, found.high) == pytest.approx((-0.1, -0.1, -0.1))
    assert found.decided and found.seeds == 3 and found.groups == 40


def test_the_interval_of_a_difference_is_about_that_of_the_normal_theory():
    """Of one seed and many equal documents: the standard error of a mean."""
    rng = np.random.default_rng(1)
    noise, frames = rng.normal(0, 0.3, 400), (100,) * 400
    found = paired_difference([run("c", nll=noise, frames=frames)], [run("a", nll=0.0, frames=frames)])
    half = 1.96 * noise.std() / 20
    assert found.value == pytest.approx(noise.mean())
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)


def noisy(arm: str, *, seeds: int, groups: int, draw: int) -> list[dict]:
    """Runs whose documents and seeds differ at random."""
    rng = np.random.default_rng(draw)
    frames = tuple(np.random.default_rng(0).integers(50, 500, groups))
    return [run(arm, nll=rng.normal(3, 0.3, groups) + rng.normal(0, 0.1), seed=i, frames=frames) for i in range(seeds)]


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
def test_a_difference_the_other_way_round_has_the_mirrored_interval(seeds):
    first, second = (noisy(arm, seeds=seeds, groups=13, draw=draw) for draw, arm in enumerate("ca"))
    there, back = paired_difference(first, second), paired_difference(second, first)
    assert (back.value, back.low, back.high) == (-there.value, -there.high, -there.low)


@pytest.mark.parametrize("seeds", [1, 3])
def test_other_draws_move_the_ends_of_a_difference_by_less_than_a_hundredth_of_the_interval(seeds):
    first, second = (noisy(arm, seeds=seeds, groups=20, draw=draw) for draw, arm in enumerate("ca"))
    found = [paired_difference(first, second, seed=seed) for seed in range(8)]
    width = found[0].high - found[0].low
    for ends in ([each.low for each in found], [each.high for each in found]):
        assert max(ends) - min(ends) < 0.02 * width and np.std(ends) < 0.01 * width


def test_thousands_of_documents_are_drawn_less_often():
    assert draw_weights(20, 50_000, 0).shape == (25_000, 20)
    many = draw_weights(3000, 50_000, 0)
    assert 1000 < len(many) < 3000 and many[:10].sum(axis=1) == pytest.approx(3000)


def test_seeds_that_differ_widen_the_interval():
    frames = (100,) * 50
    base = [run("a", nll=3.0, seed=seed, frames=frames) for seed in range(5)]
    same = [run("c", nll=2.9, seed=seed, frames=frames) for seed in range(5)]
    spread = [
        run("c", nll=2.9 + shift, seed=seed, frames=frames) for seed, shift in enumerate((-0.2, -0.1, 0, 0.1, 0.2))
    ]
    assert paired_difference(same, base).high - paired_difference(same, base).low == pytest.approx(0, abs=1e-9)
    wide = paired_difference(spread, base)
    assert wide.value == pytest.approx(-0.1) and not wide.decided
    spread_of_mean = np.std((-0.2, -0.1, 0, 0.1, 0.2), ddof=1) / 5**0.5
    assert wide.high - wide.low == pytest.approx(2 * 2.776445 * spread_of_mean, rel=0.01)  # t of 4, from a table


@pytest.mark.parametrize("groups", [8, 20])
@pytest.mark.parametrize(
    ("seeds", "documents", "both"), [(1, 0.1, 0.1), (0.01, 1, 0.1), (0.22, 1, 0.3), (0.1, 0.1, 1), (0, 0.1, 1)]
)
def test_with_three_seeds_no_difference_is_called_one_at_most_seven_times_in_a_hundred(groups, seeds, documents, both):
    """Noise of seeds, of documents, and of each pair of them, whichever is largest; the truth is zero."""
    rng, trials = np.random.default_rng(3), 3000
    nats = seeds * rng.normal(size=(trials, 3, 1)) + documents * rng.normal(size=(trials, 1, groups))
    nats += both * rng.normal(size=(trials, 3, groups))
    frames = rng.integers(100, 300, groups).astype(float)
    low, high = interval(draw_means(nats * frames, frames, draw_weights(groups, 500, 0), rng))
    assert np.mean((low > 0) | (high < 0)) <= 0.07
    # Nor is it so wide that nothing is ever found: five deviations of the mean's noise mostly are.
    noise = math.sqrt(seeds**2 / 3 + documents**2 / groups + both**2 / (3 * groups))
    assert np.mean(low + 5 * noise > 0) > 0.6


def test_fewer_than_three_seeds_decide_nothing():
    rows = {arm: [run(arm, nll=nll, seed=seed) for seed in range(3)] for arm, nll in (("c", 1.0), ("a", 9.0))}
    assert paired_difference(rows["c"], rows["a"]).decided
    two = paired_difference(rows["c"][:2], rows["a"])
    assert two.high < 0 and two.seeds == 2 and not two.decided


def test_documents_of_one_speaker_count_as_one():
    """Four speakers with ten documents each that are all alike: the interval is that of four documents."""
    rng = np.random.default_rng(4)
    voices = rng.normal(0, 0.3, 4)
    speakers = {f"d{i}": f"speaker {i // 10}" for i in range(40)}

    def difference(repeats, **more):
        frames = (1000 // repeats,) * (4 * repeats)
        first = [run("c", nll=np.repeat(voices, repeats), seed=seed, frames=frames) for seed in range(3)]
        second = [run("a", nll=0.0, seed=seed, frames=frames) for seed in range(3)]
        return paired_difference(first, second, **more)

    grouped, four, alone = difference(10, groups=speakers), difference(1), difference(10)
    assert (grouped.low, grouped.high) == pytest.approx((four.low, four.high))
    assert grouped.groups == 4 and alone.groups == 40
    assert grouped.high - grouped.low > 3 * (alone.high - alone.low)
    with pytest.raises(ValueError, match="which group the document d39 belongs"):
        difference(10, groups={name: who for name, who in speakers.items() if name != "d39"})


def test_only_seeds_that_both_have_are_paired_and_other_frames_are_refused():
    first, second = [run("c", nll=1.0, seed=0), run("c", nll=9.0, seed=1)], [run("a", nll=2.0, seed=0)]
    assert paired_difference(first, second).value == pytest.approx(-1.0)
    with pytest.raises(ValueError, match="no seed in common"):
        paired_difference(first[1:], second)
    with pytest.raises(ValueError, match="same frames"):
        paired_difference(first, [run("a", nll=2.0, frames=(100, 200, 301))])


def test_a_curve_made_with_known_constants_is_recovered():
    curve = fit_curves(SIZES, power(SIZES)[None])
    assert curve.c[0] == pytest.approx(C, rel=1e-4) and curve.a[0] == pytest.approx(A, rel=1e-4)
    assert curve.b[0] * curve.scale**C == pytest.approx(B, rel=1e-3)
    between = np.array([7e5, 3e6, 9e6])
    assert curve.at(between)[0] == pytest.approx(power(between), abs=1e-6)
    for size in between:
        assert curve.size_at(power([size]))[0] == pytest.approx(size, rel=1e-4)
    assert math.isinf(curve.size_at(np.array([A - 0.1]))[0])


def test_few_sizes_give_a_line_in_log_parameters():
    curve = fit_curves(SIZES[:3], (7 - 0.2 * np.log(SIZES[:3]))[None])
    assert "line in log N" in curve.form
    assert curve.size_at(np.array([7 - 0.2 * math.log(1.5e6)]))[0] == pytest.approx(1.5e6, rel=1e-6)


@pytest.mark.parametrize("times", [0.8, 1.0, 2.5, 4.0])
def test_a_known_multiplier_is_recovered(times):
    tokens = [run(nll=float(power(size)), parameters=int(size), seed=seed) for size in SIZES for seed in range(2)]
    hybrid = [run("c", nll=float(power(times * 1e6)), parameters=1_000_000, seed=seed) for seed in range(2)]
    found = multiplier(tokens, hybrid, resamples=50)
    assert found.value == pytest.approx(times, rel=1e-3) and found.where == "inside"
    assert (found.low, found.high) == pytest.approx((times, times), rel=1e-3)


def test_the_interval_of_a_multiplier_is_that_of_the_noise():
    """Documents that are better for the hybrid by a random amount: through the slope of the curve, parameters."""
    rng = np.random.default_rng(2)
    gain, frames = rng.normal(0, 0.5, 300), (100,) * 300
    tokens = [run(nll=float(power(size)), parameters=int(size), frames=frames) for size in SIZES]
    hybrid = [run("c", nll=float(power(2e6)) + gain - gain.mean(), frames=frames)]
    found = multiplier(tokens, hybrid, resamples=1000)
    half = 1.96 * gain.std() / math.sqrt(300)
    ends = [((float(power(2e6)) + shift - A) / B) ** (-1 / C) / 1e6 for shift in (half, -half)]
    assert found.value == pytest.approx(2.0, rel=1e-3)
    assert (found.low, found.high) == (pytest.approx(ends[0], rel=0.1), pytest.approx(ends[1], rel=0.1))


def test_nothing_is_extrapolated():
    tokens = [run(nll=float(power(size)), parameters=int(size)) for size in SIZES]
    above = multiplier(tokens, [run("c", nll=float(power(3e7)))], resamples=20)
    assert (above.value, above.where, above.bound) == (None, "above", 10.0)
    assert above.low == 10.0 and math.isinf(above.high)
    said = "more than 10.00: no token-only model that was trained is as good (10.00 to beyond the largest, 1 seed)"
    assert str(above) == said
    below = multiplier(tokens, [run("c", nll=float(power(1e5)))], resamples=20)
    assert (below.value, below.where, below.bound, below.low) == (None, "below", 0.5, 0.0)
    assert below.high == 0.5
    assert str(below).startswith("less than 0.50: the smallest token-only model that was trained is as good (from ")
    with pytest.raises(ValueError, match="two sizes or more"):
        multiplier(tokens[:1], [run("c", nll=3.0)])


TURNING = (0.5e6, 1e6, 2e6, 4e6, 10e6, 40e6)


@pytest.mark.parametrize(
    ("levels", "nll", "between"),
    [
        ((3.0, 2.90, 2.88, 2.86, 2.90, 3.0), 2.885, (2, 4)),
        ((2.9, 2.87, 2.85, 2.84, 2.85, 2.86), 2.845, (4, 8)),
        ((3.0, 2.95, 2.91, 2.88, 2.90, 2.92), 2.885, (4, 8)),
    ],
)
def test_a_size_is_not_beyond_token_only_models_that_are_as_good(levels, nll, between):
    """Token-only models that were trained lie on either side of the hybrid, and the largest ones are worse again."""
    tokens = [run(nll=level, parameters=int(size)) for size, level in zip(TURNING, levels, strict=True)]
    found = multiplier(tokens, [run("c", nll=nll, parameters=500_000)], resamples=50)
    assert found.where == "inside" and between[0] <= found.value <= between[1]
    assert between[0] <= found.low <= found.high <= between[1]
    assert found.curve == "a + b * N^-c through 4 of 6 sizes, up to that with the lowest NLL"


def test_where_the_fit_flattens_above_a_model_that_is_as_good_that_model_is_taken():
    """The fit misses the last point, which alone reaches the hybrid's NLL."""
    levels = (3.0, 2.9, 2.89, 2.889, 2.85)
    tokens = [run(nll=level, parameters=int(size)) for size, level in zip(TURNING[:5], levels, strict=True)]
    curve = fit_curves(np.array(TURNING[:5]), np.array([levels]))
    assert curve.size_at(np.array([2.851]))[0] > TURNING[4]
    found = multiplier(tokens, [run("c", nll=2.851, parameters=500_000)], resamples=50)
    assert (found.where, found.value, found.high) == ("inside", 20.0, 20.0)
    better = multiplier(tokens, [run("c", nll=2.849, parameters=500_000)], resamples=50)
    assert (better.where, better.bound) == ("above", 20.0)


def test_a_line_that_misses_its_points_does_not_pass_a_model_that_is_as_good():
    """The line through three sizes has the hybrid's NLL at 1.1 M, but the model of 1 M is better already."""
    levels = (3.7138, 3.6328, 3.6216)
    tokens = [run(nll=level, parameters=int(size)) for size, level in zip(TURNING[:3], levels, strict=True)]
    curve = fit_curves(np.array(TURNING[:3]), np.array([levels]))
    assert curve.size_at(np.array([3.65]))[0] > 1e6
    found = multiplier(tokens, [run("c", nll=3.65, parameters=500_000)], resamples=50)
    assert (found.value, found.low, found.high) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize("levels", [(3.0, 2.95, 2.91, 2.88, 2.90, 2.92), (2.9, 2.91, 2.92, 2.93, 2.94, 2.95)])
def test_a_hybrid_that_beats_every_size_is_worth_more_than_the_largest(levels):
    """Also where the largest are not the best, or larger ones are no better at all."""
    tokens = [run(nll=level, parameters=int(size)) for size, level in zip(TURNING, levels, strict=True)]
    found = multiplier(tokens, [run("c", nll=2.85, parameters=500_000)], resamples=50)
    assert (found.value, found.where, found.bound, found.low, found.high) == (None, "above", 80.0, 80.0, math.inf)


def test_where_the_fit_says_nothing_a_line_between_the_two_sizes_does():
    levels = (3.0, 4.0, 4.0, 2.99)  # fitted best by a curve that rises
    tokens = [run(nll=level, parameters=int(size)) for size, level in zip(TURNING[:4], levels, strict=True)]
    assert np.isnan(fit_curves(np.array(TURNING[:4]), np.array([levels])).size_at(np.array([2.995]))[0])
    found = multiplier(tokens, [run("c", nll=2.995, parameters=500_000)], resamples=50)
    assert found.value == pytest.approx(4 * 2 ** (1.005 / 1.01))


@settings(max_examples=60, deadline=None)
@given(
    start=st.integers(2800, 3200),
    steps=st.lists(st.integers(-30, 300), min_size=1, max_size=5),
    turn=st.integers(0, 5),
    wanted=st.integers(1500, 3500),
)
def test_a_multiplier_is_never_outside_the_two_trained_sizes_around_it(start, steps, turn, wanted):
    """Levels fall, then rise, with dips in both."""
    moves = [-step if at < turn else step for at, step in enumerate(steps)]
    levels = [start, *(start + sum(moves[: at + 1]) for at in range(len(moves)))]
    tokens = [run(nll=nll / 1000, parameters=int(size)) for size, nll in zip(TURNING, levels, strict=False)]
    found = multiplier(tokens, [run("c", nll=wanted / 1000, parameters=500_000)], resamples=4)
    times = [size / 5e5 for size, _ in zip(TURNING, levels, strict=False)]
    as_good = [each for each, nll in zip(times, levels, strict=True) if nll <= wanted]
    if not as_good:
        assert (found.where, found.bound, found.value) == ("above", times[-1], None)
    elif as_good[0] == times[0]:
        assert (found.where, found.bound, found.value) == ("below", times[0], None)
    else:
        assert found.where == "inside"
        assert max(each for each in times if each < as_good[0]) <= found.value <= as_good[0]


def test_a_multiplier_of_few_seeds_spreads_as_student_s_distribution_does():
    """Only the hybrid's three seeds differ: through the slope of a line in log N, parameters."""
    tokens = [run(nll=7 - 0.2 * math.log(size), parameters=int(size), seed=i) for size in SIZES[:3] for i in range(3)]
    shifts = (-0.01, 0.0, 0.01)
    hybrid = [run("c", nll=7 - 0.2 * math.log(1e6) + shift, seed=seed) for seed, shift in enumerate(shifts)]
    found = multiplier(tokens, hybrid)
    half = 4.302653 * 0.01 / math.sqrt(3)  # t of 2 degrees of freedom, from a table
    assert found.value == pytest.approx(1.0, rel=1e-6) and found.seeds == 3
    assert (found.low, found.high) == pytest.approx((math.exp(-half / 0.2), math.exp(half / 0.2)), rel=0.02)


def test_a_multiplier_of_a_single_document_has_no_interval():
    tokens = [run(nll=float(power(size)), parameters=int(size), frames=(100,)) for size in SIZES]
    found = multiplier(tokens, [run("c", nll=float(power(2e6)), frames=(100,))])
    assert (found.low, found.high) == (None, None) and str(found) == "2.00 (no interval: a single document)"


def test_draws_beyond_the_trained_sizes_open_the_interval_on_their_side():
    """Two documents that disagree about who is better: half of the draws have none but one of them."""
    frames = (100, 100)
    tokens = [run(nll=(float(power(size)), 4.0), parameters=int(size), frames=frames) for size in SIZES]
    level = float(power(2e6))
    found = multiplier(tokens, [run("c", nll=(level + 1, 3.0), frames=frames)], resamples=200)
    assert found.value == pytest.approx(2.0, rel=1e-3) and (found.low, found.high) == (0.0, math.inf)
    assert "(from beyond the smallest to beyond the largest, 1 seed)" in str(found)


def test_final_runs_are_the_scored_ones_by_seed():
    rows = [run(nll=1.0, seed=1), run(nll=1.0, seed=0), run(nll=1.0, seed=2, stage="tune"), {"kind": "baseline"}]
    assert [row["seed"] for row in final_runs(rows, arm="a")] == [0, 1]
    assert final_runs(rows, arm="c") == []
