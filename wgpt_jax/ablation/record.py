"""What a row says of a run beside its scores: its curve and its time."""

from pathlib import Path

from wgpt_jax.metrics import read_metrics


def curve_of(metrics: Path) -> list[list[float]]:
    """[step, validation NLL, validation total NLL] of every evaluation while training, of a metrics.jsonl."""
    rows = {row["step"]: row for row in read_metrics(metrics) if row["kind"] == "validation"}
    return [[step, row["nll"], row["total_nll"]] for step, row in sorted(rows.items())]


def train_seconds(metrics: Path) -> float | None:
    """Seconds spent in steps, through all stops: without compilation, evaluations and saves.

    Of a metrics.jsonl whose lines say the speed since the line before; those without a speed, the first after a start,
    are taken at the speed of the others. None if no line says one.
    """
    lines = {row["step"]: row.get("steps_per_second") for row in read_metrics(metrics) if row["kind"] == "train"}
    before, timed, timed_steps = 0, 0.0, 0
    for step, speed in sorted(lines.items()):
        if speed:
            timed += (step - before) / speed
            timed_steps += step - before
        before = step
    return round(timed * before / timed_steps, 3) if timed_steps else None
