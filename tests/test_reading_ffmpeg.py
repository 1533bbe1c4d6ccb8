from pathlib import Path

import numpy as np
import pytest
from audio_samples import sound, write_audio
from reading_files import RATE, cut, draw, encode, put_ffmpeg_on_path, reason_for

from wgpt_jax.prepare.items import SourceError
from wgpt_jax.prepare.reading.decode import decode_audio
from wgpt_jax.prepare.reading.files import open_sound

FFMPEG_FORMATS = {
    "m4a": (),
    "aac": (),
    "mp4": (),
    "mov": (),
    "mkv": (),
    "webm": ("-ar", "48000"),
    "mka": (),
    "wma": (),
    "avi": (),
    "ac3": ("-ar", "48000"),
    "amr": ("-ar", "8000"),
}


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch):
    put_ffmpeg_on_path(tmp_path / "bin", monkeypatch)


@pytest.fixture
def no_ffmpeg(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))


@pytest.mark.parametrize("suffix", FFMPEG_FORMATS)
def test_every_format_that_needs_ffmpeg_is_decoded_by_it(suffix, ffmpeg, tmp_path):
    original = sound(2.0)
    path = write_audio(tmp_path / "- an odd, näme.wav", original, RATE)
    samples = decode_audio(encode(path, path.with_suffix(f".{suffix}"), *FFMPEG_FORMATS[suffix]), RATE)
    lag = np.correlate(samples[:30_000], original[4000:20_000]).argmax() - 4000
    assert abs(lag) < 3000, "some codecs add or lose up to 100 ms"
    assert np.corrcoef(samples[4000 + lag : 20_000 + lag], original[4000:20_000])[0, 1] > 0.85


def test_lossless_audio_in_a_container_comes_through_ffmpeg_bit_by_bit(ffmpeg, tmp_path):
    channels = np.stack([sound(0.7, seed=seed) for seed in range(8)], axis=1)
    path = write_audio(tmp_path / "x.wav", channels, RATE, subtype="FLOAT")
    with open_sound(encode(path, tmp_path / "x.mka", "-c:a", "copy")) as opened:
        assert (opened.rate, opened.channels) == (RATE, 8)
        np.testing.assert_array_equal(np.concatenate(list(opened.blocks)), channels)


def test_without_ffmpeg_its_formats_say_what_they_need(no_ffmpeg, tmp_path):
    (tmp_path / "x.M4A").write_bytes(b"\0\0\0\x20ftypM4A ")
    assert reason_for(tmp_path / "x.M4A") == "reading .m4a needs the ffmpeg program, which is not installed"


@pytest.mark.parametrize("kind", ["text", "cut", "cut webm", "cut avi", "cut aac", "video", "empty", "nan", "picture"])
def test_a_malformed_file_for_ffmpeg_has_its_reason(kind, ffmpeg, tmp_path, capfd):
    wav, path = write_audio(tmp_path / "a.wav", sound(20.0), RATE), tmp_path / "x.m4a"
    if kind == "text":
        path.write_text("no audio here\n" * 100)
        reason = "ffmpeg: "
    elif kind == "cut":
        cut(encode(wav, path, "-movflags", "+faststart"))
        reason = "ffmpeg: "
    elif kind.startswith("cut "):
        path = cut(encode(wav, tmp_path / f"x.{kind[4:]}"))
        reason = "truncated" if kind == "cut avi" else "ffmpeg: "
    elif kind == "video":
        draw(path, "-f", "mp4")
        reason = "no audio stream in it"
    elif kind == "picture":
        draw(path, "-frames:v", "1", "-f", "image2", "-c:v", "png")
        reason = "not recognised as audio|ffmpeg: "
    elif kind == "empty":
        path.touch()
        reason = "the file is empty"
    else:
        samples = sound(2.0)
        samples[30_000] = np.nan
        write_audio(wav, samples, RATE, subtype="FLOAT")
        path = encode(wav, tmp_path / "x.mka", "-c:a", "copy")
        reason = "non-finite samples .* at 1.25 seconds"
    with pytest.raises(SourceError, match=reason):
        decode_audio(path, RATE)
    reason_for(path)
    assert capfd.readouterr() == ("", "")


def test_a_playlist_under_another_name_opens_nothing_else(ffmpeg, tmp_path):
    write_audio(tmp_path / "secret.wav", sound(1.0), RATE)
    path = tmp_path / "x.m4a"
    path.write_text("ffconcat version 1.0\nfile secret.wav\n")
    assert reason_for(path) == "not recognised as audio"


def test_ffmpeg_ends_with_its_reader(ffmpeg, tmp_path):
    path = encode(write_audio(tmp_path / "x.wav", sound(60.0), RATE), tmp_path / "x.m4a")
    before = children()
    for stop in (lambda blocks: None, next, list):
        with open_sound(path) as opened:
            stop(opened.blocks)
    with pytest.raises(KeyboardInterrupt), open_sound(path):
        raise KeyboardInterrupt
    assert children() == before


def children():
    tasks = Path("/proc/self/task").iterdir()
    return sorted(pid for task in tasks for pid in (task / "children").read_text().split())
