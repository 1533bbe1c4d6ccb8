"""A prepared data set's folder as the dataset tool opens it: leniently, so that what is damaged can be named."""

import dataclasses
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from wgpt_jax.data.index import INDEX_NAME, SPLITS, DataIndex, load_inputs, read_index
from wgpt_jax.dataset.typed import misfit
from wgpt_jax.errors import RequestError
from wgpt_jax.prepare.plan import PLAN_NAME
from wgpt_jax.prepare.storage import LocalStorage, has_scheme

_FATES = ("used", "skipped", "failed")


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A data set whose ``index.json`` can be read; its shards may be damaged."""

    folder: Path
    index: DataIndex
    inputs: list[dict[str, Any]]
    """Every input and its fate (:func:`wgpt_jax.data.index.load_inputs`)."""

    def used(self) -> dict[str, dict[str, Any]]:
        """The inputs that are stored, by name."""
        return {name_of(row): row for row in self.inputs if row["fate"] == "used"}


def local_folder(out: str) -> LocalStorage:
    """The folder of a data set that was prepared, or whose preparation was begun.

    Raises:
        RequestError: if it is no such folder of this machine.
    """
    if has_scheme(out):
        raise RequestError(f"{out} is not on this machine; copy it here, or mount it, and give that folder")
    folder = Path(out)
    if not folder.is_dir():
        raise RequestError(f"there is no folder {out}")
    if not any((folder / name).is_file() for name in (INDEX_NAME, PLAN_NAME)):
        raise RequestError(f"no prepared data in {out} (no {INDEX_NAME}); make it with tools/prepare_audio.py")
    return LocalStorage(str(folder))


def open_prepared(out: str) -> Prepared:
    """Opens a data set.

    Raises:
        RequestError: if there is none, or its index cannot be read: repairing makes it anew.
    """
    folder = Path(local_folder(out).root)
    path, remedy = folder / INDEX_NAME, f"make it anew: {repair_command(out)}"
    if not path.is_file():
        raise RequestError(f"there is no {path}: the preparation was not finished, or it was deleted; {remedy}")
    index = read_index(folder)
    try:
        inputs = _checked(load_inputs(folder))
    except (KeyError, TypeError, ValueError) as error:
        raise RequestError(f"{path} is damaged (its inputs: {error!r}); {remedy}") from error
    sizes = (index.clock.hop, index.clock.sample_rate, index.codec.codebook_size, index.codebooks, index.mel.bands)
    wrong = misfit(index) or ("a size" if min(sizes) < 1 or not index.mel_sources else None)
    if wrong:
        raise RequestError(f"{path} is damaged ({wrong} has a value that it cannot have); {remedy}")
    return Prepared(folder, index, inputs)


def repair_command(out: str) -> str:
    """The command line that mends a data set."""
    return shlex.join(["python", "tools/dataset.py", "repair", str(out)])


def missing_packages() -> str:
    """A sentence on what reading and encoding audio needs and is not installed; empty if all is."""
    missing = [name for name in ("torch", "transformers", "soundfile", "soxr") if find_spec(name) is None]
    return f"{', '.join(missing)} not installed; pip install 'wgpt_jax[prepare]'" if missing else ""


def name_of(row: dict[str, Any]) -> str:
    """The name of an input's document; the index leaves it out where it is the path."""
    return row.get("name", row["path"])


def printable(name: str) -> str:
    """A name that any terminal can show: file names need not be UTF-8."""
    return name.encode(errors="backslashreplace").decode()


def _checked(inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows; KeyError, TypeError or ValueError if one is none."""
    for row in inputs:
        used = row["fate"] == "used"
        texts = [row["path"], name_of(row), *([row["split"], row["shard"]] if used else [row["reason"]])]
        texts += [row.get(key, "") for key in ("domain", "speaker")]
        numbers = [row["frames"], row["seconds"]] if used else []
        if (
            row["fate"] not in _FATES
            or not all(isinstance(text, str) for text in texts)
            or not all(isinstance(number, int | float) and number >= 0 for number in numbers)
            or (used and row["split"] not in SPLITS)
        ):
            raise ValueError(f"{row}"[:80])
    return inputs
