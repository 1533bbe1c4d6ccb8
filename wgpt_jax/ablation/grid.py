"""What an ablation is: arms, sizes, seeds and the sweep that tunes each arm, as ``configs/ablation_*.py`` define it."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wgpt_jax.config import Config, config_from_dict, run_file
from wgpt_jax.errors import RequestError


@dataclasses.dataclass(frozen=True)
class Size:
    """A number of parameters, and the shape that meets it: every arm's MLP width follows from these."""

    name: str
    parameters: int
    width: int
    depth: int
    heads: int
    mel_width: int
    """Channels of a hybrid's mel branch, and of the convolution over embeddings where there is one."""
    mel_depth: int = 1
    mel_heads: int = 2
    depformer_width: int = 64
    """Channels of the depth transformer, where several codebooks are predicted by one."""
    tuned_at: str | None = None
    """Size whose sweep serves this one too: its best learning rate times sqrt(its width / this width)."""


SIZES: dict[str, Size] = {
    size.name: size
    for size in (
        Size("0.5m", 500_000, 96, 3, 3, 48),
        Size("1m", 1_000_000, 128, 4, 4, 48),
        Size("2m", 2_000_000, 192, 4, 4, 72),
        Size("4m", 4_000_000, 256, 4, 4, 96, mel_depth=2),
        Size("5m", 5_000_000, 256, 5, 4, 96, mel_depth=2),
        Size("10m", 10_000_000, 320, 8, 5, 120, mel_depth=2),
        Size("40m", 40_000_000, 512, 12, 8, 192, mel_depth=2, mel_heads=4),
    )
}
"""Named sizes; a file may define others."""


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Runs that choose an arm's learning rate and embedding scale, by NLL on the validation split: all pairs, and more
    beyond an edge that the best of them is on (:func:`wgpt_jax.ablation.sweep.follow`).
    """

    learning_rates: tuple[float, ...]
    embedding_stds: tuple[float, ...]
    steps: int
    """Steps of each of its runs."""
    seed: int = 0
    extend: int = 0
    """Largest number of further points beyond each end of an axis that has several values."""

    @property
    def points(self) -> tuple[tuple[float, float], ...]:
        """Every (learning rate, embedding_std) of the grid."""
        return tuple((rate, std) for rate in self.learning_rates for std in self.embedding_stds)


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to feed the model, or to predict several codebooks."""

    name: str
    title: str
    """What tables and figures call it."""
    model: Mapping[str, Any] = dataclasses.field(hash=False)
    """Keys of the model's configuration that make the arm what it is."""
    mel: str | None = None
    """Mel source of a hybrid, in training and in evaluation."""
    mel_mix: Mapping[str, float] | None = dataclasses.field(default=None, hash=False)
    """Mel sources of training windows, weighted, where they are others than ``mel`` alone."""
    batch_divisor: int = 1
    """Divides the batch: an arm that takes K steps per frame has equal compute at a K-th of the frames."""
    leaks: bool = False
    """Whether its mel sees the future: shown to say what a leak would have won, never as a result."""
    keep_checkpoints: bool = False
    """Keeps the last checkpoint of final runs, to generate from."""
    sweep: Sweep | None = None
    """Instead of the ablation's sweep; a token-only arm's may be wider, no arm's narrower."""

    @property
    def hybrid(self) -> bool:
        """Whether it reads a mel."""
        return self.mel is not None

    @property
    def mix(self) -> dict[str, float]:
        """Mel sources that it is trained on, weighted; empty if it reads no mel."""
        return dict(self.mel_mix or ({self.mel: 1.0} if self.hybrid else {}))


@dataclasses.dataclass(frozen=True)
class Ablation:
    """A grid of runs: arms x sizes x data sets x seeds, all at the same steps, batch and context.

    Each arm is first tuned at each size (stage ``tune``: every point of the sweep, scored on the validation split),
    then trained with the best of the sweep for every seed (stage ``final``, scored on the test split). Vocabulary and
    mel bands are the data's.
    """

    arms: tuple[Arm, ...]
    sizes: tuple[Size, ...]
    sweep: Sweep
    steps: int
    batch: int
    """Windows per step."""
    context: int
    """Frames per window."""
    seeds: tuple[int, ...] = (0, 1, 2)
    eval_every: int = 250
    """Steps between the points of the learning curves."""
    sweep_per_data: bool = True
    """False: the sweep on the first data set serves all."""
    base: Config = Config()  # noqa: RUF009 (frozen)
    """Everything else."""
    name: str = ""
    """Of the experiment: in its rows, so that another in the same folder is noticed. The file's by default."""

    def arm(self, name: str) -> Arm:
        """The arm of a name; RequestError if there is none."""
        return _named(name, self.arms, "arm")

    def size(self, name: str) -> Size:
        """The size of a name, of the ablation's own or of :data:`SIZES`; RequestError if there is none."""
        return _named(name, (*self.sizes, *(size for size in SIZES.values() if size.name not in _names(self.sizes))))

    def sweep_of(self, arm: Arm) -> Sweep:
        """The sweep that tunes an arm."""
        return arm.sweep or self.sweep

    def tuning_size(self, size: Size) -> Size:
        """The size whose sweep serves ``size``."""
        return self.size(size.tuned_at) if size.tuned_at else size

    def config(self, arm: Arm, size: Size) -> Config:
        """What an arm at a size trains, but for ``model.hidden`` and what is tuned.

        Raises:
            RequestError: naming a key that is unknown or whose value cannot work.
        """
        base = dataclasses.asdict(self.base)
        if self.batch % arm.batch_divisor:
            raise RequestError(f"arm {arm.name}: the batch, {self.batch}, is not a multiple of {arm.batch_divisor}")
        shape = {
            "width": size.width,
            "depth": size.depth,
            "heads": size.heads,
            "mel_width": size.mel_width,
            "mel_depth": size.mel_depth,
            "mel_heads": size.mel_heads,
            "depformer_width": size.depformer_width,
        }
        if "token_kernel" in arm.model:
            shape["token_width"] = size.mel_width
        base["model"] |= shape | {"inputs": "hybrid" if arm.hybrid else "tokens"} | dict(arm.model)
        base["data"] |= {"context": self.context} | ({"mel_mix": arm.mix} if arm.hybrid else {})
        base["training"] |= {"steps": self.steps, "batch": self.batch // arm.batch_divisor}
        base["training"] |= {"eval_every": self.eval_every}
        base["checkpoint"] |= {"every": self.eval_every, "keep": 1}
        return config_from_dict(base).validate()

    def validate(self) -> "Ablation":
        """Checks that the comparison would be fair; returns itself.

        Raises:
            RequestError: if a name is missing, unfit or not unique, a number cannot work, or a token-only arm is tuned
                less than another.
        """
        if not self.name:
            raise RequestError("the ablation has no name; give Ablation(..., name=...)")
        _check_types(self)
        for what, things in (("arm", self.arms), ("size", self.sizes)):
            names = _names(things)
            if not names:
                raise RequestError(f"the ablation has no {what}s")
            if len(set(names)) < len(names):
                raise RequestError(f"two {what}s of the ablation have the same name: {', '.join(names)}")
            for name in names:
                if not is_fit(name):
                    raise RequestError(f"{what} {name!r} of the ablation: a name of files cannot be that; {FIT}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise RequestError(f"the seeds of the ablation are {self.seeds}; give different ones, at least one")
        for key in ("steps", "batch", "context", "eval_every"):
            if getattr(self, key) < 1:
                raise RequestError(f"the ablation's {key} is {getattr(self, key)}, must be at least 1")
        for size in self.sizes:
            if self.tuning_size(size).tuned_at:
                raise RequestError(f"size {size.name} is tuned at {size.tuned_at}, which has no sweep of its own")
        for arm in self.arms:
            _check_sweep(arm, self.sweep_of(arm))
        _check_tuning(self)
        return self


def _check_types(ablation: Ablation) -> None:
    """That lists are lists and numbers numbers: ``(4e-3)`` is no tuple."""
    sweeps = {"sweep": ablation.sweep} | {f"sweep of arm {arm.name}": arm.sweep for arm in ablation.arms if arm.sweep}
    lists = {"arms": ablation.arms, "sizes": ablation.sizes, "seeds": ablation.seeds}
    whole = {key: getattr(ablation, key) for key in ("steps", "batch", "context", "eval_every")}
    for name, sweep in sweeps.items():
        lists |= {f"learning_rates of the {name}": sweep.learning_rates}
        lists |= {f"embedding_stds of the {name}": sweep.embedding_stds}
        whole |= {f"steps of the {name}": sweep.steps}
    for what, value in lists.items():
        if not isinstance(value, tuple | list):
            raise RequestError(f"the {what} of the ablation: {value!r} is no tuple; a single one is written (value,)")
    for what, value in whole.items():
        if not isinstance(value, int):
            raise RequestError(f"the {what} of the ablation: {value!r} is no whole number")


FIT = "take letters, digits and any of _ . + - (a ' only at the end)"
_FIT = re.compile(r"[\w.+-]+'?")


def is_fit(name: str) -> bool:
    """Whether a name can be part of files' names, and of ``--only``."""
    return _FIT.fullmatch(name) is not None


def _names(things: Sequence[Any]) -> list[str]:
    return [thing.name for thing in things]


def _named(name: str, things: Sequence[Any], what: str = "size") -> Any:
    for thing in things:
        if thing.name == name:
            return thing
    raise RequestError(f"the ablation has no {what} {name!r}; there are {', '.join(_names(things))}")


def _check_sweep(arm: Arm, sweep: Sweep) -> None:
    if not sweep.points or min(min(point) for point in sweep.points) <= 0 or sweep.steps < 1:
        raise RequestError(f"the sweep of arm {arm.name} needs positive learning rates, embedding_stds and steps")
    if len(set(sweep.points)) < len(sweep.points):
        raise RequestError(f"the sweep of arm {arm.name} names a value twice")
    if sweep.extend < 0 or (sweep.extend and len(sweep.points) == 1):
        raise RequestError(
            f"the sweep of arm {arm.name} has extend {sweep.extend}; it is at least 0, and needs an axis of two values"
        )


def _check_tuning(ablation: Ablation) -> None:
    """An equal budget for all, except that token-only arms may be tuned more: their defeat must not be by neglect."""
    for arm in ablation.arms:
        ours = ablation.sweep_of(arm)
        for other in ablation.arms:
            theirs = ablation.sweep_of(other)
            pair = f"arm {arm.name} and arm {other.name}"
            if (ours.steps, ours.seed, ours.extend) != (theirs.steps, theirs.seed, theirs.extend):
                raise RequestError(f"{pair} are tuned over other steps, seeds or extend; give their sweeps the same")
            if len(ours.points) < len(theirs.points) and not (arm.hybrid and not other.hybrid):
                raise RequestError(
                    f"arm {arm.name} is tuned at {len(ours.points)} points, arm {other.name} at {len(theirs.points)}: "
                    "give all arms the same budget; only a token-only arm may have more than a hybrid"
                )
            if arm.hybrid or not other.hybrid:
                continue
            for key in ("learning_rates", "embedding_stds"):
                wide, narrow = getattr(ours, key), getattr(theirs, key)
                if min(wide) > min(narrow) or max(wide) < max(narrow):
                    raise RequestError(
                        f"the sweep of the token-only arm {arm.name} is narrower than that of arm {other.name} "
                        f"({key} {_span(wide)} against {_span(narrow)}); sweep it at least as widely"
                    )


def _span(values: Sequence[float]) -> str:
    return f"{min(values):g} to {max(values):g}"


def load_ablation(path: str | Path) -> Ablation:
    """Loads ``ablation`` from a Python file, checked and named.

    Raises:
        RequestError: if the file is missing, fails, or defines no valid ``ablation``.
    """
    ablation = run_file(path).get("ablation")
    if not isinstance(ablation, Ablation):
        raise RequestError(f"{path} must define `ablation`, a wgpt_jax.ablation.grid.Ablation")
    named = ablation if ablation.name else dataclasses.replace(ablation, name=Path(path).stem)
    return named.validate()
