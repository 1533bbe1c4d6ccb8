"""``dataset.py repair``: what is damaged or missing in prepared data is made again by the command that made it."""

import dataclasses
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import tyro

from wgpt_jax import folder_lock
from wgpt_jax.data.index import INDEX_NAME
from wgpt_jax.dataset.examine import Shape, ShardTask
from wgpt_jax.dataset.folder import local_folder, open_prepared, printable
from wgpt_jax.dataset.survey import survey_shards
from wgpt_jax.dataset.typed import misfit
from wgpt_jax.dataset.whole import check_set
from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.prepare.codec import cached_codec
from wgpt_jax.prepare.main import prepare
from wgpt_jax.prepare.plan import LOCK_NAME, PLAN_NAME, Plan, read_plan
from wgpt_jax.prepare.request import PrepareArgs, check_flags, source_of
from wgpt_jax.prepare.shards import SHARD_SUFFIX, ShardReport, load_report, load_statistics
from wgpt_jax.prepare.storage import LocalStorage

_SAME_AUDIO = "of the same audio, with other tokens or mel: another device, codec library or machine than then"


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclasses.dataclass(frozen=True)
class RepairArgs:
    """Makes damaged and missing shards of a prepared data set anew, and its index; what is sound stays as it is.

    Reads every record to find the damage, then runs the preparation again as it was asked for, for which the audio and
    the codec must be where they were. Audio that has been added since is prepared as well. Says of each shard made anew
    whether it is as it was before, byte for byte.
    """

    out: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OUT")]
    """Folder made by tools/prepare_audio.py."""
    workers: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Processes; one per core by default, or per GPU for encoding."""
    device: Annotated[str | None, tyro.conf.arg(metavar="auto|cpu|cuda|cuda:0,cuda:1,...")] = None
    """Where tokens are computed; as it was prepared by default. On another kind a few tokens may be others."""


@dataclasses.dataclass(frozen=True)
class Damage:
    """Why a shard is made anew."""

    reason: str
    inside: bool = False
    """It is as it was written, and was written wrong."""


def repair(args: RepairArgs) -> None:
    """Repairs a data set and prints what was damaged and what became of it.

    Raises:
        RequestError: if there is nothing that could be repaired, or the audio or the codec is not where it was.
        WorkError: if a shard made anew is not as it was.
    """
    storage = local_folder(args.out)
    plan, request = _request(args, storage)
    reports = {shard.name: load_report(shard.name, storage) for shard in plan.shards}
    before = _hashes(storage, reports)
    with folder_lock.locked(Path(storage.root), LOCK_NAME, "data folder", "prepares into"):
        damaged = _find_damage(plan, reports, storage, args.workers)
        for name, damage in damaged.items():
            print(f"damaged {name}: {damage.reason}", flush=True)
        if not damaged:
            # The shards are sound; so the index can be compared with them.
            wrong = _wrong_beside(args)
            if not wrong:
                print(
                    f"nothing to repair: all {len(plan.shards):,} shards and what is beside them are as they should be"
                )
                return
            print("\n".join(f"damaged {text}" for text in wrong), flush=True)
        _require_origin(request)
        for name in damaged:
            storage.remove(f"{name}.json")  # what marks it as finished
    prepare(request, check_all=True)
    _tell(storage, plan, before, reports, damaged)


def _request(args: RepairArgs, storage: LocalStorage) -> tuple[Plan, PrepareArgs]:
    """The plan, and the preparation that it is of."""
    plan = read_plan(storage)
    if plan is None:
        raise RequestError(
            f"{args.out} has no {PLAN_NAME}, without which nothing in it can be repaired; prepare its audio again into "
            f"another OUT{_hint(storage)}"
        )
    try:
        request = PrepareArgs.from_json(plan.arguments)
        parts = [plan, *plan.shards, request, request.mel, Shape.of_plan(plan.options, 1)]
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise RequestError(f"{args.out} was prepared by another version of this tool; choose another OUT") from error
    if wrong := next(filter(None, map(misfit, parts)), None):
        raise RequestError(
            f"{args.out}/{PLAN_NAME} is damaged ({wrong} has a value that it cannot have), without which nothing can "
            f"be repaired; prepare its audio again into another OUT{_hint(storage)}"
        )
    changes = {"out": args.out, "workers": args.workers, "runner": "local", "verify_tokens": 0, "strict": False}
    if args.device is not None:
        changes["device"] = args.device
    request = dataclasses.replace(request, **changes)
    check_flags(request)
    return plan, request


def _require_origin(request: PrepareArgs) -> None:
    """Refuses, before anything is changed, what cannot be made again."""
    try:
        source_of(request)
    except RequestError as error:
        raise RequestError(
            f"{error}, and repairing needs the audio where it was; if it has moved, mount it there again, or prepare "
            "it from where it is now into another OUT"
        ) from error
    try:
        cached_codec(request.codec, request.allow_noncausal)
    except RequestError as error:
        reason = f"{error}".split("; ")[0]
        raise RequestError(f"{reason}, and repairing needs the codec of the data, {request.codec}") from error


def _hint(storage: LocalStorage) -> str:
    """The command that made a data set, as far as its index tells."""
    try:
        index = open_prepared(storage.root).index
    except RequestError:
        return ""
    options, default = index.options, PrepareArgs("", "")
    words = ["python", "tools/prepare_audio.py", f"{options.get('source')}", "OUT", "--codec", index.codec.name]
    words += [] if index.codec.causal else ["--allow-noncausal"]
    known = dataclasses.asdict(default) | {
        f"mel.{key}": value for key, value in dataclasses.asdict(default.mel).items()
    }
    for key, value in options.items():
        if key in known and key not in ("source", "codec") and value != known[key]:
            flag = f"--{key.replace('_', '-')}"
            words += [flag] if value is True else [flag, f"{value}"]
    return f": {shlex.join(words)}"


def _hashes(storage: LocalStorage, reports: Mapping[str, ShardReport | None]) -> dict[str, set[str]]:
    """Sha256 of the shards as they were written, by name, as their reports say and the index: one may be damaged."""
    hashes = {name: {report.shard.sha256} for name, report in reports.items() if report and report.documents}
    try:
        shards = open_prepared(storage.root).index.shards
    except RequestError:
        shards = ()
    for shard in shards:
        hashes.setdefault(shard.file.removesuffix(SHARD_SUFFIX), set()).add(shard.sha256)
    return hashes


def _find_damage(
    plan: Plan, reports: Mapping[str, ShardReport | None], storage: LocalStorage, workers: int | None
) -> dict[str, Damage]:
    """Shards to make anew, by name, each with the reason. The index has no say in it: it may be what is damaged."""
    damaged, tasks = {}, []
    for shard in plan.shards:
        report = reports[shard.name]
        statistics = None if report is None else load_statistics(report, storage)
        file = Path(storage.root, shard.name + SHARD_SUFFIX)
        if report is None:
            damaged[shard.name] = Damage("its report is missing or damaged" if file.is_file() else "it is missing")
        elif not report.documents:
            continue
        elif not file.is_file():
            damaged[shard.name] = Damage("it is missing")
        elif statistics is None:
            damaged[shard.name] = Damage("its statistics are missing or damaged")
        else:
            tasks.append(ShardTask(file, shard.split, Shape.of_plan(plan.options, statistics.histogram.shape[1])))
    for file, found in survey_shards(tasks, workers).findings.items():
        name = file.removesuffix(SHARD_SUFFIX)
        report = reports[name]
        stored = {document.item.name: document.frames for document in report.documents}
        if found.sha256 != report.shard.sha256:
            damaged[name] = Damage("its sha256 is not what it was when it was written")
        elif found.problems:
            damaged[name] = Damage(found.problems[0][1], inside=True)
        elif stored != {document: frames for document, (frames, _) in found.documents.items()}:
            damaged[name] = Damage("its report tells of other documents")
    return {shard.name: damaged[shard.name] for shard in plan.shards if shard.name in damaged}


def _wrong_beside(args: RepairArgs) -> list[str]:
    """What is wrong with the index and the other files, of a data set whose shards are sound."""
    try:
        prepared = open_prepared(args.out)
    except RequestError as error:
        return [f"{error}".split("; ")[0]]
    shape = Shape.of_index(prepared.index)
    tasks = [ShardTask(prepared.folder / shard.file, shard.split, shape) for shard in prepared.index.shards]
    checks = check_set(prepared, survey_shards(tasks, args.workers))
    return [f"{check.name}: {check.text}" for check in checks if check.outcome == "FAILED"]


def _tell(
    storage: LocalStorage,
    plan: Plan,
    before: Mapping[str, set[str]],
    reports: Mapping[str, ShardReport | None],
    damaged: Mapping[str, Damage],
) -> None:
    """Prints what became of the damaged shards; WorkError if one is not as it was."""
    print()
    other = []
    for name, damage in damaged.items():
        report = load_report(name, storage)
        sha256 = report.shard.sha256 if report else ""
        if name not in before:
            print(f"made    {name}; what it was before is not known")
        elif sha256 in before[name]:
            print(f"mended  {name}: as it was, sha256 {sha256}")
        elif damage.inside and not any(_reasons(report, reports[name])):
            print(f"mended  {name}: not as it was, for it had been written wrong; now sha256 {sha256}")
        else:
            other.append(name)
            print(f"OTHER   {name}: {'; '.join(_reasons(report, reports[name])) or _SAME_AUDIO}")
    known = {shard.name for shard in plan.shards}
    added = [shard.name for shard in (read_plan(storage) or plan).shards if shard.name not in known]
    if added:
        print(f"added   {', '.join(added)}: audio that its source did not have before")
    print(f"written {INDEX_NAME}, n-grams and codec")
    if other:
        raise WorkError(
            f"{', '.join(other)} could be made, but not as before: what the audio and this machine give now is in the "
            "data set; models trained on it before saw other data"
        )


def _reasons(report: ShardReport | None, before: ShardReport | None) -> Iterator[str]:
    """Why a shard is not what it was, as far as the two reports tell."""
    if report is None or before is None:
        yield "not as before, and its old report is lost"
        return
    for failure in report.failed:
        yield f"{printable(failure.item.name)} is left out: {failure.reason}"
    contents = {document.item.name: document.content for document in before.documents}
    changed = [d.item.name for d in report.documents if contents.get(d.item.name) != d.content]
    yield from (f"the audio of {printable(name)} has changed" for name in changed)
