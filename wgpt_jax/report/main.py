"""``tools/report.py``: writes the document and its figures, or says whether they are those of the rows."""

import dataclasses
import itertools
from pathlib import Path
from typing import Annotated

import tyro

from wgpt_jax.data.index import file_sha256
from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.figure import stamp_of
from wgpt_jax.report.document import PASSAGES, Document, make_document
from wgpt_jax.report.rows import load_rows
from wgpt_jax.report.text import TEXT_NAME, read_text

FOLDER = "results"
"""Beside the document: figures, pictures, prose."""
_DOCS = Path("docs")
_NEAR = 40
"""Characters that are shown on either side of a difference."""
_AGAIN = "run python tools/report.py"


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclasses.dataclass(frozen=True)
class ReportArgs:
    """Write docs/RESULTS.md and its figures from rows: of wgpt ablate, and of the tools that measure.

    Prose comes from results/text.md beside the document; every number comes from rows.
    """

    results: Annotated[
        tuple[Path, ...], tyro.conf.arg(metavar="FILE...", help_behavior_hint="(default: results/*.jsonl beside --out)")
    ] = ()
    """Files of rows."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = _DOCS / "RESULTS.md"
    """The document; its figures are written into the folder results beside it."""
    check: bool = False
    """Write nothing: exit with 1 if the document or a figure is not what the rows say."""


def report(args: ReportArgs) -> None:
    """Writes the document, or checks it.

    Raises:
        RequestError: if rows or prose are not there, or cannot stand in a document.
        WorkError: if the document cannot be written, or is not what the rows say.
    """
    folder = args.out.parent / FOLDER
    rows = load_rows(args.results or tuple(sorted(folder.glob("*.jsonl"))))
    document = make_document(rows, read_text(folder / TEXT_NAME, PASSAGES))
    if args.check:
        check(document, args.out)
        print(f"{args.out} is what {len(rows)} rows say, and so are {len(document.figures)} figures")
    else:
        write(document, args.out)
        print(f"{args.out}: {len(rows)} rows, {len(document.figures)} figures")


def write(document: Document, out: Path) -> None:
    """Writes a document and those figures that are not there as they should be; deletes figures it no longer has.

    Raises:
        WorkError: if a file cannot be written, or a picture that a row refers to is not there.
    """
    folder = out.parent / FOLDER
    _check_pictures(document, folder)
    try:
        for figure in document.figures:
            if stamp_of(folder / figure.file) != figure.digest():
                figure.draw(folder / figure.file)
        for stray in _strays(document, folder):
            stray.unlink()
        out.write_text(document.text)
    except OSError as error:
        raise WorkError(f"cannot write {error.filename or out}: {error.strerror or error}") from error


def check(document: Document, out: Path) -> None:
    """Compares what is there with what the rows say: the text by its bytes, figures by the numbers that they show.

    Raises:
        RequestError: if there is no document.
        WorkError: naming the first difference.
    """
    folder = out.parent / FOLDER
    try:
        found = out.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"cannot read {out}: {error}; {_AGAIN}") from error
    if found != document.text:
        pairs = itertools.zip_longest(found.split("\n"), document.text.split("\n"))
        number, (theirs, ours) = next((n, pair) for n, pair in enumerate(pairs, start=1) if pair[0] != pair[1])
        told = (_around(theirs, ours), _around(ours, theirs))
        raise WorkError(f"{out}, line {number} is {told[0]}, the rows say {told[1]}; {_AGAIN}")
    for figure in document.figures:
        if not (folder / figure.file).is_file():
            raise WorkError(f"{folder / figure.file} is not there; {_AGAIN}")
        if stamp_of(folder / figure.file) != figure.digest():
            raise WorkError(f"{folder / figure.file} shows other numbers than the rows have; {_AGAIN}")
    _check_pictures(document, folder)
    if stray := next(iter(_strays(document, folder)), None):
        raise WorkError(f"{stray} is a figure that the document does not have; {_AGAIN}")


def _check_pictures(document: Document, folder: Path) -> None:
    for name, digest in document.pictures.items():
        if not (folder / name).is_file():
            raise WorkError(f"{folder / name} is not there, and a row refers to it; collect its row again")
        if file_sha256(folder / name) != digest:
            raise WorkError(f"{folder / name} is not the picture that its row was collected with; collect it again")


def _strays(document: Document, folder: Path) -> list[Path]:
    """Figures of a former document."""
    wanted = {figure.file for figure in document.figures}
    return [path for path in sorted(folder.glob("*.png")) if path.name not in wanted and stamp_of(path) is not None]


def _around(line: str | None, other: str | None) -> str:
    """What of a line is near its first difference from another."""
    if line is None:
        return "missing"
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(line, other or "", strict=False))
    start = max(0, sum(1 for _ in same) - _NEAR)
    part = line[start : start + 2 * _NEAR]
    return repr(f"{'...' if start else ''}{part}{'...' if len(line) > start + 2 * _NEAR else ''}")
