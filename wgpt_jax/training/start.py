"""Before the first step: the run folder becomes ours, or is refused; what it says of itself is written."""

import os
import shutil

import jax

from wgpt_jax.config import Config
from wgpt_jax.data.index import DataIndex, file_sha256
from wgpt_jax.errors import RequestError
from wgpt_jax.metrics import read_metrics
from wgpt_jax.parallel.hosts import check_same, wait_for_all
from wgpt_jax.runs import (
    RunFolder,
    check_data_is_readable,
    check_same_run,
    copy_codec,
    new_run,
    read_run,
    training_data_fingerprint,
    write_run,
)
from wgpt_jax.training.state import parameters_by_group
from wgpt_jax.training.weights import Source, parse_source


def claim(
    run: RunFolder,
    config: Config,
    index: DataIndex,
    data: str | os.PathLike,
    params,
    *,
    fresh: bool,
    start_from: Source | None,
) -> list[str]:
    """Checks that a request makes or continues a run, and writes what the run is.

    Args:
        run: its folder, which process 0 holds the lock of.
        config: the experiment.
        index: of its data.
        data: where that is.
        params: shapes of its parameters.
        fresh: whether to delete a run that is there.
        start_from: where the first weights come from; None to draw them.

    Returns:
        warnings.

    Raises:
        RequestError: if the folder holds another run, or something that is no run of this version.
    """
    warnings = []
    if jax.process_index() == 0:
        if fresh:
            _delete(run)
        for remains in run.checkpoints.glob("*.orbax-checkpoint-tmp*"):  # of a save that was cut short
            shutil.rmtree(remains, ignore_errors=True)
        started_from = None if start_from is None else str(start_from)
        if run.info.exists():
            info = read_run(run.path)
            check_data_is_readable(info, index, run.path, data)
            warnings = check_same_run(info, config, training_data_fingerprint(index), run.path)
            started_from = _same_start(info.started_from, start_from, run)
            logged = read_metrics(run.metrics)
            if not _has_checkpoints(run) and any(row["step"] > 2 * info.config.checkpoint.every for row in logged):
                raise RequestError(
                    f"{run.path} was trained until step {logged[-1]['step']}, but its checkpoints are gone: bring "
                    f"{run.checkpoints} back (is its disk mounted?), take another --workdir, or give them up "
                    "with --fresh"
                )
        elif _has_checkpoints(run):
            raise RequestError(
                f"{run.checkpoints} holds checkpoints, but {run.info.name}, which says what they are of, is missing; "
                "bring it back, take another --workdir, or give them up with --fresh"
            )
        elif run.metrics.exists():
            raise RequestError(f"{run.metrics} is there, but no {run.info.name}; take another --workdir")
        write_run(run.path, new_run(config, index, parameters_by_group(params), started_from))
        copy_codec(data, run.path)
    wait_for_all("the run folder")
    seen = file_sha256(run.info) if run.info.exists() else "missing"
    check_same("run.json", {"run.json": seen}, must_be_shared(run))
    return warnings


def must_be_shared(run: RunFolder) -> str:
    """The remedy where processes see different run folders."""
    return f"{run.path} must be one folder that all processes share"


def _same_start(recorded: str | None, asked: Source | None, run: RunFolder) -> str | None:
    """Where a run that is there has its first weights from; it must be what is asked for now, if anything is."""
    if asked is not None and (recorded is None or not asked.names(parse_source(recorded))):
        raise RequestError(
            f"{run.path} was started from {recorded or 'drawn weights'}, not from {asked}; leave --from out to "
            "continue it, take another --workdir, or give up what is there with --fresh"
        )
    return recorded


def _has_checkpoints(run: RunFolder) -> bool:
    return run.checkpoints.is_dir() and any(path.name.isdigit() for path in run.checkpoints.iterdir())


def _delete(run: RunFolder) -> None:
    """Deletes what training and evaluation made in a run folder, and nothing else that may lie there."""
    if not (run.info.exists() or _has_checkpoints(run)):
        if any(path.exists() for path in (run.checkpoints, run.metrics, run.evaluation)):
            raise RequestError(
                f"--fresh: {run.path} is no run folder (no {run.info.name}), so nothing is deleted there"
            )
        return
    # run.json last: as long as it is there, the folder says what the rest is of.
    folders = (run.checkpoints, run.damaged, run.tensorboard, run.evaluation, run.profile)
    for path in (*folders, run.metrics, run.loss_plot, run.codec, run.info):
        try:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            named = f"{error.filename or path}: {error.strerror or error}"
            raise RequestError(f"--fresh: cannot delete {named}") from error
