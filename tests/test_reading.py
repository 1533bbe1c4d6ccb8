import numpy as np
import pytest
import soundfile
import soxr
from audio_samples import sound, write_audio
from reading_files import FORMATS, RATE, encode, put_ffmpeg_on_path, reason_for

from wgpt_jax.prepare.items import SourceError
from wgpt_jax.prepare.reading.decode import decode_audio
from wgpt_jax.prepare.reading.files import AUDIO_SUFFIXES, BY_FFMPEG, READABLE, open_sound
from wgpt_jax.prepare.reading.mono import mono_blocks, resampled
from wgpt_jax.prepare.reading.sound import Sound


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch):
    put_ffmpeg_on_path(tmp_path / "bin", monkeypatch)


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_is_decoded(suffix, tmp_path):
    original = sound(1.0, rate=48000)
    path = write_audio(tmp_path / f"x.{suffix}", original, 48000, **FORMATS[suffix])
    samples = decode_audio(path, RATE)
    assert samples.dtype == np.float32 and len(samples) == pytest.approx(RATE, abs=1200)
    expected = soxr.resample(original, 48000, RATE)
    shared = slice(2400, 21600)
    assert np.corrcoef(samples[shared], expected[shared])[0, 1] > 0.95


def test_suffixes_are_lower_case_and_have_one_decoder():
    assert AUDIO_SUFFIXES == READABLE + BY_FFMPEG and len(set(AUDIO_SUFFIXES)) == len(AUDIO_SUFFIXES)
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in AUDIO_SUFFIXES)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 24000, 44100, 48000, 384_000])
@pytest.mark.parametrize("count", [1, 1000, 200_001])
def test_blocks_resample_as_one_call_and_keep_the_duration(rate, count, tmp_path):
    original = np.random.default_rng(0).uniform(-0.5, 0.5, count).astype(np.float32)
    samples = decode_audio(write_audio(tmp_path / "x.wav", original, rate, subtype="FLOAT"), RATE)
    assert len(samples) == int(count * RATE / rate + 0.5)
    np.testing.assert_array_equal(samples, soxr.resample(original, rate, RATE, quality="HQ"))


@pytest.mark.parametrize("rate", [16000, 24000, 44100])
def test_the_size_of_blocks_does_not_matter(rate):
    rng = np.random.default_rng(1)
    channels = rng.uniform(-0.5, 0.5, (30_000, 9)).astype(np.float32)
    expected = soxr.resample(channels.mean(axis=1), rate, RATE, quality="HQ")
    for sizes in ([1] * 50 + [29_950], [30_000], rng.multinomial(30_000, np.ones(40) / 40)):
        blocks = (block for block in np.split(channels, np.cumsum(sizes)) if len(block))
        pieces = list(resampled(mono_blocks(Sound(rate, 9, blocks), None), rate, RATE))
        assert all(len(piece) and piece.dtype == np.float32 for piece in pieces)
        np.testing.assert_array_equal(np.concatenate(pieces), expected)


def test_channels_are_averaged_or_one_is_taken(tmp_path):
    channels = np.stack([sound(0.2, seed=seed) for seed in range(8)], axis=1)
    path = write_audio(tmp_path / "x.wav", channels, RATE, subtype="FLOAT")
    np.testing.assert_allclose(decode_audio(path, RATE), channels.mean(axis=1), atol=1e-7)
    np.testing.assert_array_equal(decode_audio(path, RATE, channel=3), channels[:, 3])
    for channel in (8, -1):
        with pytest.raises(SourceError, match=f"no channel {channel}: it has 8"):
            decode_audio(path, RATE, channel=channel)


def test_a_bad_channel_does_not_matter_where_another_is_taken(tmp_path):
    channels = np.stack([sound(0.2), np.full(4800, np.nan, np.float32), np.full(4800, 99, np.float32)], axis=1)
    path = write_audio(tmp_path / "x.wav", channels, RATE, subtype="FLOAT")
    np.testing.assert_array_equal(decode_audio(path, RATE, channel=0), channels[:, 0])
    for channel, reason in ((None, "non-finite"), (1, "non-finite"), (2, "samples reach 99 where full scale is 1")):
        with pytest.raises(SourceError, match=reason):
            decode_audio(path, RATE, channel=channel)


def test_samples_over_full_scale_stay_as_they_are(tmp_path):
    loud = 20 * sound(0.5)
    assert 1 < np.abs(loud).max() < 10
    path = write_audio(tmp_path / "x.wav", loud, RATE, subtype="FLOAT")
    np.testing.assert_array_equal(decode_audio(path, RATE), loud)


@pytest.mark.parametrize("suffix", [*FORMATS, "m4a"])
def test_a_segment_is_that_part_of_the_whole(suffix, ffmpeg, tmp_path):
    wav = write_audio(tmp_path / "a.wav", sound(9.0), RATE)
    if suffix == "m4a":
        path = encode(wav, tmp_path / "x.m4a")
    else:
        path = write_audio(tmp_path / f"x.{suffix}", sound(9.0), RATE, **FORMATS[suffix])
    whole = decode_audio(path, RATE)
    for start, end in ((0.0, 0.5), (0.00003, 8.0), (5.00001, 6.33333), (8.5, None), (8.5, 9.05), (3.0, 3.00001)):
        first, last = round(start * RATE), len(whole) if end is None else round(end * RATE)
        # Elsewhere bit by bit; an MP3's sums have another order where another frame is the first.
        tolerance = 2e-7 if suffix == "mp3" else 0
        part = decode_audio(path, RATE, start=start, end=end)
        np.testing.assert_allclose(part, whole[first:last], rtol=0, atol=tolerance)


@pytest.mark.parametrize("suffix", ["ogg", "opus", "mp3"])
def test_a_segment_of_a_codec_with_a_memory_begins_as_in_the_whole(suffix, tmp_path):
    """At the first sound after silence an MP3 spends the bits it has saved, which lie in the frames before."""
    original = np.concatenate([sound(4.0), np.zeros(2 * RATE, np.float32), sound(4.0, seed=4)])
    path = write_audio(tmp_path / f"x.{suffix}", original, RATE, **FORMATS[suffix])
    whole = decode_audio(path, RATE)
    for start in range(6 * RATE - 2000, 6 * RATE + 4000, 311):
        part = decode_audio(path, RATE, start=start / RATE, end=start / RATE + 0.25)
        np.testing.assert_allclose(part, whole[start : start + RATE // 4], rtol=0, atol=2e-7)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus", "mp3", "m4a"])
def test_a_segment_that_the_file_does_not_hold_has_its_reason(suffix, ffmpeg, tmp_path):
    path = write_audio(tmp_path / "x.wav", sound(3.2), RATE)
    if suffix == "m4a":
        path = encode(path, tmp_path / "x.m4a")
    elif suffix != "wav":
        path = write_audio(tmp_path / f"x.{suffix}", sound(3.2), RATE, **FORMATS[suffix])
    assert reason_for(path, end=5.0) == "ends at 3.20 s, the segment asks for 5.00 s"
    assert reason_for(path, start=5.0) == "ends at 3.20 s, the segment starts at 5.00 s"
    assert reason_for(path, start=5.0, end=6.0) == "ends at 3.20 s, the segment starts at 5.00 s"


@pytest.mark.parametrize("part", [(2.0, 2.0), (3.0, 1.0), (-1.0, 1.0), (float("nan"), None), (0.0, float("inf"))])
def test_a_segment_that_is_none_has_its_reason(part, tmp_path):
    path = write_audio(tmp_path / "x.wav", sound(1.0), RATE)
    assert "there is no segment" in reason_for(path, start=part[0], end=part[1])


@pytest.mark.parametrize("suffix", ["mp3", "ogg", "opus"])
def test_compressed_audio_is_decoded_without_seams(suffix, tmp_path):
    """One call of the library decodes it whole; here it is read block by block."""
    path = write_audio(tmp_path / f"x.{suffix}", sound(20.0, rate=48000), 48000, **FORMATS[suffix])
    with soundfile.SoundFile(path) as file:
        expected = file.read(dtype="float32")
    with open_sound(path) as opened:
        blocks = list(opened.blocks)
    assert len(blocks) > 5
    np.testing.assert_array_equal(np.concatenate(blocks)[:, 0], expected)
