"""``wgpt doctor``: everything that training would find missing or wrong, before anything compiles."""

import dataclasses
import json
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from wgpt_jax.command import guarded
from wgpt_jax.config import Config, read_config_file
from wgpt_jax.doctor.machine import devices, versions
from wgpt_jax.doctor.section import Problem, Section
from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.parallel.place import HostFlags, find_place

_WIDTH, _LABEL = 118, 16


@dataclasses.dataclass(frozen=True)
class DoctorArgs:
    """Says what is here and what a run would be, before anything compiles.

    Versions, devices, and of a CONFIG-FILE the mesh, batch and memory; every key of it can be overridden by a flag.
    What is missing or wrong stands at the end, with its remedy: exit code 1 if any of it would stop training.
    """

    config_file: tyro.conf.Positional[Path | None] = None
    """Python file that defines `config`, for example configs/demo_hybrid.py."""
    data: Path | None = None
    """Folder made by tools/prepare_audio.py, to check."""
    workdir: Path | None = None
    """Run folder, to check whether it would be continued."""
    bench: bool = False
    """Also time what a step costs the host; compiles a small network, about a minute."""
    json: bool = False
    """Print one JSON object and nothing else."""
    config: Annotated[Config, tyro.conf.arg(name="")] = Config()  # noqa: RUF009 (frozen)
    hosts: Annotated[HostFlags, tyro.conf.arg(name="")] = HostFlags()  # noqa: RUF009


def doctor(argv: Sequence[str]) -> int:
    """Runs ``wgpt doctor``; returns the exit code."""

    def work() -> None:
        named = [Path(word) for word in argv if word.endswith(".py") and not word.startswith("-")]
        default = DoctorArgs(named[0], config=read_config_file(named[0])) if named else None
        args = tyro.cli(DoctorArgs, args=list(argv), default=default, prog="wgpt doctor")
        if args.config_file is None and (args.bench or args.config != Config()):
            raise RequestError("--bench and the keys of a configuration need a CONFIG-FILE")
        if args.workdir is None and find_place(args.hosts) is not None:
            raise RequestError("several processes need --workdir, where those above 0 write their report")
        _report(args)

    return guarded(work)


def _report(args: DoctorArgs) -> None:
    installed = versions()
    if installed.stops_training:
        return _tell(args, [installed])  # what follows would not import

    from wgpt_jax.parallel.hosts import start_hosts, wait_for_all

    with start_hosts(args.hosts, args.workdir or Path()):
        sections = [installed, *_sections(args)]
        try:
            _tell(args, sections)
        finally:
            wait_for_all("the report")
    return None


def _sections(args: DoctorArgs) -> Iterator[Section]:
    yield (found := devices())
    config = args.config if args.config_file else None
    data, index, mesh = None, None, None

    from wgpt_jax.doctor.folders import examine_data, examine_run

    if args.data is not None:
        data, index = examine_data(args.data, config)
    if config is not None and not found.stops_training:
        from wgpt_jax.doctor.experiment import examine_experiment

        experiment, mesh = examine_experiment(config, str(args.config_file), index and index.clock)
        yield experiment
    if data is not None:
        yield data
    if args.workdir is not None:
        yield examine_run(args.workdir, config, args.data, index)
    if args.bench and mesh is not None:
        from wgpt_jax.doctor.bench import bench

        readable = index is not None and not data.stops_training
        yield bench(config, mesh, args.data if readable else None, index if readable else None)


def _tell(args: DoctorArgs, sections: Sequence[Section]) -> None:
    """Prints the report; raises WorkError if anything stops training."""
    problems = [problem for section in sections for problem in section.problems]
    stopping = [problem.text for problem in problems if problem.stops_training]
    if args.json:
        facts = {section.name: section.facts for section in sections}
        print(json.dumps({**facts, "missing_or_wrong": [dataclasses.asdict(each) for each in problems]}), flush=True)
    else:
        print("\n".join(line for section in sections for line in _lines(section)))
        print("\n".join(_ending(problems)), flush=True)
    if stopping:
        more = f" (and {len(stopping) - 1} more)" if stopping[1:] else ""
        raise WorkError(f"training would stop: {stopping[0]}{more}")


def _lines(section: Section) -> Iterator[str]:
    yield section.name
    for label, text in section.rows:
        first, later = f"  {label:{_LABEL}}", " " * (_LABEL + 2)
        yield from textwrap.wrap(
            text, _WIDTH, initial_indent=first, subsequent_indent=later, break_long_words=False, break_on_hyphens=False
        )


def _ending(problems: Sequence[Problem]) -> Iterator[str]:
    yield "missing or wrong" if problems else "nothing is missing or wrong"
    for problem in problems:
        yield f"  {'stops training' if problem.stops_training else 'warning'}: {problem.text}"
