"""What to keep in mind beside an answer, in short phrases."""

from collections.abc import Mapping, Sequence

from wgpt_jax.evaluation import meaning
from wgpt_jax.report.claims import Answer, later_seeds
from wgpt_jax.report.groups import Group
from wgpt_jax.report.numbers import in_brief, listed
from wgpt_jax.report.rows import Row
from wgpt_jax.report.sweeps import swept

_SEEDS = (("training", "seed"), ("data", "shuffle_seed"))


def caveats(answer: Answer) -> list[str]:
    """All that limits an answer: what the NLLs are of, how the arms were tuned, which seeds there are."""
    ours, theirs = answer.runs()
    arms = {answer.claim.arm: ours, answer.claim.base: theirs}
    told = [knowledge(arms), *tuning(answer.group, dict.fromkeys(arms, answer.size))]
    if one_order(answer.group):
        told.append("seeds of the initialisation alone")
    frames = [runs[0]["frames"] for runs in arms.values()]
    if frames[0] != frames[1]:
        told.append(f"{answer.claim.arm} saw {frames[0] / frames[1]:g} of the frames of {answer.claim.base}")
    seeds, alone = later_seeds(answer.group, ours, theirs)
    if alone is not None:
        told.append(f"seeds {listed([str(seed) for seed in seeds])} added later, alone {in_brief(alone)}")
    return told


def knowledge(arms: Mapping[str, Sequence[Row]]) -> str:
    """What the NLLs of some arms are of: the tokens alone, more than those, or the future."""
    leaking = [arm for arm, runs in arms.items() if runs[0]["leaks"]]
    if leaking:
        return f"{listed(leaking)} sees the future: a leak, no result"
    conditional = [arm for arm, runs in arms.items() if side_information(runs)]
    return f"side information: {listed(conditional)}" if conditional else f"likelihood{'s' * (len(arms) > 1)}"


def tuning(group: Group, sizes: Mapping[str, str]) -> list[str]:
    """What was not tuned to its end: without a sweep, by one on other data or at another size, best on a sweep's edge.

    Args:
        group: of the runs.
        sizes: of some arms.
    """
    sweeps = {arm: swept(group, arm, size) for arm, size in sizes.items()}
    places = {arm: sweep.place for arm, sweep in sweeps.items()}
    told = []
    if untuned := [arm for arm, place in places.items() if place is None]:
        told.append(f"not tuned: {listed(untuned)}")
    if other := {place[0] for place in places.values() if place and place[0] != group.data}:
        told.append(f"tuned on {listed(sorted(other))}")
    for arm, place in places.items():
        if place and place[1] != sizes[arm]:
            told.append(f"rate of {arm} scaled from {place[1]}, not tuned at {sizes[arm]}")
    if edges := [f"{arm} ({sweep.chosen})" for arm, sweep in sweeps.items() if sweep.chosen]:
        told.append(f"best on the sweep's edge: {listed(edges)}")
    return told


def side_information(rows: Sequence[Row]) -> bool:
    """Whether the NLL of an arm's runs is conditional on what the tokens before do not say."""
    scores = rows[0]["evaluation"]
    said = meaning(scores["mel_source"], scores["output_codebooks"], scores["input_codebooks"])
    return not said.startswith("a likelihood")


def one_order(group: Group) -> bool:
    """Whether a group's seeds are of the initialisation alone, over one order of the data."""
    finals = [row for row in group.rows if row["stage"] == "final"]
    seeds, orders = ({row["config"][part][key] for row in finals} for part, key in _SEEDS)
    return len(seeds) > 1 and len(orders) == 1
