"""Where TFDS has prepared a data set; if nowhere, it is built, or the commands that build it are told."""

import difflib
import importlib.util
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from wgpt_jax.errors import RequestError, WorkError

_SPEC = re.compile(r"tfds:(?P<name>[a-zA-Z]\w*)(/(?P<config>[\w+.-]+))?(:(?P<version>\d+\.\d+\.\d+))?", re.ASCII)
_VERSION = re.compile(r"\d+\.\d+\.\d+", re.ASCII)


def find_prepared(spec: str, data_dir: Path | None) -> Path:
    """The folder of a prepared data set, absolute; it is built if it is not there and TensorFlow is installed.

    Raises:
        RequestError: if the name is wrong, or the data set is not prepared and TensorFlow is not installed.
        WorkError: if building it failed.
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise RequestError(
            f"{spec!r} does not name a TFDS data set; it is tfds:NAME or tfds:NAME/CONFIG, and perhaps :VERSION behind"
        )
    if data_dir is None:
        data_dir = Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    data_dir = data_dir.resolve()
    folder, missing = _search(data_dir, **match.groupdict())
    if folder is not None:
        return folder
    wanted = spec.removeprefix("tfds:")
    if importlib.util.find_spec("tensorflow") is None:
        raise RequestError(
            f'{missing}; to prepare it here, run: pip install "wgpt_jax[tfds]" && '
            f"tfds build {wanted} --file_format=array_record --data_dir={shlex.quote(str(data_dir))}"
        )
    return _build(wanted, data_dir, missing)


def _search(data_dir: Path, name: str, config: str | None, version: str | None) -> tuple[Path | None, str]:
    """The folder of a data set, or None and what is missing.

    Raises:
        RequestError: if it has several configs and none is named.
    """
    root = data_dir / name
    if not root.is_dir():
        present = ", ".join(_folders(data_dir)) or "none"
        return None, f"there is no data set {name} in {data_dir} (it holds {present}{_did_you_mean(data_dir, name)})"
    configs = [folder for folder in _folders(root) if _versions(root / folder)]
    if config is None and not _versions(root) and configs:
        if len(configs) > 1:
            raise RequestError(
                f"{root} has several configs: {', '.join(configs)}; name one, as tfds:{name}/{configs[0]}"
            )
        config = configs[0]
    if config is not None and config not in configs:
        return None, f"{root} has no config {config} (prepared: {', '.join(configs) or 'none'})"
    root = root / config if config else root
    versions = _versions(root)
    if version is None and versions:
        version = versions[-1]
    if version not in versions:
        return (
            None,
            f"{root} has no version{f' {version}' if version else ''} (prepared: {', '.join(versions) or 'none'})",
        )
    return root / version, ""


def _folders(root: Path) -> list[str]:
    """Folders in which data sets, or their configs, may lie."""
    if not root.is_dir():
        return []
    names = sorted(path.name for path in root.iterdir() if path.is_dir())
    return [name for name in names if not name.startswith((".", "incomplete.")) and name != "downloads"]


def _versions(root: Path) -> list[str]:
    """Versions that are prepared below a folder, the newest last."""
    found = [name for name in _folders(root) if _VERSION.fullmatch(name)]
    return sorted(found, key=lambda version: tuple(map(int, version.split("."))))


def _did_you_mean(data_dir: Path, name: str) -> str:
    """The nearest names of those prepared and those that TFDS can build, unless this is one of them."""
    import tensorflow_datasets as tfds

    known = {*_folders(data_dir), *tfds.list_builders(with_community_datasets=False)}
    near = [] if name in known else difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.75)
    return f"; did you mean {' or '.join(f'tfds:{other}' for other in near)}?" if near else ""


def _build(wanted: str, data_dir: Path, missing: str) -> Path:
    """Downloads and prepares a data set, which needs TensorFlow.

    Raises:
        RequestError: if TFDS knows no such data set, config or version.
        WorkError: if it could not be prepared.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(wanted, data_dir=str(data_dir), file_format="array_record")
    except tfds.core.DatasetNotFoundError as error:
        raise RequestError(f"{missing}, and TFDS has none of that name to build") from error
    except Exception as error:  # whatever the data set's own code raises
        raise RequestError(f"{missing}, and TFDS cannot build {wanted}: {_sentence(error)}") from error
    print(f"{missing}: building it with TFDS and TensorFlow, downloads included", file=sys.stderr, flush=True)
    try:
        builder.download_and_prepare(download_config=_download_config(tfds))
    except Exception as error:  # of downloads, decoders, Beam
        raise WorkError(f"TFDS could not build {wanted} in {data_dir}: {_sentence(error)}") from error
    return Path(builder.data_dir)


def _download_config(tfds: Any) -> Any:
    """Beam, which some data sets need, would read our own command line as its options."""
    if importlib.util.find_spec("apache_beam") is None:
        return None
    from apache_beam.options.pipeline_options import PipelineOptions

    return tfds.download.DownloadConfig(beam_runner="DirectRunner", beam_options=PipelineOptions([]))


def _sentence(error: Exception) -> str:
    """What an exception says, in one line of bearable length."""
    said = re.sub(r'^Failed to construct dataset .*?\}": ', "", " ".join(str(error).split()))
    return said[:300].rstrip(":. ") or type(error).__name__
