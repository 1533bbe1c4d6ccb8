"""``tools/collect_results.py``: gathers rows that tools have left in folders into one file that can be committed."""

import dataclasses
import hashlib
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from PIL import Image

from wgpt_jax.data.index import load_index
from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.report.describe import describe_data
from wgpt_jax.report.loop_runs import drawn
from wgpt_jax.report.main import FOLDER
from wgpt_jax.report.rows import Row, machine_paths, of_kind, whole_rows
from wgpt_jax.runs import training_data_fingerprint

_PICTURE = "closed_loop.png"
_WIDTH, _COLOURS = 900, 128


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclasses.dataclass(frozen=True)
class CollectArgs:
    """Gather rows of wgpt ablate and of the tools that measure into a file, with what the data is and a proof of it.

    What was collected before stays if the file itself is among the rows. No row may name a folder of this machine: say
    with --name what each stands for.
    """

    rows: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Files of rows: results.jsonl, closed_loop.json, markov.jsonl, what tools/baselines.py --json printed."""
    data: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=DIR")] = ()
    """Prepared data: described, proved causal unless a row says so already, and called NAME in all rows. Give several
    by repeating the flag."""
    name: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="DIR=NAME")] = ()
    """What stands in rows for a folder of this machine. Give several by repeating the flag."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("docs") / FOLDER / "results.jsonl"
    """File to write; pictures are put beside it."""


def collect(args: CollectArgs) -> None:
    """Gathers, and says what was renamed.

    Raises:
        RequestError: if a file cannot be read, there are no rows, those that are there would be lost, or a folder of
            this machine would stay in a row.
        WorkError: if the data's causality cannot be checked, or a file cannot be written.
    """
    data = dict(_pair(text, "--data NAME=DIR") for text in args.data)
    named = {folder: name for name, folder in data.items()}
    named |= dict(_pair(text, "--name DIR=NAME") for text in args.name)
    if args.out.exists() and not any(path.resolve() == args.out.resolve() for path in args.rows):
        raise RequestError(f"{args.out} is there and not among the rows: name it too to keep them, or delete it")
    read = [(path, raw) for path in args.rows for raw in whole_rows(path)]
    taken = {raw["picture"]["file"]: raw["picture"]["sha256"] for _, raw in read if raw.get("picture")}
    rows: list[Row] = []
    pictures: dict[str, bytes] = {}
    for path, raw in read:
        row, picture = portable(raw, named), path.parent / _PICTURE
        if row["kind"] == "closed_loop" and "picture" not in row and picture.is_file():
            if os.path.isabs(raw["run"]):
                print(f"{picture} is left out: its title names {raw['run']}; measure the run by a relative path")
            else:
                png = smaller(picture)
                file, digest = _name(row, hashlib.sha256(png).hexdigest(), taken)
                row["picture"] = {"file": file, "sha256": digest}
                pictures[file], taken[file] = png, digest
        if found := next(machine_paths(row), None):
            raise RequestError(
                f"{path}: a row of kind {row['kind']} names the folder {found[1]} in its {found[0]}; say what "
                f"stands for it: --name {found[1]}=NAME"
            )
        if row not in rows:
            rows.append(row)
    known = {(row["data"], row["data_fingerprint"]) for row in of_kind(rows, "data")}
    for name, folder in data.items():
        if (name, training_data_fingerprint(load_index(folder))) not in known:
            rows.append(portable(describe_data(name, folder), named))
    if not rows:
        raise RequestError("there are no rows; name files that have some, or --data")
    _write(rows, pictures, args.out)
    print(f"{args.out}: {len(rows)} rows, {len(pictures)} pictures")
    for name in sorted({name for row in rows for name in row.get("renamed", ())}):
        print(f"  {name} stands for a folder in {sum(name in row.get('renamed', ()) for row in rows)} rows")


def smaller(picture: Path) -> bytes:
    """A PNG of 128 colours and at most 900 pixels wide: a tenth of what spectrograms take.

    Raises:
        RequestError: if the file is no picture.
    """
    out = io.BytesIO()
    try:
        with Image.open(picture) as image:
            small = image.convert("RGB")
            small.thumbnail((_WIDTH, 10 * _WIDTH))
            # The method that keeps rare colours: those of the lines beside the spectrograms.
            few = small.quantize(_COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
            few.save(out, "PNG", optimize=True)
    except OSError as error:
        raise RequestError(f"cannot read {picture}: {error}") from error
    return out.getvalue()


def portable(row: Mapping[str, Any], named: Mapping[str, str]) -> Row:
    """A row with names for folders; ``renamed`` lists the names that were put in.

    Args:
        row: any row.
        named: name by folder; of two that fit the longer one is taken.
    """
    used: set[str] = set()

    def changed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: changed(part) for key, part in value.items()}
        if isinstance(value, list):
            return [changed(part) for part in value]
        if isinstance(value, str):
            for folder in sorted(named, key=len, reverse=True):
                pieces = re.split(rf"{re.escape(folder)}(?![\w.-])", value)
                if len(pieces) > 1:
                    used.add(named[folder])
                value = named[folder].join(pieces)
        return value

    out = changed(dict(row))
    before = set(row.get("renamed", ()))
    return out | {"renamed": sorted(before | used)} if before | used else out


def _name(row: Row, digest: str, taken: Mapping[str, str]) -> tuple[str, str]:
    """The file for a closed loop's picture, and its digest: with the work folder's where another has the plain name.

    Args:
        row: of the closed loop.
        digest: of the picture.
        taken: digests of pictures by their files.

    Raises:
        RequestError: if another picture has either name.
    """
    run = Path(row["run"])
    how = "".join(f"-{part}" for part in drawn(row).replace(" ", "").split(",") if part)
    for folder in (run.name, f"{run.parent.name}-{run.name}"):
        file = f"loop-{Path(row['data']).name}-{folder}-{row['mode']}{how}.png"
        if taken.get(file, digest) == digest:
            return file, digest
    raise RequestError(f"there is another picture of {row['run']}, {file}; delete its row if it is no longer wanted")


def _pair(text: str, form: str) -> tuple[str, str]:
    first, equals, second = text.partition("=")
    if not (first and equals and second):
        raise RequestError(f"{text!r} is not of the form {form}")
    return first.rstrip("/"), second.rstrip("/")


def _write(rows: Sequence[Row], pictures: Mapping[str, bytes], out: Path) -> None:
    temporary = out.with_name(f"{out.name}.tmp")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for file, png in pictures.items():
            (out.parent / file).write_bytes(png)
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
        os.replace(temporary, out)
    except OSError as error:
        raise WorkError(f"cannot write {error.filename or out}: {error.strerror}") from error
