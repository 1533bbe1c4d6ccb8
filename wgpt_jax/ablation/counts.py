"""Sizes of every arm, counted in a process of its own: the one that starts the runs touches no device."""

import dataclasses
import json
import os
import subprocess
import sys

from wgpt_jax.ablation.grid import Ablation, Arm, Size
from wgpt_jax.config import Config
from wgpt_jax.errors import RequestError, WorkError


@dataclasses.dataclass(frozen=True)
class Sized:
    """An arm at a size: its configuration but for what is tuned, and its parameters by part of the network."""

    config: Config
    parameters_by_group: dict[str, int]

    @property
    def parameters(self) -> int:
        """All of them."""
        return sum(self.parameters_by_group.values())


def size_all(ablation: Ablation, pairs: list[tuple[Arm, Size]]) -> dict[tuple[str, str], Sized]:
    """Gives every arm at every size the size's number of parameters.

    Args:
        ablation: what says the rest of the configuration.
        pairs: arms and sizes.

    Returns:
        by the names of arm and size.

    Raises:
        RequestError: if an arm cannot have a size.
        WorkError: if counting fails.
    """
    configs = [ablation.config(arm, size) for arm, size in pairs]
    request = [
        {"model": dataclasses.asdict(config.model), "target": size.parameters}
        for config, (_, size) in zip(configs, pairs, strict=True)
    ]
    command = [sys.executable, "-m", "wgpt_jax.ablation.sizing"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, env=environment)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise WorkError(f"cannot count the parameters of the arms: {last}")
    sized = {}
    for (arm, size), config, found in zip(pairs, configs, json.loads(done.stdout), strict=True):
        if "error" in found:
            raise RequestError(f"arm {arm.name} at {size.name}: {found['error']}")
        model = dataclasses.replace(config.model, hidden=found["hidden"])
        sized[arm.name, size.name] = Sized(dataclasses.replace(config, model=model), found["parameters_by_group"])
    return sized
