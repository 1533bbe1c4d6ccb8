"""What a prepared TFDS data set says of itself: ``dataset_info.json`` and ``features.json``, read without TFDS."""

import dataclasses
import functools
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wgpt_jax.errors import RequestError

_FORMAT = "array_record"
_INTEGERS, _FLOATS = ("int16", "int32", "int64"), ("float16", "float32", "float64")


@dataclasses.dataclass(frozen=True)
class AudioFeature:
    """The feature that holds the sound (``tfds.features.Audio``)."""

    name: str
    """With slashes if it lies in a dictionary."""
    dtype: str
    channels: int
    encoding: str
    """``none`` for lists of numbers, ``bytes`` or ``zlib`` for the array's own bytes."""
    rate: int
    """Hz; 0 if it is not said, which only encoded files allow."""
    lazy: bool
    """Whether the examples hold audio files as they were (``lazy_decode``)."""
    suffix: str
    """What the names of such files end in; empty if it is not said."""


@dataclasses.dataclass(frozen=True)
class ScalarFeature:
    """A text, a number or a label."""

    name: str
    dtype: str
    encoding: str
    labels: tuple[str, ...] = ()
    """Names of the classes that a number stands for."""


@dataclasses.dataclass(frozen=True)
class PreparedSet:
    """A prepared data set."""

    audio: AudioFeature
    scalars: tuple[ScalarFeature, ...]
    shards: dict[str, tuple[tuple[str, int], ...]]
    """Split -> its files, relative to the folder, with the number of examples in each."""


@functools.lru_cache(maxsize=8)
def cached_set(folder: str) -> PreparedSet:
    """:func:`read_set`, once per process."""
    return read_set(Path(folder))


def read_set(folder: Path) -> PreparedSet:
    """Reads what a folder that TFDS has prepared says of itself.

    Written from ``tensorflow_datasets/core/{naming,dataset_info}.py`` and ``core/features/`` of TFDS 4.9.10.

    Raises:
        RequestError: if the files are missing or damaged, the examples are in a format that cannot be read at random,
            or there is not exactly one Audio feature that can be read.
    """
    info, features = _read_json(folder / "dataset_info.json"), _read_json(folder / "features.json")
    try:
        formats = [info.get("fileFormat", "tfrecord"), *info.get("alternativeFileFormats", ())]
        if _FORMAT not in formats:
            raise RequestError(
                f"{folder} is prepared as {formats[0]}, which cannot be read at random; convert it, with the extra "
                f"wgpt_jax[tfds]: tfds convert_format --dataset_version_dir={shlex.quote(str(folder))} "
                f"--out_file_format={_FORMAT}"
            )
        shards = {split["name"]: _shards(info["name"], split) for split in info["splits"]}
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise _damaged(folder / "dataset_info.json", error) from error
    try:
        flat = sorted(_flatten(features, ()), key=lambda pair: pair[0])
        audio = _audio_feature(dict(flat), folder)
        scalars = [_scalar_feature(keys, feature, folder) for keys, feature in flat]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(folder / "features.json", error) from error
    return PreparedSet(audio, tuple(scalar for scalar in scalars if scalar is not None), shards)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RequestError(
            f"{path} is missing, so this data set was not prepared to the end; "
            "delete its folder and prepare it again, or copy it again with all its files"
        ) from error
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> RequestError:
    reason = f"no {error}" if isinstance(error, KeyError) else error
    return RequestError(f"{path} is not as TFDS writes it ({reason}); copy or prepare the data set again")


def _shards(dataset: str, split: dict[str, Any]) -> tuple[tuple[str, int], ...]:
    """The files of a split; their names follow its template, with numbers of at least five digits."""
    lengths = [int(length) for length in split.get("shardLengths", ())]
    template = split.get("filepathTemplate") or "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    files = []
    for number, length in enumerate(lengths):
        index, count = f"{number:05d}", f"{len(lengths):05d}"
        if len(count) > 5:
            index = index.zfill(len(count))
        path = template.format(
            DATASET=dataset,
            SPLIT=split["name"],
            FILEFORMAT=_FORMAT,
            SHARD_INDEX=index,
            NUM_SHARDS=count,
            SHARD_X_OF_Y=f"{index}-of-{count}",
        )
        files.append((path, length))
    return tuple(files)


def _flatten(feature: dict[str, Any], keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Keys and description of each feature that is in every example once; what is in sequences is left out."""
    if keys and "featuresDict" not in feature:
        yield keys, feature
        return
    for key, inner in feature["featuresDict"]["features"].items():
        yield from _flatten(inner, (*keys, key))


def _audio_feature(features: dict[tuple[str, ...], dict[str, Any]], folder: Path) -> AudioFeature:
    flat = {"/".join(keys): feature for keys, feature in features.items()}
    found = [name for name, feature in flat.items() if "audio" in feature]
    if not found:
        raise RequestError(
            f"{folder} has no Audio feature (its features: {', '.join(flat)}); write its audio to files and "
            "give their folder or a manifest"
        )
    if len(found) > 1:
        raise RequestError(
            f"{folder} has several Audio features ({', '.join(found)}), and it would be a guess which to take; write "
            "the audio of one to files and give their folder or a manifest"
        )
    name, content = found[0], flat[found[0]]["audio"]
    shape = _shape(content)
    lazy, rate = bool(content.get("lazyDecode", False)), int(content.get("sampleRate", 0))
    dtype, channels = content["dtype"], shape[1] if len(shape) == 2 else 1
    if not lazy and rate <= 0:
        raise RequestError(
            f"{folder / 'features.json'} gives no sample rate for the Audio feature {name}; if you know it, add "
            f'"sampleRate": "16000" (or what it is) beside its "dtype"'
        )
    if not lazy and (dtype not in _INTEGERS + _FLOATS or len(shape) not in (1, 2) or channels < 1):
        raise RequestError(
            f"the Audio feature {name} of {folder} has dtype {dtype} and shape {shape}; what can be read is "
            f"{', '.join(_INTEGERS + _FLOATS)} of shape (samples,) or (samples, channels)"
        )
    kind = content.get("fileFormat", "")
    return AudioFeature(name, dtype, channels, _encoding(content), rate, lazy, f".{kind}" if kind.isalnum() else "")


def _scalar_feature(keys: tuple[str, ...], feature: dict[str, Any], folder: Path) -> ScalarFeature | None:
    name = "/".join(keys)
    if "text" in feature:
        return ScalarFeature(name, "string", "none")
    if "classLabel" in feature:
        file = "-".join(key.replace("/", ".") for key in keys)
        return ScalarFeature(name, "int64", "none", _labels(folder / f"{file}.labels.txt"))
    if "tensor" in feature and not _shape(feature["tensor"]):
        return ScalarFeature(name, feature["tensor"]["dtype"], _encoding(feature["tensor"]))
    return None


def _shape(content: dict[str, Any]) -> tuple[int, ...]:
    """-1 for a length that varies."""
    return tuple(int(size) for size in content.get("shape", {}).get("dimensions", ()))


def _encoding(content: dict[str, Any]) -> str:
    encoding = content.get("encoding", "none").lower()
    if encoding not in ("none", "bytes", "zlib"):
        raise ValueError(f"encoding {encoding}")
    return encoding


def _labels(path: Path) -> tuple[str, ...]:
    """Names of classes, one per line; there is no such file if they have none."""
    if not path.is_file():
        return ()
    return tuple(line.strip() for line in path.read_text(encoding="utf-8").split("\n") if line.strip())
