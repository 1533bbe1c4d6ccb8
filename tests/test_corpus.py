"""What the corpus maker promises: the same audio from the same seed, plausible spectra, no work done twice."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.prepare.corpus import make_corpus
from wgpt_jax.prepare.corpus import plan as planning
from wgpt_jax.prepare.corpus.composer import Note, Part
from wgpt_jax.prepare.corpus.fluid import midi_bytes, variable_length
from wgpt_jax.prepare.corpus.maker import SAMPLE_RATE, render_clip
from wgpt_jax.prepare.corpus.plan import choose_engines, plan_clips
from wgpt_jax.prepare.corpus.synth import hertz, render_numpy
from wgpt_jax.prepare.corpus.text import read_sentences
from wgpt_jax.prepare.corpus.voices import Voice, espeak_available, speak

HOURS = 0.006  # about 22 s of each kind
MAKE_CORPUS = Path(__file__).parents[1] / "tools" / "make_corpus.py"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    out = tmp_path_factory.mktemp("corpus")
    make_corpus(out, HOURS, "both", "numpy", seed=3, workers=1, progress=False)
    return out


def audio_of(folder: Path) -> dict[str, np.ndarray]:
    return {str(path.relative_to(folder)): soundfile.read(path)[0] for path in sorted(folder.rglob("*.flac"))}


def test_files_are_24_khz_mono_flac_in_folders_of_voices_and_composers(corpus):
    files = sorted(corpus.rglob("*.flac"))
    assert {path.relative_to(corpus).parts[0] for path in files} == {"speech", "music"}
    assert all(len(path.relative_to(corpus).parts) == 3 for path in files)
    for path in files:
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (24_000, 1, "PCM_16")
        assert 2.9 < info.duration < 12.1


def test_the_seed_decides_every_sample(corpus, tmp_path):
    make_corpus(tmp_path / "again", HOURS, "both", "numpy", seed=3, workers=2, progress=False)
    make_corpus(tmp_path / "other", HOURS, "both", "numpy", seed=4, workers=1, progress=False)
    first, again, other = audio_of(corpus), audio_of(tmp_path / "again"), audio_of(tmp_path / "other")
    assert first.keys() == again.keys()
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not first.keys() & other.keys()


def test_a_second_run_makes_only_what_is_missing(corpus):
    files = sorted(corpus.rglob("*.flac"))
    before = files[0].read_bytes(), files[1].stat().st_mtime_ns
    files[0].unlink()
    summary = make_corpus(corpus, HOURS, "both", "numpy", seed=3, workers=1, progress=False)
    assert (summary.files, summary.made) == (len(files), 1)
    assert (files[0].read_bytes(), files[1].stat().st_mtime_ns) == before
    assert make_corpus(corpus, HOURS, "both", "numpy", seed=3, workers=1, progress=False).made == 0


def test_fewer_hours_are_the_beginning_of_more():
    assert (
        plan_clips("music", "numpy", 0.1, 0)
        == plan_clips("music", "numpy", 0.2, 0)[: len(plan_clips("music", "numpy", 0.1, 0))]
    )


def test_clips_are_neither_silent_nor_clipped(corpus):
    for name, audio in audio_of(corpus).items():
        assert 10 ** (-33 / 20) < np.sqrt(np.mean(audio**2)) < 10 ** (-15 / 20), name
        assert np.abs(audio).max() < 1


def test_babble_has_pitch_formants_and_pauses():
    clip = next(clip for clip in plan_clips("speech", "numpy", 0.02, 1) if clip.seconds > 8)
    audio = render_clip(clip)
    frames = audio[: len(audio) // 480 * 480].reshape(-1, 480)
    level = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-12)
    assert np.percentile(level, 95) - np.percentile(level, 5) > 15  # syllables and pauses
    spectrum = np.abs(np.fft.rfft(audio)) ** 2
    hertz_of = np.fft.rfftfreq(len(audio), 1 / SAMPLE_RATE)
    assert spectrum[(hertz_of > 80) & (hertz_of < 4000)].sum() > 0.6 * spectrum.sum()


@pytest.mark.parametrize("program", [0, 25, 40, 56, 73])
def test_an_instrument_plays_the_pitch_it_is_given(program):
    key = 69
    audio = render_numpy([Part(program, [Note(0.0, 1.0, key, 100)])], 1.0, SAMPLE_RATE)
    segment = audio[4800:16992] * np.hanning(12192)
    correlation = np.fft.irfft(np.abs(np.fft.rfft(segment, 32768)) ** 2)
    lags = np.arange(30, 100)
    lag = lags[np.argmax(correlation[lags])]
    assert abs(SAMPLE_RATE / lag / hertz(key) - 1) < 0.02


def test_midi_bytes_hold_every_note():
    part = Part(40, [Note(0.0, 0.5, 60, 100), Note(0.5, 0.25, 64, 90)])
    data = midi_bytes([part, Part(0, [Note(0.0, 0.1, 36, 80)], drums=True)])
    assert data[:4] == b"MThd" and data[14:18] == b"MTrk"
    assert int.from_bytes(data[18:22], "big") == len(data) - 22
    for message in (b"\xc0\x28", b"\x90\x3c\x64", b"\x90\x40\x5a", b"\x80\x3c\x00", b"\x99\x24\x50"):
        assert message in data
    assert [variable_length(n).hex() for n in (0, 127, 128, 16384)] == ["00", "7f", "8100", "818000"]


def test_impossible_requests_name_the_remedy(tmp_path, monkeypatch):
    with pytest.raises(RequestError, match="--hours"):
        make_corpus(tmp_path, 0, engine="numpy")
    with pytest.raises(RequestError, match="auto, numpy, system"):
        choose_engines("tape", "both")
    with pytest.raises(RequestError, match=r"no \.txt file"):
        read_sentences(tmp_path / "nowhere")
    monkeypatch.setattr(planning, "espeak_available", lambda: False)
    with pytest.raises(RequestError, match="apt-get install --no-install-recommends espeak-ng"):
        choose_engines("system", "speech")
    assert choose_engines("auto", "speech") == {"speech": "numpy"}


@pytest.mark.skipif(not espeak_available(), reason="espeak-ng is not installed")
def test_a_system_voice_reads_text_that_looks_like_a_flag():
    voice = Voice("espeak", "en-us+m3", 170, 50)
    audio = speak(voice, "-v is not a flag, it is said aloud.", SAMPLE_RATE)
    assert len(audio) > SAMPLE_RATE and np.abs(audio).max() > 0.05
    with pytest.raises(WorkError, match="said nothing with voice en-us"):
        speak(voice, "", SAMPLE_RATE)


def test_the_command_says_what_it_made_and_refuses_in_one_line(tmp_path):
    command = [sys.executable, str(MAKE_CORPUS), str(tmp_path / "c"), "--engine", "numpy", "--kind", "music"]
    done = subprocess.run([*command, "--hours", "0.001"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "music by the numpy engine" in done.stdout
    refused = subprocess.run([*command, "--hours", "-1"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert refused.stderr.strip() == "error: --hours -1.0: it must be above 0"
