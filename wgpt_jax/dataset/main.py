"""The command behind ``tools/dataset.py``: verify, stats, show and repair a prepared data set."""

import sys
from collections.abc import Callable, Sequence

from wgpt_jax.command import run_command, run_subcommand
from wgpt_jax.dataset.folder import missing_packages


def _verify(argv: Sequence[str]) -> int:
    from wgpt_jax.dataset.verify import VerifyArgs, verify

    return run_command(verify, VerifyArgs, argv, prog="dataset.py verify")


def _stats(argv: Sequence[str]) -> int:
    from wgpt_jax.dataset.stats import StatsArgs, stats

    return run_command(stats, StatsArgs, argv, prog="dataset.py stats")


def _show(argv: Sequence[str]) -> int:
    from wgpt_jax.dataset.show import ShowArgs, show

    return run_command(show, ShowArgs, argv, prog="dataset.py show")


def _repair(argv: Sequence[str]) -> int:
    if missing := missing_packages():
        print(f"error: {missing}: repairing needs what preparing does", file=sys.stderr)
        return 2
    from wgpt_jax.dataset.repair import RepairArgs, repair

    return run_command(repair, RepairArgs, argv, prog="dataset.py repair")


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "verify": (_verify, "check every shard, record and sum, and a sample against its audio"),
    "stats": (_stats, "hours, durations, codebook usage, mel: tables and a picture"),
    "show": (_show, "one document: what is known of it, its mel and tokens, and a WAV decoded from them"),
    "repair": (_repair, "make damaged and missing shards anew, and nothing else"),
}


def usage() -> str:
    """The overview that ``--help`` prints."""
    rows = [f"  {name:8} {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: dataset.py COMMAND OUT [flags]    (dataset.py COMMAND --help lists the flags)",
            "",
            "OUT is a folder made by tools/prepare_audio.py.",
            "",
            *rows,
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``dataset.py COMMAND ...``; returns the exit code."""
    commands = {name: command for name, (command, _) in COMMANDS.items()}
    return run_subcommand(commands, usage(), sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
