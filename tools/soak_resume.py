"""Kills a training with SIGKILL again and again, resumes it each time, and compares its end with an uninterrupted run.

    python tools/soak_resume.py configs/demo_hybrid.py --data OUT --workdir runs/soak --kills 50

Moments are drawn from four phases: start-up, steps, saves, evaluations. Every other life reads through a data worker,
which must not outlive it. The last checkpoints must be equal in every bit (parameters, optimiser, averages, step, data
position), and so must the logged metrics. The report is WORKDIR/soak.json; the table on the terminal is the one in
docs/reliability.md.
"""

import dataclasses
import itertools
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import tyro

from wgpt_jax.command import run_command
from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.metrics import read_metrics
from wgpt_jax.runs import RunFolder

PHASES = ("start-up", "step", "save", "evaluation")


@dataclasses.dataclass(frozen=True)
class SoakArgs:
    """Kills a training with SIGKILL again and again and compares its end with an uninterrupted run."""

    config_file: tyro.conf.Positional[Path]
    """Python file that defines `config`."""
    data: Path
    """Folder made by tools/prepare_audio.py."""
    workdir: Path = Path("runs/soak")
    """Folder for the two runs and the report; must not be there."""
    kills: int = 50
    """How often the run is killed at least."""
    steps: int = 500
    """Training steps of both runs."""
    save_every: int = 10
    """Steps between checkpoints; every second one is evaluated."""
    seed: int = 0
    """Of the moments."""


@dataclasses.dataclass
class Life:
    """One start of the run and its end by SIGKILL."""

    wanted: str
    """Phase that was aimed at."""
    resumed_from: int
    """Step of the checkpoint that the life began with."""
    phase: str | None = None
    """What was under way when it was killed; None if it came to its own end."""
    last_step: int = 0
    """Last step that it logged."""
    first_step_after: float | None = None
    """Seconds from its start to its first logged step."""
    redone_until: float | None = None
    """Seconds from its start until it stood where the life before had stood."""


class Watcher:
    """What a run is doing, seen from its files."""

    def __init__(self, run: RunFolder, eval_every: int):
        self.run, self.eval_every = run, eval_every
        self._size, self._rows = -1, []

    def rows(self) -> list[dict[str, Any]]:
        """The lines of its log; read again only if it grew."""
        size = self.run.metrics.stat().st_size if self.run.metrics.exists() else 0
        if size != self._size:
            self._size, self._rows = size, read_metrics(self.run.metrics)
        return self._rows

    def saved(self) -> list[int]:
        """Committed checkpoints."""
        folder = self.run.checkpoints
        return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else []

    def saving(self) -> bool:
        """Whether a save is under way."""
        folder = self.run.checkpoints
        return folder.is_dir() and any("orbax-checkpoint-tmp" in path.name for path in folder.iterdir())

    def evaluating(self) -> bool:
        """Whether an evaluation is under way: its step is logged, it is not."""
        rows = self.rows()
        return bool(rows) and rows[-1]["kind"] == "train" and rows[-1]["step"] % self.eval_every == 0


def command(args: SoakArgs, run: Path, workers: int) -> list[str]:
    """The training command of both runs; every step is logged, so that it is known what was lost."""
    flags = {
        "--training.steps": args.steps,
        "--training.eval-every": 2 * args.save_every,
        "--training.eval-windows": 16,
        "--checkpoint.every": args.save_every,
        "--logging.every": 1,
        "--data.workers": workers,
        # All that is random in a step, and all that a checkpoint can hold.
        "--model.dropout": 0.1,
        "--model.mel-dropout": 0.1,
        "--optimizer.ema": 0.99,
        "--training.spike-sigma": 6,
    }
    words = [str(word) for pair in flags.items() for word in pair]
    where = ["--data", str(args.data), "--workdir", str(run)]
    return [sys.executable, "-m", "wgpt_jax.cli", "train", str(args.config_file), *where, *words]


def live(args: SoakArgs, run: RunFolder, life: Life, before: int, rng: random.Random, log: Path, workers: int) -> None:
    """Starts the run and kills it in the wanted phase, or later if that does not come before its end.

    Args:
        args: the request.
        run: the run that is killed.
        life: filled in.
        before: last step that the life before had logged.
        rng: draws the moment.
        log: takes what the run prints.
        workers: data workers.
    """
    watcher, start = Watcher(run, 2 * args.save_every), time.monotonic()
    with open(log, "ab") as out:
        process = subprocess.Popen(command(args, run.path, workers), stdout=out, stderr=out)
    # So many steps on average that the kills are spread over the whole run.
    target = life.resumed_from + rng.randint(1, max(2, 2 * args.steps // args.kills))
    startup = rng.uniform(0.5, 8.0)
    stale = run.metrics.stat().st_mtime if run.metrics.exists() else 0.0
    while process.poll() is None:
        now = time.monotonic() - start
        fresh = run.metrics.exists() and run.metrics.stat().st_mtime > stale
        rows = watcher.rows() if fresh else []
        step = rows[-1]["step"] if rows else life.resumed_from
        begun = step > life.resumed_from
        if begun and life.first_step_after is None:
            life.first_step_after = now
        if begun and step >= before and life.redone_until is None:
            life.redone_until = now
        aimed = {
            "start-up": now >= startup,
            "step": begun and step >= target,
            "save": begun and watcher.saving(),
            "evaluation": begun and watcher.evaluating() and step in watcher.saved() and not watcher.saving(),
            "end": False,
        }[life.wanted]
        if aimed:
            time.sleep(rng.uniform(0.0, 0.15) if life.wanted != "start-up" else 0.0)
            break
        time.sleep(0.001)
    if process.poll() is not None:
        if process.returncode:
            raise WorkError(f"the run ended by itself with code {process.returncode}; see {log}")
        return
    children = psutil.Process(process.pid).children(recursive=True)
    evaluating, saving = watcher.evaluating(), watcher.saving()
    process.kill()
    process.wait()
    life.last_step = step
    life.phase = "start-up" if not begun else "save" if saving else "evaluation" if evaluating else "step"
    _, alive = psutil.wait_procs(children, timeout=30)
    if alive:
        raise WorkError(f"after SIGKILL of the training {len(alive)} of its processes live on: {alive}")


def compare(whole: RunFolder, killed: RunFolder) -> dict[str, Any]:
    """What the last checkpoints and the logs of two runs say of each other.

    Raises:
        WorkError: naming the first difference.
    """
    metas = []
    for run in (whole, killed):
        step = Watcher(run, 1).saved()[-1]
        metas.append(json.loads((run.checkpoints / str(step) / "meta/metadata").read_text()))
    first, second = metas
    for key in ("step", "data"):
        if first[key] != second[key]:
            raise WorkError(f"{key} of the last checkpoints: {first[key]} without kills, {second[key]} with")
    different = [path for path, value in first["digest"].items() if second["digest"].get(path) != value]
    if different:
        raise WorkError(f"{len(different)} of {len(first['digest'])} arrays differ, {different[0]} among them")
    logs = [
        [{key: value for key, value in row.items() if "per_second" not in key or "bits" in key} for row in rows]
        for rows in (read_metrics(whole.metrics), read_metrics(killed.metrics))
    ]
    if logs[0] != logs[1]:
        number = next((i for i, pair in enumerate(zip(*logs, strict=False)) if pair[0] != pair[1]), "the last")
        raise WorkError(f"the logs differ, first in line {number}")
    return {"arrays": len(first["digest"]), "lines": len(logs[0]), "step": first["step"]}


def table(lives: list[Life]) -> str:
    """Markdown: what each kind of kill cost."""
    head = "| killed during | kills | steps redone, mean | most | restart to first step, median | to where it stood |"
    lines = [head, "|---|---|---|---|---|---|"]
    pairs = [(life, after) for life, after in itertools.pairwise(lives) if life.phase]
    for phase in (*PHASES, "all"):
        rows = [(life, after) for life, after in pairs if phase in (life.phase, "all")]
        if not rows:
            continue
        redone = [max(life.last_step - after.resumed_from, 0) for life, after in rows]
        first = [after.first_step_after for _, after in rows if after.first_step_after is not None]
        again = [after.redone_until for _, after in rows if after.redone_until is not None]
        seconds = [f"{statistics.median(values):.1f} s" if values else "" for values in (first, again)]
        lines.append(
            f"| {phase} | {len(rows)} | {statistics.mean(redone):.1f} | {max(redone)} | {seconds[0]} | {seconds[1]} |"
        )
    return "\n".join(lines)


def soak(args: SoakArgs) -> None:
    """Runs both, compares, reports.

    Raises:
        RequestError: if the folder is there already.
        WorkError: if a run fails by itself, a process outlives its training, or the ends differ.
    """
    if args.workdir.exists():
        raise RequestError(f"{args.workdir} is there already; give another --workdir")
    if args.kills < 1:
        raise RequestError(f"--kills {args.kills}: give at least 1")
    args.workdir.mkdir(parents=True)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str((args.workdir / "xla").absolute()))
    whole, killed, rng = RunFolder(args.workdir / "whole"), RunFolder(args.workdir / "killed"), random.Random(args.seed)
    start = time.monotonic()
    print("without kills ...", flush=True)
    with open(args.workdir / "whole.log", "wb") as out:
        if subprocess.run(command(args, whole.path, 0), stdout=out, stderr=out).returncode:
            raise WorkError(f"the run without kills failed; see {args.workdir / 'whole.log'}")
    print(f"done after {time.monotonic() - start:.0f} s; now with kills", flush=True)
    lives: list[Life] = []
    before, kills = 0, 0
    while not lives or lives[-1].phase is not None:
        saved = Watcher(killed, 1).saved()
        wanted = PHASES[kills % len(PHASES)] if kills < args.kills else "end"
        life = Life(wanted, saved[-1] if saved else 0)
        lives.append(life)
        live(args, killed, life, before, rng, args.workdir / "killed.log", workers=len(lives) % 2)
        kills += life.phase is not None
        before = max(before, life.last_step)
        told = f"killed during {life.phase} at step {life.last_step}" if life.phase else "came to its end"
        print(f"life {len(lives)}: from checkpoint {life.resumed_from}, {told}", flush=True)
    if kills < args.kills:
        raise WorkError(f"the run came to its end after {kills} kills; give more --steps")
    same = compare(whole, killed)
    shutil.rmtree(args.workdir / "xla", ignore_errors=True)
    report = {"args": {key: str(value) for key, value in dataclasses.asdict(args).items()}, "kills": kills, **same}
    report |= {"lives": [dataclasses.asdict(life) for life in lives], "seconds": time.monotonic() - start}
    (args.workdir / "soak.json").write_text(json.dumps(report, indent=1) + "\n")
    print(f"\n{table(lives)}")
    print(
        f"\n{kills} kills: {same['arrays']} arrays of step {same['step']} equal in every bit, {same['lines']} lines of "
        f"metrics equal, no process left behind; {report['seconds'] / 60:.0f} minutes"
    )


if __name__ == "__main__":
    sys.exit(run_command(soak, SoakArgs, prog="soak_resume.py"))
