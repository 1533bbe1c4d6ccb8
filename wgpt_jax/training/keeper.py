"""Between a step and the disk: which steps become a log line, and which states are saved."""

import dataclasses
from typing import Any

import jax
import numpy as np

from wgpt_jax.config import Config
from wgpt_jax.data.index import DataIndex
from wgpt_jax.errors import WorkError
from wgpt_jax.runs import training_data_fingerprint
from wgpt_jax.training.checkpoint import Checkpoints
from wgpt_jax.training.logs import RunLog
from wgpt_jax.training.state import TrainState
from wgpt_jax.training.throughput import Throughput


class Keeper:
    """What is between a step and the disk: its log line, and the save of a state that is good."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        log: RunLog,
        throughput: Throughput,
        config: Config,
        index: DataIndex,
        saved: int,
    ):
        """For a run whose last save is that of step ``saved``."""
        self._checkpoints, self._log, self._throughput = checkpoints, log, throughput
        self._config, self._saved = config, saved
        self._meta = {"config": dataclasses.asdict(config), "data_fingerprint": training_data_fingerprint(index)}
        self._metrics: tuple[int, dict[str, jax.Array]] | None = None
        self._logged = True

    def done(self, step: int, metrics: dict[str, jax.Array], *, logged: bool) -> None:
        """Takes the metrics of a step; :meth:`log` writes them if ``logged``."""
        self._metrics, self._logged = (step, metrics), not logged

    def log(self) -> None:
        """Writes the line of the last step that wants one, for which the host waits.

        Raises:
            WorkError: if it cannot be written, the save under way has failed, or training diverged.
        """
        self._checkpoints.check()
        if self._metrics is None or self._logged:
            return
        self._logged = True
        step, metrics = self._metrics[0], jax.device_get(self._metrics[1])
        nll = metrics.pop("nll")
        values = {name: value.item() for name, value in metrics.items()}
        frames, in_row = values.pop("frames"), values.pop("skipped_in_row")
        if len(nll) > 1:
            values |= {f"nll_codebook_{k}": float(value) for k, value in enumerate(nll, start=1)}
        self._log.train(step, {**values, **self._throughput.rate(step, frames)})
        self._stop_if_diverged(step, in_row, values["param_norm"])

    def keep(self, step: int, state: TrainState, position: dict[str, Any]) -> None:
        """Saves the state of a step, first the lines that lead up to it.

        Raises:
            WorkError: as :meth:`log`.
        """
        if step == self._saved:
            return
        metrics = jax.device_get({name: self._metrics[1][name] for name in ("skipped_in_row", "param_norm")})
        if self._config.logging.every == 1:
            self._throughput.start(step)  # this step may have been done before its window began
        self.log()
        self._stop_if_diverged(step, int(metrics["skipped_in_row"]), float(metrics["param_norm"]))
        self._log.advance(step)
        self._checkpoints.save(state, position, {"step": step, **self._meta})
        self._saved = step

    def _stop_if_diverged(self, step: int, in_row: int, param_norm: float) -> None:
        """A state that is stuck or broken is never saved."""
        if in_row >= self._config.training.max_skipped:
            what = f"the loss or the gradient was not finite in {in_row} steps in a row until step {step}"
        elif not np.isfinite(param_norm):
            what = f"the norm of the parameters after step {step} is {param_norm}"
        else:
            return
        steps = self._checkpoints.steps
        kept = (
            f"checkpoint {steps[-1]} is the last good one: begin with --from {self._log.run.path}@{steps[-1]}"
            if steps
            else "nothing was saved yet; start over"
        )
        raise WorkError(
            f"training diverged: {what}; {kept} and a smaller --optimizer.learning-rate in another --workdir"
        )
