"""What to keep in mind beside an answer, in short phrases."""

from collections.abc import Mapping, Sequence

from wgpt_jax.evaluation import meaning
from wgpt_jax.report.claims import Answer, seeds_beyond
from wgpt_jax.report.groups import Group
from wgpt_jax.report.numbers import in_brief, listed
from wgpt_jax.report.rows import Row
from wgpt_jax.report.sweeps import swept
from wgpt_jax.report.verdicts import in_pairs


def caveats(answer: Answer) -> list[str]:
    """All that limits an answer: what the NLLs are of, how the arms were tuned, which seeds there are."""
    ours, theirs = answer.runs()
    arms = {answer.claim.arm: ours, answer.claim.base: theirs}
    told = [knowledge(arms), *tuning(answer.group, dict.fromkeys(arms, answer.size))]
    told += _orders(dict(zip(arms, in_pairs(ours, theirs), strict=True)))
    frames = [runs[0]["frames"] for runs in arms.values()]
    if frames[0] != frames[1]:
        told.append(f"{answer.claim.arm} saw {frames[0] / frames[1]:g} of the frames of {answer.claim.base}")
    seeds, alone = seeds_beyond(answer.group, ours, theirs)
    if alone is not None:
        which = f"seed{'s' * (len(seeds) > 1)} {listed([str(seed) for seed in seeds])}"
        told.append(f"{which} {answer.group.beyond()}, alone {in_brief(alone)}")
    return told


def knowledge(arms: Mapping[str, Sequence[Row]]) -> str:
    """What the NLLs of some arms are of: the tokens alone, more than those, or the future."""
    leaking = [arm for arm, runs in arms.items() if runs[0]["leaks"]]
    if leaking:
        return f"{listed(leaking)} sees the future: a leak, no result"
    conditional = [arm for arm, runs in arms.items() if side_information(runs)]
    return f"side information: {listed(conditional)}" if conditional else f"likelihood{'s' * (len(arms) > 1)}"


def tuning(group: Group, sizes: Mapping[str, str]) -> list[str]:
    """What was not tuned to its end: without a sweep, by one on other data or at another size, best on an edge.

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
    if edges := [arm for arm, sweep in sweeps.items() if sweep.chosen]:
        told.append(f"edge: {listed(edges)}")
    return told


def side_information(rows: Sequence[Row]) -> bool:
    """Whether the NLL of an arm's runs is conditional on what the tokens before do not say."""
    scores = rows[0]["evaluation"]
    said = meaning(scores["mel_source"], scores["output_codebooks"], scores["input_codebooks"])
    return not said.startswith("a likelihood")


def one_order(runs: Sequence[Row]) -> bool:
    """Whether the seeds of an arm's runs are of the initialisation alone, over one order of the data."""
    return len(runs) > 1 and len(set(_order_of(runs).values())) == 1


def _orders(arms: Mapping[str, Sequence[Row]]) -> list[str]:
    """What is to be said of the orders of the data that the runs of a pair have, over the seeds that both arms have."""
    told = []
    if alone := [arm for arm, runs in arms.items() if one_order(runs)]:
        whose = "" if len(alone) == len(arms) else f": {listed(alone)}"
        told.append(f"seeds of the initialisation alone{whose}")
    if some := [
        arm for arm, runs in arms.items() if arm not in alone and len(set(_order_of(runs).values())) < len(runs)
    ]:
        told.append(f"some seeds in one order of the data: {listed(some)}")
    ours, theirs = (_order_of(runs) for runs in arms.values())
    return [*told, "different orders of the data"] if ours != theirs else told


def _order_of(runs: Sequence[Row]) -> dict[int, int]:
    """The order of the data by seed."""
    return {row["seed"]: row["config"]["data"]["shuffle_seed"] for row in runs}
