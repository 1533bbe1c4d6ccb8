"""The run folder: what a run is, where its files are, and whether a request belongs to it.

run.json          configuration, data fingerprint, codec, versions
checkpoints/      Orbax steps; damaged-checkpoints/ has those that could not be read any more
metrics.jsonl     one line per logged step, one per evaluation
tensorboard/      the same as event files
profile/          traces of `--profile`
loss.png          loss curves
evaluation/       one JSON and one per-document JSON-lines file per `wgpt evaluate`
logs/             what the processes above 0 print, if there are several
training.lock     held while a process trains here
codec.safetensors the codec's decoder, for `wgpt generate`
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import shutil
from pathlib import Path
from typing import Any

from wgpt_jax.audio.clock import Clock
from wgpt_jax.audio.codec_file import CODEC_NAME
from wgpt_jax.audio.mel import MelConfig
from wgpt_jax.config import Config, config_from_dict, differences
from wgpt_jax.data.index import CodecInfo, DataIndex
from wgpt_jax.errors import RequestError
from wgpt_jax.metrics import evaluated, read_metrics

RUN_VERSION = 2
_FREE = (
    *(
        "training.steps",
        "training.eval_every",
        "training.eval_windows",
        "training.microbatches",
        "training.max_skipped",
    ),
    *("data.workers", "model.attention", "model.remat"),
)
_FREE_GROUPS = ("checkpoint.", "logging.", "mesh.")


@dataclasses.dataclass(frozen=True)
class RunInfo:
    """Contents of ``run.json``."""

    config: Config
    clock: Clock
    codec: CodecInfo
    mel: MelConfig
    codebooks: int
    """Codebooks per frame in the data."""
    data_fingerprint: str
    """Hash of the training shards: exact resume needs the very same."""
    parameters: dict[str, int]
    """Number of parameters by part of the network."""
    versions: dict[str, str]
    started_from: str | None = None
    """Where the first weights are from, as ``/folder@step``; None if they were drawn."""
    version: int = RUN_VERSION

    def data_identity(self) -> dict[str, Any]:
        """What data must share with the run's to be read by its model."""
        return {
            "sample_rate": self.clock.sample_rate,
            "hop": self.clock.hop,
            "codec": self.codec.fingerprint,
            "mel": self.mel.fingerprint(),
        }


class RunFolder:
    """Paths of a run's files."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path).absolute()

    @property
    def info(self) -> Path:
        """``run.json``."""
        return self.path / "run.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of Orbax steps."""
        return self.path / "checkpoints"

    @property
    def damaged(self) -> Path:
        """Folder of checkpoints that could not be read any more."""
        return self.path / "damaged-checkpoints"

    @property
    def profile(self) -> Path:
        """Folder of traces."""
        return self.path / "profile"

    @property
    def metrics(self) -> Path:
        """``metrics.jsonl``."""
        return self.path / "metrics.jsonl"

    def evaluated(self) -> dict[int, float]:
        """Validation NLL of every step that training evaluated (:func:`wgpt_jax.metrics.evaluated`)."""
        return evaluated(read_metrics(self.metrics))

    @property
    def loss_plot(self) -> Path:
        """``loss.png``."""
        return self.path / "loss.png"

    @property
    def tensorboard(self) -> Path:
        """Folder of event files."""
        return self.path / "tensorboard"

    @property
    def codec(self) -> Path:
        """``codec.safetensors``, copied from the data; absent if its codec cannot stream."""
        return self.path / CODEC_NAME

    @property
    def evaluation(self) -> Path:
        """Folder of evaluation results."""
        return self.path / "evaluation"

    @property
    def logs(self) -> Path:
        """Folder of the logs of the processes above 0."""
        return self.path / "logs"

    def log_of(self, process: int) -> Path:
        """What a process prints."""
        return self.logs / f"process-{process:04}.log"


def training_data_fingerprint(index: DataIndex) -> str:
    """Hash of the training shards in their order: equal only if every batch is equal."""
    return split_fingerprint(index, "train")


def split_fingerprint(index: DataIndex, split: str) -> str:
    """Hash of the shards of a split in their order."""
    text = "\n".join(shard.sha256 for shard in index.split(split))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def new_run(config: Config, index: DataIndex, parameters: dict[str, int], started_from: str | None = None) -> RunInfo:
    """What ``run.json`` says of a run of ``config`` on data with ``index``."""
    return RunInfo(
        config=config,
        clock=index.clock,
        codec=index.codec,
        mel=index.mel,
        codebooks=index.codebooks,
        data_fingerprint=training_data_fingerprint(index),
        parameters=parameters,
        versions=versions(),
        started_from=started_from,
    )


def versions() -> dict[str, str]:
    """Of this package and of those whose arithmetic a run depends on."""
    return {name: importlib.metadata.version(name) for name in ("wgpt_jax", "jax", "flax", "optax", "grain")}


def read_run(path: str | os.PathLike) -> RunInfo:
    """Reads ``run.json`` of a run folder.

    Raises:
        RequestError: if there is none, it is damaged or of another version.
    """
    file = RunFolder(path).info
    if not file.is_file():
        raise RequestError(f"{path} is no run folder (no run.json); make one with wgpt train")
    try:
        return run_from_dict(json.loads(file.read_text()), file)
    except (ValueError, TypeError, KeyError) as error:
        raise RequestError(
            f"{file} is damaged ({error!r}); train in a new --workdir, or start over with --fresh"
        ) from error


def run_from_dict(fields: dict[str, Any], file: Path) -> RunInfo:
    """What ``dataclasses.asdict`` made of a :class:`RunInfo`.

    Raises:
        RequestError: if it is of another version, which ``file`` is blamed for, or its configuration is wrong.
        ValueError, TypeError, KeyError: if something else is wrong with it.
    """
    if fields["version"] != RUN_VERSION:
        raise RequestError(
            f"{file} is of version {fields['version']}, this version of wgpt_jax reads {RUN_VERSION}; use the wgpt_jax "
            "that wrote it, or train anew in another --workdir"
        )
    return RunInfo(
        config=config_from_dict(fields["config"]),
        clock=Clock(**fields["clock"]),
        codec=CodecInfo(**fields["codec"]),
        mel=MelConfig(**fields["mel"]),
        codebooks=fields["codebooks"],
        data_fingerprint=fields["data_fingerprint"],
        parameters=fields["parameters"],
        versions=fields["versions"],
        started_from=fields["started_from"],
    )


def write_run(path: str | os.PathLike, info: RunInfo) -> None:
    """Writes ``run.json`` in one atomic step.

    Raises:
        RequestError: if the folder cannot be written.
    """
    file = RunFolder(path).info
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(".tmp")
        with open(temporary, "w") as text:
            text.write(json.dumps(dataclasses.asdict(info), indent=1) + "\n")
            text.flush()
            os.fsync(text.fileno())
        os.replace(temporary, file)
    except OSError as error:
        raise RequestError(f"cannot write to the run folder {path}: {error.strerror}") from error


def copy_codec(data: str | os.PathLike, run: str | os.PathLike) -> None:
    """Copies the codec's decoder from prepared data into the run folder, so that the run generates without its data.

    Raises:
        RequestError: if the folder cannot be written.
    """
    source, target = Path(data) / CODEC_NAME, RunFolder(run).codec
    if not source.is_file():
        return
    try:
        temporary = target.with_suffix(".tmp")
        shutil.copyfile(source, temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise RequestError(f"cannot write to the run folder {run}: {error.strerror}") from error


def check_model_fits_data(config: Config, index: DataIndex, folder: str | os.PathLike) -> None:
    """Raises RequestError if the configured model cannot read the data's records."""
    pairs = [
        ("model.vocabulary", config.model.vocabulary, index.codec.codebook_size, "entries in the codec's codebooks"),
        ("model.mel_bands", config.model.mel_bands, index.mel.bands, "mel bands"),
    ]
    for key, ours, theirs, what in pairs:
        if ours != theirs:
            raise RequestError(f"{key} is {ours}, but the data in {folder} has {theirs} {what}; set --{key} {theirs}")
    for name in ("output", "input"):
        asked = getattr(config.model, f"{name}_codebooks")
        if asked > index.codebooks:
            raise RequestError(
                f"model.{name}_codebooks is {asked}, but the data in {folder} has {index.codebooks}; "
                f"prepare it with more --num-codebooks, or set --model.{name}-codebooks {index.codebooks}"
            )


def check_data_is_readable(info: RunInfo, index: DataIndex, run: str | os.PathLike, folder: str | os.PathLike) -> None:
    """Raises RequestError if data was made with another codec, clock or mel than the run's."""
    remedy = {
        "codec": "prepare it with the same --codec",
        "mel": "prepare it with the same mel settings",
        "sample_rate": "prepare it with the same --codec",
        "hop": "prepare it with the same --codec",
    }
    ours, theirs = info.data_identity(), index.fingerprint()
    for key, value in ours.items():
        if theirs[key] != value:
            raise RequestError(
                f"the data in {folder} was made with another {key.replace('_', ' ')} ({theirs[key]}) "
                f"than the run {run} ({value}); {remedy[key]}"
            )


def check_same_run(info: RunInfo, config: Config, fingerprint: str, run: str | os.PathLike) -> list[str]:
    """Checks that a configuration continues a run.

    Returns:
        warnings about keys that may change but change the result.

    Raises:
        RequestError: naming the keys that must not differ.
    """
    changed = differences(info.config, config)
    fixed = {key: pair for key, pair in changed.items() if key not in _FREE and not key.startswith(_FREE_GROUPS)}
    if fixed:
        told = ", ".join(f"{key} is {old} there and {new} here" for key, (old, new) in fixed.items())
        raise RequestError(
            f"{run} belongs to another configuration: {told}; use the same values or another --workdir (--from {run} "
            "would begin it with these weights), or give up what is there with --fresh"
        )
    if info.data_fingerprint != fingerprint:
        raise RequestError(
            f"{run} was trained on other data (training shards {info.data_fingerprint}, now {fingerprint}); "
            f"use the same --data or another --workdir (--from {run} would begin it with these weights)"
        )
    warnings = []
    if "training.steps" in changed:
        old, new = changed["training.steps"]
        warnings.append(f"training.steps changes from {old} to {new}: the learning-rate schedule changes with it")
    if "training.microbatches" in changed and config.model.dropout:
        warnings.append("training.microbatches changes: each part draws its own dropout, so that the steps change too")
    for name, new in versions().items():
        old = info.versions.get(name, "another version")
        if old != new:
            warnings.append(f"{name} was {old}, now it is {new}: equal data and bits are not promised")
    return warnings
