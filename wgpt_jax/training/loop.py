"""The training loop, top to bottom: check, lay out, restore, step, log, evaluate, save."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from wgpt_jax.config import Config, flatten
from wgpt_jax.data.batch import Batch
from wgpt_jax.data.index import INDEX_NAME, DataIndex, file_sha256, load_index
from wgpt_jax.data.ngrams import load_ngrams
from wgpt_jax.data.pipeline import describe_damage, open_split, training_batches
from wgpt_jax.errors import WorkError
from wgpt_jax.evaluation import main_source, score_split
from wgpt_jax.interrupt import Interrupt, deaf_to_interrupts
from wgpt_jax.parallel.hosts import check_rows, check_same, first_together, stop_agreed, wait_for_all
from wgpt_jax.parallel.mesh import batch_sharding, check_mesh_fits, make_mesh, to_devices
from wgpt_jax.runs import (
    RunFolder,
    check_data_is_readable,
    check_model_fits_data,
    check_same_run,
    copy_codec,
    new_run,
    read_run,
    training_data_fingerprint,
    write_run,
)
from wgpt_jax.training.checkpoint import Checkpoints
from wgpt_jax.training.logs import RunLog, Throughput
from wgpt_jax.training.optimizer import make_optimizer
from wgpt_jax.training.profile import Profile, parse_window
from wgpt_jax.training.state import (
    TrainState,
    abstract_model,
    abstract_state,
    count_parameters,
    init_state,
    parameters_by_group,
)
from wgpt_jax.training.step import Scores, make_eval_step, make_train_step

if TYPE_CHECKING:
    import grain


def train(config: Config, data: str | os.PathLike, workdir: str | os.PathLike, *, profile: str | None = None) -> int:
    """Trains, or continues, the run in ``workdir`` on prepared data; the same call resumes exactly.

    Args:
        config: the experiment.
        data: folder with ``index.json``, made by tools/prepare_audio.py.
        workdir: run folder.
        profile: steps to trace, ``START:STOP``, into the run folder's ``profile``; None for none.

    Returns:
        the step that the run stands at: ``config.training.steps``, or less if a signal stopped it.

    Raises:
        RequestError: if the configuration, the data and the run folder do not belong together.
        WorkError: if the data or a checkpoint cannot be read or written, or the loss is not finite.
    """
    # 1. Does the request make sense? What evaluation needs is opened now, not after the first thousand steps.
    config = config.validate()
    window = None if profile is None else parse_window(profile, config.training.steps)
    index = load_index(data)
    check_model_fits_data(config, index, data)
    asked = {**flatten(config), "the data's index.json": file_sha256(Path(data) / INDEX_NAME), "--profile": profile}
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

    # 2. Shapes before arrays.
    optimizer = make_optimizer(config.optimizer, config.training.steps)
    graph, params = abstract_model(config.model, mesh)
    abstract = abstract_state(config.model, optimizer, mesh)
    step_fn = first_together("the first step", make_train_step(config, graph, optimizer, mesh, abstract))
    eval_fn = first_together("the first evaluation", make_eval_step(config.model, graph, mesh, params))
    run = RunFolder(workdir)
    warnings = _claim(run, config, index, data, params)

    with Checkpoints(run.checkpoints, config.checkpoint) as checkpoints, Interrupt() as interrupt:
        # 3. A new state, or the last one saved; the data goes on where it stopped.
        check_same("the checkpoints", {"the list of checkpoints": checkpoints.steps}, _must_be_shared(run))
        if checkpoints.steps:
            state, position = checkpoints.restore(abstract)
            batches.set_state(position)
        else:
            state = init_state(config.model, optimizer, mesh, abstract, config.training.seed)
        step = saved = int(jax.device_get(state.step))
        log = RunLog(run, config.logging, first_step=step, steps=config.training.steps)
        throughput = Throughput(config, mesh, count_parameters(params))
        log.start(config, index, mesh, count_parameters(params), step, warnings, throughput.ceiling)
        tracer = Profile(window, run.path / "profile", log.say)
        source = _batches_from(batches, data, index)

        # 4. Steps. Only at logged steps does the host wait for the device, and for the step before the one under way.
        pending: tuple[int, dict[str, jax.Array]] | None = None
        try:
            while step < config.training.steps and not stop_agreed(step, interrupt.requested):
                if tracer.begin(step, state):
                    throughput.start(step)
                with jax.profiler.StepTraceAnnotation("train", step_num=step + 1):
                    state, metrics = step_fn(state, to_devices(next(source), mesh))
                step += 1
                if pending is not None:
                    _log_step(log, throughput, *pending)
                if tracer.end(step, state):
                    throughput.start(step)
                last = step == config.training.steps
                pending = (step, metrics) if last or step % config.logging.every == 0 else None

                # 5. Evaluate and save, a diverged state never; first the lines that lead up to the checkpoint.
                evaluate_now = evaluates and (last or step % config.training.eval_every == 0)
                if last or evaluate_now or step % config.checkpoint.every == 0:
                    _require_finite(step, metrics, checkpoints)
                    log.advance(step)
                    if pending is not None:
                        _log_step(log, throughput, *pending)
                        pending = None
                    nll = None
                    try:
                        if evaluate_now:
                            nll = _evaluate(log, step, eval_fn, state, data, index, config, mesh)
                    finally:
                        checkpoints.save(state, batches.get_state(), {"step": step}, nll)
                        saved = step
                    throughput.start(step)
            if step > saved:  # interrupted between two saves
                _require_finite(step, metrics, checkpoints)
                if pending is not None:
                    _log_step(log, throughput, *pending)
                checkpoints.save(state, batches.get_state(), {"step": step}, None)
            checkpoints.wait()
        finally:
            tracer.close(step)
            log.close()
            batches.close()
    if step < config.training.steps:
        print(f"stopped and saved at step {step}; the same command continues")
    return step


def _claim(run: RunFolder, config: Config, index: DataIndex, data: str | os.PathLike, params: nnx.State) -> list[str]:
    """Makes the run folder ours, or checks that it is; returns warnings."""
    fingerprint = training_data_fingerprint(index)
    warnings = []
    if jax.process_index() == 0:
        if run.info.exists():
            info = read_run(run.path)
            check_data_is_readable(info, index, run.path, data)
            warnings = check_same_run(info, config, fingerprint, run.path)
        write_run(run.path, new_run(config, index, parameters_by_group(params)))
        copy_codec(data, run.path)
    wait_for_all("the run folder")
    seen = file_sha256(run.info) if run.info.exists() else "missing"
    check_same("run.json", {"run.json": seen}, _must_be_shared(run))
    return warnings


def _must_be_shared(run: RunFolder) -> str:
    return f"{run.path} must be one folder that all processes share"


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
        except (RuntimeError, OSError, ValueError) as error:
            raise WorkError(describe_damage(data, index, "train", error)) from error
        first = False
        yield batch


def _log_step(log: RunLog, throughput: Throughput, step: int, metrics: dict[str, jax.Array]) -> None:
    metrics = jax.device_get(metrics)
    nll = metrics["nll"]
    values = {name: float(value) for name, value in metrics.items() if name != "nll"}
    frames = values.pop("frames")
    if len(nll) > 1:
        values |= {f"nll_codebook_{k}": float(value) for k, value in enumerate(nll, start=1)}
    log.train(step, {**values, **throughput.rate(step, frames)})


def _require_finite(step: int, metrics: dict[str, jax.Array], checkpoints: Checkpoints) -> None:
    """Stops before a diverged state is saved: once it is not finite, it stays so."""
    for name, value in jax.device_get({name: metrics[name] for name in ("loss", "grad_norm")}).items():
        if not np.isfinite(value):
            kept = f"checkpoint {checkpoints.steps[-1]} is kept" if checkpoints.steps else "nothing was saved yet"
            raise WorkError(
                f"training diverged: {name} at step {step} is {value}; {kept}. "
                "Start over with a smaller --optimizer.learning-rate in another --workdir"
            )


def _evaluate(
    log: RunLog,
    step: int,
    eval_fn: Callable[..., Scores],
    state: TrainState,
    data: str | os.PathLike,
    index: DataIndex,
    config: Config,
    mesh: Mesh,
) -> float:
    """Validation NLL of the current parameters over all output codebooks, in nats per frame; logged."""
    limit = config.training.eval_windows
    mel = main_source(config, index)
    scores = score_split(eval_fn, state.params, data, index, "validation", config, mesh, limit=limit, mel=mel)
    summary = scores.summary(index.clock.frames_per_second)
    keys = ("nll", "nll_stderr", "top1", "top10", "total_bits_per_second")
    log.evaluation(step, {"mel_source": mel, **{key: summary[key] for key in keys}})
    return summary["total_nll"]
