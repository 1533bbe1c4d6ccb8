"""``wgpt ablate``: the grid, checked; the runs, one process each; a row per run; tables and figures."""

import dataclasses
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wgpt_jax.ablation.check import check_data, check_rows, fitted
from wgpt_jax.ablation.counts import Sized, size_all
from wgpt_jax.ablation.grid import FIT, Ablation, is_fit, load_ablation
from wgpt_jax.ablation.places import places
from wgpt_jax.ablation.request import AblateArgs, parse_data
from wgpt_jax.ablation.results import Results
from wgpt_jax.ablation.runs import Run, all_runs, more_runs, select
from wgpt_jax.ablation.scheduler import Scheduler
from wgpt_jax.ablation.summary import SUMMARY_NAME
from wgpt_jax.ablation.table import epochs, format_counts, format_runs, frames_of
from wgpt_jax.data.index import SPLITS, load_index
from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.folder_lock import locked
from wgpt_jax.runs import split_fingerprint


def ablate_main(args: AblateArgs, argv: Sequence[str]) -> None:
    """What ``wgpt ablate`` does.

    Raises:
        RequestError: if the grid, the data and what is in the work folder do not belong together.
        WorkError: if a run failed; the others were made.
    """
    overrides = {"steps": args.steps, "batch": args.batch, "context": args.context, "eval_every": args.eval_every}
    done = ablate(
        args.config_file,
        parse_data(args.data),
        args.workdir,
        jobs=args.jobs,
        only=args.only,
        retry=args.retry,
        dry_run=args.dry_run,
        quiet=args.json,
        command=shlex.join(["wgpt", "ablate", *argv]),
        sizes=args.sizes,
        seeds=args.seeds,
        tune_steps=args.tune_steps,
        **overrides,
    )
    if args.json:
        print(json.dumps(done))
    if done["failed"]:
        names = ", ".join(done["failed"])
        raise WorkError(f"{len(done['failed'])} of {done['runs']} runs failed or could not be made: {names}")


def ablate(
    ablation: Ablation | str | os.PathLike,
    data: Mapping[str, str | os.PathLike] | str | os.PathLike,
    workdir: str | os.PathLike,
    *,
    jobs: int | None = None,
    only: Sequence[str] = (),
    retry: bool = False,
    dry_run: bool = False,
    quiet: bool = False,
    command: str = "wgpt_jax.ablate",
    sizes: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    tune_steps: int | None = None,
    **overrides: int | None,
) -> dict[str, Any]:
    """Trains and scores a grid, or what is left of it; the same call goes on where it stopped.

    Args:
        ablation: the grid, or the file that defines it.
        data: prepared data: folders by name, or one folder.
        workdir: folder for the runs, ``results.jsonl``, ``summary.md`` and figures.
        jobs: runs at the same time; see :func:`wgpt_jax.ablation.places.places`.
        only: parts of the grid, as ``arm=c,size=0.5m``; all by default.
        retry: whether to make runs again that failed.
        dry_run: whether to stop before anything trains.
        quiet: whether to print nothing.
        command: the line that does the same, for the rows.
        sizes: names, instead of the grid's.
        seeds: instead of the grid's.
        tune_steps: steps of each run of a sweep, instead of the grid's.
        overrides: ``steps``, ``batch``, ``context``, ``eval_every``, instead of the grid's.

    Returns:
        ``experiment``, ``results`` (the path of results.jsonl), ``runs`` (their number), ``more`` (how many sweeps may
        still add), ``made`` (how many are there now, or diverged while tuning), ``failed`` (names of the runs that are
        not, for a reason), ``names`` of all runs, ``frames`` that they take, ``epochs`` (the fewest and the most by
        data and stage), and ``parameters``: by size, arm and part of the network.

    Raises:
        RequestError: if the grid, the data and what is in the work folder do not belong together.
        WorkError: if a file cannot be written.
        KeyboardInterrupt: after the runs under way have saved, with a sentence that says how to go on.
    """
    tell = (lambda *_, **__: None) if quiet else print
    ablation = ablation.validate() if isinstance(ablation, Ablation) else load_ablation(ablation)
    ablation = _overridden(ablation, sizes, seeds, tune_steps, overrides)
    folders = _folders(data)
    indices = {name: load_index(folder) for name, folder in folders.items()}
    ablation = fitted(ablation, folders, indices)
    work = Path(workdir)
    results = Results(work)

    def planned() -> list[Run]:
        """Every run that is asked for, as far as the rows say."""
        return select(all_runs(ablation, list(folders), results.rows), only)

    runs = planned()
    fingerprints = {
        name: {split: split_fingerprint(index, split) for split in SPLITS if index.frames(split)}
        for name, index in indices.items()
    }
    pairs = dict.fromkeys((run.arm, run.size) for run in runs)
    divided = places(jobs)
    sized = size_all(ablation, [(ablation.arm(arm), ablation.size(size)) for arm, size in pairs])
    check_data(ablation, runs, sized, folders, indices)
    made = check_rows(ablation, runs, sized, fingerprints, results)
    frames = {name: index.frames("train") for name, index in indices.items()}
    more = more_runs(ablation, runs, results.rows)
    tell(f"{format_counts(ablation, sized)}\n\n{format_runs(runs, sized, len(made), more, frames)}", flush=True)
    failed: list[str] = []
    if dry_run:
        tell("\n".join(["", *(f"  {run.name}" + (" (there)" if run in made else "") for run in runs)]))
    else:
        with locked(work, "ablation.lock", "work folder", "works in"):
            results = Results(work)  # now that nobody else writes it
            scheduler = Scheduler(
                ablation, planned, sized, folders, fingerprints, results, divided, command, retry, quiet
            )
            failed = scheduler.run_all()
        runs = planned()
        tell(f"results in {results.path}, tables and figures in {work / SUMMARY_NAME}")
    return {
        "experiment": ablation.name,
        "results": str(results.path),
        "runs": len(runs),
        "more": more_runs(ablation, runs, results.rows),
        "made": len(check_rows(ablation, runs, sized, fingerprints, results)),
        "failed": failed,
        "names": [run.name for run in runs],
        "frames": sum(frames_of(run, sized) for run in runs),
        "epochs": epochs(runs, sized, frames),
        "parameters": _counts(sized),
    }


def _folders(data: Mapping[str, str | os.PathLike] | str | os.PathLike) -> dict[str, Path]:
    """Prepared data by name.

    Raises:
        RequestError: if there is none, or a name cannot be part of a file's.
    """
    if isinstance(data, str | os.PathLike):
        return parse_data([str(data)])
    if not data:
        raise RequestError("no data; give folders by name, at least one")
    for name in data:
        if not is_fit(name):
            raise RequestError(f"data {name!r}: a name of files cannot be that; {FIT}")
    return {name: Path(folder) for name, folder in data.items()}


def _overridden(
    ablation: Ablation,
    sizes: Sequence[str] | None,
    seeds: Sequence[int] | None,
    tune_steps: int | None,
    overrides: Mapping[str, int | None],
) -> Ablation:
    """The grid with what flags say instead."""
    if unknown := set(overrides) - {"steps", "batch", "context", "eval_every"}:
        raise TypeError(f"ablate() got an unexpected keyword argument {min(unknown)!r}")
    changed: dict[str, Any] = {key: value for key, value in overrides.items() if value is not None}
    if sizes is not None:
        changed["sizes"] = tuple(ablation.size(name) for name in sizes)
    if seeds is not None:
        changed["seeds"] = tuple(seeds)
    if tune_steps is not None:
        changed["sweep"] = dataclasses.replace(ablation.sweep, steps=tune_steps)
        changed["arms"] = tuple(
            dataclasses.replace(arm, sweep=arm.sweep and dataclasses.replace(arm.sweep, steps=tune_steps))
            for arm in ablation.arms
        )
    return dataclasses.replace(ablation, **changed).validate()


def _counts(sized: Mapping[tuple[str, str], Sized]) -> dict[str, dict[str, dict[str, int]]]:
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for (arm, size), each in sized.items():
        counts.setdefault(size, {})[arm] = each.parameters_by_group
    return counts
