"""One example of a prepared TFDS data set: its bytes, its sound, its texts and numbers."""

import contextlib
import functools
import math
import os
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wgpt_jax.prepare.items import SourceError
from wgpt_jax.prepare.reading.files import open_sound
from wgpt_jax.prepare.reading.sound import Sound
from wgpt_jax.prepare.sources.tfds_info import AudioFeature, ScalarFeature

_BLOCK = 1 << 17  # samples per channel in a block
_FULL_SCALE = 32768  # of 16-bit samples, which TFDS keeps as integers of any width


def read_example(path: str, number: int) -> Any:
    """Example ``number`` of an ArrayRecord file, a ``tf.train.Example``.

    Raises:
        SourceError: if it cannot be read, or is none.
    """
    # The import costs a third of a second and what reads a folder does not need it.
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_generated_pb2

    try:
        return tf_example_generated_pb2.Example.FromString(_reader(path).read([number])[0])
    except (RuntimeError, IndexError) as error:
        raise SourceError(f"its TFDS file is damaged ({_first_line(error)})") from error
    except DecodeError as error:
        raise SourceError(f"not a tf.train.Example ({_first_line(error)})") from error


@functools.lru_cache(maxsize=64)  # each holds a file open
def _reader(path: str) -> Any:
    from array_record.python.array_record_module import ArrayRecordReader

    if not os.path.isfile(path):
        raise SourceError("its TFDS file is gone")
    reader = ArrayRecordReader(path, "readahead_buffer_size:0")
    if not reader.ok():  # it does not say why
        raise SourceError("its TFDS file is damaged (it does not open as ArrayRecord)")
    return reader


def open_audio(example: Any, feature: AudioFeature) -> contextlib.AbstractContextManager[Sound]:
    """The sound of an example.

    Integers are 16-bit samples whatever their type: TFDS decodes files through pydub and keeps the numbers.

    Raises:
        SourceError: if it holds none that can be decoded.
    """
    if feature.lazy:
        return _open_file(_bytes(example, feature.name), feature.suffix)
    samples = _samples(example, feature)
    return contextlib.nullcontext(Sound(feature.rate, feature.channels, _blocks(samples)))


def read_scalars(example: Any, features: tuple[ScalarFeature, ...]) -> dict[str, Any]:
    """The texts, numbers and names of labels of an example, as JSON values; what it lacks is left out.

    Raises:
        SourceError: if one of them is not what the data set says.
    """
    values = {}
    for feature in features:
        stored = _values(example, feature.name)
        if stored is None or not len(stored):  # of an optional feature
            continue
        value = stored[0]
        if feature.encoding != "none":
            decoded = _decoded(value, feature.name, feature.encoding, feature.dtype)
            if len(decoded) != 1:
                raise SourceError(f"its feature {feature.name} is damaged ({len(decoded)} values for one)")
            value = decoded[0].item()
        if feature.labels:
            known = isinstance(value, int) and 0 <= value < len(feature.labels)  # -1: no label
            value = feature.labels[value] if known else None
        elif isinstance(value, bytes):
            value = value.decode("utf-8", errors="replace")
        elif isinstance(value, float) and not math.isfinite(value):
            value = None  # JSON has no other word for it
        values[feature.name] = bool(value) if feature.dtype == "bool" else value
    return values


def _samples(example: Any, feature: AudioFeature) -> np.ndarray:
    """All samples, [n, channels], float32 or the integers that are stored."""
    if feature.encoding != "none":
        flat = _decoded(_bytes(example, feature.name), feature.name, feature.encoding, feature.dtype)
    else:
        stored = _values(example, feature.name)
        integers = feature.dtype.startswith("int")
        if stored is None or (len(stored) and not isinstance(stored[0], int if integers else float)):
            raise SourceError(f"the example has no samples in its feature {feature.name}")
        flat = np.fromiter(stored, np.int64 if integers else np.float32, len(stored))
    if len(flat) == 0:
        raise SourceError("no samples in it")
    if len(flat) % feature.channels:
        raise SourceError(f"{len(flat)} samples do not divide into {feature.channels} channels")
    if flat.dtype.kind == "i":
        peak = max(int(flat.max()), -int(flat.min()))
        if peak > _FULL_SCALE:
            raise SourceError(f"samples reach {peak}, more than 16 bits hold")
        flat = flat.astype(np.int16) if peak < _FULL_SCALE else flat
    else:
        flat = flat.astype(np.float32, copy=False)
        if np.abs(flat).max() > 1 and np.array_equal(flat, np.rint(flat)):  # decoded from a file, and only then a float
            flat = flat / np.float32(_FULL_SCALE)
    return flat.reshape(-1, feature.channels)


def _blocks(samples: np.ndarray) -> Iterator[np.ndarray]:
    scale = np.float32(1 / _FULL_SCALE if samples.dtype.kind == "i" else 1)
    for start in range(0, len(samples), _BLOCK):
        yield samples[start : start + _BLOCK].astype(np.float32) * scale


@contextlib.contextmanager
def _open_file(data: bytes, suffix: str) -> Iterator[Sound]:
    """An audio file that lies in memory: on disk for as long as it is read, so that it is judged as any other."""
    with tempfile.NamedTemporaryFile(suffix=suffix) as file:
        file.write(data)
        file.flush()
        with open_sound(Path(file.name)) as sound:
            yield sound


def _bytes(example: Any, name: str) -> bytes:
    stored = _values(example, name)
    if stored is None or len(stored) != 1 or not isinstance(stored[0], bytes):
        raise SourceError(f"the example has no audio in its feature {name}")
    return stored[0]


def _values(example: Any, name: str) -> Any:
    """The list of bytes, integers or floats of a feature; None if it is missing."""
    features = example.features.feature
    kind = features[name].WhichOneof("kind") if name in features else None
    return getattr(features[name], kind).value if kind else None


def _decoded(data: bytes, name: str, encoding: str, dtype: str) -> np.ndarray:
    """An array, flat, from its own bytes; TFDS writes them as they lie in memory, little-endian."""
    try:
        raw = zlib.decompress(data) if encoding == "zlib" else data
        return np.frombuffer(raw, np.dtype(dtype).newbyteorder("<"))
    except (zlib.error, ValueError, TypeError) as error:
        raise SourceError(f"its feature {name} is damaged ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
