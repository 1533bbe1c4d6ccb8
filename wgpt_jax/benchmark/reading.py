"""How fast records are read for training, beside how fast training consumes them."""

import dataclasses
import functools
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from wgpt_jax.audio.clock import Clock
from wgpt_jax.audio.mel import MelConfig
from wgpt_jax.benchmark.timing import Run, in_turn, ratio, speed, timed
from wgpt_jax.config import Config
from wgpt_jax.data.index import CodecInfo, DataIndex, ShardInfo, file_sha256, load_index, save_index
from wgpt_jax.data.pipeline import training_batches
from wgpt_jax.data.records import MAX_FRAMES, WRITER_OPTIONS, Document, encode_record, pack_documents
from wgpt_jax.parallel.mesh import check_mesh_fits, make_mesh, to_devices
from wgpt_jax.runs import check_model_fits_data
from wgpt_jax.training.optimizer import make_optimizer
from wgpt_jax.training.state import abstract_model, abstract_state, init_state
from wgpt_jax.training.step import make_train_step

TRAINING = "training"
_RECORDS, _CODEBOOKS = 256, 8
_LEAD, _BATCHES = 12, 20
"""Batches before those that are timed, more than are held ready, and those that are."""
_CPU_BATCH = 4  # windows of a training step on CPUs, which take a minute for those of a configuration


def measure_reading(
    config: Config, data: Path | None, workers: Sequence[int], train_batch: int | None, rounds: int
) -> dict[str, Any]:
    """Times reading with each number of workers, and training steps of a configuration, in turn.

    Args:
        config: the experiment; its batch and context are read.
        data: prepared data; None for random arrays of its shape.
        workers: numbers of worker processes; 0 for threads.
        train_batch: windows of a training step; None for the configuration's, on CPUs 4.
        rounds: how often.

    Returns:
        JSON values, in frames per second.

    Raises:
        RequestError: if the data or the devices do not fit the configuration.
    """
    on_cpu = jax.devices()[0].platform == "cpu"
    rows = train_batch or (_CPU_BATCH if on_cpu else config.training.batch)
    with tempfile.TemporaryDirectory() as scratch:
        folder = data or _random_data(Path(scratch), config)
        index = load_index(folder)
        check_model_fits_data(config, index, folder)
        arms = {f"{count} workers": functools.partial(_read, config, folder, index, count) for count in workers}
        training = dataclasses.replace(config, training=dataclasses.replace(config.training, batch=rows))
        runs = in_turn(arms | {TRAINING: _training(training, folder, index)}, rounds)
    return {
        "data": "random arrays" if data is None else str(data),
        "context": config.data.context,
        "batch": config.training.batch,
        "train_batch": rows,
        "rounds": rounds,
        "reading": [{"workers": count, **_row(runs[f"{count} workers"], runs[TRAINING])} for count in workers],
        "training": dataclasses.asdict(speed(runs[TRAINING])),
    }


def _row(read: Sequence[Run], trained: Sequence[Run]) -> dict[str, Any]:
    """Speed of reading, and how many times that of training it is: by the clock, and per second of processor time."""
    return {
        **dataclasses.asdict(speed(read)),
        "over_training": ratio(trained, read),
        "over_training_per_core": ratio(trained, read, cpu=True),
    }


def _read(config: Config, folder: Path, index: DataIndex, workers: int) -> Run:
    reads_mel = config.model.inputs == "hybrid"
    settings = dataclasses.replace(config.data, workers=workers)
    batches = training_batches(folder, index, settings, config.training.batch, reads_mel=reads_mel)
    try:
        for _ in range(_LEAD):
            next(batches)
        pids = [child.pid for child in multiprocessing.active_children()]
        before, begin = _cpu_seconds(pids), time.perf_counter()
        for _ in range(_BATCHES):
            next(batches)
        seconds, after = time.perf_counter() - begin, _cpu_seconds(pids)
    finally:
        batches.close()
    return Run(_BATCHES * config.training.batch * config.data.context, seconds, after - before)


def _cpu_seconds(children: Sequence[int]) -> float:
    """Processor time of this process and of others, so far; of others on Linux only."""
    ticks = 0
    for pid in children:
        if (status := Path(f"/proc/{pid}/stat")).exists():
            ticks += sum(map(int, status.read_text().rpartition(")")[2].split()[11:13]))
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def _training(config: Config, folder: Path, index: DataIndex) -> Callable[[], Run]:
    """One step of training, as ``wgpt train`` makes it, over and over on the same batch."""
    mesh = make_mesh(config.mesh)
    check_mesh_fits(config, mesh)
    optimizer = make_optimizer(config.optimizer, config.training.steps)
    graph, _ = abstract_model(config.model, mesh)
    abstract = abstract_state(config, optimizer, mesh)
    step = make_train_step(config, graph, optimizer, mesh, abstract)
    settings = dataclasses.replace(config.data, workers=0)
    reads_mel = config.model.inputs == "hybrid"
    batches = training_batches(folder, index, settings, config.training.batch, reads_mel=reads_mel)
    batch = to_devices(next(batches), mesh)
    batches.close()
    held = [init_state(config, optimizer, mesh, abstract)]

    def once() -> None:
        state, _ = step(held.pop(), batch)
        held.append(jax.block_until_ready(state))

    once()  # compiles
    return lambda: timed(config.training.batch * config.data.context, once)


def _random_data(folder: Path, config: Config) -> Path:
    """Writes a data set of full records that the configuration can train on."""
    rng, m, sources = np.random.default_rng(0), config.model, tuple(config.data.mel_mix)
    codebooks, file = max(_CODEBOOKS, m.output_codebooks), "train-00000.array_record"
    writer = ArrayRecordWriter(str(folder / file), WRITER_OPTIONS)
    for number in range(_RECORDS):
        tokens = rng.integers(m.vocabulary, size=(MAX_FRAMES, codebooks), dtype=np.int16)
        mel = rng.normal(size=(len(sources), MAX_FRAMES, m.mel_bands)).astype(np.float16)
        for record in pack_documents([Document(f"{number}", "audio", tokens, mel)]):
            writer.write(encode_record(record))
    writer.close()
    shard = ShardInfo(file, "train", file_sha256(folder / file), _RECORDS, _RECORDS, _RECORDS * MAX_FRAMES)
    index = DataIndex(
        clock=Clock(24_000, 320),
        codec=CodecInfo("random", "random", m.vocabulary, True),
        codebooks=codebooks,
        mel=MelConfig(bands=m.mel_bands),
        mel_sources=sources,
        shards=(shard,),
        domains=("audio",),
        failed=(),
        options={},
        tool_version="benchmark",
    )
    save_index(index, folder)
    return folder
