"""One run in a process of its own: trained as by ``wgpt train``, scored as by ``wgpt evaluate``, told in a row.

The process ends with the one that started it, however that ends: it holds the other end of its standard input.
"""

import json
import math
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from wgpt_jax.command import guarded
from wgpt_jax.errors import WorkError

SPEC_NAME, ROW_NAME, COMMITS_NAME = "ablation.json", "row.json", "commits.json"
STOPPED = 75
"""Exit code of a run that was asked to stop, and was saved."""


def main(run: Path) -> int:
    """Does what ``ablation.json`` in a run's folder says, and leaves ``row.json`` there."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    spec = json.loads((run / SPEC_NAME).read_text())
    if spec["cores"] is not None:
        os.sched_setaffinity(0, spec["cores"])  # before JAX counts them
    stopped = False

    def work() -> None:
        nonlocal stopped
        row = _run(run, spec)
        stopped = row is None
        if row is not None:
            write_json(run / ROW_NAME, row)

    code = guarded(work)
    return STOPPED if stopped else code


def _end_with_parent() -> None:
    # Not sys.stdin: a thread that holds its lock while the interpreter ends is fatal.
    while os.read(0, 1):
        pass
    os.killpg(os.getpgid(0), signal.SIGKILL)


def write_json(path: Path, value: Any) -> None:
    """Writes a file that is whole whenever it is there."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(json.dumps(value))
    os.replace(temporary, path)


def commit_of(run: Path, now: str | None) -> str | None:
    """The commit that a run starts under, all of them ("a -> b") if it goes on from another's checkpoint.

    Args:
        run: the run's folder, where they are kept.
        now: the checkout's; None outside one.
    """
    from wgpt_jax.runs import RunFolder

    kept = run / COMMITS_NAME
    goes_on = kept.exists() and any(path.name.isdigit() for path in RunFolder(run).checkpoints.glob("*"))
    before = json.loads(kept.read_text()) if goes_on else []
    commits = before if before and before[-1] == now else [*before, now]
    write_json(kept, commits)
    return now if len(commits) == 1 else " -> ".join(commit or "no checkout" for commit in commits)


def _run(run: Path, spec: dict[str, Any]) -> dict[str, Any] | None:
    """The row of a run; None if it was asked to stop."""
    from wgpt_jax.ablation.groups import by_group
    from wgpt_jax.ablation.record import curve_of, train_seconds
    from wgpt_jax.ablation.results import changes
    from wgpt_jax.ablation.runs import DIVERGED
    from wgpt_jax.config import config_from_dict
    from wgpt_jax.evaluation import evaluate
    from wgpt_jax.proof import proof_of_causality
    from wgpt_jax.provenance import checkout, machine
    from wgpt_jax.runs import RunFolder, read_run
    from wgpt_jax.training.loop import train

    config, folder = config_from_dict(spec["config"]), RunFolder(run)
    # Training itself would go on under another number of steps, and the row would be of neither.
    if folder.info.exists() and (changed := changes(read_run(run).config, config)):
        raise WorkError(f"{run} was begun with another configuration: {changed}; give the same again or delete it")
    commit = commit_of(run, checkout())  # a checkout may change while the run goes on
    if train(config, spec["data_folder"], run) < config.training.steps:
        return None
    done = evaluate(run, spec["data_folder"], spec["row"]["split"], mel=spec["mel"] or "all", progress=False)
    if not math.isfinite(done.summary["total_nll"]):
        raise WorkError(f"{DIVERGED}: the trained model's NLL is not a finite number")
    info = read_run(run)
    evaluation = {key: value for key, value in done.summary.items() if key not in ("run", "data")}
    documents = done.scores.documents.items()
    return spec["row"] | {
        "config": spec["config"],
        "parameters": sum(info.parameters.values()),
        "parameters_by_group": by_group(info.parameters),
        "steps": config.training.steps,
        "frames": config.training.steps * config.training.batch * config.data.context,
        "train_seconds": train_seconds(folder.metrics),
        "step": done.summary["step"],
        "evaluation": evaluation,
        "documents": [[name, of.frames, of.nll, of.total_nll] for name, of in sorted(documents)],
        "curve": curve_of(folder.metrics),
        "causality": proof_of_causality("--run", run) if spec["causality"] else None,
        "machine": machine(),
        "commit": commit,
        "versions": info.versions,
    }


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
