"""The causal log-mel spectrogram on the device: the same filterbank and window as ``mel.log_mel``."""

import jax
import jax.numpy as jnp

from wgpt_jax.audio.clock import Clock
from wgpt_jax.audio.mel import MelConfig, hann_window, mel_filterbank


def log_mel_jax(samples: jax.Array, config: MelConfig, clock: Clock) -> jax.Array:
    """The same slices by JAX; jit-compatible, any leading axes.

    Args:
        samples: float32 [..., N].
        config: definition of the slice (static).
        clock: sample rate and hop (static).

    Returns:
        float32 [..., N // hop, M], within 1e-4 of :func:`wgpt_jax.audio.mel.log_mel`.
    """
    frames = clock.frames(samples.shape[-1])
    left = config.n_fft - clock.hop
    padded = jnp.pad(samples[..., : clock.samples(frames)], [(0, 0)] * (samples.ndim - 1) + [(left, 0)])
    index = jnp.arange(frames)[:, None] * clock.hop + jnp.arange(config.n_fft)
    return windows_to_log_mel(padded[..., index], config, clock.sample_rate)


def windows_to_log_mel(windows: jax.Array, config: MelConfig, sample_rate: int) -> jax.Array:
    """Slices of windows already cut: float32 [..., n_fft] -> float32 [..., M] (the step of a streaming loop)."""
    spectrum = jnp.fft.rfft(windows * hann_window(config.n_fft), axis=-1)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    bank = jnp.asarray(mel_filterbank(config, sample_rate))
    bands = jnp.matmul(power, bank, precision=jax.lax.Precision.HIGHEST)
    return (jnp.log(jnp.maximum(bands, config.floor)) - config.mean) / config.std
