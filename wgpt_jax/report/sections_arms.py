"""Sections 3 and 4: the ladder of inputs, and the contest at several codebooks out."""

import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from wgpt_jax.ablation.analysis import mean_over_seeds, nats_of
from wgpt_jax.evaluation import meaning
from wgpt_jax.report.causality import checked, lines_of
from wgpt_jax.report.groups import Group
from wgpt_jax.report.numbers import listed, nats, percent, table
from wgpt_jax.report.pairs import compared
from wgpt_jax.report.provenance import Provenance
from wgpt_jax.report.rows import Row
from wgpt_jax.report.sweeps import swept
from wgpt_jax.scores import ratio

_CHOSEN = {"parameters": ",", "learning_rate": "g", "embedding_std": "g"}


def ladder(groups: Sequence[Group], origins: Provenance, data: Sequence[str]) -> list[str]:
    """Every arm that predicts the coarse token alone."""
    return _arms([group for group in groups if group.codebooks == 1], origins, data, "ablation_inputs")


def contest(groups: Sequence[Group], origins: Provenance, data: Sequence[str]) -> list[str]:
    """Every arm that predicts several codebooks."""
    return _arms([group for group in groups if group.codebooks > 1], origins, data, "ablation_codebooks")


def how_to_run(experiment: str, data: Sequence[str]) -> str:
    """The command that fills a section."""
    sets = " ".join(f"--data {name}=DATA" for name in data) or "--data DATA"
    return f"`wgpt ablate configs/{experiment}.py {sets} --workdir runs/{experiment}`"


def means_of(groups: Sequence[Group]) -> list[str]:
    """What the NLL of each arm is, as ``wgpt evaluate`` says it."""
    told: dict[str, list[str]] = {}
    for group in groups:
        for arm in group.arms():
            row = next(row for row in group.rows if row["arm"] == arm and row["stage"] == "final")
            scores = row["evaluation"]
            said = meaning(scores["mel_source"], scores["output_codebooks"], scores["input_codebooks"])
            names = told.setdefault(said, [])
            names += [arm] if arm not in names else []
    return [f"- {', '.join(arms)}: {said}" for said, arms in told.items()]


def decoder_steps(row: Row) -> int:
    """Positions of the decoder that a run trained: one per frame, one per codebook where they are flattened."""
    model = row["config"]["model"]
    return row["frames"] * (model["output_codebooks"] if model["pattern"] == "flat" else 1)


def _arms(groups: Sequence[Group], origins: Provenance, data: Sequence[str], experiment: str) -> list[str]:
    if not groups:
        return [f"Not there; it is made by {how_to_run(experiment, data)}.", ""]
    lines = ["What the NLL of each arm is:", "", *means_of(groups), ""]
    for group in groups:
        lines += [f"### {group.title}", "", *_made(group, groups), "", *_scored(group), *compared(group)]
        lines += origins.made_by([row for row in group.rows if row["data"] == group.data])
    return lines


def _made(group: Group, groups: Sequence[Group]) -> list[str]:
    """How each arm was made: parameters, what its sweep chose, what it was trained on."""
    heads = ["size", "arm", "input", "parameters", "learning rate", "embedding std", "points tried", "best on the edge"]
    heads += ["validation NLL of the sweep", "frames", "decoder steps", "minutes"]
    cells = []
    for size in group.sizes:
        for arm in group.arms(size):
            runs = group.final(arm, size)
            minutes = [row["train_seconds"] / 60 for row in runs if row["train_seconds"] is not None]
            row = [size, arm, runs[0]["title"]]
            row += [_values(runs, key, form) for key, form in _CHOSEN.items()]
            row += _sweep(group, groups, arm, size)
            row += [_values(runs, "frames", ","), f"{decoder_steps(runs[0]):,}"]
            cells.append([*row, f"{statistics.fmean(minutes):.1f}" if minutes else ""])
    return table(heads, cells)


def _sweep(group: Group, groups: Sequence[Group], arm: str, size: str) -> list[str]:
    """What an arm's sweep tried, on which edge its choice lies and its spread; where another line tells it, which."""
    sweep = swept(group, arm, size)
    data, where = sweep.place or (group.data, size)
    told = [f"at {where}"] * (where != size) + [f"on {data}"] * (data != group.data)
    shown = [each for each in groups if each.experiment == group.experiment and each.data == data]
    if told and sweep.spread in [swept(each, arm, where).spread for each in shown if each.final(arm, where)]:
        return [f"as {' '.join(told)}", "", ""]
    return [sweep.tried, sweep.chosen, sweep.spread]


def _scored(group: Group) -> list[str]:
    """What each arm scored on the test split, over all its seeds, and how many of its runs were proved causal."""
    several = group.codebooks > 1
    heads = ["size", "arm", "seeds", "NLL" + (" (all codebooks)" if several else ""), "+- documents", "+- seeds"]
    heads += (["coarse NLL", "bits/s"] if several else ["bits/s", "PPL"]) + ["top-1 %", "top-10 %", "ECE %"]
    cells = []
    for size in group.sizes:
        for arm in group.arms(size):
            runs = group.final(arm, size)
            row = [size, arm, str(len(runs)), *_likelihood(runs, group.belongs), *_scores(runs, several)]
            cells.append([*row, checked(runs)])
    finals = [row for row in group.rows if row["stage"] == "final"]
    return [*table([*heads, "proved causal"], cells), "", *lines_of(finals)]


def _likelihood(runs: Sequence[Row], belongs: Mapping[str, str] | None) -> list[str]:
    """NLL, its standard error over documents, its standard deviation over seeds."""
    per_group, frames = nats_of(runs, groups=belongs)
    stderr = ratio(per_group.mean(axis=0).tolist(), frames)[1]
    seeds = per_group.sum(axis=1) / frames.sum()
    spread = nats(float(np.std(seeds, ddof=1))) if len(seeds) > 1 else "one seed"
    return [nats(mean_over_seeds(runs).value), "one document" if math.isnan(stderr) else nats(stderr), spread]


def _scores(runs: Sequence[Row], several: bool) -> list[str]:
    scores = {
        key: statistics.fmean(row["evaluation"][key] for row in runs)
        for key in ("nll", "total_bits_per_second", "top1", "top10", "ece")
    }
    bits = f"{scores['total_bits_per_second']:.1f}"
    first = [nats(scores["nll"]), bits] if several else [bits, f"{math.exp(min(scores['nll'], 700)):.2f}"]
    return first + [percent(scores[key]) for key in ("top1", "top10", "ece")]


def _values(runs: Sequence[Row], key: str, form: str) -> str:
    return listed(list(dict.fromkeys(f"{row[key]:{form}}" for row in runs)))
