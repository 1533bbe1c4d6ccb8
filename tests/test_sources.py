import numpy as np
import pytest
import soxr
from audio_samples import sound, write_audio

from wgpt_jax.prepare.sources import SourceError, decode_audio, find_audio, probe_seconds

RATE = 24000
FORMATS = {
    "wav": {"subtype": "FLOAT"},
    "flac": {},
    "aiff": {},
    "ogg": {"format": "OGG", "subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {"format": "MP3", "subtype": "MPEG_LAYER_III"},
}


def test_audio_is_found_everywhere_but_in_hidden_places_and_in_order(tmp_path):
    for name in ("b/2.flac", "b/10.WAV", "a.mp3", "c/d/e.opus", "c/song.m4a", "c/notes.txt", ".x.wav", ".git/y.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "c" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert find_audio(tmp_path) == ["a.mp3", "b/10.WAV", "b/2.flac", "c/d/e.opus", "c/song.m4a"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_is_decoded(suffix, tmp_path):
    original = sound(1.0, rate=48000)
    path = write_audio(tmp_path / f"x.{suffix}", original, 48000, **FORMATS[suffix])
    samples = decode_audio(path, RATE)
    assert samples.dtype == np.float32 and len(samples) == pytest.approx(RATE, abs=1200)
    assert probe_seconds(path) == pytest.approx(len(samples) / RATE, abs=1e-3)
    expected = soxr.resample(original, 48000, RATE)
    shared = slice(2400, 21600)
    assert np.corrcoef(samples[shared], expected[shared])[0, 1] > 0.95


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 24000, 44100, 48000])
@pytest.mark.parametrize("count", [1, 1000, 200_001])
def test_blocks_resample_as_one_call_and_keep_the_duration(rate, count, tmp_path):
    original = np.random.default_rng(0).uniform(-0.5, 0.5, count).astype(np.float32)
    samples = decode_audio(write_audio(tmp_path / "x.wav", original, rate, subtype="FLOAT"), RATE)
    assert len(samples) == int(count * RATE / rate + 0.5)
    np.testing.assert_array_equal(samples, soxr.resample(original, rate, RATE, quality="HQ"))


def test_channels_are_averaged(tmp_path):
    channels = np.stack([sound(0.2, seed=seed) for seed in range(8)], axis=1)
    samples = decode_audio(write_audio(tmp_path / "x.wav", channels, RATE, subtype="FLOAT"), RATE)
    np.testing.assert_allclose(samples, channels.mean(axis=1), atol=1e-7)


def make_bad(folder, kind):
    """One malformed file, and what must be said about it."""
    good = sound(2.0)
    if kind == "zero bytes":
        (folder / "x.wav").write_bytes(b"")
        return "x.wav", "file is empty"
    if kind == "text":
        (folder / "x.mp3").write_text("no audio here\n" * 100)
        return "x.mp3", "not recognised"
    if kind == "no samples":
        write_audio(folder / "x.wav", good[:0], RATE)
        return "x.wav", "no samples"
    if kind == "nan":
        good[30_000] = np.nan
        write_audio(folder / "x.wav", good, RATE, subtype="FLOAT")
        return "x.wav", "non-finite samples .* at 1.25 seconds"
    if kind == "infinity":
        good[-1] = -np.inf
        write_audio(folder / "x.wav", good, RATE, subtype="FLOAT")
        return "x.wav", "non-finite"
    if kind == "integers as floats":
        write_audio(folder / "x.wav", good * 32768, RATE, subtype="FLOAT")
        return "x.wav", "full scale is 1"
    if kind in ("truncated mp3", "truncated flac"):
        suffix = kind.split()[1]
        path = write_audio(folder / f"x.{suffix}", good, RATE, **FORMATS[suffix])
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return path.name, "truncated: .* of 2.00 seconds" if suffix == "mp3" else "lost sync|truncated"
    if kind == "damaged flac":
        path = write_audio(folder / "x.flac", good, RATE)
        data = bytearray(path.read_bytes())
        data[len(data) // 2 : len(data) // 2 + 4000] = bytes(4000)
        path.write_bytes(data)
        return "x.flac", "lost sync|flac|truncated"
    if kind == "header only":
        path = write_audio(folder / "x.wav", good, RATE)
        path.write_bytes(path.read_bytes()[:20])
        return "x.wav", "."
    if kind == "m4a":
        (folder / "x.m4a").write_bytes(b"\0\0\0\x20ftypM4A ")
        return "x.m4a", "convert it with ffmpeg"
    if kind == "folder":
        (folder / "x.wav").mkdir()
        return "x.wav", "no such file"
    if kind == "name":
        path = write_audio(folder / "x.wav", good, RATE)
        path.rename(folder / "\udcff.wav")
        return "\udcff.wav", "UTF-8"
    return "gone.wav", "no such file"


@pytest.mark.parametrize(
    "kind",
    [
        *("zero bytes", "text", "no samples", "nan", "infinity", "integers as floats", "truncated mp3"),
        *("truncated flac", "damaged flac", "header only", "m4a", "folder", "name", "missing"),
    ],
)
def test_a_malformed_file_has_its_reason(kind, tmp_path, capfd):
    name, reason = make_bad(tmp_path, kind)
    with pytest.raises(SourceError, match=reason):
        decode_audio(tmp_path / name, RATE)
    assert probe_seconds(tmp_path / name) >= 0.0
    assert capfd.readouterr() == ("", ""), "libraries must not write to the terminal"


def test_an_mp3_without_a_length_is_not_taken_for_truncated(tmp_path):
    """Its first frames are silent and small, so the length guessed from them is far too long."""
    samples = np.concatenate([np.zeros(4 * RATE, np.float32), sound(4.0) + 0.2 * sound(4.0, seed=5)])
    path = write_audio(tmp_path / "x.mp3", samples, RATE, **FORMATS["mp3"], bitrate_mode="VARIABLE")
    data = path.read_bytes()
    assert b"Xing" in data[:512]
    second_frame = data.index(data[:2], 4)
    path.write_bytes(b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128) + data[second_frame:])
    assert len(decode_audio(path, RATE)) == pytest.approx(len(samples), rel=0.02)
