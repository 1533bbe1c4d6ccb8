"""The training loop: runs a trainer until its budget is used, logs, saves, and can be interrupted at any time."""

import json
import time
from collections.abc import Callable
from typing import TextIO

from tqdm import tqdm

from wgpt_jax.prepare.codec_training.trainer import Trainer

LOG_EVERY = 10  # steps


def train(trainer: Trainer, save_every: float = 300.0, on_save: Callable[[], None] = lambda: None) -> None:
    """Trains until the budget is used; saves, exports and validates every ``save_every`` seconds and at the end.

    Measurements go to ``metrics.jsonl`` in the run folder, one JSON object a line, and the codec to ``codec`` as soon
    as it has codebooks. ``on_save`` is called after that. An interruption saves and exports, and is passed on.
    """
    trainer.out.mkdir(parents=True, exist_ok=True)
    progress, budget = trainer.progress, trainer.budget
    started, earlier = time.monotonic(), progress.seconds
    saved = started
    with (trainer.out / "metrics.jsonl").open("a") as log, _bar(trainer) as bar:
        try:
            for audio in trainer.batches.following(progress.step):
                if progress.fraction(budget) >= 1:
                    break
                measured = trainer.step(audio)
                progress.seconds = earlier + time.monotonic() - started
                _report(trainer, measured, bar, log)
                if time.monotonic() - saved > save_every:
                    _keep(trainer, log, on_save)
                    saved = time.monotonic()
        except KeyboardInterrupt:
            trainer.save()
            trainer.export()
            raise
        _keep(trainer, log, on_save)


def _keep(trainer: Trainer, log: TextIO, on_save: Callable[[], None]) -> None:
    trainer.save()
    if trainer.export():
        _write(log, trainer, trainer.validate())
        on_save()


def _bar(trainer: Trainer) -> tqdm:
    steps, progress = trainer.budget.steps, trainer.progress
    unit = "steps" if steps else "s"
    return tqdm(
        total=steps or round(trainer.budget.seconds),
        initial=progress.step if steps else round(progress.seconds),
        bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} " + unit + "{postfix}",
        mininterval=1.0,
    )


def _report(trainer: Trainer, measured: dict[str, float], bar: tqdm, log: TextIO) -> None:
    progress = trainer.progress
    bar.update((progress.step if trainer.budget.steps else round(progress.seconds)) - bar.n)
    if progress.step % LOG_EVERY:
        return
    shown = {"step": progress.step, "loss": f"{measured['loss']:.3f}", "mel": f"{measured['mel']:.3f}"}
    if "perplexity_1" in measured:
        shown["perplexity"] = round(measured["perplexity_1"])
    bar.set_postfix(shown, refresh=False)
    _write(log, trainer, measured)


def _write(log: TextIO, trainer: Trainer, values: dict[str, float]) -> None:
    line = {"step": trainer.progress.step, "seconds": trainer.progress.seconds} | values
    print(json.dumps({k: round(v, 6) if isinstance(v, float) else v for k, v in line.items()}), file=log, flush=True)
