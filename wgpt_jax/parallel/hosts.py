"""Training as several processes: they start together, wait for each other by name, and end together with a sentence.

On one host everything here returns at once.
"""

import collections
import contextlib
import json
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from wgpt_jax.errors import RequestError, WgptError
from wgpt_jax.parallel.hub import END, START, End, Hub
from wgpt_jax.parallel.line import Line
from wgpt_jax.parallel.output import Output
from wgpt_jax.parallel.place import HostFlags, Place, find_place
from wgpt_jax.runs import RunFolder

if TYPE_CHECKING:
    from jax.sharding import NamedSharding

_SILENCE = 100  # seconds at most, as jax.distributed's heartbeat


class _Group(NamedTuple):
    """This process among the others."""

    place: Place
    line: Line
    output: Output


_group: _Group | None = None


@contextlib.contextmanager
def start_hosts(flags: HostFlags, workdir: str | os.PathLike) -> Iterator[None]:
    """Connects this process to the others of its run and leaves with them; does nothing for one process alone.

    Call it before anything asks JAX for devices. Inside, only process 0 prints: the others write to ``logs/`` in the
    run folder. A failure of one process inside ends all of them, each with a sentence.

    Args:
        flags: where the processes find each other.
        workdir: run folder.

    Raises:
        RequestError: if the flags are wrong, or process 0 cannot listen.
        WgptError: does not return if the processes do not come together.
    """
    global _group
    place = find_place(flags)
    if place is None:
        yield
        return
    output = Output(RunFolder(workdir), place.process)
    _group = _Group(place, Line(place.process, flags.timeout, min(flags.timeout, _SILENCE), output.end), output)
    try:
        _connect(*_group)
        yield
        wait_for_all(END)
    except BaseException as error:
        _fail(error)
    finally:
        _group = None


def wait_for_all(name: str, value: Any = None) -> Any:
    """Waits until every process is here; returns process 0's ``value``, which JSON must be able to hold.

    Where one does not come in time, all end with a sentence that names it.
    """
    return value if _group is None else _group.line.meet(name, value)


def of_all(name: str, value: Any) -> list[Any]:
    """Waits until every process is here; returns the values of all, process 0's first."""
    return [value] if _group is None else _group.line.meet(name, value, everyones=True)


@contextlib.contextmanager
def together(name: str) -> Iterator[None]:
    """All processes enter and leave what is inside together; the run ends where one takes longer than the time-out."""
    wait_for_all(name)
    with limited(name):
        yield
    wait_for_all(f"the end of {name}")


def limited(name: str) -> contextlib.AbstractContextManager[None]:
    """The run ends where one of several processes takes longer than the time-out for what is inside."""
    return contextlib.nullcontext() if _group is None else _group.line.limited(name)


def check_same(name: str, values: Mapping[str, Any], remedy: str) -> None:
    """Compares values, which JSON must be able to hold, with those of process 0.

    Raises:
        RequestError: naming this process and the first value that differs.
    """
    import jax

    if _group is None:
        if jax.process_count() > 1:
            raise RequestError("several processes train together through wgpt train, or inside start_hosts()")
        return
    ours = json.loads(json.dumps(values))
    theirs = wait_for_all(name, ours)
    for key, value in ours.items():
        if theirs.get(key) != value:
            me = _group.place.process
            raise RequestError(f"{key} is {value} on process {me} but {theirs.get(key)} on process 0; {remedy}")


def own_rows(batch: int, sharding: "NamedSharding") -> list[int]:
    """The rows of a global batch that this process feeds, ascending.

    Raises:
        RequestError: unless every process feeds as many as any other, and no row twice.
    """
    import jax

    rows: dict[int, set[int]] = collections.defaultdict(set)
    for device, index in sharding.devices_indices_map((batch,)).items():
        rows[device.process_index].update(range(*index[0].indices(batch)))
    if {len(own) * len(rows) for own in rows.values()} != {batch} or len(set.union(*rows.values())) != batch:
        raise RequestError(
            f"training.batch {batch} cannot be split over {len(rows)} processes on this mesh; make mesh.data x "
            f"mesh.fsdp a multiple of {len(rows)}, with a smaller mesh.tensor"
        )
    return sorted(rows[jax.process_index()])


def first_together(name: str, program: Any) -> Callable[..., Any]:
    """The program (called and lowered as those of ``jax.jit``), first called when all processes have compiled it.

    Collectives that wait for a process that still compiles may give up: gloo's, on CPU, do so after 30 seconds.
    """
    if _group is None:
        return program
    compiled = False

    def call(*args: Any) -> Any:
        nonlocal compiled
        if not compiled:
            program.lower(*args).compile()
            wait_for_all(name)
            compiled = True
        return program(*args)

    return call


def stop_agreed(step: int, asked: bool) -> bool:
    """Whether to stop with ``step`` steps done, the same on all processes when any of them was ``asked`` to."""
    return asked if _group is None else _group.line.stops_before(step, asked)


def _connect(place: Place, line: Line, output: Output) -> None:
    """Brings all lines together, then JAX's own connections, then the devices."""
    address = place.address
    if place.process == 0:
        address = ("localhost", address[1])
        try:
            Hub(address[1], place.count, line.silence, output.tell).start()
        except OSError as error:
            raise RequestError(
                f"process 0 cannot listen on port {address[1]} of this machine ({error.strerror}); "
                "give all processes another --coordinator"
            ) from error
    try:
        line.connect(address, place.count, output.tell)
    except TimeoutError as error:
        where = f"process 0 of {place.count} did not answer at {place.coordinator}"
        output.end(End(f"{where} within {line.timeout} s (--timeout): {error}"))
    wait_for_all(START)

    import jax

    output.catch_aborts()
    # JAX would turn SIGTERM into a request of its own; here signals are training's (wgpt_jax.interrupt).
    jax.config.update("jax_enable_preemption_service", False)
    with together("JAX's start"):
        jax.distributed.initialize(
            place.coordinator,
            place.count,
            place.process,
            local_device_ids=place.local_devices or None,
            cluster_detection_method="deactivate",
            # JAX aborts when it loses patience: the hub and the lines lose it first and say why.
            initialization_timeout=2 * line.timeout,
            heartbeat_timeout_seconds=2 * line.silence,
            shutdown_timeout_seconds=2 * line.silence,
        )
        devices = jax.local_device_count()
    if place.process == 0:
        output.tell(f"{place.count} processes, {devices} device(s) each; logs of the others in {output.run.logs}")


def _fail(error: BaseException) -> None:
    """Ends all processes because of an error in this one."""
    code = 1
    if isinstance(error, WgptError):
        sentence, code = str(error), error.exit_code
    elif isinstance(error, KeyboardInterrupt):
        sentence, code = str(error) or "interrupted", 130
    else:
        # Where a collective fails because a process died, the hub knows which, and ends this one meanwhile.
        time.sleep(3)
        traceback.print_exception(error)
        sentence = f"{type(error).__name__}: {error}".splitlines()[0]
    _group.line.fail(End(sentence, code, _group.place.process))
