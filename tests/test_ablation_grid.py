"""The grid of an ablation: fair by construction, or refused in a sentence; every arm of a size equally large."""

import dataclasses
import itertools
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
from wgpt_jax.ablation.runs import all_runs, configured, select, tuned_point
from wgpt_jax.ablation.sizing import at_size, groups
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
    runs = all_runs(grid(), ["x", "y"])
    tune, final = ([run for run in runs if run.stage == stage] for stage in ("tune", "final"))
    assert len(tune) == 2 * 2 * 4 and {run.size for run in tune} == {"small"}
    assert len(final) == 2 * 2 * 2 * 3
    assert {run.steps for run in final} == {10} and {run.steps for run in tune} == {5}
    assert len({run.name for run in runs}) == len(runs)
    for run in final:
        assert runs.index(run) > max(runs.index(other) for other in tune if other.group == run.tuned_by)


def test_a_shared_sweep_is_done_on_the_first_data_set_alone():
    runs = all_runs(grid(sweep_per_data=False), ["x", "y"])
    assert {run.data for run in runs if run.stage == "tune"} == {"x"}
    assert {run.tuned_by[0] for run in runs if run.stage == "final"} == {"x"}


def test_the_best_of_a_sweep_is_taken_and_scaled_by_the_root_of_the_widths():
    ablation = grid()
    final = next(run for run in all_runs(ablation, ["x"]) if run.stage == "final" and run.size == "large")
    rows = [tune_row(point=point, nll=5.0 + number) for number, point in enumerate(SWEEP.points)]
    rows[2]["evaluation"]["total_nll"] = 4.0
    assert tuned_point(ablation, final, rows[:3]) is None
    rate, std = SWEEP.points[2]
    assert tuned_point(ablation, final, rows) == (pytest.approx(rate / 2**0.5, rel=1e-3), std)
    rows[2] |= {"kind": "failed"}
    assert tuned_point(ablation, final, rows)[1] == SWEEP.points[0][1]
    assert tuned_point(ablation, final, [row | {"kind": "failed"} for row in rows]) is None


def test_one_point_needs_no_sweep():
    one = Sweep(learning_rates=(1e-3,), embedding_stds=(0.3,), steps=5)
    runs = all_runs(grid(sweep=one), ["x"])
    assert {run.stage for run in runs} == {"final"}
    assert {run.point[0] for run in runs if run.size == "small"} == {1e-3}
    assert {run.point[0] for run in runs if run.size == "large"} == {float(f"{1e-3 / 2**0.5:.4g}")}


def test_only_names_parts_of_the_grid_and_what_they_need():
    runs = all_runs(grid(), ["x", "y"])
    some = select(runs, ["arm=c,size=large,seed=1,data=y"])
    assert [run.name for run in some if run.stage == "final"] == ["y-c-large-seed1"]
    assert {run.group for run in some if run.stage == "tune"} == {("y", "c", "small")}
    assert len(select(runs, ["arm=a,seed=0,stage=final", "arm=c,stage=tune"])) == 2 * 2 + 2 * 4
    assert select(runs, []) == runs
    for wrong, told in (("arm", "is none of"), ("arm=z", "there are a, c"), ("seed=9", "there are 0, 1, 2")):
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
            "other steps or seeds",
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
    run = all_runs(ablation, ["x"])[1]
    config = configured(run, Sized(ablation.config(ablation.arm(run.arm), SMALL), {}), (5e-3, 0.7))
    assert (config.optimizer.learning_rate, config.model.embedding_std) == (5e-3, 0.7)
    assert (config.training.steps, config.training.eval_every, config.training.seed) == (5, 5, 0)


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
    assert list(INPUTS) == ["a", "b", "c", "d", "e", "f", "c'"] and list(CONTEST) == ["g", "g2", "h", "i"]
    assert [name for name, arm in INPUTS.items() if arm.leaks] == ["c'"]
    everything = itertools.chain(INPUTS.values(), CONTEST.values())
    assert {arm.name for arm in everything if not arm.hybrid} == {"a", "b", "g", "g2", "i"}
