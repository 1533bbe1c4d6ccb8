"""Damaged audio files, thousands of them, become finite samples or a reason; a crash ends one process of one file."""

import collections
import json
import re
import select
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from audio_samples import sound, write_audio
from reading_files import FORMATS, RATE, encode, put_ffmpeg_on_path

from wgpt_jax.data.index import load_index, load_inputs
from wgpt_jax.prepare.main import main
from wgpt_jax.prepare.shards import read_records

PATIENCE = 60.0  # seconds without an answer that count as a hang
MOST_MEMORY = 400 * 1024  # KiB that a decoding process may come to
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

DECODER = """
    import json, re, sys
    from pathlib import Path
    import numpy as np
    from wgpt_jax.prepare.items import SourceError
    from wgpt_jax.prepare.reading.files import open_sound
    from wgpt_jax.prepare.reading.mono import mono_blocks, resampled

    for line in sys.stdin:
        answer = {"samples": 0, "finite": True}
        try:
            with open_sound(Path(line.rstrip("\\n"))) as sound:
                for block in resampled(mono_blocks(sound, None), sound.rate, 24000):
                    answer["samples"] += len(block)
                    answer["finite"] &= bool(np.isfinite(block).all())
        except SourceError as error:
            answer = {"reason": str(error)}
        answer["kib"] = int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
        print(json.dumps(answer), flush=True)
"""


class Decoder:
    """A process that decodes the files it is sent; a new one after a crash or a hang."""

    def __init__(self, errors: Path):
        self.errors, self.process = errors, None

    def decode(self, path: Path) -> dict:
        if self.process is None:
            command = [sys.executable, "-c", textwrap.dedent(DECODER)]
            with self.errors.open("a") as errors:
                self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        self.process.stdin.write(f"{path}\n".encode())
        self.process.stdin.flush()
        answered, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        if answered and (answer := self.process.stdout.readline()):
            return json.loads(answer)
        return {"crash": self.end()} if answered else {"hang": self.end()}

    def end(self) -> int:
        """The exit status; negative after a signal."""
        process, self.process = self.process, None
        process.stdin.close()
        try:
            return process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
        finally:
            process.stdout.close()


def originals(folder: Path) -> dict[str, bytes]:
    """Whole files of one to three seconds, by name."""
    stereo = np.stack([sound(1.0), sound(1.0, seed=1)], axis=1)
    write_audio(folder / "pcm16.wav", sound(1.0), RATE, subtype="PCM_16")
    write_audio(folder / "pcm24.wav", stereo, RATE, subtype="PCM_24")
    write_audio(folder / "float.wav", sound(1.0), RATE, subtype="FLOAT")
    write_audio(folder / "adpcm.wav", sound(1.0), RATE, subtype="MS_ADPCM")
    for suffix in ("flac", "ogg", "opus", "mp3", "aiff", "caf", "w64"):
        write_audio(
            folder / f"x.{suffix}", stereo if suffix in ("flac", "ogg") else sound(3.0), RATE, **FORMATS[suffix]
        )
    for name in ("x.m4a", "x.webm", "x.aac", "x.wma"):
        encode(folder / "pcm16.wav", folder / name, *(("-ar", "48000") if name == "x.webm" else ()))
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def mutate(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """One to three damages: of bits, fields of the header, ranges, the end, the order."""
    for _ in range(rng.integers(1, 4)):
        changed, size = bytearray(data), len(data)
        at = int(rng.integers(size))
        length = int(rng.integers(1, max(size // 4, 2)))
        kind = rng.choice(["flips", "header", "header", "cut", "zeros", "repeat", "remove", "insert", "splice"])
        if kind == "flips":
            for bit in rng.integers(8 * size, size=rng.integers(1, 30)):
                changed[bit // 8] ^= 1 << (bit % 8)
        elif kind == "header":
            width, order = int(rng.choice([1, 2, 4, 8])), str(rng.choice(["little", "big"]))
            value = rng.choice(EXTREMES) if rng.random() < 0.7 else rng.integers(1 << 32)
            at = int(rng.integers(min(size, 200)))
            changed[at : at + width] = (int(value) % (1 << 8 * width)).to_bytes(width, order)
        elif kind == "cut":
            del changed[at:]
        elif kind == "zeros":
            changed[at : at + length] = bytes(len(changed[at : at + length]))
        elif kind == "repeat":
            changed[at:at] = changed[at : at + length]
        elif kind == "remove":
            del changed[at : at + length]
        elif kind == "insert":
            changed[at:at] = rng.bytes(length)
        else:
            changed[at:] = other[int(rng.integers(len(other))) :]
        data = bytes(changed) or data[:1]
    return data


@pytest.mark.parametrize(("first", "count"), [(0, 60), pytest.param(60, 2000, marks=pytest.mark.slow)])
def test_damaged_files_become_finite_samples_or_a_reason(first, count, tmp_path, monkeypatch):
    put_ffmpeg_on_path(tmp_path / "bin", monkeypatch)
    (tmp_path / "whole").mkdir()
    whole = originals(tmp_path / "whole")
    names, decoder = list(whole), Decoder(tmp_path / "errors")
    for name in names:
        answer = decoder.decode(tmp_path / "whole" / name)
        assert answer.get("samples", 0) > 0.9 * RATE, f"{name} before it was damaged: {answer}"

    outcomes, reasons, ended = collections.Counter(), collections.Counter(), []
    for seed in range(first, first + count):
        rng, name = np.random.default_rng(seed), names[seed % len(names)]
        path = tmp_path / f"damaged{Path(name).suffix}"
        path.write_bytes(mutate(rng, whole[name], whole[str(rng.choice(names))]))
        answer = decoder.decode(path)
        where = f"mutation {seed} of {name}: {answer}"
        if "reason" in answer:
            outcomes["reason"] += 1
            reasons[re.sub(r"-?[0-9][0-9a-fx.e+]*", "#", answer["reason"])] += 1
            assert answer["reason"] and len(answer["reason"]) < 250 and "\n" not in answer["reason"], where
            assert str(tmp_path) not in answer["reason"], where
        elif "samples" in answer:
            outcomes["samples"] += 1
            assert answer["finite"], where
        else:
            outcomes["crash" if "crash" in answer else "hang"] += 1
            ended.append(where)
            assert answer.get("crash", -1) < 0, f"{where}\n{(tmp_path / 'errors').read_text()}"
        assert answer.get("kib", 0) < MOST_MEMORY, where
    assert decoder.process is None or decoder.end() == 0
    print(outcomes, *ended, *(f"{times:5} {reason}" for reason, times in reasons.most_common()), sep="\n")
    assert outcomes["reason"] > 0.2 * count and outcomes["samples"] > 0.1 * count
    assert len(ended) <= 0.01 * count, "the C libraries may crash, but seldom"
    assert (tmp_path / "errors").read_text() == "", "nothing may be written to the terminal"


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_folder_of_damaged_files_becomes_finite_records_and_a_line_for_each(
    count, codec_folder, tmp_path, monkeypatch
):
    put_ffmpeg_on_path(tmp_path / "bin", monkeypatch)
    (tmp_path / "whole").mkdir()
    (tmp_path / "damaged").mkdir()
    whole = originals(tmp_path / "whole")
    names = list(whole)
    for seed in range(count):
        rng, name = np.random.default_rng(seed), names[seed % len(names)]
        path = tmp_path / "damaged" / f"{seed}{Path(name).suffix}"
        path.write_bytes(mutate(rng, whole[name], whole[str(rng.choice(names))]))
    arguments = [str(tmp_path / "damaged"), str(tmp_path / "out"), "--codec", str(codec_folder), "--workers", "1"]
    assert main(arguments) == 0
    inputs = load_inputs(tmp_path / "out")
    assert sorted(row["path"] for row in inputs) == sorted(path.name for path in (tmp_path / "damaged").iterdir())
    assert all(row["fate"] == "used" or row["reason"] for row in inputs)
    frames = 0
    for shard in load_index(tmp_path / "out").shards:
        for record in read_records(tmp_path / "out" / shard.file):
            assert np.isfinite(record.mel).all() and record.tokens.min() >= 0 and record.tokens.max() < 64
            frames += len(record.tokens)
    assert frames >= sum(row["frames"] for row in inputs if row["fate"] == "used") > 0
