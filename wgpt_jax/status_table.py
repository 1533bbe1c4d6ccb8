"""Where a run stands, as a table: what ``wgpt watch`` prints, and training at its end."""

from collections.abc import Iterator

from wgpt_jax.doctor.section import in_bytes
from wgpt_jax.logged import Logged, Validation
from wgpt_jax.run_status import RunStatus
from wgpt_jax.scores import format_stderr


def format_status(status: RunStatus) -> str:
    """One fact a line, labels on the left."""
    return "\n".join(f"{label:<11}  {text}" for label, text in _rows(status))


def _rows(s: RunStatus) -> Iterator[tuple[str, str]]:
    origin = "" if s.started_from is None else f", started from {s.started_from}"
    yield "run", f"{s.run}: {s.inputs}, {s.parameters:,} parameters{origin}"
    yield "state", _state(s)
    if s.elsewhere is not None:
        yield "", f"(unless it still runs on {s.elsewhere}: some mounts do not show the locks of other machines)"
    left = f", about {_duration(s.seconds_left)} of training left" if s.seconds_left else ""
    yield "progress", f"step {s.step:,} of {s.steps:,} ({100 * s.step / s.steps:.1f} %){left}"
    if s.logged.train_step is not None:
        yield from _training(s.logged, s.output_codebooks)
    if s.logged.validation is not None:
        yield from _validation(s.logged.validation, s.output_codebooks)
    if s.logged.best_step is not None:
        unit = "coarse token" if s.output_codebooks == 1 else "frame"
        there = "kept" if s.logged.best_step in s.checkpoints else "not there"
        text = f"step {s.logged.best_step:,}: NLL {s.logged.best_nll:.4f} nats per {unit}; its checkpoint is {there}"
        yield "best", text
    yield "checkpoints", _checkpoints(s)


def _state(s: RunStatus) -> str:
    age = "no line was logged" if s.line_age is None else f"last line {_duration(s.line_age)} ago"
    if s.state == "finished":
        return f"finished; {age}"
    if s.state == "not started":
        return "not started: nothing was logged or saved; the command that made this folder starts it"
    if s.state == "stopped":
        where = f"from step {s.checkpoints[-1]:,}" if s.checkpoints else "from the beginning, since nothing was saved"
        return f"stopped at step {s.step:,}; the command that started it continues it {where}; {age}"
    running = f"running for {_duration(s.held_for)} ({s.holder})"
    if s.starting:
        return f"{running}; nothing logged yet: it reads data, restores, compiles"
    if s.silent:
        before = f"after a line every {_duration(s.logged.line_every)}"
        return f"{running}, but SILENT for {_duration(s.line_age)}, {before}: evaluating, saving, or stuck"
    return f"{running}; {age}"


def _training(m: Logged, codebooks: int) -> Iterator[tuple[str, str]]:
    unit = "nats per token" + (f" (mean of {codebooks} codebooks)" if codebooks > 1 else "")
    loss = f"NOT FINITE at step {m.train_step:,}" if m.loss is None else f"{m.loss:.4f} {unit}"
    if m.loss_lines is not None:
        change = m.loss_mean - m.loss_mean_before
        loss += f"; last {m.loss_lines} lines {m.loss_mean:.4f}, "
        loss += f"{abs(change):.4f} {'lower' if change < 0 else 'higher'} than the {m.loss_lines} before"
    yield "loss", loss
    yield "norms", f"gradient {_short(m.grad_norm)}, update {_short(m.update_norm)}, parameters {_short(m.param_norm)}"
    skipped = "" if m.skipped is None else f"; {m.skipped:,} {'update' if m.skipped == 1 else 'updates'} skipped"
    yield "optimiser", f"learning rate {_short(m.learning_rate)}{skipped}"
    if m.frames_per_second is not None:
        yield "speed", ", ".join(_speed(m))


def _speed(m: Logged) -> Iterator[str]:
    each = m.frames_per_second_per_device
    several = each is not None and each < 0.9 * m.frames_per_second
    yield f"{m.frames_per_second:,.0f} frames/s" + (f" ({each:,.0f} per device)" if several else "")
    if m.steps_per_second is not None:
        yield f"{_short(m.steps_per_second)} steps/s"
    if m.mfu is not None:
        yield f"MFU {100 * m.mfu:.1f} %"


def _validation(v: Validation, codebooks: int) -> Iterator[tuple[str, str]]:
    rate = "" if v.total_bits_per_second is None else f", {v.total_bits_per_second:,.0f} bits/s"
    stderr = "" if v.nll is None else f" +- {format_stderr(v.nll_stderr)}"
    top = f"top-1 {_percent(v.top1)}, top-10 {_percent(v.top10)}{rate if codebooks == 1 else ''}"
    yield "validation", f"step {v.step:,}, mel {v.mel_source}: NLL {_exact(v.nll)}{stderr} nats per coarse token, {top}"
    if codebooks > 1:
        yield "", f"all {codebooks} codebooks: NLL {_exact(v.total_nll)} nats per frame{rate}"
    if v.ema_nll is not None:
        total = f", {_exact(v.ema_total_nll)} per frame of all {codebooks}" if codebooks > 1 else ""
        yield "", f"averaged weights: NLL {_exact(v.ema_nll)} nats per coarse token{total}"


def _checkpoints(s: RunStatus) -> str:
    text = _steps(s.checkpoints) or "none"
    if s.checkpoint_bytes:
        text += f" ({in_bytes(s.checkpoint_bytes)})"
    if s.unfinished:
        text += f"; {_steps(s.unfinished)} {'being saved' if s.holder else 'cut short while being saved'}"
    if s.damaged:
        text += f"; {s.damaged} damaged, in damaged-checkpoints"
    return text


def _steps(steps: tuple[int, ...]) -> str:
    listed = ", ".join(f"{step:,}" for step in steps)
    return listed and f"step{'s' if len(steps) > 1 else ''} {listed}"


def _short(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3g}"


def _exact(value: float | None) -> str:
    return "NOT FINITE" if value is None else f"{value:.4f}"


def _percent(fraction: float | None) -> str:
    return "n/a" if fraction is None else f"{100 * fraction:.2f} %"


def _duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 99.5:
        return f"{max(seconds, 0.1):.1f} s" if seconds < 9.5 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    hours, days = minutes // 60, minutes // 1440
    if hours == 0:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60} min" if days < 2 else f"{days} d {hours % 24} h"
