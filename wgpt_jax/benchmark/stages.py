"""How fast each stage of a preparation is, in one process with one thread, and its share of the whole."""

import dataclasses
import functools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from wgpt_jax.audio.mel import log_mel
from wgpt_jax.benchmark.signals import RATE, signal, write_formats
from wgpt_jax.benchmark.timing import Run, in_turn, ratio, speed, timed
from wgpt_jax.data.index import file_sha256
from wgpt_jax.data.records import WRITER_OPTIONS, Document, encode_record, pack_documents
from wgpt_jax.data.statistics import Statistics
from wgpt_jax.errors import RequestError
from wgpt_jax.prepare.codec import cached_codec, load_codec
from wgpt_jax.prepare.convert import Conversion, source_mel
from wgpt_jax.prepare.inspection import Inspector
from wgpt_jax.prepare.items import Item
from wgpt_jax.prepare.reading.files import open_sound
from wgpt_jax.prepare.reading.mono import mono_blocks, resampled
from wgpt_jax.prepare.reading.sound import BLOCK_SAMPLES
from wgpt_jax.prepare.request import PrepareArgs, conversion_of, devices_of
from wgpt_jax.prepare.shards import ShardMaker, ShardTask
from wgpt_jax.prepare.sources.opening import open_source
from wgpt_jax.prepare.storage import open_storage

if TYPE_CHECKING:
    from wgpt_jax.prepare.encodec import Codec

WHOLE, TOKENS = "whole", "tokens, batch 1, cpu"
_PARTS = ("inspect flac", "decode flac", "resample", TOKENS, "mel", "write")
"""What the whole consists of: a FLAC is inspected, and then decoded again, converted and written."""


@dataclasses.dataclass(frozen=True)
class StagesTask:
    """What is to be measured, as the flags say."""

    audio: Path | None
    seconds: float
    codec: str
    codebooks: int | None
    batch: int
    device: str
    rounds: int


def measure_stages(task: StagesTask) -> dict[str, Any]:
    """Times the stages on the same signal; best in a process of its own with one thread.

    Returns:
        JSON values: the signal and codec, and in ``stages`` one entry per stage, in seconds of audio per second.

    Raises:
        RequestError: if there is no such audio, codec or device, or the audio is too short.
    """
    samples = signal(task.audio, task.seconds)
    seconds = len(samples) / RATE
    with tempfile.TemporaryDirectory() as scratch:
        asked = PrepareArgs(scratch, scratch, codec=task.codec, num_codebooks=task.codebooks, batch=1)
        codec = cached_codec(task.codec, False, "cpu")  # the one that the conversion will find
        conversion = conversion_of(asked, codec, ("cpu",))
        if seconds < task.batch * codec.clock.seconds(1) or seconds < 1:
            raise RequestError(f"{seconds:.2f} s of audio are too short to measure with --batch {task.batch}")
        arms = _arms(task, samples, codec, conversion, Path(scratch))
        for work in arms.values():
            work()
        runs = in_turn({name: functools.partial(timed, seconds, work) for name, work in arms.items()}, task.rounds)
    return {
        "audio": "synthetic" if task.audio is None else str(task.audio),
        "audio_seconds": seconds,
        "codebooks": conversion.codebooks,
        "rounds": task.rounds,
        "stages": [_row(name, runs) for name in arms],
        "rest_of_whole": 1 - sum(ratio(runs[name], runs[WHOLE]) for name in _PARTS),
    }


def _row(name: str, runs: dict[str, list[Run]]) -> dict[str, Any]:
    found = speed(runs[name])
    return {
        "stage": name,
        "x_realtime": found.median,
        "slowest": found.slowest,
        "fastest": found.fastest,
        "x_realtime_per_core": None if "cuda" in name else found.per_core,
        "time_over_tokens": ratio(runs[name], runs[TOKENS]),
        "share_of_whole": ratio(runs[name], runs[WHOLE]) if name in _PARTS else None,
    }


def _arms(
    task: StagesTask, samples: np.ndarray, codec: "Codec", conversion: Conversion, scratch: Path
) -> dict[str, Callable[[], object]]:
    """Each stage by its name; all work on the whole signal, float32 [N] at 44.1 kHz."""
    (audio := scratch / "audio").mkdir()
    paths = write_formats(audio, samples)
    blocks = [samples[start : start + BLOCK_SAMPLES] for start in range(0, len(samples), BLOCK_SAMPLES)]
    heard = np.concatenate(list(resampled(iter(blocks), RATE, codec.clock.sample_rate)))
    tokens = codec.encode(heard, conversion.codebooks)
    mel = log_mel(heard, conversion.mel, codec.clock).astype(np.float16)[None]
    source = open_source(str(audio))
    inspector = Inspector(source, codec.clock, None)
    maker = ShardMaker(source, open_storage(str(scratch / "out"), beam=False), conversion, codec.codebook_size)

    def inspect(path: Path):
        _touch(path)
        return inspector.inspect(Item(path.name, path.name))

    def whole() -> None:
        maker(ShardTask("train-00000", "train", (inspect(paths["flac"]),)))

    arms = {f"decode {name}": functools.partial(_decode, path) for name, path in paths.items()}
    arms["inspect flac"] = functools.partial(inspect, paths["flac"])
    arms["resample"] = lambda: list(resampled(iter(blocks), RATE, codec.clock.sample_rate))
    arms["mel"] = lambda: log_mel(heard, conversion.mel, codec.clock).astype(np.float16)
    arms |= _token_arms(task, heard, codec, conversion.codebooks)
    arms["codec1 (decode, mel)"] = lambda: source_mel("codec1", heard, codec, conversion.mel, tokens)
    arms["write"] = functools.partial(_write, scratch / "shard", tokens, mel, codec.codebook_size)
    arms[WHOLE] = whole
    return arms


def _token_arms(
    task: StagesTask, heard: np.ndarray, codec: "Codec", codebooks: int
) -> dict[str, Callable[[], np.ndarray]]:
    """Encoding on the CPU and on each GPU, as one document and as ``task.batch`` equal parts side by side."""
    arms = {}
    for device in dict.fromkeys(("cpu", *devices_of(task.device))):
        there = codec if device == "cpu" else load_codec(task.codec, device=device)
        for batch in dict.fromkeys((1, task.batch)):
            rows = heard[: len(heard) // batch * batch].reshape(batch, -1)
            arms[f"tokens, batch {batch}, {device}"] = functools.partial(there.encode, rows, codebooks)
    return arms


def _decode(path: Path) -> None:
    _touch(path)
    with open_sound(path) as sound:
        for _ in mono_blocks(sound, None):
            pass


def _touch(path: Path) -> None:
    """What is known of a file's structure is kept while it does not change; each time is to be the first."""
    os.utime(path)


def _write(path: Path, tokens: np.ndarray, mel: np.ndarray, codebook_size: int) -> None:
    """What a shard takes besides its arrays, tokens int16 [n, K] and mel float16 [1, n, M]: records, counts, hash."""
    statistics = Statistics.empty(tokens.shape[1], codebook_size, *mel.shape[::2])
    writer = ArrayRecordWriter(str(path), WRITER_OPTIONS)
    for record in pack_documents([Document("signal", "audio", tokens, mel)]):
        writer.write(encode_record(record))
        statistics.add_record(record)
    writer.close()
    statistics.to_bytes()
    file_sha256(path)
