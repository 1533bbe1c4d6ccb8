"""What the lines of ``metrics.jsonl`` say together: where the loss is and whither it goes, how fast, how good."""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wgpt_jax.metrics import evaluated

_RECENT, _TREND, _TREND_LEAST = 20, 50, 5  # lines
_SPEEDS = ("steps_per_second", "frames_per_second", "frames_per_second_per_device", "mfu")
_LAST = ("learning_rate", "grad_norm", "update_norm", "param_norm", "skipped")


@dataclasses.dataclass(frozen=True)
class Validation:
    """An evaluation while training; None is what was not finite, or is not there."""

    step: int
    mel_source: str
    nll: float | None
    """Nats per coarse token."""
    nll_stderr: float | None
    top1: float | None
    """Fraction of coarse tokens, as ``top10``."""
    top10: float | None
    total_nll: float | None
    """Nats per frame over all output codebooks."""
    total_bits_per_second: float | None
    ema_nll: float | None
    """As ``nll``, of the averaged weights, if the run keeps them."""
    ema_total_nll: float | None


@dataclasses.dataclass(frozen=True)
class Logged:
    """What was logged until now; None is what is not known, or was not finite."""

    step: int
    """Of the last line; 0 if there is none."""
    train_step: int | None
    """Of the last training line, which has the loss, the learning rate, the norms and the skipped updates."""
    loss: float | None
    """Nats per token, the mean over the output codebooks."""
    loss_lines: int | None
    """Lines in each of the two means: of the last lines, and of those before them."""
    loss_mean: float | None
    loss_mean_before: float | None
    learning_rate: float | None
    grad_norm: float | None
    update_norm: float | None
    param_norm: float | None
    skipped: int | None
    """Updates that were skipped until then."""
    steps_per_second: float | None
    """Median of recent lines, as all speeds."""
    frames_per_second: float | None
    frames_per_second_per_device: float | None
    mfu: float | None
    line_every: float | None
    """Seconds between recent training lines."""
    validation: Validation | None
    """The last one."""
    best_step: int | None
    best_nll: float | None
    """Nats per frame over all output codebooks; of the averaged weights where the run keeps them."""


def summarise(rows: Sequence[Mapping[str, Any]]) -> Logged:
    """What lines, as :func:`~wgpt_jax.metrics.read_metrics` reads them, say together."""
    train = [row for row in rows if row["kind"] == "train"]
    last, recent = train[-1] if train else {}, train[-_RECENT:]
    speeds = {key: _median(row.get(key) for row in recent) for key in _SPEEDS}
    gap = _median(after["step"] - before["step"] for before, after in itertools.pairwise(recent))
    known = {step: nll for step, nll in evaluated(rows).items() if _number(nll) is not None}
    best = min(known, key=known.get, default=None)
    return Logged(
        step=rows[-1]["step"] if rows else 0,
        train_step=last.get("step"),
        **_losses([_number(row.get("loss")) for row in train]),
        **{key: _number(last.get(key)) for key in _LAST},
        **speeds,
        line_every=gap / speeds["steps_per_second"] if gap and speeds["steps_per_second"] else None,
        validation=_last_validation(rows),
        best_step=best,
        best_nll=known.get(best),
    )


def _losses(losses: Sequence[float | None]) -> dict[str, Any]:
    """The last loss, and the mean of the last lines and of as many before, of those that are finite."""
    finite = [loss for loss in losses if loss is not None]
    lines = min(_TREND, len(finite) // 2)
    enough = lines >= _TREND_LEAST
    return {
        "loss": losses[-1] if losses else None,
        "loss_lines": lines if enough else None,
        "loss_mean": statistics.fmean(finite[-lines:]) if enough else None,
        "loss_mean_before": statistics.fmean(finite[-2 * lines : -lines]) if enough else None,
    }


def _last_validation(rows: Sequence[Mapping[str, Any]]) -> Validation | None:
    found = [row for row in rows if row["kind"] == "validation"]
    if not found:
        return None
    numbers = [field.name for field in dataclasses.fields(Validation) if field.name not in ("step", "mel_source")]
    last = found[-1]
    return Validation(last["step"], str(last.get("mel_source")), **{key: _number(last.get(key)) for key in numbers})


def _number(value: Any) -> float | None:
    """A value of a line, if it is a finite number."""
    return value if type(value) in (int, float) and math.isfinite(value) else None


def _median(values: Iterable[Any]) -> float | None:
    """Of the numbers among them: one line alone, after an evaluation or on a busy machine, says little."""
    known = [value for value in values if _number(value) is not None]
    return statistics.median(known) if known else None
