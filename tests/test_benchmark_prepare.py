"""The benchmark of preparation and reading: its command runs, and reports every part with the fields it promises."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wgpt_jax.benchmark.memory import peak_memory
from wgpt_jax.benchmark.signals import FORMATS, RATE, signal, write_formats
from wgpt_jax.benchmark.table import table
from wgpt_jax.benchmark.timing import Run, in_own_process, in_turn, ratio, speed
from wgpt_jax.errors import RequestError, WorkError

ROOT = Path(__file__).parents[1]
TINY = """
import sys
sys.path.insert(0, {tests!r})
from synthetic import tiny_config
config = tiny_config()
"""


def run(*flags) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "tools/benchmark_prepare.py"), *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def are_positive(values: dict, names: str) -> bool:
    return all(values[name] > 0 for name in names.split())


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> dict:
    """Of the real command on a given file, as small as it can be."""
    from audio_samples import save_codec, sound, write_audio  # here: the processes that tests start need no torch

    folder = tmp_path_factory.mktemp("benchmark")
    (folder / "tiny.py").write_text(TINY.format(tests=str(Path(__file__).parent)))
    write_audio(folder / "in/given.wav", sound(3.0, rate=16000), 16000)
    flags = ["--codec", save_codec(folder / "codec"), "--num-codebooks", 2, "--seconds", 2, "--rounds", 1]
    flags += ["--batch", 2, "--device", "cpu"]
    flags += ["--long-hours", 0.02, "--config", folder / "tiny.py", "--workers", 0, 1, "--train-batch", 2]
    done = run(folder / "in", *flags, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_stage_has_a_speed_and_a_ratio_to_tokens(report):
    stages = report["stages"]
    rows = {row["stage"]: row for row in stages["stages"]}
    assert set(rows) == {
        *(f"decode {name}" for name in FORMATS),
        *("inspect flac", "resample", "mel", "tokens, batch 1, cpu", "tokens, batch 2, cpu", "codec1 (decode, mel)"),
        *("write", "whole"),
    }
    assert stages["audio_seconds"] == 2 and stages["codebooks"] == 2
    for row in rows.values():
        assert are_positive(row, "x_realtime slowest fastest x_realtime_per_core time_over_tokens"), row
        assert row["slowest"] <= row["x_realtime"] <= row["fastest"]
    assert rows["tokens, batch 1, cpu"]["time_over_tokens"] == 1
    shares = [row["share_of_whole"] for row in rows.values() if row["share_of_whole"] is not None]
    assert len(shares) == 6 and sum(shares) + stages["rest_of_whole"] == pytest.approx(1)


def test_memory_is_told_of_a_short_and_a_long_file(report):
    short, long = report["memory"]["files"]
    assert (short["seconds"], long["seconds"]) == (60, 72)
    for file in (short, long):
        assert 0 < file["codec_loaded_bytes"] <= file["peak_bytes"]


def test_reading_is_compared_with_training(report):
    reading = report["reading"]
    assert [row["workers"] for row in reading["reading"]] == [0, 1]
    assert (reading["batch"], reading["context"], reading["train_batch"]) == (8, 32, 2)
    for row in reading["reading"]:
        assert are_positive(row, "median slowest fastest per_core over_training over_training_per_core"), row
    assert are_positive(reading["training"], "median slowest fastest per_core")


def test_machine_is_named_and_the_table_tells_every_part(report):
    assert are_positive(report["machine"], "cores") and report["machine"]["processor"]
    assert {"torch", "jax", "soundfile"} <= set(report["machine"]["packages"])
    text = table(report)
    assert report["machine"]["processor"] in text
    for told in ("decode opus", "of the whole", "1.2 minutes", "reading, 1 worker", "training"):
        assert told in text, told


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["nowhere"], "there is no nowhere"),
        (["--rounds", "0"], "--rounds and --batch are at least 1"),
    ],
)
def test_mistakes_end_in_one_sentence_and_2(flags, message):
    done = run(*flags)
    assert done.returncode == 2
    assert message in done.stderr and len(done.stderr.splitlines()) == 1


def test_formats_hold_the_signal(tmp_path):
    samples = signal(None, 2.0)
    assert len(samples) == 2 * RATE and np.abs(samples).max() <= 1
    for name, path in write_formats(tmp_path, samples).items():
        info = soundfile.info(path)
        assert (info.format, info.subtype) == tuple(FORMATS[name].values())
        assert info.duration == pytest.approx(2.0, abs=0.1)


def test_given_audio_is_cut_to_length_over_several_files(tmp_path):
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", np.full(RATE, 0.1 * (number + 1)), RATE)
    samples = signal(tmp_path, 1.5)
    assert len(samples) == 1.5 * RATE
    np.testing.assert_allclose(samples[[0, -1]], [0.1, 0.2], atol=1e-4)
    assert len(signal(tmp_path, 10.0)) == 3 * RATE
    (tmp_path / "0.wav").write_text("no audio")
    with pytest.raises(RequestError, match=r"cannot read .*0\.wav"):
        signal(tmp_path, 1.0)


def test_a_folder_without_audio_is_refused(tmp_path):
    with pytest.raises(RequestError, match="no audio in"):
        signal(tmp_path, 1.0)


def test_arms_take_turns_and_ratios_are_of_one_round():
    order = []

    def arm(name: str, seconds: list[float]):
        def once() -> Run:
            order.append(name)
            return Run(2.0, seconds[order.count(name) - 1], 0.5)

        return once

    # The second round is ten times slower for both: their ratio stays.
    runs = in_turn({"a": arm("a", [1.0, 10.0, 1.0]), "b": arm("b", [4.0, 40.0, 4.0])}, 3)
    assert order == ["a", "b"] * 3
    assert ratio(runs["b"], runs["a"]) == 4.0 and ratio(runs["b"], runs["a"], cpu=True) == 1.0
    found = speed(runs["a"])
    assert (found.median, found.slowest, found.fastest, found.per_core) == (2.0, 0.2, 2.0, 4.0)


def take(size: int) -> int:
    before, held = peak_memory(), np.ones(size, np.uint8)
    return peak_memory() - before + 0 * int(held[-1])


def test_peak_memory_grows_by_what_is_taken_and_is_each_process_its_own():
    here = np.ones(400 << 20, np.uint8)  # a child that counted its parent's peak would see no growth
    assert in_own_process(take, 200 << 20) == pytest.approx(200 << 20, rel=0.1)
    assert here[-1] == 1


def test_a_measuring_process_that_dies_is_one_sentence():
    with pytest.raises(WorkError, match="the measuring process died"):
        in_own_process(os._exit, 3)
