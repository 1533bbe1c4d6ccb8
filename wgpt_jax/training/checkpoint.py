"""Checkpoints: state, data position and configuration committed together. The only module that imports Orbax."""

import os
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from wgpt_jax.config import CheckpointConfig
from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.parallel.hosts import limited, together
from wgpt_jax.training.state import TrainState

CHECKPOINT_VERSION = 1
_BEST = "nll"


class Checkpoints:
    """The checkpoints of one run folder.

    Kept are the latest ones, the best by validation NLL, and every n-th if asked for; the newest is never deleted.
    Saving returns at once and finishes in the background; use as a context manager, so that leaving waits for it.
    """

    def __init__(self, folder: str | os.PathLike, config: CheckpointConfig | None = None):
        """Opens ``folder``; without ``config`` for reading only."""
        self.folder = Path(folder).absolute()
        policies = []
        if config is not None:
            policies = [
                checkpoint_managers.LatestN(config.keep),
                checkpoint_managers.BestN(
                    get_metric_fn=lambda metrics: metrics[_BEST],
                    reverse=True,
                    n=1,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
            if config.keep_every:
                policies.append(checkpoint_managers.EveryNSteps(config.keep_every))
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies) if policies else None,
            best_fn=lambda metrics: metrics[_BEST],
            best_mode="min",
            create=config is not None,
            read_only=config is None,
            cleanup_tmp_directories=config is not None,
        )
        with together("the opening of the checkpoints"):
            names = ("params", "optimizer", "data", "meta")
            self.manager = ocp.CheckpointManager(self.folder, item_names=names, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with limited("the last save"):
            self.manager.close()

    @property
    def steps(self) -> list[int]:
        """Committed steps, oldest first."""
        return sorted(self.manager.all_steps())

    @property
    def best_step(self) -> int | None:
        """Step with the lowest validation NLL; None before the first evaluation."""
        return self.manager.best_step()

    def save(self, state: TrainState, data: dict[str, Any], meta: dict[str, Any], nll: float | None) -> None:
        """Saves the state and the position in the data under the state's step.

        Args:
            state: the training state.
            data: the data iterator's ``get_state()``.
            meta: JSON-serialisable facts about the run.
            nll: validation NLL of this very step over all output codebooks, if it was evaluated.

        Raises:
            WorkError: if this save or the one before it could not be written.
        """
        step = int(jax.device_get(state.step))
        if step in self.manager.all_steps():
            return
        args = ocp.args.Composite(
            params=ocp.args.StandardSave(state.params),
            optimizer=ocp.args.StandardSave({"step": state.step, "opt_state": state.opt_state}),
            data=ocp.args.JsonSave(data),
            meta=ocp.args.JsonSave({"checkpoint_version": CHECKPOINT_VERSION, **meta}),
        )
        metrics = None if nll is None else {_BEST: nll}
        try:
            with together(f"the save of step {step}"):
                saved = self.manager.save(step, args=args, metrics=metrics, force=True)
        except (ValueError, OSError) as error:
            raise WorkError(f"checkpoint {step} could not be written to {self.folder}: {error}") from error
        if not saved:
            raise WorkError(f"checkpoint {step} was not saved to {self.folder}")

    def wait(self) -> None:
        """Waits until the last save is on disk.

        Raises:
            WorkError: if it could not be written.
        """
        try:
            with together("the last save"):
                self.manager.wait_until_finished()
        except (ValueError, OSError) as error:
            raise WorkError(f"the last checkpoint could not be written to {self.folder}: {error}") from error

    def restore(self, abstract: TrainState, step: int | None = None) -> tuple[TrainState, dict[str, Any]]:
        """Reads a step, the latest by default, onto the devices that ``abstract`` names.

        Returns:
            the state and the data position.

        Raises:
            RequestError: if there is no such checkpoint, or it is of another version or shape.
        """
        step = self._existing(step)
        restored = self._read(
            step,
            ocp.args.Composite(
                params=ocp.args.StandardRestore(abstract.params),
                optimizer=ocp.args.StandardRestore({"step": abstract.step, "opt_state": abstract.opt_state}),
                data=ocp.args.JsonRestore(),
            ),
        )
        return TrainState(params=restored["params"], **restored["optimizer"]), restored["data"]

    def restore_params(self, params: Any, step: int | None = None) -> tuple[Any, int]:
        """Reads the parameters alone of a step, the latest by default.

        Returns:
            the parameters as ``params`` lays them out, and their step.

        Raises:
            RequestError: as :meth:`restore`.
        """
        step = self._existing(step)
        return self._read(step, ocp.args.Composite(params=ocp.args.StandardRestore(params)))["params"], step

    def _existing(self, step: int | None) -> int:
        steps = self.steps
        if not steps:
            raise RequestError(f"no checkpoint in {self.folder}; train first, or wait for the first save")
        if step is not None and step not in steps:
            raise RequestError(f"no checkpoint of step {step} in {self.folder}; there are {', '.join(map(str, steps))}")
        return steps[-1] if step is None else step

    def _read(self, step: int, args: ocp.args.Composite) -> Any:
        try:
            with together(f"the restore of step {step}"):
                meta = self.manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
                if meta["checkpoint_version"] != CHECKPOINT_VERSION:
                    raise RequestError(
                        f"checkpoint {step} in {self.folder} is of version {meta['checkpoint_version']}, "
                        f"this version of wgpt_jax reads {CHECKPOINT_VERSION}"
                    )
                return self.manager.restore(step, args=args)
        except (ValueError, KeyError, OSError) as error:
            first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise RequestError(f"checkpoint {step} in {self.folder} cannot be read: {first_line}") from error
