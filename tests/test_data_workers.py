"""Data workers end with the process they read for; a dead one and a damaged shard are told apart and named."""

import dataclasses
import errno
import itertools
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from synthetic import BANDS, CODEBOOKS, markov_dataset

from wgpt_jax.config import DataConfig
from wgpt_jax.data import shards
from wgpt_jax.data.batch import Batch
from wgpt_jax.data.index import DataIndex, ShardInfo, file_sha256, load_index, save_index
from wgpt_jax.data.pipeline import TrainingBatches, describe_damage, evaluation_batches, training_batches
from wgpt_jax.data.records import WRITER_OPTIONS, encode_record
from wgpt_jax.data.shards import SplitRecords
from wgpt_jax.errors import WorkError

PATIENCE = 120  # seconds
ROWS = 4
MARK = "WGPT_TEST_MARK"
READER = """
import itertools, sys, time
from wgpt_jax.config import DataConfig
from wgpt_jax.data.index import load_index
from wgpt_jax.data.pipeline import training_batches

if __name__ == "__main__":
    folder, context, rows, rest_after = sys.argv[1], *map(int, sys.argv[2:])
    batches = training_batches(folder, load_index(folder), DataConfig(context=context, workers=2), rows)
    for n in itertools.count():
        if n == 20:
            print("reading", flush=True)
        if n == rest_after:
            time.sleep(3600)
        next(batches)
"""


def write_shards(folder: Path, contents: list[list[bytes]]) -> DataIndex:
    """Replaces the training split of a synthetic data set by shards of these records."""
    index = markov_dataset(folder, train=1, validation=1)
    made = []
    for number, records in enumerate(contents):
        path = folder / f"train-{number:05}.array_record"
        writer = ArrayRecordWriter(str(path), WRITER_OPTIONS)
        for record in records:
            writer.write(record)
        writer.close()
        made.append(ShardInfo(path.name, "train", file_sha256(path), len(records), len(records), 100 * len(records)))
    index = dataclasses.replace(index, shards=(*made, *index.split("validation")))
    save_index(index, folder)
    return index


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> list[bytes]:
    """Thirty records."""
    folder = tmp_path_factory.mktemp("records")
    stored = SplitRecords(folder, markov_dataset(folder, train=30, frames=(100, 120), max_frames=120), "train")
    return [encode_record(stored[key]) for key in range(30)]


@pytest.fixture
def data(records, tmp_path) -> Path:
    """Three shards of ten records each."""
    write_shards(tmp_path / "data", [records[:10], records[10:20], records[20:]])
    return tmp_path / "data"


@pytest.fixture
def hashed(monkeypatch) -> list[str]:
    """Names of the files that are hashed."""
    names = []

    def listening(path):
        names.append(Path(path).name)
        return file_sha256(path)

    monkeypatch.setattr(shards, "file_sha256", listening)
    return names


@pytest.fixture
def read(request) -> Callable[..., TrainingBatches]:
    """Makes iterators that are closed at the test's end."""

    def make(folder: Path, workers: int, context: int = 16) -> TrainingBatches:
        batches = training_batches(folder, load_index(folder), DataConfig(context=context, workers=workers), ROWS)
        request.addfinalizer(batches.close)
        return batches

    return make


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def processes(mark: str) -> dict[int, str]:
    """Command lines of the processes with a mark in their environment."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:  # it has just ended, or is another user's
            continue
    return found


def workers_of(mark: str) -> list[int]:
    return [pid for pid, line in processes(mark).items() if "spawn_main" in line]


def segments(context: int) -> set[Path]:
    """Shared memory of the sizes that batches of this context have."""
    shapes = {
        "tokens": 2 * CODEBOOKS * (context + 1),
        "mel": 2 * BANDS * (context + 1),
        "ids": 4 * context,
        "starts": context,
    }
    sizes = {ROWS * size for size in shapes.values()}
    found = set()
    for path in Path("/dev/shm").glob("psm_*"):
        try:
            if path.stat().st_size in sizes:
                found.add(path)
        except FileNotFoundError:
            continue
    return found


def comes_to_rest(context: int) -> bool:
    """Whether no batch is made in a while: the queues are full."""
    before = segments(context)
    time.sleep(3)
    return bool(before) and segments(context) == before


def equal(first: Batch, second: Batch) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def damage(path: Path) -> bytes:
    """Turns bytes of its first two records over; returns what was there."""
    whole = path.read_bytes()
    middle = slice(300, 3000)
    path.write_bytes(whole[: middle.start] + bytes(255 ^ byte for byte in whole[middle]) + whole[middle.stop :])
    return whole


@pytest.mark.parametrize("moment", ["starting", "reading", "resting"])
def test_workers_and_their_memory_do_not_outlive_a_killed_process(data, tmp_path, moment):
    # The context is this test's own, so that its shared memory can be told by size from that of other tests.
    context = 1009 + 2 * ["starting", "reading", "resting"].index(moment)
    mark, script = uuid.uuid4().hex, tmp_path / "reader.py"
    script.write_text(READER)
    rest_after = 21 if moment == "resting" else -1
    process = subprocess.Popen(
        [sys.executable, script, data, *map(str, (context, ROWS, rest_after))],
        env={**os.environ, MARK: mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        if moment == "starting":
            until(lambda: workers_of(mark), "no worker came")
            assert not segments(context), "nothing is read yet"
        else:
            assert process.stdout.readline() == b"reading\n"
            assert len(workers_of(mark)) == 2
        if moment == "resting":
            until(lambda: comes_to_rest(context), "the queues do not fill")
    finally:
        process.kill()
        process.wait()
    until(lambda: not processes(mark), "a worker lives on")
    assert not segments(context)


def test_a_batch_that_is_kept_holds_no_shared_memory(data, read):
    context = 1015
    batches = read(data, 2, context)
    kept = [next(batches) for _ in range(3)]
    assert segments(context), "there are some while workers read ahead"
    batches.close()
    until(lambda: not segments(context), "shared memory is held")
    assert all(map(equal, kept, read(data, 0, context)))


@pytest.fixture
def config(tmp_path) -> Path:
    """A run of many steps."""
    file = tmp_path / "long.py"
    file.write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom synthetic import tiny_config\n"
        "config = tiny_config(training={'steps': 100_000, 'eval_every': 0})\n"
    )
    return file


def test_a_killed_worker_ends_training_with_its_exit_code_and_the_remedy(data, config, tmp_path):
    mark, metrics = uuid.uuid4().hex, tmp_path / "run/metrics.jsonl"
    line = ["train", config, "--data", data, "--workdir", tmp_path / "run", "--data.workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "wgpt_jax.cli", *map(str, line)],
        env={**os.environ, MARK: mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: (metrics.exists() and metrics.read_text()) or process.poll() is not None, "no step was logged")
        for pid in workers_of(mark):
            os.kill(pid, signal.SIGKILL)
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 1, err
    assert "error: a data worker died with exit code -9 (killed, most often because memory ran out); " in err
    assert "fewer --data.workers, or 0 for threads" in err
    assert "Traceback" not in out + err


def test_the_position_stays_before_a_batch_whose_worker_was_killed(data, read, hashed):
    expected = list(itertools.islice(read(data, 0), 60))
    others = set(multiprocessing.active_children())
    batches = read(data, 1)
    delivered = [next(batches)]
    (worker,) = set(multiprocessing.active_children()) - others
    worker.kill()
    with pytest.raises(RuntimeError) as death:
        for batch in itertools.islice(batches, 50):  # what is in the queue still comes
            delivered.append(batch)
    assert batches.get_state() == {"global_next_index": ROWS * len(delivered)}
    sentence = describe_damage(data, load_index(data), "train", death.value)
    assert sentence.startswith("a data worker died with exit code -9")
    assert not hashed, "the data are not to blame"
    delivered += [next(batches) for _ in range(3)]
    assert all(map(equal, delivered, expected)), "the batch that did not come is read again"


@pytest.mark.parametrize(
    ("code", "cause"), [(-7, r"/dev/shm is full; .* --shm-size"), (-11, "last lines"), (1, "last lines")]
)
def test_other_deaths_of_workers_are_not_blamed_on_memory(data, hashed, code, cause):
    error = RuntimeError(f"Worker process was terminated unexpectedly with exit code {code}. Search the logs above")
    sentence = describe_damage(data, load_index(data), "train", error)
    assert sentence.startswith(f"a data worker died with exit code {code} (")
    assert re.search(cause, sentence)
    assert "memory" not in sentence and not hashed


def test_a_full_dev_shm_is_not_blamed_on_the_shards(data, hashed):
    """What making a worker's queue raises then."""
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    told = describe_damage(data, load_index(data), "train", error)
    assert told == f"cannot read the train shards in {data}: [Errno 28] No space left on device"
    assert not hashed


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_shard_is_named_and_no_other_is_hashed(data, read, hashed, workers):
    expected = list(itertools.islice(read(data, 0), 60))
    shard = load_index(data).split("train")[1]
    whole = damage(data / shard.file)
    batches, delivered = read(data, workers), []
    with pytest.raises(RuntimeError) as error:
        for batch in itertools.islice(batches, 30):
            delivered.append(batch)
    assert batches.get_state() == {"global_next_index": ROWS * len(delivered)}
    sentence = describe_damage(data, load_index(data), "train", error.value)
    assert sentence.startswith(f"shard {data / shard.file} is damaged (its sha256 is not {shard.sha256}); run the same")
    assert "tools/prepare_audio.py" in sentence
    assert hashed == [shard.file]

    (data / shard.file).write_bytes(whole)
    resumed = read(data, 2 - workers)
    resumed.set_state(batches.get_state())
    delivered += [next(resumed) for _ in range(3)]
    assert all(map(equal, delivered, expected)), "no batch is lost or comes twice"


def test_training_with_workers_on_a_damaged_shard_ends_in_a_sentence(data, config, tmp_path):
    path = data / "train-00002.array_record"
    damage(path)
    line = ["train", config, "--data", data, "--workdir", tmp_path / "run", "--data.workers", "1"]
    process = subprocess.run([sys.executable, "-m", "wgpt_jax.cli", *map(str, line)], capture_output=True, text=True)
    assert process.returncode == 1, process.stderr
    assert f"error: shard {path} is damaged" in process.stderr
    assert "Traceback" not in process.stderr


def of_another_schema(records: list[bytes]) -> list[bytes]:
    """The same, one of them of an older schema."""
    old = records[3].replace(b"\xa1v\x02", b"\xa1v\x01")
    assert old != records[3]
    return [*records[:3], old, *records[4:]]


def failure(batches: TrainingBatches) -> Exception:
    """What reading ends with, also when asked once more."""
    with pytest.raises(RuntimeError):
        list(itertools.islice(batches, 30))
    position = batches.get_state()
    with pytest.raises(RuntimeError) as again:
        next(batches)
    assert batches.get_state() == position
    return again.value


@pytest.mark.parametrize("workers", [0, 1])
def test_a_record_that_is_none_is_named_by_its_shard(records, tmp_path, read, hashed, workers):
    """Its bytes come whole from the file, so that only decoding them fails."""
    data = tmp_path / "data"
    index = write_shards(data, [records[:10], of_another_schema(records[10:20]), records[20:]])
    path, sentence = data / "train-00001.array_record", "record of schema 1, this version reads 2; prepare the data"
    told = describe_damage(data, index, "train", failure(read(data, workers)))
    assert f"{path}: {sentence}" in told and "is damaged" not in told, "it is what was written"
    assert hashed == [path.name]
    with pytest.raises(WorkError, match=f"{path}: {sentence}"):
        list(evaluation_batches(data, index, "train", 16, ROWS))

    written = dataclasses.replace(index.shards[1], sha256="0" * 64)
    index = dataclasses.replace(index, shards=(index.shards[0], written, *index.shards[2:]))
    told = describe_damage(data, index, "train", failure(read(data, workers)))
    assert told.startswith(f"shard {path} is damaged (its sha256 is not {'0' * 64})")


@pytest.mark.parametrize("long", [False, True])
def test_the_shard_that_an_error_does_not_name_is_looked_for_and_long_searches_are_announced(
    data, hashed, monkeypatch, capsys, long
):
    index = load_index(data)
    shard = index.split("train")[2]
    size = sum((data / each.file).stat().st_size for each in index.split("train"))
    monkeypatch.setattr(shards, "_SEARCH_IS_LONG", size - 1 if long else size)
    assert describe_damage(data, index, "train", RuntimeError("no idea")) == (
        f"cannot read the train shards in {data}: no idea"
    )
    assert hashed == [each.file for each in index.split("train")]
    announced = f"looking for the damaged shard: hashing 3 files, {size / 1e9:.1f} GB\n"
    assert capsys.readouterr().err == (announced if long else "")

    hashed.clear()
    os.truncate(data / shard.file, (data / shard.file).stat().st_size // 2)
    told = describe_damage(data, index, "train", RuntimeError("no idea"))
    assert told.startswith(f"shard {data / shard.file} is damaged")
    assert hashed == [shard.file], "what does not open is suspected first"
    with pytest.raises(WorkError, match=f"shard {data / shard.file} is damaged"):
        training_batches(data, index, DataConfig(context=16), ROWS)


def test_a_shard_of_too_few_records_is_named_before_anything_is_read(data, records, hashed):
    index = load_index(data)
    write_shards(data, [records[:10], records[10:19], records[20:]])
    path = data / "train-00001.array_record"
    with pytest.raises(WorkError, match=f"shard {path} holds 9 records, the index says 10; run the same tools/prepare"):
        training_batches(data, index, DataConfig(context=16), ROWS)
    assert not hashed
