"""Equal parameters: the hidden width of the MLP that gives a network the number of parameters it is to have.

Run as a program, it reads models as JSON from its input and writes their sizes: the process that starts the runs must
not touch the devices that they are to have.
"""

import dataclasses
import json
import sys
from typing import Any

import jax

from wgpt_jax.ablation.groups import by_group
from wgpt_jax.config import MeshConfig, ModelConfig, config_from_dict
from wgpt_jax.errors import RequestError
from wgpt_jax.parallel.mesh import make_mesh
from wgpt_jax.training.state import abstract_model, parameters_by_group

STEP = 8
"""``hidden`` is a multiple of it."""
TOLERANCE = 0.01
"""Largest relative distance from the target."""


def at_size(model: ModelConfig, target: int) -> ModelConfig:
    """The model with the ``hidden`` that brings it nearest to a number of parameters.

    The number is linear in ``hidden``, so two shapes of it are enough; no array is made.

    Args:
        model: everything but ``hidden``.
        target: parameters.

    Raises:
        RequestError: if no ``hidden`` comes within 1 % of the target.
    """

    def count(hidden: int) -> int:
        return sum(groups(dataclasses.replace(model, hidden=hidden)).values())

    least, slope = count(STEP), (count(2 * STEP) - count(STEP)) / STEP
    hidden = STEP * max(1, round((target - least) / slope / STEP) + 1)
    found = least + slope * (hidden - STEP)
    if abs(found - target) > TOLERANCE * target:
        rest, step = least - slope * STEP, slope * STEP
        why = f"all but its MLPs has {rest:,.0f}" if hidden == STEP else f"{STEP} channels of its MLPs are {step:,.0f}"
        raise RequestError(
            f"{target:,} parameters cannot be met to within 1 % ({found:,.0f} at the nearest, {why}); give the size a "
            "smaller width or depth"
        )
    return dataclasses.replace(model, hidden=hidden)


def groups(model: ModelConfig) -> dict[str, int]:
    """Number of parameters by part of the network."""
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    return by_group(parameters_by_group(abstract_model(model, mesh)[1]))


def _sized(request: dict[str, Any]) -> dict[str, Any]:
    try:
        model = at_size(config_from_dict(request["model"], ModelConfig, "model."), request["target"])
    except RequestError as error:
        return {"error": str(error)}
    return {"hidden": model.hidden, "parameters_by_group": groups(model)}


if __name__ == "__main__":
    json.dump([_sized(request) for request in json.load(sys.stdin)], sys.stdout)
