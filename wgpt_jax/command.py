"""How every command starts and ends: typed flags in, one clear sentence and an exit code out."""

import difflib
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import tyro

from wgpt_jax.errors import RequestError, WgptError

Args = TypeVar("Args")


def run_command(
    main: Callable[[Args], None],
    args_type: type[Args],
    argv: Sequence[str] | None = None,
    *,
    prog: str | None = None,
) -> int:
    """Parses flags into ``args_type`` (a dataclass), runs ``main(args)`` and returns the exit code.

    Unknown or ill-typed flags end in tyro's message with the nearest name and exit code 2.

    Args:
        main: the work; failures it can explain are raised as :class:`WgptError`.
        args_type: dataclass whose fields are the flags and whose docstring is the ``--help``.
        argv: the flags; ``sys.argv[1:]`` by default.
        prog: the program name that ``--help`` shows.
    """
    return guarded(lambda: main(tyro.cli(args_type, args=argv, prog=prog)))


def run_subcommand(commands: Mapping[str, Callable[[Sequence[str]], int]], usage: str, argv: Sequence[str]) -> int:
    """Runs ``COMMAND flags``; returns the exit code. A name that is none ends in the nearest one and 2.

    Args:
        commands: by name; each takes its flags.
        usage: the overview that ``--help`` prints.
        argv: the command and its flags.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(usage)
        return 0 if argv else 2
    name, *rest = argv
    if name not in commands:
        near = difflib.get_close_matches(name, commands, n=1)
        print(f"error: no command {name!r}" + (f"; did you mean {near[0]}?" if near else ""), file=sys.stderr)
        print(usage, file=sys.stderr)
        return 2
    return commands[name](rest)


def guarded(work: Callable[[], object]) -> int:
    """Runs ``work`` and turns its outcome into an exit code: 0 done, 1 failed, 2 wrong request, 130 interrupted."""
    # XLA and Orbax write chatter to stderr that tells a user nothing.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        work()
        sys.stdout.flush()
    except WgptError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as interrupt:
        told = str(interrupt) or "interrupted; what was finished is kept, the same command continues it"
        print(told, file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe (head, less) went away: not a failure of the work.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def parse_step(text: str) -> int | str:
    """A checkpoint as ``--step`` names it: its number, ``latest`` or ``best``.

    Raises:
        RequestError: if it is none of these.
    """
    if text in ("latest", "best"):
        return text
    if not text.isdecimal():
        raise RequestError(f"--step {text!r} is no step; give a number, latest or best")
    return int(text)
