import jax
import librosa
import numpy as np
import pytest
from audio_samples import sound

from wgpt_jax.audio import mel as mel_module
from wgpt_jax.audio.clock import Clock
from wgpt_jax.audio.mel import MelConfig, hann_window, log_mel, mel_filterbank
from wgpt_jax.audio.mel_jax import log_mel_jax

CLOCK = Clock(24000, 320)
CONFIGS = [MelConfig(), MelConfig(bands=80, n_fft=960, fmin=50.0, fmax=8000.0, mean=0.0, std=1.0)]


def mel_by_definition(samples: np.ndarray, config: MelConfig) -> np.ndarray:
    """The definition in float64, one frame after the other, by a DFT matrix."""
    n_fft, hop = config.n_fft, CLOCK.hop
    n = np.arange(n_fft)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / n_fft)
    dft = np.exp(-2j * np.pi * np.outer(n, np.arange(n_fft // 2 + 1)) / n_fft)
    bank = librosa.filters.mel(
        sr=CLOCK.sample_rate, n_fft=n_fft, n_mels=config.bands, fmin=config.fmin, fmax=config.fmax, dtype=np.float64
    )
    slices = []
    for t in range(len(samples) // hop):
        seen = samples[: (t + 1) * hop][-n_fft:].astype(np.float64)
        seen = np.concatenate([np.zeros(n_fft - len(seen)), seen])
        power = np.abs((seen * window) @ dft) ** 2
        slices.append((np.log(np.maximum(bank @ power, config.floor)) - config.mean) / config.std)
    return np.array(slices)


@pytest.mark.parametrize("config", CONFIGS)
def test_filterbank_is_librosas(config):
    expected = librosa.filters.mel(
        sr=CLOCK.sample_rate, n_fft=config.n_fft, n_mels=config.bands, fmin=config.fmin, fmax=config.fmax
    )
    np.testing.assert_allclose(mel_filterbank(config, CLOCK.sample_rate), expected.T, atol=1e-8, rtol=1e-5)


def test_window_is_the_periodic_hann_window():
    np.testing.assert_allclose(hann_window(1024), librosa.filters.get_window("hann", 1024, fftbins=True), atol=1e-7)


@pytest.mark.parametrize("config", CONFIGS)
def test_mel_is_its_definition(config):
    samples = sound(0.6)
    np.testing.assert_allclose(log_mel(samples, config, CLOCK), mel_by_definition(samples, config), atol=1e-4)


@pytest.mark.parametrize("config", CONFIGS)
def test_mel_is_librosas_with_windows_aligned_right(config):
    samples = sound(2.0)
    power = librosa.feature.melspectrogram(
        y=np.pad(samples, (config.n_fft - CLOCK.hop, 0)),
        sr=CLOCK.sample_rate,
        n_fft=config.n_fft,
        hop_length=CLOCK.hop,
        n_mels=config.bands,
        fmin=config.fmin,
        fmax=config.fmax,
        center=False,
    )
    expected = (np.log(np.maximum(power.T, config.floor)) - config.mean) / config.std
    np.testing.assert_allclose(log_mel(samples, config, CLOCK), expected, atol=1e-4)


@pytest.mark.parametrize("config", CONFIGS)
def test_numpy_and_jax_agree(config):
    samples = np.stack([sound(1.003, seed=1), np.zeros(24072, np.float32)])
    on_device = jax.jit(lambda x: log_mel_jax(x, config, CLOCK))(samples)
    expected = np.stack([log_mel(row, config, CLOCK) for row in samples])
    np.testing.assert_allclose(on_device, expected, atol=1e-4)


@pytest.mark.parametrize("samples", [0, 1, 319, 320, 321, 6400])
def test_slices_are_the_whole_frames(samples):
    assert log_mel(np.ones(samples, np.float32), MelConfig(), CLOCK).shape == (samples // 320, 64)


def test_blocks_of_a_long_clip_leave_no_seam(monkeypatch):
    samples = sound(1.0)
    whole = log_mel(samples, MelConfig(), CLOCK)
    monkeypatch.setattr(mel_module, "_BLOCK", 7)
    # The matrix product rounds by its shape, in the last bit.
    np.testing.assert_allclose(log_mel(samples, MelConfig(), CLOCK), whole, atol=1e-6)


def test_silence_has_the_value_the_configuration_says():
    config = MelConfig()
    slices = log_mel(np.zeros(3200, np.float32), config, CLOCK)
    np.testing.assert_allclose(slices, config.silence, atol=1e-6)


def test_fingerprint_changes_with_every_field():
    variants = [MelConfig(), *CONFIGS[1:], MelConfig(floor=1e-4), MelConfig(mean=0.0), MelConfig(fmax=8000.0)]
    assert len({config.fingerprint() for config in variants}) == len(variants)
