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
from wgpt_jax.plots import plot_losses
from wgpt_jax.runs import RunFolder


class RunLog:
    """Writers of one run; only process 0 writes anything."""

    def __init__(self, run: RunFolder, config: LoggingConfig, *, first_step: int, steps: int):
        """Opens the writers at ``first_step``; lines that a killed run wrote past it are dropped."""
        self.run = run
        self.active = jax.process_index() == 0
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
        self, config: Config, index: DataIndex, mesh: Mesh, parameters: int, step: int, warnings: Sequence[str]
    ) -> None:
        """Says what is about to be trained, and from where."""
        for warning in warnings:
            self.say(f"warning: {warning}")
        steps = config.training.steps
        self.say(
            f"{config.model.inputs} model, {parameters:,} parameters, {mesh.size} {jax.default_backend()} device(s); "
            f"{index.frames('train'):,} training frames; "
            + (f"resuming at step {step} of {steps}" if step else f"{steps} steps")
        )
        if not index.frames("validation"):
            self.say("warning: the data has no validation split, so nothing is evaluated")
        if step >= steps:
            self.say("nothing left to do; more --training.steps would continue it")

    def train(self, step: int, values: dict[str, float]) -> None:
        """Logs the metrics of a training step."""
        self._write("train", step, values)
        if self.active:
            speed = f", {values['frames_per_second']:,.0f} frames/s" if "frames_per_second" in values else ""
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

    def advance(self) -> None:
        """Moves the progress bar by a step."""
        if self.active:
            self.bar.update()

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
    """Frames per second between two logged steps that nothing but training lies between."""

    def __init__(self):
        self.restart()

    def restart(self) -> None:
        """Forgets the last logged step: what follows it (an evaluation, a save) is not training."""
        self._last: tuple[int, float] | None = None

    def rate(self, step: int, frames_per_step: float) -> dict[str, float]:
        """``frames_per_second`` since the last call; nothing if there is none since the restart."""
        now, last = time.perf_counter(), self._last
        self._last = (step, now)
        return {} if last is None else {"frames_per_second": (step - last[0]) * frames_per_step / (now - last[1])}


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
