"""How every command starts and ends: typed flags in, one clear sentence and an exit code out."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import tyro

from wgpt_jax.errors import WgptError

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
