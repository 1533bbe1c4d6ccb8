"""The training loop, top to bottom: check, lay out, restore, step, log, save, evaluate."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import jax

from wgpt_jax.config import Config, flatten
from wgpt_jax.data.batch import Batch
from wgpt_jax.data.index import INDEX_NAME, DataIndex, file_sha256, load_index
from wgpt_jax.data.ngrams import load_ngrams
from wgpt_jax.data.pipeline import TrainingBatches, training_batches
from wgpt_jax.data.shards import describe_damage, open_split
from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.interrupt import Interrupt, deaf_to_interrupts
from wgpt_jax.parallel.hosts import check_same, first_together, own_rows, stop_agreed, wait_for_all
from wgpt_jax.parallel.mesh import batch_sharding, check_mesh_fits, make_mesh, to_devices
from wgpt_jax.run_lock import locked
from wgpt_jax.runs import RunFolder, check_model_fits_data, read_run
from wgpt_jax.training.checkpoint import Checkpoints
from wgpt_jax.training.evaluations import Evaluations
from wgpt_jax.training.keeper import Keeper
from wgpt_jax.training.logs import RunLog
from wgpt_jax.training.optimizer import make_optimizer
from wgpt_jax.training.profile import Profile, parse_window
from wgpt_jax.training.start import claim, must_be_shared
from wgpt_jax.training.state import abstract_model, abstract_state, count_parameters, init_state
from wgpt_jax.training.step import make_eval_step, make_train_step
from wgpt_jax.training.throughput import Throughput
from wgpt_jax.training.weights import load_weights, parse_source, resolve


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
    rows, reads_mel = own_rows(config.training.batch, batch_sharding(mesh)), config.model.inputs == "hybrid"
    batches = training_batches(data, index, config.data, config.training.batch, rows=rows, reads_mel=reads_mel)
    evaluates = config.training.eval_every > 0 and index.frames("validation") > 0
    if evaluates:
        open_split(data, index, "validation")
        load_ngrams(data)
    run, source = RunFolder(workdir), None if start_from is None else parse_source(start_from)
    if source is not None and source.path.resolve() == run.path.resolve():
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
            # Inline: a name for them would keep them on the devices.
            state = init_state(
                config,
                optimizer,
                mesh,
                abstract,
                None if recorded is None else load_weights(parse_source(recorded), params),
            )
        step = int(jax.device_get(state.step))
        log = RunLog(run, config.logging, first_step=step, steps=config.training.steps)
        throughput = Throughput(config, mesh, count_parameters(params))
        log.start(config, index, mesh, count_parameters(params), step, warnings, throughput.ceiling)
        if recorded is not None:
            log.say(f"started from {recorded}")
        tracer = Profile(window, run.profile, log.say)
        evaluations = Evaluations(run, config, data, index, mesh, graph, eval_fn, log, checkpoints, interrupt)
        keeper = Keeper(checkpoints, log, throughput, config, index, saved=step)
        next_batch = _batches_from(batches, data, index)

        # 4. Steps. Only at logged steps does the host wait for the device, and for the step before the one under way.
        try:
            if evaluates and step:
                evaluations.catch_up(step, state)
            while step < config.training.steps and not stop_agreed(step, interrupt.requested):
                if tracer.begin(step, state):
                    throughput.start(step)
                try:
                    batch = to_devices(next(next_batch), mesh)
                except WorkError:
                    if jax.process_count() == 1:  # the others wait in a step for this one, and cannot save
                        keeper.keep(step, state, batches.get_state())
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


def _batches_from(batches: TrainingBatches, data: str | os.PathLike, index: DataIndex) -> Iterator[Batch]:
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
