"""Checkpoints: state, data position and configuration committed together. The only module that imports Orbax."""

import contextlib
import errno
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from wgpt_jax.config import CheckpointConfig
from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.parallel.hosts import limited, of_all, together, wait_for_all
from wgpt_jax.runs import RunFolder
from wgpt_jax.training.digest import digest
from wgpt_jax.training.state import TrainState

CHECKPOINT_VERSION = 3
_PATIENCE = 5.0  # seconds
_ITEMS = ("params", "ema", "optimizer", "data", "meta")


class _Damaged(Exception):
    """A checkpoint that cannot be read, or is not what was saved; the message says which."""


class Checkpoints:
    """The checkpoints of one run folder.

    Kept are the latest ones, the best by validation NLL, and every n-th if asked for; the newest is never deleted.
    Saving returns at once and finishes in the background; use as a context manager, so that leaving waits for it.
    Every checkpoint holds a digest of each of its arrays, which restoring computes again and compares.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        config: CheckpointConfig | None = None,
        evaluated: Mapping[int, float] | None = None,
    ):
        """Opens a folder.

        Args:
            folder: where they are.
            config: what is kept; None for reading only.
            evaluated: validation NLL by step, of the steps evaluated so far.
        """
        self.folder = Path(folder).absolute()
        self.nll = dict(evaluated or {})
        self._saving: int | None = None
        self._failed: int | None = None
        self._let_speak: Callable[[], None] = lambda: None
        policies = []
        if config is not None:
            self._let_speak = _silence_stack_traces()
            policies = [checkpoint_managers.LatestN(config.keep), _Best(self.nll)]
            if config.keep_every:
                policies.append(checkpoint_managers.EveryNSteps(config.keep_every))
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies) if policies else None,
            create=config is not None,
            read_only=config is None,
            cleanup_tmp_directories=config is not None,
            # In a thread, a folder that cannot be made leaves other threads waiting for it, and the process with them.
            async_options=ocp.options.AsyncOptions(create_directories_asynchronously=False),
        )
        try:
            with together("the opening of the checkpoints"):
                self.manager = ocp.CheckpointManager(self.folder, item_names=_ITEMS, options=options)
        except OSError as error:
            raise RequestError(f"cannot open {self.folder}: {error.strerror or error}") from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._failures_told(), limited("the last save"):
                self.manager.close()
        except WorkError as failed:
            if error is None:
                raise
            if isinstance(error, WorkError):  # the same full disk, as a rule: both are told
                raise WorkError(f"{error}; {failed}") from error
        finally:
            if self._failed is None:
                self._let_speak()
            elif jax.process_index() == 0:
                self._remove_remains()

    @property
    def steps(self) -> list[int]:
        """Committed steps, oldest first."""
        return sorted(self.manager.all_steps())

    @property
    def best_step(self) -> int | None:
        """The saved step with the lowest validation NLL; None if none of them was evaluated."""
        return _best(self.steps, self.nll)

    def save(self, state: TrainState, data: dict[str, Any], meta: dict[str, Any]) -> None:
        """Saves the state and the position in the data under the state's step, unless that is saved already.

        Args:
            state: the training state.
            data: the data iterator's ``get_state()``.
            meta: JSON-serialisable facts about the run.

        Raises:
            WorkError: if this save or the one before it could not be written, naming it.
        """
        self.wait()
        step = int(jax.device_get(state.step))
        if step in self.manager.all_steps():
            return
        if not self.folder.is_dir():
            raise WorkError(
                f"{self.folder} has vanished, checkpoint {step} was not saved; bring the folder back (is its disk "
                "still mounted?) and run the same command again"
            )
        self._saving = step
        items = _items_of(state)
        meta = {"checkpoint_version": CHECKPOINT_VERSION, **meta, "data": data, "digest": digest(items)}
        args = ocp.args.Composite(
            **{name: ocp.args.StandardSave(tree) for name, tree in items.items()},
            data=ocp.args.JsonSave(data),
            meta=ocp.args.JsonSave(meta),
        )
        with self._failures_told():
            with together(f"the save of step {step}"):
                saved = self.manager.save(step, args=args, force=True)
            if not saved:
                raise ValueError("Orbax declined")

    def check(self) -> None:
        """Tells at once, without waiting, if the save under way has failed.

        Raises:
            WorkError: as :meth:`save`.
        """
        if self._saving is not None:
            with self._failures_told():
                self.manager.check_for_errors()

    def wait(self) -> None:
        """Waits until the last save is on disk.

        Raises:
            WorkError: as :meth:`save`.
        """
        if self._saving is not None:
            with self._failures_told(), together("the last save"):
                self.manager.wait_until_finished()
            self._saving = None

    def restore_latest(
        self, abstract: TrainState, say: Callable[[str], None]
    ) -> tuple[TrainState, dict[str, Any], dict[str, Any]]:
        """Reads the newest step that is whole, onto the devices that ``abstract`` names.

        Damaged ones are said and moved beside the folder, into ``damaged-checkpoints``.

        Returns:
            the state, the data position and what :meth:`save` was given as ``meta``.

        Raises:
            RequestError: if none is whole, or one is of another version.
        """
        steps, told = self.steps, []
        for step in reversed(steps):
            try:
                restored = self._read(step, _items_of(abstract), with_data=True)
            except _Damaged as error:
                told.append(str(error))
                continue
            if told:
                say(f"{'; '.join(told)}; going on from checkpoint {step}, the one before")
                self._set_aside([bad for bad in steps if bad > step])
            for later in [evaluated for evaluated in self.nll if evaluated > step]:
                del self.nll[later]  # of a life that was lost
            state = TrainState(params=restored["params"], ema=restored.get("ema"), **restored["optimizer"])
            return state, restored["data"], restored["meta"]
        raise RequestError(
            f"no checkpoint in {self.folder} can be read: {'; '.join(told)}; bring one back from a copy, or take "
            "another --workdir"
        )

    def step_of(self, name: int | str) -> int:
        """A step as commands name it: a number, ``latest`` or ``best`` (lowest validation NLL).

        Raises:
            RequestError: if there is no such checkpoint.
        """
        steps = self.steps
        if not steps:
            raise RequestError(f"no checkpoint in {self.folder}; train first, or wait for the first save")
        if name == "best" and self.best_step is None:
            raise RequestError(f"no checkpoint in {self.folder} has been evaluated yet; take the latest")
        step = {"best": self.best_step, "latest": steps[-1]}.get(name, name)
        if step not in steps:
            raise RequestError(f"no checkpoint of step {step} in {self.folder}; there are {', '.join(map(str, steps))}")
        return step

    def restore_params(self, params: Any, step: int | str = "latest", *, ema: bool = False) -> tuple[Any, int]:
        """Reads the parameters alone of a step.

        Args:
            params: shapes and shardings.
            step: which, as :meth:`step_of` takes it.
            ema: the averaged ones instead.

        Returns:
            the parameters as ``params`` lays them out, and their step.

        Raises:
            RequestError: if there is no such checkpoint, it holds no average, is damaged or of another version.
        """
        step = self.step_of(step)
        if ema and not (self.folder / str(step) / "ema").is_dir():
            raise RequestError(f"checkpoint {step} in {self.folder} has no averaged weights (optimizer.ema was 0)")
        name = "ema" if ema else "params"
        try:
            return self._read(step, {name: params})[name], step
        except _Damaged as error:
            others = [str(other) for other in self.steps if other != step]
            remedy = f"take another step ({', '.join(others)})" if others else "bring it back from a copy"
            raise RequestError(f"{error}; {remedy}") from error

    def _read(self, step: int, abstract: dict[str, Any], *, with_data: bool = False) -> dict[str, Any]:
        """The named items of a step, and its meta; all processes read all of it, or none."""
        error, restored = None, {}
        try:
            with limited(f"the restore of step {step}"):
                restored["meta"] = meta = self._read_json(step, "meta")
                self._check_version(step, meta)
                for name, tree in abstract.items():
                    # The handler itself: the manager would wait for the other processes, also for one that has failed.
                    args = ocp.args.StandardRestore(tree)
                    restored[name] = ocp.StandardCheckpointHandler().restore(self.folder / str(step) / name, args=args)
                restored["data"] = self._read_json(step, "data") if with_data else None
                saved = meta["digest"], meta["data"]
        except RequestError:
            raise
        except Exception as caught:  # which Orbax raises as such for a file that was cut
            self._raise_if_not_of_the_file(step, caught)
            error = str(caught).splitlines()[0] if str(caught) else type(caught).__name__
        errors = [each for each in of_all(f"the restore of step {step}", error) if each is not None]
        if errors:
            raise _Damaged(f"checkpoint {step} in {self.folder} cannot be read ({errors[0]})")
        now = digest({name: restored[name] for name in abstract})
        wrong = [path for path, value in now.items() if saved[0].get(path) != value]
        if with_data and restored["data"] != saved[1]:
            wrong.append("the position in the data")
        if wrong:
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise _Damaged(f"checkpoint {step} in {self.folder} is not what was saved ({wrong[0]}{more} changed)")
        return restored

    def _read_json(self, step: int, name: str) -> dict[str, Any]:
        return json.loads((self.folder / str(step) / name / "metadata").read_text())

    def _raise_if_not_of_the_file(self, step: int, error: BaseException) -> None:
        """Raises WorkError for what says nothing about the checkpoint: a device or a disk that fails for now."""
        what: BaseException | None = error
        while what is not None:
            if isinstance(what, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(what):
                raise WorkError(
                    f"checkpoint {step} does not fit into the memory of these devices; take more of them, with a "
                    "larger --mesh.fsdp"
                ) from error
            if isinstance(what, OSError) and what.errno not in (None, errno.ENOENT):
                raise WorkError(
                    f"checkpoint {step} in {self.folder} cannot be read now: {what.strerror}; once that is mended the "
                    "same command continues"
                ) from error
            what = what.__cause__ or what.__context__

    def _check_version(self, step: int, meta: dict[str, Any]) -> None:
        if meta["checkpoint_version"] != CHECKPOINT_VERSION:
            raise RequestError(
                f"checkpoint {step} in {self.folder} is of version {meta['checkpoint_version']}, this version of "
                f"wgpt_jax reads {CHECKPOINT_VERSION}; use the wgpt_jax that wrote it, or train anew in another "
                "--workdir"
            )

    def _set_aside(self, steps: list[int]) -> None:
        """Moves damaged steps out of the way of the saves to come; nothing is deleted."""
        wait_for_all("the damaged checkpoints")
        if jax.process_index() == 0:
            aside = RunFolder(self.folder.parent).damaged
            aside.mkdir(exist_ok=True)
            for step in steps:
                target = aside / str(step)
                number = 1
                while target.exists():
                    number += 1
                    target = aside / f"{step}-{number}"
                shutil.move(self.folder / str(step), target)
        wait_for_all("the damaged checkpoints moved")
        self.manager.reload()

    def _remove_remains(self) -> None:
        """Gives a full disk back what the failed save took, as soon as the last of its threads has given up."""
        end = time.monotonic() + _PATIENCE
        while remains := list(self.folder.glob(f"{self._failed}.orbax-checkpoint-tmp*")):
            for path in remains:
                shutil.rmtree(path, ignore_errors=True)
            if time.monotonic() > end:  # it may be read-only
                return
            time.sleep(0.1)

    @contextlib.contextmanager
    def _failures_told(self) -> Iterator[None]:
        """A save that failed, in a sentence."""
        try:
            yield
        except WorkError:
            raise
        except Exception as error:  # Orbax has no class of its own for what can go wrong
            step, self._saving = self._saving, None
            self._failed = step
            kept = [other for other in self.steps if other != step and (self.folder / str(other)).is_dir()]
            raise WorkError(
                f"checkpoint {step} could not be written to {self.folder}: {_reason(error)}; "
                + (f"checkpoint {kept[-1]} is kept" if kept else "nothing was saved before")
                + "; once that is mended the same command continues"
            ) from error


class _Best(checkpoint_managers.PreservationPolicy):
    """Preserves the step with the lowest NLL, which is known only when the step was saved and evaluated."""

    def __init__(self, nll: Mapping[int, float]):
        self.nll = nll

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        """One truth value per checkpoint."""
        best = _best([info.step for info in checkpoints], self.nll)
        return [info.step == best for info in checkpoints]


def _best(steps: list[int], nll: Mapping[int, float]) -> int | None:
    return min((step for step in steps if step in nll), key=nll.__getitem__, default=None)


def _items_of(state: TrainState) -> dict[str, Any]:
    """A state, or its shapes, as it lies in a checkpoint."""
    optimizer = {"step": state.step, "opt_state": state.opt_state, "guard": state.guard}
    items = {"params": state.params, "optimizer": optimizer}
    return items if state.ema is None else {**items, "ema": state.ema}


def _silence_stack_traces() -> Callable[[], None]:
    """Keeps the threads that write from telling what fails in stack traces, dozens of them for one full disk.

    What they raise arrives here as well, and is told in a sentence.

    Returns:
        what lets them speak again; not to be called after a failure, which they tell once more when the process ends.
    """
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels, hook = [logger.level for logger in loggers], sys.unraisablehook
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    sys.unraisablehook = lambda unraisable: None

    def let_speak() -> None:
        sys.unraisablehook = hook
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

    return let_speak


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    if "No space left on device" in text:
        return "no space left on the device"
    return text.splitlines()[0] if text else type(error).__name__
