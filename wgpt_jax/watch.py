"""``wgpt watch``: where a training run stands, once or again and again."""

import contextlib
import dataclasses
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from wgpt_jax.command import run_command
from wgpt_jax.errors import RequestError
from wgpt_jax.run_status import RunStatus, run_status
from wgpt_jax.status_table import format_status

_HOME_AND_CLEAR = "\x1b[H\x1b[J"


@dataclasses.dataclass(frozen=True)
class WatchArgs:
    """Says where a training run stands, from its files alone: also while it runs, also from another machine."""

    run: tyro.conf.Positional[Path]
    """Run folder made by `wgpt train`."""
    json: bool = False
    """Print one JSON object and nothing else; with --follow one a line."""
    follow: Annotated[float | None, tyro.conf.arg(metavar="SECONDS")] = None
    """Look again every so many seconds, until the run ends or Ctrl-C."""


def watch_command(argv: Sequence[str]) -> int:
    """``wgpt watch``."""

    def main(args: WatchArgs) -> None:
        if args.follow is None:
            print(_told(run_status(args.run), args))
        elif 0 < args.follow < math.inf:
            with contextlib.suppress(KeyboardInterrupt):  # the usual way to end it
                _follow(args)
        else:
            raise RequestError(f"--follow {args.follow:g}: give a positive number of seconds")

    return run_command(main, WatchArgs, argv, prog="wgpt watch")


def _follow(args: WatchArgs) -> None:
    """Prints until the run ends: in place on a terminal, elsewhere only what is new."""
    redraw = sys.stdout.isatty() and not args.json
    before = None
    while True:
        status = run_status(args.run)
        news = status.state, status.step, status.silent
        if redraw:
            print(_HOME_AND_CLEAR + _told(status, args), flush=True)
        elif news != before:
            print(_told(status, args), end="\n" if args.json else "\n\n", flush=True)
        if status.state != "running" and status.elsewhere is None:
            return
        before = news
        time.sleep(args.follow)


def _told(status: RunStatus, args: WatchArgs) -> str:
    return json.dumps(dataclasses.asdict(status)) if args.json else format_status(status)
