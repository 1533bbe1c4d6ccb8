"""Every number of the codec's architecture and of its training recipe."""

from dataclasses import dataclass

from transformers import EncodecConfig

KBPS_PER_CODEBOOK = 0.75  # 10 bits a frame, 75 frames a second


@dataclass(frozen=True)
class Recipe:
    """How a codec is trained; the defaults trained the bundled one.

    ``fraction`` below is the elapsed part of the budget (minutes or steps), from 0 to 1.
    """

    filters: int = 12
    codebooks: int = 8
    seed: int = 0
    batch: int = 8
    segment_seconds: float = 1.0
    learning_rate: float = 6e-4
    final_learning_rate: float = 1e-5
    settle: tuple[float, float] = (0.3, 0.5)  # from this fraction on the rate is scaled by this factor
    warmup_steps: int = 50
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    commitment: float = 0.25
    quantize_from: float = 0.09  # fraction at which quantization starts, by k-means
    refit_at: tuple[float, ...] = (0.18, 0.30, 0.45, 0.60)  # fractions of further k-means fits
    kmeans_batches: int = 24
    mel_weight: tuple[tuple[float, float], ...] = ((0.0, 0.3), (0.3, 1.0), (0.4, 4.0))  # (fraction, weight) points
    codebook_decay: float = 0.99
    dead_count: float = 0.04  # a code whose EMA count per step is below this restarts from a vector of the batch
    counts: tuple[int, ...] = (1, 2, 3, 4, 6, 8)  # codebooks in use, drawn for each example ...
    count_odds: tuple[float, ...] = (0.3, 0.15, 0.1, 0.15, 0.1, 0.2)  # ... with these probabilities

    def milestones(self) -> tuple[float, ...]:
        """Fractions of all k-means fits, the first of them the start of quantization."""
        return (self.quantize_from, *self.refit_at)


def codec_config(filters: int, codebooks: int) -> EncodecConfig:
    """The architecture: 24 kHz, hop 320, strictly causal, 1,024 codes a codebook, 0.75 kbps each.

    Zero padding instead of the library's reflection is what makes it causal: a reflected left edge shows the encoder
    samples that come later. Bandwidths double from one codebook up to all of them.
    """
    counts = [1 << i for i in range(codebooks.bit_length()) if 1 << i <= codebooks]
    if counts[-1] != codebooks:
        counts.append(codebooks)
    return EncodecConfig(
        sampling_rate=24_000,
        num_filters=filters,
        hidden_size=64,
        num_lstm_layers=1,
        num_residual_layers=1,
        upsampling_ratios=[8, 5, 4, 2],
        codebook_size=1024,
        codebook_dim=64,
        target_bandwidths=[KBPS_PER_CODEBOOK * n for n in counts],
        use_causal_conv=True,
        pad_mode="constant",
        norm_type="weight_norm",
    )
