"""The WAV file is right, and whole after every write; read by libsndfile."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wgpt_jax.audio.wav import WavWriter
from wgpt_jax.errors import RequestError, WorkError


def noise(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, n).astype(np.float32)


def test_samples_come_back_to_half_a_step(tmp_path):
    samples = noise(1000)
    with WavWriter(tmp_path / "new" / "folder" / "a.wav", 24_000) as wav:
        wav.write(samples[:300])
        wav.write(samples[300:])
    info = soundfile.info(tmp_path / "new" / "folder" / "a.wav")
    assert (info.samplerate, info.channels, info.subtype, info.format) == (24_000, 1, "PCM_16", "WAV")
    back, _ = soundfile.read(tmp_path / "new" / "folder" / "a.wav", dtype="float64")
    assert len(back) == 1000
    clipped = np.minimum(samples.astype(np.float64), 32767 / 32768)
    assert np.abs(back - clipped).max() <= 0.5 / 32768


def test_values_are_rounded_and_clipped(tmp_path):
    with WavWriter(tmp_path / "a.wav", 16_000) as wav:
        wav.write(np.array([0, 1, -1, 7.5, -1e38, 0.6 / 32768, -0.6 / 32768, 0.4 / 32768, -2.4 / 32768]))
    back, _ = soundfile.read(tmp_path / "a.wav", dtype="int16")
    assert back.tolist() == [0, 32767, -32768, 32767, -32768, 1, -1, 0, -2]


def test_the_file_is_whole_while_it_grows(tmp_path):
    path, samples = tmp_path / "a.wav", noise(3200)
    with WavWriter(path, 24_000) as wav:
        assert soundfile.info(path).frames == 0
        for end in range(320, 3201, 320):
            wav.write(samples[end - 320 : end])
            assert path.stat().st_size == 44 + 2 * end
            back, rate = soundfile.read(path)
            assert rate == 24_000
            np.testing.assert_allclose(back, samples[:end], atol=1 / 32768)
        grown = path.read_bytes()
    assert path.read_bytes() == grown


def test_an_interrupt_leaves_what_was_written(tmp_path):
    with pytest.raises(KeyboardInterrupt), WavWriter(tmp_path / "a.wav", 24_000) as wav:
        wav.write(noise(640))
        raise KeyboardInterrupt
    assert soundfile.info(tmp_path / "a.wav").frames == 640


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_non_finite_samples_are_refused_and_what_was_written_stays(tmp_path, wrong):
    samples = noise(24_000)
    samples[12_000] = wrong
    with WavWriter(tmp_path / "a.wav", 24_000) as wav:
        wav.write(noise(24_000))
        with pytest.raises(WorkError, match=r"non-finite samples .* at 1.50 seconds of .*a.wav"):
            wav.write(samples)
    assert soundfile.info(tmp_path / "a.wav").frames == 24_000


def test_a_path_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "a.wav", "/proc/a.wav"):
        with pytest.raises(RequestError, match=r"^cannot write "):
            WavWriter(path, 24_000)


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="needs a path to a pipe")
def test_a_pipe_is_refused():
    read, write = os.pipe()
    with pytest.raises(RequestError, match=r"^cannot write /dev/fd/\d+: .*seek"):
        WavWriter(f"/dev/fd/{write}", 24_000)
    os.close(read)
    os.close(write)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_sentence():
    with pytest.raises(WorkError, match=r"^cannot write /dev/full: No space left on device"):
        WavWriter("/dev/full", 24_000)


def test_a_file_past_the_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("wgpt_jax.audio.wav._LARGEST", 2 * 700)
    with WavWriter(tmp_path / "a.wav", 24_000) as wav:
        wav.write(noise(640))
        with pytest.raises(WorkError, match="4 GiB"):
            wav.write(noise(61))
        wav.write(noise(60))
    assert soundfile.info(tmp_path / "a.wav").frames == 700
