"""The causality check passes on what is causal and, as important, fails on what is not."""

import functools

import librosa
import numpy as np
import pytest
from audio_samples import sound

from wgpt_jax.audio.clock import Clock
from wgpt_jax.audio.mel import MelConfig, log_mel
from wgpt_jax.prepare.causality import first_change, sweep_frames, verify_function, with_noise_after
from wgpt_jax.prepare.codec import load_codec
from wgpt_jax.prepare.convert import source_mel
from wgpt_jax.prepare.encodec import Codec

CLOCK, MEL = Clock(24000, 320), MelConfig()


def mel(samples):
    return log_mel(samples, MEL, CLOCK)


def stored_mel(samples):
    return mel(samples).astype(np.float16)


def centred_mel(samples):
    """librosa's default: the window is centred on the frame's first sample."""
    power = librosa.feature.melspectrogram(y=samples, sr=24000, n_fft=1024, hop_length=320, n_mels=64)
    return np.log(np.maximum(power.T, 1e-5))[: CLOCK.frames(len(samples))]


def clip_normalised_mel(samples):
    slices = mel(samples)
    return (slices - slices.mean()) / slices.std()


@pytest.fixture(scope="module")
def unwarmed(reflect_folder) -> Codec:
    codec = load_codec(str(reflect_folder))
    codec.warmup_frames = 0
    return codec


@pytest.mark.parametrize("function", [mel, stored_mel])
@pytest.mark.parametrize("seconds", [0.03, 0.5, 2.01])
def test_our_mel_is_causal(function, seconds):
    report = verify_function("mel", function, sound(seconds), CLOCK)
    assert report.passed and str(report).startswith("ok"), report


@pytest.mark.parametrize("function", [centred_mel, clip_normalised_mel])
def test_a_mel_that_sees_the_future_is_caught(function):
    report = verify_function("mel", function, sound(1.0), CLOCK)
    assert not report.passed and "sees the future" in str(report)
    # Not at the start alone: at every cut that has something after it.
    assert {t for t, _ in report.leaks} >= set(range(12))


def test_tokens_are_causal_from_the_first_frame_on(codec_folder, reflect_folder):
    for codec in (load_codec(str(codec_folder)), load_codec(str(reflect_folder)), load_codec("bundled")):
        report = verify_function("tokens", codec.encode, sound(1.0), codec.clock)
        assert report.passed, report


@pytest.mark.parametrize("source", ["codec1", "codec4"])
def test_the_mel_of_decoded_tokens_is_causal(source, codec_folder, reflect_folder):
    for name in (codec_folder, reflect_folder, "bundled"):
        function = functools.partial(source_mel, source, codec=load_codec(str(name)), mel=MEL)
        report = verify_function(f"{source} mel", function, sound(0.5), CLOCK)
        assert report.passed, report


def test_an_unwarmed_reflecting_start_is_caught(unwarmed):
    for function in (unwarmed.encode, functools.partial(source_mel, "codec1", codec=unwarmed, mel=MEL)):
        report = verify_function("tokens", function, sound(1.0), CLOCK)
        assert not report.passed and "sees the future" in str(report)
        assert {t for t, _ in report.leaks} <= set(range(8)), "it leaks at the start only"


def test_a_function_that_ignores_its_input_proves_nothing():
    report = verify_function("zeros", lambda x: np.zeros((len(x) // 320, 4)), sound(0.5), CLOCK)
    assert not report.passed and "blind" in str(report)


def test_an_output_that_is_not_the_expected_one_is_named():
    samples = sound(0.5)
    expected = mel(samples)
    expected[7:11, 3] += 0.1
    report = verify_function("mel", mel, samples, CLOCK, expected=expected)
    assert (report.mismatch, report.passed) == (7, False)
    assert verify_function("mel", mel, samples, CLOCK, expected=mel(samples)[:-1]).mismatch == 36


def test_rounding_on_another_device_is_no_other_output():
    samples = sound(0.5)
    expected = mel(samples)
    expected += 1e-3
    expected[7, 3] += 1.0
    report = verify_function("mel", mel, samples, CLOCK, expected=expected)
    assert report.passed and report.agreement == 36 / 37
    assert "stored as computed now in 97.30 % of frames" in str(report)


def test_first_change_names_the_first_frame_that_sees_the_noise():
    def two_ahead(samples):  # frame t is the sum of frames up to t + 2
        return np.append(np.cumsum(samples.reshape(-1, 320).sum(axis=1))[2:], [0.0, 0.0])

    samples = sound(0.4)
    assert first_change(two_ahead, samples, CLOCK, frame=9) == 8
    assert first_change(mel, samples, CLOCK, frame=9) is None


def test_noise_starts_with_the_sample_after_the_frame():
    samples = sound(0.1)
    changed = with_noise_after(samples, CLOCK, frame=2, seed=0) != samples
    assert not changed[: 3 * 320].any() and changed[3 * 320 :].all()


@pytest.mark.parametrize("frames", [1, 2, 13, 750])
def test_the_sweep_covers_start_middle_and_end(frames):
    sweep = sweep_frames(frames)
    assert sweep[0] == 0 and sweep[-1] == frames - 1 and set(range(min(12, frames))) <= set(sweep)
    assert any(frames // 3 <= t <= 2 * frames // 3 for t in sweep)
