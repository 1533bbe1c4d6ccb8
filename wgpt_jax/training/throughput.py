"""How fast a run is, measured where the host waits for the device anyway."""

import time

from jax.sharding import Mesh

from wgpt_jax.config import Config
from wgpt_jax.performance.chips import chip_of
from wgpt_jax.performance.flops import flops_per_step
from wgpt_jax.performance.roofline import mfu_ceiling


class Throughput:
    """Speed over windows that both begin and end when the host has waited for a step: no dispatch is timed.

    Nothing but training lies in a window: what interrupts it begins a new one.
    """

    def __init__(self, config: Config, mesh: Mesh, parameters: int):
        """For a network of so many parameters on a mesh; on chips that are not known, and CPUs, MFU is not reported."""
        chip = chip_of(mesh.devices.flat[0].device_kind)
        self.ceiling = None if chip is None else mfu_ceiling(config, chip, parameters, **mesh.shape)
        self._flops, self._devices = flops_per_step(config), mesh.size
        self._last: tuple[int, float] | None = None

    def start(self, step: int) -> None:
        """Begins a window: the host has waited for ``step``, and for what came between it and the next one."""
        self._last = (step, time.perf_counter())

    def rate(self, step: int, frames_per_step: float) -> dict[str, float]:
        """Ends the window at ``step``, whose metrics the host has waited for, and begins the next one.

        Args:
            step: optimiser steps done.
            frames_per_step: frames predicted in that step, which stands for those of the window.

        Returns:
            ``steps_per_second``; ``frames_per_second`` and ``frames_per_second_per_device``, of frames that are
            predicted; ``mfu``, of all positions of the windows, since padding is computed as well. Nothing if no window
            had begun before ``step``.
        """
        last = self._last
        if last is not None and last[0] >= step:
            return {}
        self.start(step)
        if last is None:
            return {}
        steps_per_second = (step - last[0]) / (self._last[1] - last[1])
        frames_per_second = steps_per_second * frames_per_step
        speed = {
            "steps_per_second": steps_per_second,
            "frames_per_second": frames_per_second,
            "frames_per_second_per_device": frames_per_second / self._devices,
        }
        if self.ceiling is not None:
            peak = self.ceiling.chip.peak_bf16_flops * self._devices
            speed["mfu"] = steps_per_second * self._flops / peak
        return speed
