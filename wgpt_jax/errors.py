"""The two ways a command can fail, each with the exit code the shell sees."""


class WgptError(Exception):
    """A failure that is explained by one sentence; no stack trace is shown for it."""

    exit_code = 1


class WorkError(WgptError):
    """The request was right, but the work failed (exit code 1)."""


class RequestError(WgptError):
    """The request was wrong: a flag, a file, a config key, a record, a checkpoint (exit code 2)."""

    exit_code = 2
