"""Weights that leave a run or come from one: ``wgpt export``, and ``wgpt train --from``.

An export is a folder with ``model.safetensors`` (float32, named as in the network: ``stack.blocks.mlp.up.kernel``) and
``config.json`` (the run's ``run.json``, the step, which weights, a digest of each).
"""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from wgpt_jax.config import Config, MeshConfig, differences
from wgpt_jax.data.index import DataIndex
from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.parallel.mesh import make_mesh
from wgpt_jax.runs import RunFolder, RunInfo, check_data_is_readable, read_run, run_from_dict
from wgpt_jax.training.checkpoint import Checkpoints
from wgpt_jax.training.digest import digest
from wgpt_jax.training.state import abstract_model

WEIGHTS_NAME, CONFIG_NAME = "model.safetensors", "config.json"
EXPORT_VERSION = 1
_NOT_OF_THE_WEIGHTS = {
    *("model.embedding_std", "model.mel_dropout", "model.mel_dropout_window", "model.dropout"),
    *("model.dtype", "model.attention", "model.remat"),
}


class Source(NamedTuple):
    """Where weights come from."""

    path: Path
    """Run folder or export; absolute."""
    step: int | str
    """Of a run's checkpoints: a step, ``latest`` or ``best``; an export's own."""

    def __str__(self) -> str:
        return str(self.path) if self.step == "latest" else f"{self.path}@{self.step}"

    def names(self, other: "Source") -> bool:
        """Whether this request may mean ``other``, whose step is a number."""
        return self.path == other.path and (self.step == other.step or isinstance(self.step, str))


def parse_source(text: str) -> Source:
    """Parses ``FOLDER[@STEP]``; a step is a number, ``latest`` (if left out) or ``best``.

    A folder whose own name ends like that is named with its step.
    """
    folder, at, step = text.rpartition("@")
    if not at or not (step.isdigit() or step in ("latest", "best")):
        folder, step = text, "latest"
    return Source(Path(folder).absolute(), int(step) if step.isdigit() else step)


def resolve(source: Source, config: Config, index: DataIndex, data: str | os.PathLike) -> Source:
    """Checks that a new training can begin with some weights.

    Args:
        source: a run or an export.
        config: the new run's.
        index: of the new run's data, which must be of the weights' codec and mel.
        data: where that is.

    Returns:
        the source with the number of its step.

    Raises:
        RequestError: if the weights are not there, or are of another network, codec or mel.
    """
    if not _is_there(source):
        named = Path(f"{source.path}@{source.step}")
        if named.is_dir():
            raise RequestError(f"--from: {named} is a folder itself; say which of its steps, as in {named}@latest")
        what = "is neither a run nor an export" if source.path.is_dir() else "is not there"
        raise RequestError(f"--from: {source.path} {what}; give a run, RUN@STEP, or a folder that wgpt export made")
    if _is_export(source):
        info, step, _ = _read_export(source)
    else:
        info, run = read_run(source.path), RunFolder(source.path)
        with Checkpoints(run.checkpoints, evaluated=run.evaluated()) as checkpoints:
            step = checkpoints.step_of(source.step)
    for key, (theirs, ours) in differences(info.config, config).items():
        if key.startswith("model.") and key not in _NOT_OF_THE_WEIGHTS:
            raise RequestError(f"--from {source}: {key} is {theirs} there and {ours} here; use the same value")
    check_data_is_readable(info, index, source.path, data)
    return Source(source.path, step)


def load_weights(source: Source, abstract: nnx.State) -> nnx.State:
    """Weights to begin a new training with.

    Args:
        source: from :func:`resolve`.
        abstract: shapes and shardings of the new run's parameters.

    Returns:
        the parameters as ``abstract`` lays them out.

    Raises:
        RequestError: if they are not there any more, or are damaged.
    """
    if not _is_there(source):
        raise RequestError(
            f"{source.path}, whose weights this run begins with, is not there any more; bring it back, or start over "
            "with --fresh"
        )
    if _is_export(source):
        params = _read_safetensors(source.path / WEIGHTS_NAME, abstract)
        if _digests(params) != _read_export(source)[2]:
            raise RequestError(f"{source.path / WEIGHTS_NAME} is not what was exported; export it again")
        return params
    with Checkpoints(RunFolder(source.path).checkpoints) as checkpoints:
        return checkpoints.restore_params(abstract, source.step)[0]


def export(
    run: str | os.PathLike, out: str | os.PathLike, *, step: int | str = "latest", ema: bool = False
) -> dict[str, Any]:
    """Writes a run's weights as safetensors, their configuration as JSON beside them.

    Args:
        run: run folder.
        out: folder to make; must not hold an export.
        step: a checkpoint's step, ``latest`` or ``best``.
        ema: the averaged weights instead.

    Returns:
        what was written: ``weights``, ``step``, ``parameters``, ``file``.

    Raises:
        RequestError: if the run, the step or its average is not there, or there is an export in ``out``.
        WorkError: if it cannot be written.
    """
    info, folder, out = read_run(run), RunFolder(run), Path(out)
    file = out / WEIGHTS_NAME
    if file.exists() or (out / CONFIG_NAME).exists():
        raise RequestError(f"{out} holds an export already; give another folder")
    if RunFolder(out).info.exists():
        raise RequestError(f"{out} is a run folder, and an export would be taken for it; give another folder")
    _, abstract = abstract_model(info.config.model, make_mesh(MeshConfig(), jax.devices()[:1]))
    with Checkpoints(folder.checkpoints, evaluated=folder.evaluated()) as checkpoints:
        params, step = checkpoints.restore_params(abstract, step, ema=ema)
    tensors = {name: np.asarray(leaf) for name, leaf in _by_name(params).items()}
    kind = "ema" if ema else "raw"
    config = {
        "version": EXPORT_VERSION,
        "weights": kind,
        "step": step,
        "digest": _digests(params),
        "run": dataclasses.asdict(info),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        of_tensors, of_config = file.with_suffix(".tmp"), (out / CONFIG_NAME).with_suffix(".tmp")
        of_config.write_text(json.dumps(config, indent=1) + "\n")
        save_file(tensors, of_tensors, metadata={"wgpt_jax": info.versions["wgpt_jax"], "step": str(step)})
        shutil.copymode(of_config, of_tensors)  # safetensors lets nobody else read its files
        os.replace(of_tensors, file)
        os.replace(of_config, out / CONFIG_NAME)  # last, since it is what makes the folder an export
    except (OSError, SafetensorError) as error:
        raise WorkError(f"cannot write to {out}: {getattr(error, 'strerror', None) or error}") from error
    return {"weights": kind, "step": step, "parameters": sum(map(np.size, tensors.values())), "file": str(file)}


def _is_there(source: Source) -> bool:
    """Whether there is a run or an export, of whatever step."""
    return _is_export(source) or RunFolder(source.path).info.is_file()


def _is_export(source: Source) -> bool:
    return (source.path / CONFIG_NAME).is_file()


def _read_export(source: Source) -> tuple[RunInfo, int, dict[str, int]]:
    """What an export's ``config.json`` says: the run, the step, the digest of its weights."""
    file = source.path / CONFIG_NAME
    try:
        fields = json.loads(file.read_text())
        if fields["version"] != EXPORT_VERSION:
            raise RequestError(
                f"{file} is of version {fields['version']}, this version of wgpt_jax reads {EXPORT_VERSION}; export it "
                "again"
            )
        if isinstance(source.step, int) and source.step != fields["step"]:
            raise RequestError(f"--from {source}: that export is of step {fields['step']}; leave the step out")
        return run_from_dict(fields["run"], file), fields["step"], fields["digest"]
    except (ValueError, TypeError, KeyError) as error:
        raise RequestError(f"{file} is damaged ({error!r}); export it again") from error


def _by_name(params: Any) -> dict[str, Any]:
    """Leaves by the names that they have in an export."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {".".join(str(key.key) for key in path if hasattr(key, "key")): leaf for path, leaf in leaves}


def _digests(params: Any) -> dict[str, int]:
    """:func:`~wgpt_jax.training.digest.digest` by the names that the arrays have in an export."""
    return dict(zip(_by_name(params), digest(params).values(), strict=True))


def _read_safetensors(file: Path, abstract: nnx.State) -> nnx.State:
    """Parameters straight into their shards: each process reads the parts that its devices hold."""
    names = _by_name(abstract)
    try:
        with safe_open(file, "numpy") as tensors:
            odd = set(names) ^ set(tensors.keys())
            if odd:
                raise RequestError(f"{file} is of another network: {min(odd)} is only in one of them")
            arrays = []
            for name, leaf in names.items():
                part = tensors.get_slice(name)
                if tuple(part.get_shape()) != leaf.shape or part.get_dtype() != "F32":
                    raise RequestError(f"{file}: {name} is {part.get_dtype()} {part.get_shape()}, not F32 {leaf.shape}")
                arrays.append(jax.make_array_from_callback(leaf.shape, leaf.sharding, part.__getitem__))
    except (OSError, SafetensorError) as error:
        raise RequestError(f"{file} cannot be read ({error}); export it again") from error
    return jax.tree.unflatten(jax.tree.structure(abstract), arrays)
