"""What a run writes while it trains: JSON lines, TensorBoard, a progress bar, a loss curve."""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from tqdm import tqdm

from wgpt_jax.config import Config, LoggingConfig
from wgpt_jax.data.index import DataIndex
from wgpt_jax.performance.chips import chip_of
from wgpt_jax.performance.flops import flops_per_step
from wgpt_jax.performance.roofline import Ceiling, mfu_ceiling
from wgpt_jax.plots import plot_losses
from wgpt_jax.runs import RunFolder


class RunLog:
    """Writers of one run; only process 0 writes anything."""

    def __init__(self, run: RunFolder, config: LoggingConfig, *, first_step: int, steps: int):
        """Opens the writers at ``first_step``; lines that a killed run wrote past it are dropped."""
        self.run = run
        self.active = jax.process_index() == 0
        self.ceiling: Ceiling | None = None
        self.tensorboard = None
        if not self.active:
            return
        _drop_after(run.metrics, first_step)
        self.file = open(run.metrics, "a", buffering=1)  # noqa: SIM115 (closed in close())
        if config.tensorboard:
            from tensorboardX import SummaryWriter  # here: it imports torch wherever torch is installed

            self.tensorboard = SummaryWriter(str(run.tensorboard), purge_step=first_step + 1)
        self.bar = tqdm(total=steps, initial=first_step, unit="step", dynamic_ncols=True, mininterval=0.5)

    def start(
        self,
        config: Config,
        index: DataIndex,
        mesh: Mesh,
        parameters: int,
        step: int,
        warnings: Sequence[str],
        ceiling: Ceiling | None,
    ) -> None:
        """Says what is about to be trained, from where, and how well it can use the chip at most, if that is known."""
        for warning in warnings:
            self.say(f"warning: {warning}")
        steps = config.training.steps
        self.say(
            f"{config.model.inputs} model, {parameters:,} parameters, {mesh.size} {jax.default_backend()} device(s); "
            f"{index.frames('train'):,} training frames; "
            + (f"resuming at step {step} of {steps}" if step else f"{steps} steps")
        )
        self.ceiling = ceiling
        if ceiling is not None:
            self.say(f"ceiling on MFU for these widths on {ceiling.chip.name}: {100 * ceiling.mfu:.0f} % (roofline)")
        if not index.frames("validation"):
            self.say("warning: the data has no validation split, so nothing is evaluated")
        if step >= steps:
            self.say("nothing left to do; more --training.steps would continue it")

    def train(self, step: int, values: dict[str, float]) -> None:
        """Logs the metrics of a training step."""
        self._write("train", step, values)
        self.advance(step)
        if self.active:
            speed = f", {values['frames_per_second']:,.0f} frames/s" if "frames_per_second" in values else ""
            if "mfu" in values:
                speed += f", MFU {100 * values['mfu']:.1f} % (at most {100 * self.ceiling.mfu:.0f} %)"
            self.bar.set_postfix_str(f"loss {values['loss']:.3f}{speed}", refresh=False)

    def evaluation(self, step: int, values: dict[str, float]) -> None:
        """Logs an evaluation and refreshes the loss curve."""
        self._write("validation", step, values)
        self.say(
            f"step {step}: validation NLL {values['nll']:.4f} nats per coarse token (mel: {values['mel_source']}), "
            f"top-1 {100 * values['top1']:.2f} %, {values['total_bits_per_second']:.0f} bits/s in all"
        )
        if self.active:
            plot_losses({"": self.run.metrics}, self.run.loss_plot)

    def advance(self, step: int) -> None:
        """Moves the progress bar to a step that the host has waited for: what is only dispatched is not done."""
        if self.active:
            self.bar.update(step - self.bar.n)

    def say(self, message: str) -> None:
        """Prints a line above the progress bar."""
        if self.active:
            tqdm.write(message)

    def close(self) -> None:
        """Flushes and closes everything."""
        if self.active:
            self.bar.close()
            self.file.close()
            if self.tensorboard:
                self.tensorboard.close()

    def _write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        if not self.active:
            return
        self.file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        if self.tensorboard:
            for name, value in values.items():
                if isinstance(value, int | float):  # no names, no standard error of a single document
                    self.tensorboard.add_scalar(f"{kind}/{name}", value, step)


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
            ``frames_per_second`` and ``frames_per_second_per_device``, of frames that are predicted; ``mfu``, of all
            positions of the windows, since padding is computed as well. Nothing if no window had begun before ``step``.
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
            "frames_per_second": frames_per_second,
            "frames_per_second_per_device": frames_per_second / self._devices,
        }
        if self.ceiling is not None:
            peak = self.ceiling.chip.peak_bf16_flops * self._devices
            speed["mfu"] = steps_per_second * self._flops / peak
        return speed


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Lines of a metrics.jsonl; a last line cut short by a kill is left out."""
    rows = []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
    return rows


def _drop_after(path: Path, step: int) -> None:
    rows = [row for row in read_metrics(path) if row["step"] <= step]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
    os.replace(temporary, path)
