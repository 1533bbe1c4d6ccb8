"""Signals, audio files and codecs for tests."""

from pathlib import Path

import numpy as np
import soundfile
import torch
from transformers import EncodecConfig, EncodecModel

CODEC = {
    "num_filters": 4,
    "hidden_size": 16,
    "num_lstm_layers": 1,
    "codebook_size": 64,
    "target_bandwidths": [0.45, 0.9, 1.8],  # 1, 2 and 4 codebooks of 6 bits at 75 Hz
}


def random_codec(**config) -> EncodecModel:
    """A model whose tokens vary: the library's own initial weights are too small, its codebooks are zero."""
    torch.manual_seed(0)
    model = EncodecModel(EncodecConfig(**(CODEC | config))).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Conv1d | torch.nn.ConvTranspose1d) and hasattr(module, "parametrizations"):
                module.parametrizations.weight.original0.mul_(2.4)
        for layer in model.quantizer.layers:
            layer.codebook.embed.normal_(0.0, 0.5)
    return model


def save_codec(folder: Path, **config) -> Path:
    random_codec(**config).save_pretrained(folder)
    return folder


def sound(seconds: float, rate: int = 24000, seed: int = 0) -> np.ndarray:
    """A gliding tone in noise with pauses, float32 [N]."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    pitch = rng.uniform(150, 400) * (1 + 0.2 * np.sin(2 * np.pi * 0.7 * time))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    voice = sum(np.sin(k * phase) / k for k in range(1, 6)) * (np.sin(2 * np.pi * 1.3 * time) > -0.5)
    return (0.2 * voice + 0.02 * rng.normal(size=len(time))).astype(np.float32)


def write_audio(path: Path, samples: np.ndarray, rate: int, **options) -> Path:
    """Writes in blocks: libsndfile crashes on a long OGG in one call."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(path, "w", rate, channels, **options) as file:
        for start in range(0, len(samples), 8192):
            file.write(samples[start : start + 8192])
    return path
