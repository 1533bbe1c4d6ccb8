"""The document's prose: named passages of a file, in which no result may be typed."""

import re
from pathlib import Path

from wgpt_jax.errors import RequestError

TEXT_NAME = "text.md"
_NAME = re.compile(r"<!-- ([a-z-]+) -->")
_FIGURE = re.compile(r"(?<![\w.])(?!2412\.11449)\d+\.\d+|\d\s*%")
"""What looks like a result: a number with a decimal point, or a percentage. The paper's arXiv number is none."""


def read_text(path: Path, wanted: tuple[str, ...]) -> dict[str, str]:
    """The passages of a file by their names; each begins behind a line ``<!-- name -->``.

    Args:
        path: of the file.
        wanted: names that must be there, and no others.

    Raises:
        RequestError: if the file cannot be read, passages are missing or unknown, or a number is typed in one.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}; copy docs/results/text.md there") from error
    passages: dict[str, list[str]] = {}
    current: list[str] = []
    for number, line in enumerate(lines, start=1):
        if found := _NAME.fullmatch(line.strip()):
            current = passages.setdefault(found[1], [])
            continue
        if found := _FIGURE.search(line):
            raise RequestError(
                f"{path}, line {number}: {found[0]!r} looks like a result typed by hand; results come from rows only"
            )
        current.append(line)
    for name in wanted:
        if name not in passages:
            raise RequestError(f"{path} has no passage {name}; add a line <!-- {name} --> and the passage")
    for name in passages:
        if name not in wanted:
            raise RequestError(f"{path} has a passage {name} that the document has no place for; delete it")
    return {name: "\n".join(passage).strip() for name, passage in passages.items()}
