"""``dataset.py verify``: prepared data against its index, its plan, and a sample of the audio it was made from."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import tyro

from wgpt_jax.dataset.check import Check
from wgpt_jax.dataset.examine import Shape, ShardTask
from wgpt_jax.dataset.folder import Prepared, local_folder, missing_packages, open_prepared, repair_command
from wgpt_jax.dataset.survey import survey_shards
from wgpt_jax.dataset.whole import check_set
from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.folder_lock import holder
from wgpt_jax.prepare.plan import LOCK_NAME

_SECONDS = 20.0  # of a document whose causality is checked: what holds there holds behind it, and takes minutes
_UNREPAIRABLE = ("plan", "causality")


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclasses.dataclass(frozen=True)
class VerifyArgs:
    """Checks a prepared data set: every shard, every record, every sum, and a sample against its audio.

    Prints a line per check: ok, FAILED, or note for what could not be checked. Exit code 1 if anything failed; the
    last line names the remedy. One record at a time is in memory, and nothing is changed.
    """

    out: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OUT")]
    """Folder made by tools/prepare_audio.py."""
    documents: Annotated[int, tyro.conf.arg(metavar="N")] = 3
    """Documents, drawn at random, whose first 20 seconds are made again from their audio, as it is and with noise in
    place of what comes later: what is stored must be what comes out, bit for bit. 0 for none, which needs no audio."""
    audio_root: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """Where the audio is, if it has moved: what its paths are relative to."""
    workers: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Processes that read shards; one per core by default."""
    json: bool = False
    """Print one JSON object and nothing else."""


def verify(args: VerifyArgs) -> None:
    """Prints the checks.

    Raises:
        RequestError: if there is no prepared data, or it is being worked on.
        WorkError: if a check failed.
    """
    if args.documents < 0:
        raise RequestError(f"--documents {args.documents} is not a number of documents")
    if args.workers is not None and args.workers < 1:
        raise RequestError(f"--workers {args.workers}: at least one is needed")
    folder = Path(local_folder(args.out).root)
    if who := holder(folder, LOCK_NAME):
        raise RequestError(f"{who} prepares into {folder}; wait for it, or stop it")
    checks = []
    for check in run_checks(args):
        checks.append(check)
        if not args.json:
            print(check, flush=True)
    failed = list(dict.fromkeys(check.name for check in checks if check.outcome == "FAILED"))
    if args.json:
        print(json.dumps({"passed": not failed, "checks": [dataclasses.asdict(check) for check in checks]}))
    if failed:
        raise WorkError(_remedy(args.out, failed))
    if not args.json:
        print(f"verified: {len(checks)} checks, nothing is wrong")


def run_checks(args: VerifyArgs) -> Iterator[Check]:
    """All checks, as they are done. A damaged shard does not keep the others from being checked."""
    try:
        prepared = open_prepared(args.out)
    except RequestError as error:
        yield Check("index", "FAILED", f"{error}")
        return
    index, shape = prepared.index, Shape.of_index(prepared.index)
    tasks = [ShardTask(prepared.folder / shard.file, shard.split, shape) for shard in index.shards]
    survey = survey_shards(tasks, args.workers)
    yield from check_set(prepared, survey)
    if args.documents:
        yield from _check_causality(prepared, args, damaged=survey.uncounted)


def _check_causality(prepared: Prepared, args: VerifyArgs, damaged: tuple[str, ...]) -> Iterator[Check]:
    """Stored frames against those of the audio."""
    if missing := missing_packages():
        yield Check("causality", "note", f"not checked: {missing}")
    elif damaged:
        yield Check("causality", "note", "not checked: that takes shards that can be read")
    else:
        from wgpt_jax.prepare.verify import verify_prepared  # here: it imports what reads audio

        try:
            for report in verify_prepared(prepared.folder, args.documents, args.audio_root, seconds=_SECONDS):
                yield Check("causality", "ok" if report.passed else "FAILED", f"{report}"[7:])
        except RequestError as error:
            yield Check("causality", "note", f"not checked: {error}")


def _remedy(out: str, failed: list[str]) -> str:
    text = f"{', '.join(failed)} failed"
    if failed == ["causality"]:
        return f"{text}: {out} is not what its audio gives now; prepare the audio into another OUT"
    if set(failed) <= set(_UNREPAIRABLE):
        return f"{text}: see above"
    return f"{text}; to mend it: {repair_command(out)}"
