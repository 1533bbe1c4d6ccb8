"""How well a codec does, per number of codebooks: log-mel distance, SI-SNR, use of the first codebook, bitrate."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import EncodecModel

from wgpt_jax.prepare.codec_training.losses import LOG_EPS, Mel
from wgpt_jax.prepare.codec_training.quantizer import perplexity


@dataclass(frozen=True)
class Score:
    """Means over the clips of one group at one number of codebooks.

    ``log_mel`` is the L1 distance in nats of log(mel + 1e-3) (n_fft 1024, hop 256, 80 bands), ``silence`` and
    ``median`` that of silence and of every band's own median over the clip; ``si_snr`` is in dB; ``perplexity`` is
    exp of the entropy of the first codebook's codes over the group, and ``codes_used`` how many of them occur.
    """

    group: str
    codebooks: int
    kbps: float
    log_mel: float
    si_snr: float
    silence: float
    median: float
    perplexity: float
    codes_used: int
    seconds: float


@dataclass
class Measurements:
    """What was measured on clips, before the means: add those of two groups to get those of both."""

    distances: dict[int, list[tuple[float, float]]]  # by codebooks: log-mel distance and SI-SNR of every clip
    references: list[tuple[float, float]]  # log-mel distance of silence and of the median, of every clip
    histogram: Tensor  # float32 [V], how often each code of the first codebook occurred
    seconds: float
    kbps: float  # of one codebook

    def __add__(self, other: "Measurements") -> "Measurements":
        distances = {n: rows + other.distances[n] for n, rows in self.distances.items()}
        references, histogram = self.references + other.references, self.histogram + other.histogram
        return Measurements(distances, references, histogram, self.seconds + other.seconds, self.kbps)

    def scores(self, group: str) -> list[Score]:
        """The means, one score for every number of codebooks."""
        silence, median = np.mean(self.references, axis=0).tolist()
        common = (silence, median, perplexity(self.histogram), int((self.histogram > 0).sum()), self.seconds)
        rows = {n: np.mean(self.distances[n], axis=0).tolist() for n in self.distances}
        return [Score(group, n, n * self.kbps, *rows[n], *common) for n in rows]


@torch.no_grad()
def measure_clips(model: EncodecModel, clips: Sequence[np.ndarray], counts: Sequence[int]) -> Measurements:
    """Encodes clips, cut to whole frames, and measures what is decoded from them.

    Args:
        model: the codec, in evaluation mode.
        clips: float32 mono ``[n]`` at the codec's sampling rate.
        counts: numbers of codebooks to decode from.
    """
    hop, rate, size = model.config.hop_length, model.config.sampling_rate, model.config.codebook_size
    mel = Mel(rate, 1024, 80).to(model.device)
    kbps = 1e-3 * rate / hop * math.log2(size)
    result = Measurements({count: [] for count in counts}, [], torch.zeros(size), 0.0, kbps)
    for clip in clips:
        audio = torch.from_numpy(clip[: len(clip) // hop * hop]).float().to(model.device)[None]
        goal = (mel(audio) + LOG_EPS).log()
        silence = (goal - math.log(LOG_EPS)).abs().mean()
        median = (goal - goal.median(-1, keepdim=True).values).abs().mean()
        result.references.append((float(silence), float(median)))
        codes = encode(model, audio)
        result.histogram += torch.bincount(codes[0, 0].cpu(), minlength=size)
        result.seconds += audio.shape[1] / rate
        for count in counts:
            decoded = decode(model, codes[:, :count])[:, : audio.shape[1]]
            distance = ((mel(decoded) + LOG_EPS).log() - goal).abs().mean()
            result.distances[count].append((float(distance), si_snr(decoded, audio)))
    return result


def encode(model: EncodecModel, audio: Tensor) -> Tensor:
    """All codebooks' codes of float32 ``[B, N]``: int64 ``[B, K, ceil(N / hop)]``."""
    return model.encode(audio[:, None], bandwidth=model.config.target_bandwidths[-1]).audio_codes[0]


def decode(model: EncodecModel, codes: Tensor) -> Tensor:
    """The waveform of the first K codebooks' codes ``[B, K, T]``: float32 ``[B, T * hop]``."""
    return model.decode(codes[None], [None]).audio_values[:, 0]


def si_snr(decoded: Tensor, target: Tensor) -> float:
    """Scale-invariant signal-to-noise ratio in dB, means removed (Le Roux et al., 1811.02508); float32 ``[1, N]``."""
    decoded, target = decoded - decoded.mean(), target - target.mean()
    projection = (decoded * target).sum() / (target.square().sum() + 1e-9) * target
    noise = (decoded - projection).square().sum()
    return float(10 * torch.log10((projection.square().sum() + 1e-9) / (noise + 1e-9)))
