"""The training loop, top to bottom: check, lay out, restore, step, log, evaluate, save."""

import contextlib
import importlib.metadata
import os
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import jax
import numpy as np

from wgpt_jax.config import Config
from wgpt_jax.data.index import DataIndex, load_index
from wgpt_jax.data.pipeline import training_batches
from wgpt_jax.errors import WorkError
from wgpt_jax.evaluation import score_split
from wgpt_jax.parallel.mesh import check_batch, make_mesh, to_devices
from wgpt_jax.runs import (
    RunFolder,
    RunInfo,
    check_data_is_readable,
    check_model_fits_data,
    check_same_run,
    read_run,
    training_data_fingerprint,
    write_run,
)
from wgpt_jax.training.checkpoint import Checkpoints
from wgpt_jax.training.logs import RunLog
from wgpt_jax.training.optimizer import make_optimizer
from wgpt_jax.training.state import abstract_model, abstract_state, count_parameters, init_state, parameters_by_group
from wgpt_jax.training.step import make_eval_step, make_train_step


def train(config: Config, data: str | os.PathLike, workdir: str | os.PathLike) -> int:
    """Trains, or continues, the run in ``workdir`` on prepared data; the same call resumes exactly.

    Args:
        config: the experiment.
        data: folder with ``index.json``, made by tools/prepare_audio.py.
        workdir: run folder.

    Returns:
        the step that the run stands at: ``config.training.steps``, or less if a signal stopped it.

    Raises:
        RequestError: if the configuration, the data and the run folder do not belong together.
        WorkError: if the data or a checkpoint cannot be read or written, or the loss is not finite.
    """
    # 1. Does the request make sense?
    config = config.validate()
    index = load_index(data)
    index.split("train")
    check_model_fits_data(config, index, data)
    mesh = make_mesh(config.mesh)
    check_batch(config.training.batch, mesh)
    run = RunFolder(workdir)
    warnings = _claim(run, config, index, data)

    # 2. Shapes before arrays.
    optimizer = make_optimizer(config.optimizer, config.training.steps)
    graph, params = abstract_model(config.model, mesh)
    abstract = abstract_state(config.model, optimizer, mesh)
    step_fn = make_train_step(config, graph, optimizer, mesh, abstract)
    eval_fn = make_eval_step(config.model, graph, mesh, params)

    with Checkpoints(run.checkpoints, config.checkpoint) as checkpoints, _Interrupt() as interrupt:
        # 3. A new state, or the last one saved; the data goes on where it stopped.
        batches = iter(training_batches(data, index, config.data, config.training.batch))
        if checkpoints.steps:
            state, position = checkpoints.restore(abstract)
            batches.set_state(position)
        else:
            state = init_state(config.model, optimizer, mesh, abstract, config.training.seed)
        step = int(state.step)
        log = RunLog(run, config.logging, first_step=step, steps=config.training.steps)
        for warning in warnings:
            log.say(f"warning: {warning}")
        log.say(
            f"{config.model.inputs} model, {count_parameters(params):,} parameters, "
            f"{mesh.size} {jax.default_backend()} device(s); {index.frames('train'):,} training frames; "
            + (f"resuming at step {step} of {config.training.steps}" if step else f"{config.training.steps} steps")
        )
        if step >= config.training.steps:
            log.say("nothing left to do; more --training.steps would continue it")

        # 4. Steps. Metrics are read one step late, so that the host never waits for the device.
        pending: tuple[int, dict[str, jax.Array]] | None = None
        clock = _Throughput()
        saved = step
        try:
            while step < config.training.steps and not interrupt.requested:
                state, metrics = step_fn(state, to_devices(next(batches), mesh))
                step += 1
                log.advance()
                if pending is not None:
                    _log_step(log, clock, *pending)
                    pending = None
                if step % config.logging.every == 0 or step == config.training.steps:
                    pending = (step, metrics)

                # 5. Evaluate and save.
                last = step == config.training.steps
                nll = None
                if config.training.eval_every and (last or step % config.training.eval_every == 0):
                    with clock.paused():
                        nll = _evaluate(log, step, eval_fn, state, data, index, config, mesh)
                if last or step % config.checkpoint.every == 0:
                    checkpoints.save(state, batches.get_state(), {"step": step}, nll)
                    saved = step
            if pending is not None:
                _log_step(log, clock, *pending)
            if step > saved:  # interrupted between two saves
                checkpoints.save(state, batches.get_state(), {"step": step}, None)
            checkpoints.wait()
        finally:
            log.close()
            batches.close()
    if step < config.training.steps:
        print(f"stopped and saved at step {step}; the same command continues")
    return step


def _claim(run: RunFolder, config: Config, index: DataIndex, data: str | os.PathLike) -> list[str]:
    """Makes the run folder ours, or checks that it is; returns warnings."""
    fingerprint = training_data_fingerprint(index)
    warnings = []
    if run.info.exists():
        info = read_run(run.path)
        check_data_is_readable(info, index, run.path, data)
        warnings = check_same_run(info, config, fingerprint, run.path)
    mesh = make_mesh(config.mesh)
    write_run(
        run.path,
        RunInfo(
            config=config,
            clock=index.clock,
            codec=index.codec,
            mel=index.mel,
            codebooks=index.codebooks,
            data_fingerprint=fingerprint,
            parameters=parameters_by_group(abstract_model(config.model, mesh)[1]),
            versions={name: importlib.metadata.version(name) for name in ("wgpt_jax", "jax", "flax", "optax", "grain")},
        ),
    )
    return warnings


def _log_step(log: RunLog, clock: "_Throughput", step: int, metrics: dict[str, jax.Array]) -> None:
    values = {name: float(value) for name, value in metrics.items()}
    frames = values.pop("frames")
    if not np.isfinite(values["loss"]):
        raise WorkError(
            f"the loss at step {step} is {values['loss']}; continue from the last checkpoint with a smaller "
            "--optimizer.learning-rate in a new --workdir"
        )
    log.train(step, {**values, **clock.rate(step, frames)})


def _evaluate(log, step, eval_fn, state, data, index, config, mesh) -> float | None:
    """Validation NLL of the current parameters; None if there is no validation split."""
    if not index.frames("validation"):
        return None
    scores = score_split(
        eval_fn, state.params, data, index, "validation", config, mesh, limit=config.training.eval_windows
    )
    summary = scores.summary(index.clock.frames_per_second)
    log.evaluation(step, {key: summary[key] for key in ("nll", "nll_stderr", "top1", "top10")})
    return summary["nll"]


class _Throughput:
    """Frames per second between two logged steps, without evaluations and the first compilation."""

    def __init__(self):
        self.last: tuple[int, float] | None = None

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Does not count the time spent inside."""
        start = time.perf_counter()
        yield
        if self.last is not None:
            self.last = (self.last[0], self.last[1] + time.perf_counter() - start)

    def rate(self, step: int, frames_per_step: float) -> dict[str, float]:
        """The rate since the last call; nothing at the first."""
        now, last = time.perf_counter(), self.last
        self.last = (step, now)
        return {} if last is None else {"frames_per_second": (step - last[0]) * frames_per_step / (now - last[1])}


class _Interrupt:
    """Turns the first SIGINT or SIGTERM into a request to stop after the step; the second one ends at once."""

    def __enter__(self) -> "_Interrupt":
        self.requested = False
        self.previous: dict[int, Any] = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self._request)
        except ValueError:
            pass  # not in the main thread (a notebook's executor): the caller's handlers stay
        return self

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(number, signal.SIG_DFL)
        print("\nstopping after this step; once more ends at once", flush=True)

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
