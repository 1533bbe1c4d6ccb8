"""The grid of an ablation: fair by construction, or refused in a sentence; every arm of a size equally large."""

import dataclasses
import itertools
import math
import runpy
from pathlib import Path

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgpt_jax.ablation.arms import CONTEST, INPUTS, chosen
from wgpt_jax.ablation.counts import Sized
from wgpt_jax.ablation.grid import SIZES, Ablation, Arm, Size, Sweep, load_ablation
from wgpt_jax.ablation.groups import GROUPS
from wgpt_jax.ablation.runs import DIVERGED, all_runs, configured, more_runs, select, sweep_of, tuned_point
from wgpt_jax.ablation.sizing import at_size, groups
from wgpt_jax.ablation.sweep import follow
from wgpt_jax.config import MeshConfig, ModelConfig
from wgpt_jax.errors import RequestError
from wgpt_jax.parallel.mesh import make_mesh
from wgpt_jax.training.state import abstract_model, count_parameters

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("ablation_*.py"))
SMALL = Size("small", 100_000, width=32, depth=2, heads=2, mel_width=16)
LARGE = Size("large", 400_000, width=64, depth=2, heads=2, mel_width=16, tuned_at="small")
SWEEP = Sweep(learning_rates=(1e-3, 4e-3), embedding_stds=(0.3, 1.0), steps=5)


def grid(**changes) -> Ablation:
    values = {"arms": chosen("a", "c"), "sizes": (SMALL, LARGE), "sweep": SWEEP, "steps": 10, "batch": 8, "context": 32}
    return Ablation(**(values | {"name": "test"} | changes))


def tune_row(arm="a", data="x", size="small", *, point, nll, kind="run") -> dict:
    row = {"kind": kind, "stage": "tune", "data": data, "arm": arm, "size": size, "seed": 0}
    return row | {"learning_rate": point[0], "embedding_std": point[1], "evaluation": {"total_nll": nll}}


def test_every_arm_gets_the_same_runs_and_a_size_tuned_elsewhere_has_no_sweep():
    runs = all_runs(grid(), ["x", "y"], [])
    tune, final = ([run for run in runs if run.stage == stage] for stage in ("tune", "final"))
    assert len(tune) == 2 * 2 * 4 and {run.size for run in tune} == {"small"}
    assert len(final) == 2 * 2 * 2 * 3
    assert {run.steps for run in final} == {10} and {run.steps for run in tune} == {5}
    assert len({run.name for run in runs}) == len(runs)
    for run in final:
        assert runs.index(run) > max(runs.index(other) for other in tune if other.group == run.tuned_by)


def test_a_shared_sweep_is_done_on_the_first_data_set_alone():
    runs = all_runs(grid(sweep_per_data=False), ["x", "y"], [])
    assert {run.data for run in runs if run.stage == "tune"} == {"x"}
    assert {run.tuned_by[0] for run in runs if run.stage == "final"} == {"x"}


def test_the_best_of_a_sweep_is_taken_and_scaled_by_the_root_of_the_widths():
    ablation = grid()
    final = next(run for run in all_runs(ablation, ["x"], []) if run.stage == "final" and run.size == "large")
    rows = [tune_row(point=point, nll=5.0 + number) for number, point in enumerate(SWEEP.points)]
    rows[2]["evaluation"]["total_nll"] = 4.0
    assert tuned_point(ablation, final, rows[:3]) is None
    rate, std = SWEEP.points[2]
    assert tuned_point(ablation, final, rows) == (pytest.approx(rate / 2**0.5, rel=1e-3), std)


def test_a_point_that_diverged_is_worse_than_all_and_one_that_failed_otherwise_is_waited_for():
    ablation = grid()
    final = next(run for run in all_runs(ablation, ["x"], []) if run.stage == "final" and run.size == "small")
    rows = [tune_row(point=point, nll=5.0 + number) for number, point in enumerate(SWEEP.points)]
    diverged, broken = ({"kind": "failed", "reason": reason} for reason in (f"{DIVERGED}: nan", "out of memory"))
    assert tuned_point(ablation, final, [rows[0] | diverged, *rows[1:]]) == SWEEP.points[1]
    assert tuned_point(ablation, final, [rows[0] | broken, *rows[1:]]) is None
    assert tuned_point(ablation, final, [rows[0] | broken, *rows]) == SWEEP.points[0]  # made again since
    assert tuned_point(ablation, final, [row | diverged for row in rows]) is None
    assert sweep_of(ablation, final.tuned_by, [row | diverged for row in rows]).finished


def swept_by(score, sweep: Sweep):
    """A sweep followed to its end as a scheduler does: the points that have no score are scored."""
    scores = {}
    while not (swept := follow(sweep, scores)).finished:
        new = [point for point in swept.points if point not in scores]
        assert len(new) > 0 and set(scores) <= set(swept.points)
        scores |= {point: score(*point) for point in new}
    return swept, scores


def bowl(rate: float, std: float):
    """A validation NLL with its optimum at a point."""
    return lambda x, y: math.log(x / rate) ** 2 + math.log(y / std) ** 2


SQUARE = Sweep(learning_rates=(6e-3, 1.2e-2), embedding_stds=(0.1, 0.3), steps=5, extend=2)


def test_a_sweep_goes_on_until_its_best_point_is_inside():
    swept, scores = swept_by(bowl(2.4e-2, 0.3), SQUARE)
    assert swept.points[4:] == ((2.4e-2, 0.3), (1.2e-2, 0.9), (4.8e-2, 0.3))
    assert swept.best == (2.4e-2, 0.3) and swept.edges == () and swept.more == 0
    swept, scores = swept_by(bowl(1e-9, 0.15), SQUARE)
    assert swept.points[4:] == ((3e-3, 0.1), (6e-3, 0.03333), (1.5e-3, 0.1))
    assert swept.best == (1.5e-3, 0.1) and swept.edges == ("learning rate",)
    swept, scores = swept_by(lambda *point: None if point[0] > 1.2e-2 else bowl(1, 0.3)(*point), SQUARE)
    assert swept.best == (1.2e-2, 0.3) and swept.edges == () and scores[2.4e-2, 0.3] is None
    assert swept_by(lambda *_: None, SQUARE)[0].best is None


@given(st.floats(1e-6, 1e2), st.floats(1e-4, 1e3), st.integers(0, 3))
def test_a_sweep_is_bounded_the_same_for_every_arm(rate, std, extend):
    sweep = dataclasses.replace(SQUARE, extend=extend)
    assert follow(sweep, {}).more == 2 * extend
    swept, scores = swept_by(bowl(rate, std), sweep)
    assert 4 + min(extend, 1) * 2 <= len(swept.points) <= 4 + 2 * extend
    assert swept.best == min(scores, key=scores.get) and set(swept.points) == set(scores)
    for at, name in ((0, "learning rate"), (1, "embedding_std")):
        values = sorted({point[at] for point in scores})
        assert (swept.best[at] in (values[0], values[-1])) == (name in swept.edges)


def test_the_runs_of_a_sweep_follow_from_the_rows():
    ablation = grid(sweep=SQUARE)
    rows = [tune_row(point=point, nll=bowl(1.2e-2, 0.3)(*point)) for point in SQUARE.points]
    before, after = (all_runs(ablation, ["x"], given) for given in ([], rows))
    assert {run.name for run in after} - {run.name for run in before} == {
        "x-a-small-tune-lr0.024-std0.3",
        "x-a-small-tune-lr0.012-std0.9",
    }
    final = next(run for run in after if run.stage == "final" and run.size == "small" and run.arm == "a")
    assert tuned_point(ablation, final, rows) is None
    assert (more_runs(ablation, before, []), more_runs(ablation, after, rows)) == (8, 6)
    unrelated = tune_row(point=(2.4e-2, 0.03), nll=-9.0)
    assert all_runs(ablation, ["x"], [*rows, unrelated]) == after
    rows += [tune_row(point=point, nll=9.0) for point in ((2.4e-2, 0.3), (1.2e-2, 0.9))]
    assert tuned_point(ablation, final, [*rows, unrelated]) == (1.2e-2, 0.3)
    reseeded = grid(sweep=dataclasses.replace(SQUARE, seed=7))
    assert tuned_point(reseeded, dataclasses.replace(final, seed=0), rows) is None, "scores of another seed"


def test_one_point_needs_no_sweep():
    one = Sweep(learning_rates=(1e-3,), embedding_stds=(0.3,), steps=5)
    runs = all_runs(grid(sweep=one), ["x"], [])
    assert {run.stage for run in runs} == {"final"}
    assert {run.point[0] for run in runs if run.size == "small"} == {1e-3}
    assert {run.point[0] for run in runs if run.size == "large"} == {float(f"{1e-3 / 2**0.5:.4g}")}


def test_only_names_parts_of_the_grid_and_what_they_need():
    runs = all_runs(grid(), ["x", "y"], [])
    some = select(runs, ["arm=c,size=large,seed=1,data=y"])
    assert [run.name for run in some if run.stage == "final"] == ["y-c-large-seed1"]
    assert {run.group for run in some if run.stage == "tune"} == {("y", "c", "small")}
    assert len(select(runs, ["arm=a,seed=0,stage=final", "arm=c,stage=tune"])) == 2 * 2 + 2 * 4
    assert select(runs, []) == runs
    for wrong, told in (
        ("arm", "is none of"),
        ("arm=z", "there are a, c"),
        ("seed=9", "there are 0, 1, 2"),
        ("arm=a,arm=c", "arm is named twice; give arm=a arm=c for both"),
    ):
        with pytest.raises(RequestError, match=told):
            select(runs, [wrong])
    with pytest.raises(RequestError, match="no run of the grid"):
        select(runs, ["size=large,stage=tune"])


@given(
    st.lists(st.sampled_from([1e-3, 2e-3, 4e-3, 8e-3]), min_size=1, max_size=3, unique=True),
    st.lists(st.sampled_from([1e-3, 2e-3, 4e-3, 8e-3]), min_size=1, max_size=3, unique=True),
)
def test_a_token_only_arm_is_never_tuned_less_than_a_hybrid(tokens, hybrid):
    arms = [
        dataclasses.replace(arm, sweep=Sweep(tuple(rates), (0.3,), steps=5))
        for arm, rates in zip(chosen("a", "c"), (tokens, hybrid), strict=True)
    ]
    fair = len(tokens) >= len(hybrid) and min(tokens) <= min(hybrid) and max(tokens) >= max(hybrid)
    if fair:
        grid(arms=tuple(arms)).validate()
    else:
        with pytest.raises(RequestError, match=r"arm a\b"):
            grid(arms=tuple(arms)).validate()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"arms": chosen("a", "a")}, "same name"),
        ({"arms": ()}, "no arms"),
        ({"seeds": (0, 0)}, "give different ones"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": "60"}, "'60' is no whole number"),
        ({"seeds": 3}, "seeds of the ablation: 3 is no tuple"),
        ({"sweep": dataclasses.replace(SWEEP, learning_rates=4e-3)}, r"learning_rates .* 0\.004 is no tuple"),
        ({"name": ""}, "has no name"),
        ({"arms": (dataclasses.replace(INPUTS["a"], name="a/b"),)}, "arm 'a/b'"),
        ({"sizes": (dataclasses.replace(SMALL, name="1,5m"),)}, "size '1,5m'"),
        ({"sweep": dataclasses.replace(SWEEP, extend=-1)}, "extend -1"),
        ({"sweep": Sweep((1e-3,), (0.3,), 5, extend=2)}, "needs an axis of two values"),
        (
            {"arms": (INPUTS["a"], dataclasses.replace(INPUTS["c"], sweep=dataclasses.replace(SWEEP, extend=1)))},
            "seeds or extend",
        ),
        ({"sweep": Sweep((1e-3, -1e-3), (0.3,), 5)}, "positive"),
        ({"sweep": Sweep((1e-3, 1e-3), (0.3,), 5)}, "twice"),
        ({"sizes": (SMALL, LARGE, dataclasses.replace(SMALL, name="s", tuned_at="large"))}, "no sweep of its own"),
        ({"sizes": (dataclasses.replace(SMALL, tuned_at="medium"),)}, "no size 'medium'"),
        (
            {"arms": (INPUTS["c"], dataclasses.replace(INPUTS["d"], sweep=Sweep((1e-3,), (0.3,), 5)))},
            "same budget",
        ),
        (
            {"arms": (INPUTS["a"], dataclasses.replace(INPUTS["c"], sweep=dataclasses.replace(SWEEP, steps=50)))},
            "other steps, seeds or extend",
        ),
    ],
)
def test_a_grid_that_cannot_be_fair_is_refused(changes, told):
    with pytest.raises(RequestError, match=told):
        grid(**changes).validate()


def test_an_arm_says_what_differs_and_nothing_else_does():
    ablation = grid(arms=(*chosen("a", "c", "i"),))
    tokens, hybrid, flat = (ablation.config(arm, SMALL) for arm in ablation.arms)
    same = dataclasses.replace(hybrid, model=dataclasses.replace(hybrid.model, inputs="tokens"))
    assert same == tokens
    assert (tokens.training.batch, flat.training.batch) == (8, 2)
    with pytest.raises(RequestError, match="not a multiple of 4"):
        grid(batch=6).config(CONTEST["i"], SMALL)
    with pytest.raises(RequestError, match=r"unknown key model\.depht; did you mean model\.depth"):
        grid().config(Arm("z", "", {"depht": 3}), SMALL)


def test_a_run_takes_the_steps_and_the_point_that_it_is_given():
    ablation = grid()
    run = all_runs(ablation, ["x"], [])[1]
    config = configured(run, Sized(ablation.config(ablation.arm(run.arm), SMALL), {}), (5e-3, 0.7))
    assert (config.optimizer.learning_rate, config.model.embedding_std) == (5e-3, 0.7)
    assert (config.training.steps, config.training.eval_every, config.training.seed) == (5, 5, 0)
    final = next(run for run in all_runs(ablation, ["x"], []) if run.stage == "final" and run.seed == 2)
    config = configured(final, Sized(ablation.config(ablation.arm(final.arm), SMALL), {}), (5e-3, 0.7))
    assert (config.training.seed, config.data.shuffle_seed) == (2, 2), "seeds differ in the order of the data too"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_arm_of_a_shipped_size_has_as_many_parameters_as_the_size_says(path):
    ablation, mesh = load_ablation(path), make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    assert f"wgpt ablate configs/{path.name} " in runpy.run_path(str(path))["__doc__"]
    for size in ablation.sizes:
        counts = []
        for model in dict.fromkeys(ablation.config(arm, size).model for arm in ablation.arms):
            sized = at_size(model, size.parameters)
            assert dataclasses.replace(sized, hidden=model.hidden) == model and sized.hidden % 8 == 0
            counts.append(count_parameters(abstract_model(sized, mesh)[1]))
            assert sum(groups(sized).values()) == counts[-1] and set(groups(sized)) <= set(GROUPS)
        assert max(abs(count / size.parameters - 1) for count in counts) <= 0.01
        assert max(counts) / min(counts) - 1 < 0.03


@pytest.mark.parametrize("name", SIZES)
def test_a_named_size_is_one_for_tokens_and_hybrid(name):
    size = SIZES[name]
    for arm in chosen("a", "c"):
        model = at_size(grid().config(arm, size).model, size.parameters)
        assert sum(groups(model).values()) == pytest.approx(size.parameters, rel=0.01)


def test_a_size_that_cannot_be_met_is_refused():
    model = ModelConfig(width=64, depth=2, heads=2, mel_width=16, mel_heads=2)
    with pytest.raises(RequestError, match="all but its MLPs has"):
        at_size(model, 100_000)
    coarse = dataclasses.replace(model, width=16, depth=20, vocabulary=16)  # 8 channels are 5,120 parameters
    nearest = [sum(groups(dataclasses.replace(coarse, hidden=hidden)).values()) for hidden in (64, 72)]
    with pytest.raises(RequestError, match="8 channels of its MLPs are"):
        at_size(coarse, sum(nearest) // 2)


def test_the_arms_are_those_of_the_experiment():
    assert list(INPUTS) == ["a", "b", "c", "d", "e", "f", "c'", "ac", "cc", "dc"]
    assert list(CONTEST) == ["g", "g2", "h", "g2c", "hc", "i"]
    assert [name for name, arm in INPUTS.items() if arm.leaks] == ["c'"]
    everything = itertools.chain(INPUTS.values(), CONTEST.values())
    assert {arm.name for arm in everything if not arm.hybrid} == {"a", "ac", "b", "g", "g2", "g2c", "i"}
