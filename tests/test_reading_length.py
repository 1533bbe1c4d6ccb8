import os
import struct
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import soundfile
from audio_samples import sound, write_audio
from reading_files import FORMATS, RATE, encode, put_ffmpeg_on_path, reason_for

from wgpt_jax.prepare.reading.decode import decode_audio


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch):
    put_ffmpeg_on_path(tmp_path / "bin", monkeypatch)


@pytest.fixture
def no_ffmpeg(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))


def test_a_wav_that_a_pipe_wrote_does_not_count_as_truncated(tmp_path):
    path = write_audio(tmp_path / "x.wav", sound(1.0), RATE)
    data = bytearray(path.read_bytes())
    for size in (0xFFFFFFFF, 0x7FFFF000, 0x80000000):
        data[40:44] = struct.pack("<I", size)
        path.write_bytes(data)
        assert len(decode_audio(path, RATE)) == RATE


def test_a_flac_that_a_pipe_wrote_is_read_to_its_end(tmp_path):
    path = write_audio(tmp_path / "x.flac", sound(3.0), RATE)
    whole = decode_audio(path, RATE)
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # 36 bits of the number of samples: 0 is unknown
    data[22:26] = bytes(4)
    path.write_bytes(data)
    np.testing.assert_array_equal(decode_audio(path, RATE), whole)
    np.testing.assert_array_equal(decode_audio(path, RATE, start=1.0, end=2.0), whole[RATE : 2 * RATE])


def mp3_without_length(path, loud_first):
    """Its length is guessed from the first frame, which is small in silence and large in sound."""
    silence, loud = np.zeros(4 * RATE, np.float32), sound(4.0) + 0.2 * sound(4.0, seed=5)
    samples = np.concatenate([loud, silence] if loud_first else [silence, loud])
    write_audio(path, samples, RATE, **FORMATS["mp3"], bitrate_mode="VARIABLE")
    data = path.read_bytes()
    assert b"Xing" in data[:512]
    second_frame = data.index(data[:2], 4)
    path.write_bytes(b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128) + data[second_frame:])
    return samples


def test_an_mp3_without_a_length_is_not_taken_for_truncated(no_ffmpeg, tmp_path):
    samples = mp3_without_length(tmp_path / "x.mp3", loud_first=False)
    assert len(decode_audio(tmp_path / "x.mp3", RATE)) == pytest.approx(len(samples), rel=0.02)


def test_an_mp3_without_a_length_is_not_cut_where_the_guess_ends(ffmpeg, tmp_path, monkeypatch):
    samples = mp3_without_length(tmp_path / "x.mp3", loud_first=True)
    assert soundfile.info(tmp_path / "x.mp3").frames < 0.5 * len(samples)
    assert len(decode_audio(tmp_path / "x.mp3", RATE)) == pytest.approx(len(samples), rel=0.02)
    monkeypatch.setenv("PATH", str(tmp_path))
    reason = reason_for(tmp_path / "x.mp3")
    assert "does not state its length" in reason and "of 8." in reason and "ffmpeg" in reason


@pytest.mark.parametrize("suffix", ["ogg", "opus", "mp3"])
def test_recordings_joined_in_one_file_are_read_to_the_end(suffix, ffmpeg, tmp_path, monkeypatch):
    path = write_audio(tmp_path / f"x.{suffix}", sound(3.0), RATE, **FORMATS[suffix])
    path.write_bytes(2 * path.read_bytes())
    assert soundfile.info(path).frames < 3.2 * RATE, "libsndfile knows of the first"
    samples = decode_audio(path, RATE)
    assert len(samples) == pytest.approx(6 * RATE, rel=0.05)
    again = samples[len(samples) // 2 :]
    assert np.correlate(again[:30_000], sound(3.0)[4000:20_000]).max() > 0.8 * (sound(3.0)[4000:20_000] ** 2).sum()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "one after another" in reason_for(path)


PEAK_MEMORY = """
    import re, sys
    from pathlib import Path
    from wgpt_jax.prepare.reading.files import open_sound
    from wgpt_jax.prepare.reading.mono import mono_blocks, resampled

    with open_sound(Path(sys.argv[1])) as sound:
        count = sum(map(len, resampled(mono_blocks(sound, None), sound.rate, 24000)))
    print(count, re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def peak_memory(path, seconds):
    """KiB that a process of its own needs to read all blocks of a file; what it reads must last ``seconds``."""
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PEAK_MEMORY), path], capture_output=True, text=True, check=True
    )
    count, kib = map(int, run.stdout.split())
    assert count == pytest.approx(seconds * 24000, abs=2400)
    return kib


def write_long(path, seconds):
    """A silent file at 8 kHz; a WAV takes no room on the disk."""
    count = seconds * 8000
    if path.suffix == ".wav":
        kind = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 8000, 16000, 2, 16)
        header = (
            struct.pack("<4sI4s", b"RIFF", 36 + 2 * count, b"WAVE") + kind + struct.pack("<4sI", b"data", 2 * count)
        )
        path.write_bytes(header)
        os.truncate(path, len(header) + 2 * count)
    elif path.suffix == ".mka":
        encode(write_long(path.with_suffix(".wav"), seconds), path, "-c:a", "copy")
    else:
        with soundfile.SoundFile(path, "w", 8000, 1) as file:
            for _ in range(seconds):
                file.write(np.zeros(8000, np.int16))
    return path


LONGER = [pytest.param("wav", 10, marks=pytest.mark.slow), pytest.param("mka", 10, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("suffix", "hours"), [("wav", 2), ("flac", 1), *LONGER])
def test_a_long_file_needs_no_more_memory_than_a_short_one(suffix, hours, ffmpeg, tmp_path):
    short = peak_memory(write_long(tmp_path / f"short.{suffix}", 600), 600)
    long = peak_memory(write_long(tmp_path / f"long.{suffix}", hours * 3600), hours * 3600)
    assert long < short + 8 * 1024, f"{long} KiB after {short} KiB"
