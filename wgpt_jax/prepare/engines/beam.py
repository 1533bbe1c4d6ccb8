"""The Beam engine: tasks on any runner of Apache Beam, from processes of this machine to Dataflow, Flink and Spark."""

import contextlib
import functools
import io
import os
import pickle
import shlex
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wgpt_jax.errors import RequestError, WgptError, WorkError
from wgpt_jax.prepare.engines import beam_worker
from wgpt_jax.prepare.engines.outcome import Outcome, Result, Task
from wgpt_jax.prepare.storage import SCRATCH, Storage
from wgpt_jax.prepare.storage_beam import need_beam, quiet

if TYPE_CHECKING:
    from apache_beam import Pipeline
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.runner import PipelineRunner

_PARTS = 64
"""Files at most that the tasks travel in, and their results; a job graph, on Dataflow, is too small for the tasks."""
_DIRECT = ("", "direct", "directrunner", "switchingdirectrunner")
_JOB_SERVERS = ("flink", "spark", "portable", "kafka")
"""Runners with options that only their job server knows."""


def run_tasks(
    work: Callable[[Task], Result], tasks: Sequence[Task], storage: Storage, options: Sequence[str]
) -> Iterator[Outcome[Task, Result]]:
    """Yields the outcome of every task, in order, once all are done.

    Tasks and results travel as hidden files of ``storage``, with names of this run, which are removed at the end.

    Args:
        work: a picklable function; a runner may call it again with the same task.
        tasks: picklable arguments.
        storage: a folder that the launcher and all workers reach.
        options: Beam's pipeline options (``--runner DataflowRunner --project ...``); the DirectRunner by default.

    Raises:
        RequestError: if Beam is not installed, or refuses the options.
        WgptError: what ``work`` raises; that of the first task if several do.
        WorkError: for any other failure.
    """
    pipeline = _pipeline(options)
    run = f".{uuid.uuid4().hex[:12]}"
    parts = range(min(len(tasks), _PARTS))
    try:
        for part in parts:
            share = [(i, pickle.dumps(tasks[i])) for i in range(part, len(tasks), _PARTS)]
            storage.write(_file(run, "tasks", part), pickle.dumps(share))
        if parts:
            _run(pipeline, work, parts, storage, run)
        answers: dict[int, bytes] = {}
        for part in parts:
            answers |= pickle.loads(storage.read(_file(run, "results", part)))
        outcomes = [Outcome(task, pickle.loads(answers[i])) for i, task in enumerate(tasks)]
    finally:
        with contextlib.suppress(OSError):  # the next run clears scratch files
            for name in storage.names(SCRATCH):
                if name.startswith(run):
                    storage.remove(name)
    for outcome in outcomes:
        if isinstance(outcome.result, _Refused):
            raise outcome.result.error
    yield from outcomes


def check_options(options: Sequence[str]) -> None:
    """Checks pipeline options, and gives those for file systems (``--s3_region_name``) to those of this process.

    Raises:
        RequestError: if Beam is not installed, or refuses the options.
    """
    _pipeline(options)


@dataclass(frozen=True)
class _Refused:
    """Stands for the result of a task that raised what one sentence explains; a runner would only try it again."""

    error: WgptError


def _run(pipeline: "Pipeline", work: Callable, parts: Iterable[int], storage: Storage, run: str) -> None:
    import apache_beam as beam

    answered = (
        pipeline
        | "parts" >> beam.Create(list(parts))
        | "tasks" >> beam.FlatMap(functools.partial(_load, storage=storage, run=run))
        | "spread" >> beam.Reshuffle()
        | "work" >> beam.Map(functools.partial(_answer, work=work)).with_output_types(tuple[int, tuple[int, bytes]])
    )
    grouped = answered | "gather" >> beam.GroupByKey()
    _ = grouped | "results" >> beam.Map(functools.partial(_save, storage=storage, run=run))
    try:
        with quiet(), _quiet_threads():
            state = pipeline.run().wait_until_finish()
    except Exception as error:
        reason = _reason(error)
        if reason.startswith(KeyboardInterrupt.__name__):  # taken for a failure of the work, where that runs here
            raise KeyboardInterrupt from error
        raise WorkError(f"the Beam job failed ({reason}); what is finished is kept") from error
    if state != "DONE":
        raise WorkError(f"the Beam job ended as {state}; what is finished is kept, the same command continues")


def _load(part: int, storage: Storage, run: str) -> list[tuple[int, bytes]]:
    return pickle.loads(storage.read(_file(run, "tasks", part)))


def _answer(numbered: tuple[int, bytes], work: Callable[[Any], Any]) -> tuple[int, tuple[int, bytes]]:
    number, task = numbered
    try:
        answer = work(pickle.loads(task))
    except WgptError as error:
        answer = _Refused(error)
    return number % _PARTS, (number, pickle.dumps(answer))


def _save(group: tuple[int, Iterable[tuple[int, bytes]]], storage: Storage, run: str) -> None:
    part, answers = group
    storage.write(_file(run, "results", part), pickle.dumps(dict(answers)))


def _file(run: str, what: str, part: int) -> str:
    return f"{run}-{what}-{part:02d}{SCRATCH}"


def _pipeline(options: Sequence[str]) -> "Pipeline":
    """An empty pipeline with its runner; the command line of this process has no say in it."""
    need_beam("--runner beam")
    with quiet():
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

        try:
            parsed = PipelineOptions(list(options))
            name = parsed.view_as(StandardOptions).runner or ""
            _refuse_unknown(parsed, options, name)
            # Beam's own DirectRunner would try to download and start another, Prism.
            runner = _direct_runner(parsed) if name.lower() in _DIRECT else _named_runner(name)
            return beam.Pipeline(runner, parsed)
        except ValueError as error:  # Beam's validation
            raise RequestError(f"Beam refuses the options: {' '.join(str(error).split())}") from error


def _refuse_unknown(parsed: "PipelineOptions", options: Sequence[str], runner: str) -> None:
    """Refuses what Beam would drop with a warning."""
    parsers = []
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            parsed.get_all_options(add_extra_args_fn=parsers.append)
    except SystemExit as error:
        raise RequestError(f"Beam refuses the options: {complaint.getvalue().split('error: ')[-1].strip()}") from error
    _, unknown = parsers[0].parse_known_args(list(options))
    if unknown and not runner.lower().startswith(_JOB_SERVERS):
        raise RequestError(f"Beam has no option {' '.join(unknown)}")


def _direct_runner(options: "PipelineOptions") -> "PipelineRunner":
    """Beam's runner on this machine."""
    from apache_beam.options.pipeline_options import DirectOptions
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.portability.fn_api_runner import fn_runner
    from apache_beam.runners.portability.portable_runner import JobServiceHandle
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    environment = None
    direct = options.view_as(DirectOptions)
    if direct.direct_running_mode == "multi_processing":
        # As the runner would choose itself, but these end with this process, and their logs stay from the terminal.
        command = f"exec {shlex.quote(sys.executable)} -m {beam_worker.__name__} {os.getpid()} 2>/dev/null"
        environment = SubprocessSDKEnvironment.from_command_string(command)
        direct.direct_running_mode = "in_memory"
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    provision = fn_runner.ExtendedProvisionInfo(beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded))
    return fn_runner.FnApiRunner(environment, provision_info=provision)


def _named_runner(name: str) -> "PipelineRunner":
    from apache_beam.runners.runner import create_runner

    try:
        return create_runner(name)
    except Exception as error:
        raise RequestError(f"Beam has no runner {name}: {' '.join(str(error).split())}") from error


@contextlib.contextmanager
def _quiet_threads() -> Iterator[None]:
    """Keeps the stack traces of Beam's threads from the terminal, which follow the death of a worker process."""
    before = threading.excepthook
    threading.excepthook = lambda _: None
    try:
        yield
    finally:
        threading.excepthook = before


def _reason(error: Exception) -> str:
    """What the work raised, without where Beam was then and without a stack trace."""
    name = type(error).__name__
    lines = str(error).split(" [while running")[0].strip().splitlines()
    if isinstance(error, RuntimeError) and lines:  # from another process, with the stack trace as its text
        return lines[-1]
    return f"{name}: {lines[-1]}" if lines else name
