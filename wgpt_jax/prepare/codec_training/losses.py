"""What the decoded waveform is compared by: its samples and its mel spectrograms at several scales."""

import librosa
import torch
from torch import Tensor, nn

LOG_EPS = 1e-3  # smaller values let the noise floor dominate the loss
SCALES = ((2048, 80), (1024, 80), (512, 40), (256, 20))  # n_fft, mel bands; hop n_fft / 4


class Mel(nn.Module):
    """Mel magnitudes: centred Hann STFT scaled by ``n_fft ** -0.5``, Slaney filters of unit area."""

    def __init__(self, rate: int, n_fft: int, bands: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        filters = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=bands)
        self.register_buffer("filters", torch.from_numpy(filters), persistent=False)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """float32 ``[B, N]`` to float32 ``[B, bands, 1 + N // (n_fft / 4)]``."""
        spectrum = torch.stft(
            audio, self.n_fft, self.n_fft // 4, window=self.window, normalized=True, return_complex=True
        )
        # The magnitude's gradient is infinite at zero, hence the floor under the square root.
        power = spectrum.real.square() + spectrum.imag.square()
        return self.filters @ (power + 1e-12).sqrt()


class MelLoss(nn.Module):
    """Mean over the scales of the L1 distance of log mel (nats) plus that of linear mel."""

    def __init__(self, rate: int) -> None:
        super().__init__()
        self.mels = nn.ModuleList(Mel(rate, n_fft, bands) for n_fft, bands in SCALES)

    def forward(self, decoded: Tensor, target: Tensor) -> Tensor:
        """float32 ``[B, N]`` twice to a scalar."""
        total = decoded.new_zeros(())
        for mel in self.mels:
            with torch.no_grad():
                goal = mel(target)
            got = mel(decoded)
            log_distance = ((got + LOG_EPS).log() - (goal + LOG_EPS).log()).abs().mean()
            total = total + log_distance + (got - goal).abs().mean()
        return total / len(self.mels)


def relative_waveform_error(decoded: Tensor, target: Tensor) -> Tensor:
    """Squared error over energy, mean over the batch: 1 for silence. It is what locks the phase.

    Args:
        decoded: float32 ``[B, N]``.
        target: float32 ``[B, N]``; one is added to its energy, so that silence is no division by zero.
    """
    error = (decoded - target).square().sum(-1)
    return (error / (target.square().sum(-1) + 1.0)).mean()
