"""The training loop, top to bottom: check, lay out, restore, step, log, save, evaluate."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from wgpt_jax.config import Config, flatten
from wgpt_jax.data.batch import Batch
from wgpt_jax.data.index import INDEX_NAME, DataIndex, file_sha256, load_index
from wgpt_jax.data.ngrams import load_ngrams
from wgpt_jax.data.pipeline import describe_damage, open_split, training_batches
from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.interrupt import Interrupt, deaf_to_interrupts
from wgpt_jax.parallel.hosts import check_rows, check_same, first_together, stop_agreed, wait_for_all
from wgpt_jax.parallel.mesh import batch_sharding, check_mesh_fits, make_mesh, to_devices
from wgpt_jax.run_lock import locked
from wgpt_jax.runs import RunFolder, check_model_fits_data, read_run, training_data_fingerprint
from wgpt_jax.training.checkpoint import Checkpoints
from wgpt_jax.training.evaluations import Evaluations
from wgpt_jax.training.logs import RunLog
from wgpt_jax.training.optimizer import make_optimizer
from wgpt_jax.training.profile import Profile, parse_window
from wgpt_jax.training.start import claim, must_be_shared
from wgpt_jax.training.state import TrainState, abstract_model, abstract_state, count_parameters, init_state
from wgpt_jax.training.step import make_eval_step, make_train_step
from wgpt_jax.training.throughput import Throughput
from wgpt_jax.training.weights import load_weights, parse_source, resolve

if TYPE_CHECKING:
    import grain


def train(
    config: Config,
    data: str | os.PathLike,
    workdir: str | os.PathLike,
    *,
    fresh: bool = False,
    start_from: str | None = None,
    profile: str | None = None,
) -> int:
    """Trains, or continues, the run in ``workdir`` on prepared data; the same call resumes exactly.

    Args:
        config: the experiment.
        data: folder with ``index.json``, made by tools/prepare_audio.py.
        workdir: run folder.
        fresh: delete the run that is there and start over.
        start_from: weights to begin a new run with, ``RUN[@STEP]`` or a folder that ``wgpt export`` made.
        profile: steps to trace, ``START:STOP``, into the run folder's ``profile``; None for none.

    Returns:
        the step that the run stands at: ``config.training.steps``, or less if a signal stopped it.

    Raises:
        RequestError: if the configuration, the data and the run folder do not belong together.
        WorkError: if the data or a checkpoint cannot be read or written, or training diverged.
    """
    # 1. Does the request make sense? What evaluation needs is opened now, not after the first thousand steps.
    config = config.validate()
    window = None if profile is None else parse_window(profile, config.training.steps)
    index = load_index(data)
    check_model_fits_data(config, index, data)
    asked = {**flatten(config), "the data's index.json": file_sha256(Path(data) / INDEX_NAME)}
    asked |= {"--profile": profile, "--fresh": fresh, "--from": start_from}
    check_same("the configuration", asked, "start all processes with the same command")
    mesh = make_mesh(config.mesh)
    check_mesh_fits(config, mesh)
    check_rows(config.training.batch, batch_sharding(mesh))
    reads_mel = config.model.inputs == "hybrid"
    batches = iter(training_batches(data, index, config.data, config.training.batch, reads_mel=reads_mel))
    evaluates = config.training.eval_every > 0 and index.frames("validation") > 0
    if evaluates:
        open_split(data, index, "validation")
        load_ngrams(data)
    run, source = RunFolder(workdir), None if start_from is None else parse_source(start_from)
    if source is not None and source.path == run.path:
        raise RequestError(f"--from {start_from} is the run folder itself; begin in another --workdir")

    # 2. Shapes before arrays.
    optimizer = make_optimizer(config.optimizer, config.training.steps)
    graph, params = abstract_model(config.model, mesh)
    abstract = abstract_state(config, optimizer, mesh)
    step_fn = first_together("the first step", make_train_step(config, graph, optimizer, mesh, abstract))
    eval_fn = first_together("the first evaluation", make_eval_step(config.model, graph, mesh, params))

    with contextlib.ExitStack() as stack:
        # 3. The run folder is ours; a new state, or the last one saved; the data goes on where it stopped.
        if jax.process_index() == 0:
            stack.enter_context(locked(run))
        if source is not None and not wait_for_all("the run folder as it was", run.info.exists() and not fresh):
            source = resolve(source, config, index, data)
        warnings = claim(run, config, index, data, params, fresh=fresh, start_from=source)
        checkpoints = stack.enter_context(Checkpoints(run.checkpoints, config.checkpoint, run.evaluated()))
        interrupt = stack.enter_context(Interrupt())
        check_same("the checkpoints", {"the list of checkpoints": checkpoints.steps}, must_be_shared(run))
        recorded = read_run(run.path).started_from
        if checkpoints.steps:
            state, position, _ = checkpoints.restore_latest(abstract, warnings.append)
            batches.set_state(position)
        else:
            weights = None if recorded is None else load_weights(parse_source(recorded), params)
            state = init_state(config, optimizer, mesh, abstract, weights)
        step = int(jax.device_get(state.step))
        log = RunLog(run, config.logging, first_step=step, steps=config.training.steps)
        throughput = Throughput(config, mesh, count_parameters(params))
        log.start(config, index, mesh, count_parameters(params), step, warnings, throughput.ceiling)
        if recorded is not None:
            log.say(f"started from {recorded}")
        tracer = Profile(window, run.profile, log.say)
        evaluations = Evaluations(run, config, data, index, mesh, graph, eval_fn, log, checkpoints, interrupt)
        keeper = _Keeper(checkpoints, log, throughput, config, index, saved=step)
        source = _batches_from(batches, data, index)

        # 4. Steps. Only at logged steps does the host wait for the device, and for the step before the one under way.
        try:
            if evaluates and step:
                evaluations.catch_up(step, state)
            while step < config.training.steps and not stop_agreed(step, interrupt.requested):
                if tracer.begin(step, state):
                    throughput.start(step)
                position = batches.get_state()
                try:
                    batch = to_devices(next(source), mesh)
                except WorkError:
                    if jax.process_count() == 1:  # the others wait in a step for this one, and cannot save
                        keeper.keep(step, state, position)
                    raise
                with jax.profiler.StepTraceAnnotation("train", step_num=step + 1):
                    state, metrics = step_fn(state, batch)
                step += 1
                keeper.log()
                if tracer.end(step, state):
                    throughput.start(step)
                last = step == config.training.steps
                keeper.done(step, metrics, logged=last or step % config.logging.every == 0)

                # 5. Save, then evaluate: what kills an evaluation costs no step, and resuming evaluates again.
                evaluate_now = evaluates and (last or step % config.training.eval_every == 0)
                if last or evaluate_now or step % config.checkpoint.every == 0:
                    keeper.keep(step, state, batches.get_state())
                    if evaluate_now:
                        evaluations.evaluate(step, state)
                    throughput.start(step)
            keeper.keep(step, state, batches.get_state())  # if it was stopped between two saves
            checkpoints.wait()
        finally:
            tracer.close(step)
            log.close()
            batches.close()
    log.summarise()
    return step


class _Keeper:
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


def _batches_from(batches: "grain.DatasetIterator", data: str | os.PathLike, index: DataIndex) -> Iterator[Batch]:
    """The batches, damage told in a sentence.

    Worker processes start with the first batch, deaf to Ctrl-C: it reaches the whole process group of a terminal, and
    the main process still needs their batches to finish its step.
    """
    first = True
    while True:
        try:
            with deaf_to_interrupts() if first else contextlib.nullcontext():
                batch = next(batches)
        except (RuntimeError, OSError, ValueError, RequestError) as error:
            raise WorkError(describe_damage(data, index, "train", error)) from error
        first = False
        yield batch
