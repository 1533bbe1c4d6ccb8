"""Evaluations while training: when they are due, of which weights, and what is written of them."""

import math
import os
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from wgpt_jax.config import Config
from wgpt_jax.data.index import DataIndex
from wgpt_jax.evaluation import main_source, score_split
from wgpt_jax.interrupt import Interrupt
from wgpt_jax.parallel.hosts import wait_for_all
from wgpt_jax.runs import RunFolder, read_run
from wgpt_jax.training.checkpoint import Checkpoints
from wgpt_jax.training.logs import RunLog
from wgpt_jax.training.state import TrainState
from wgpt_jax.training.step import Scores

_KEYS = ("nll", "nll_stderr", "top1", "top10", "total_nll", "total_bits_per_second")


class Evaluations:
    """Evaluates on the validation split what has just been saved."""

    def __init__(
        self,
        run: RunFolder,
        config: Config,
        data: str | os.PathLike,
        index: DataIndex,
        mesh: Mesh,
        graph: nnx.GraphDef,
        eval_fn: Callable[..., Scores],
        log: RunLog,
        checkpoints: Checkpoints,
        interrupt: Interrupt,
    ):
        self._config, self._data, self._index, self._mesh, self._eval_fn = config, data, index, mesh, eval_fn
        self._run, self._log, self._checkpoints, self._interrupt = run, log, checkpoints, interrupt
        self._summaries = None
        seconds = config.logging.audio_seconds
        if seconds and log.tensorboard is not None and jax.process_count() == 1:
            from wgpt_jax.training.summaries import Summaries  # compiles, plots and decodes

            info = read_run(run.path)
            self._summaries = Summaries(log.tensorboard, run, info, data, index, graph, seconds, log.say)
        elif seconds:
            why = "several processes train" if jax.process_count() > 1 else "logging.tensorboard is off"
            log.say(f"warning: {why}, so that logging.audio_seconds has no effect")

    def catch_up(self, step: int, state: TrainState) -> None:
        """Does the evaluation of a restored step, if it was due and is not in the log: something killed it."""
        training = self._config.training
        due = step % training.eval_every == 0 or step == training.steps
        if wait_for_all("the evaluation that was due", due and step not in self._run.evaluated()):
            self.evaluate(step, state)

    def evaluate(self, step: int, state: TrainState) -> None:
        """Evaluates a saved state, logs it, and lets the checkpoints know.

        A signal ends it early, and resuming does it again; with several processes a signal waits for its end.
        """
        mel = main_source(self._config, self._index)
        values = self._score(state.params, mel)
        averaged = None if values is None or state.ema is None else self._score(state.ema, mel)
        if values is None or (state.ema is not None and averaged is None):
            self._log.say(f"the evaluation of step {step} is given up; the same command does it")
            return
        if averaged is not None:
            values |= {f"ema_{key}": averaged[key] for key in ("nll", "total_nll")}
        nll = values.get("ema_total_nll", values["total_nll"])
        if math.isfinite(nll):  # else it would count as the best
            self._checkpoints.nll[step] = nll
        self._log.evaluation(step, {"mel_source": mel, **values})
        if self._summaries is not None:
            with self._log.writing():
                self._summaries.write(step, state.params if state.ema is None else state.ema)

    def _score(self, params: Any, mel: str) -> dict[str, Any] | None:
        scores = score_split(
            self._eval_fn,
            params,
            self._data,
            self._index,
            "validation",
            self._config,
            self._mesh,
            limit=self._config.training.eval_windows,
            mel=mel,
            stop=lambda: jax.process_count() == 1 and self._interrupt.requested,
        )
        if scores is None:
            return None
        summary = scores.summary(self._index.clock.frames_per_second)
        return {key: summary[key] for key in _KEYS}
