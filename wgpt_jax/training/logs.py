"""What a run writes while it trains: JSON lines, TensorBoard, progress, a loss curve."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from wgpt_jax.config import Config, LoggingConfig
from wgpt_jax.data.index import DataIndex
from wgpt_jax.errors import WorkError
from wgpt_jax.metrics import drop_after, metrics_line
from wgpt_jax.performance.roofline import Ceiling
from wgpt_jax.plots import plot_losses
from wgpt_jax.run_status import run_status
from wgpt_jax.runs import RunFolder
from wgpt_jax.status_table import format_status
from wgpt_jax.training.progress import Progress

_FLUSH_SECONDS = 10.0


class RunLog:
    """Writers of one run; only process 0 writes anything.

    Every method raises WorkError if a file cannot be written, naming it.
    """

    def __init__(self, run: RunFolder, config: LoggingConfig, *, first_step: int, steps: int):
        """Opens the writers at ``first_step``; lines that a killed run wrote past it are dropped."""
        self.run = run
        self.active = jax.process_index() == 0
        self.ceiling: Ceiling | None = None
        self.tensorboard = None
        self._skipped: int | None = None
        if not self.active:
            return
        with self.writing():
            drop_after(run.metrics, first_step)
            self.file = open(run.metrics, "a", buffering=1)  # noqa: SIM115 (closed in close())
            if config.tensorboard:
                from wgpt_jax.training.tensorboard import TensorBoard  # imports torch wherever torch is installed

                self.tensorboard = TensorBoard(run.tensorboard, first_step + 1)
        self._flushed = time.monotonic()
        self.progress = Progress(first_step, steps)

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

    def train(self, step: int, values: dict[str, Any]) -> None:
        """Logs the metrics of a training step."""
        self._write("train", step, values)
        if self._skipped is not None and values["skipped"] > self._skipped:
            self.say(
                f"warning: {values['skipped'] - self._skipped} update(s) skipped before step {step}: see `skipped`"
            )
        self._skipped = values["skipped"]
        if self.active:
            speed = f", {values['frames_per_second']:,.0f} frames/s" if "frames_per_second" in values else ""
            if "mfu" in values:
                speed += f", MFU {100 * values['mfu']:.1f} % (at most {100 * self.ceiling.mfu:.0f} %)"
            self.progress.describe(f"loss {values['loss']:.3f}{speed}")
        self.advance(step)

    def evaluation(self, step: int, values: dict[str, Any]) -> None:
        """Logs an evaluation and refreshes the loss curve."""
        self._write("validation", step, values)
        averaged = f", of the averaged weights {values['ema_nll']:.4f}" if "ema_nll" in values else ""
        self.say(
            f"step {step}: validation NLL {values['nll']:.4f} nats per coarse token (mel: {values['mel_source']}), "
            f"top-1 {100 * values['top1']:.2f} %, {values['total_bits_per_second']:.0f} bits/s in all{averaged}"
        )
        if self.active:
            with self.writing():
                plot_losses({"": self.run.metrics}, self.run.loss_plot)
                if self.tensorboard:
                    self.tensorboard.flush()

    def advance(self, step: int) -> None:
        """Moves the progress to a step that the host has waited for: what is only dispatched is not done."""
        if self.active:
            self.progress.advance(step)

    def say(self, message: str) -> None:
        """Prints a line."""
        if self.active:
            self.progress.say(message)

    def summarise(self) -> None:
        """Prints where the run stands now."""
        if self.active:
            self.progress.close()
            print(f"\n{format_status(run_status(self.run.path))}", flush=True)

    def close(self) -> None:
        """Flushes and closes everything that still can be."""
        if self.active:
            self.progress.close()
            with contextlib.suppress(OSError):  # a disk that is full was told by the write that met it
                self.file.close()
            with contextlib.suppress(OSError):
                if self.tensorboard:
                    self.tensorboard.close()

    def _write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        if not self.active:
            return
        with self.writing():
            self.file.write(metrics_line(kind, step, values))
            if self.tensorboard:
                for name, value in values.items():
                    if isinstance(value, int | float):  # no names, no standard error of a single document
                        self.tensorboard.scalar(f"{kind}/{name}", value, step)
                if time.monotonic() - self._flushed > _FLUSH_SECONDS:
                    self.tensorboard.flush()
                    self._flushed = time.monotonic()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Files of the run are written inside."""
        try:
            yield
        except OSError as error:
            raise WorkError(
                f"cannot write to {error.filename or self.run.path}: {error.strerror or error}; what was saved is "
                "kept, once that is mended the same command continues"
            ) from error
