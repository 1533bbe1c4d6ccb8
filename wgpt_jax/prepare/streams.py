"""Tokens, samples and mel slices of signals that come piece by piece; the pieces' results are those of the whole.

Every stream takes whole frames of a batch of signals that began together. A signal that has ended is left out from the
end of the batch; where it ends within a piece, the piece may be filled up, and what comes of the filling is dropped.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from wgpt_jax.audio.clock import Clock
from wgpt_jax.audio.mel import MelConfig, log_mel
from wgpt_jax.mel_sources import CENTRED, LATENT, codec_codebooks
from wgpt_jax.prepare.pieces import PieceStream

if TYPE_CHECKING:
    from wgpt_jax.prepare.encodec import Codec


class TokenStream:
    """Tokens of signals, by a causal codec's encoder."""

    def __init__(self, codec: "Codec", codebooks: int):
        """Begins at the start of the signals; ``codebooks`` is K."""
        self._codec, self._codebooks = codec, codebooks
        self._pieces = PieceStream(codec.model.encoder.layers, step_in=codec.clock.hop, step_out=1)
        self._lead = codec.warmup_frames

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Tokens int16 [B, n, K] of the next frames, samples float32 [B, n * hop]."""
        return self.push_with_latents(samples)[0]

    @torch.no_grad()
    def push_with_latents(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens as :meth:`push`, and the latents float32 [B, n, H] that they quantise."""
        codec, lead = self._codec, self._lead
        signal = torch.from_numpy(np.require(samples, np.float32, ["C", "W"]))[:, None].to(codec.device)
        if lead:  # the silence in front of the first piece
            signal, self._lead = torch.nn.functional.pad(signal, (codec.clock.samples(lead), 0)), 0
        latents = self._pieces.push(signal)  # [B, H, T]
        codes = codec.model.quantizer.encode(latents, codec.bandwidth(self._codebooks))  # [K, B, T]
        tokens = codes[: self._codebooks].permute(1, 2, 0)[:, lead:].to("cpu", torch.int16).numpy()
        return tokens, latents.transpose(1, 2)[:, lead:].cpu().numpy()


class SampleStream:
    """Samples of tokens, by a causal codec's decoder, from as many codebooks as the tokens have."""

    def __init__(self, codec: "Codec"):
        """Begins at the start of the signals."""
        self._codec = codec
        self._pieces = PieceStream(codec.model.decoder.layers, step_in=1, step_out=codec.clock.hop)
        self._lead = codec.warmup_frames

    @torch.no_grad()
    def push(self, tokens: np.ndarray) -> np.ndarray:
        """Samples float32 [B, n * hop] of the next frames, tokens integers [B, n, K']."""
        codec, lead = self._codec, self._lead
        if lead:  # the tokens of the silence in front of the first piece
            silence = np.broadcast_to(codec.silence[None, :, : tokens.shape[-1]], (len(tokens), lead, tokens.shape[-1]))
            tokens, self._lead = np.concatenate([silence, tokens], axis=1), 0
        codes = torch.from_numpy(tokens.astype(np.int64)).permute(2, 0, 1).to(codec.device)  # [K', B, T]
        audio = self._pieces.push(codec.model.quantizer.decode(codes))
        return audio[:, 0, codec.clock.samples(lead) :].to("cpu").numpy()


class MelStream:
    """Mel slices of signals, as records store them."""

    def __init__(self, config: MelConfig, clock: Clock, ahead: int = 0):
        """Begins at the start of the signals; ``ahead`` samples after each frame are in its window (0: causal)."""
        self._config, self._clock, self._ahead = config, clock, ahead
        self._before: np.ndarray | None = None  # what windows still reach back to, [B, n_fft - hop]

    def push(self, samples: np.ndarray, following: np.ndarray) -> np.ndarray:
        """Slices float16 [B, n, M] of the next frames.

        Args:
            samples: float32 [B, n * hop].
            following: float32 [B, A], what comes after them: ``ahead`` samples at least.
        """
        reach, shift = self._config.n_fft - self._clock.hop, self._ahead
        before = np.zeros((len(samples), reach), np.float32) if self._before is None else self._before[: len(samples)]
        known = np.concatenate([before, samples, following[:, :shift]], axis=1)
        self._before = known[:, samples.shape[1] :][:, :reach]
        rows = [
            log_mel(row[shift + reach :], self._config, self._clock, row[shift : shift + reach]).astype(np.float16)
            for row in known
        ]
        return np.stack(rows)


class DocumentsStream:
    """Tokens and all mels of signals: what records store."""

    def __init__(self, codec: "Codec", codebooks: int, mel: MelConfig, mel_sources: Sequence[str]):
        """Begins at the start of the signals.

        Args:
            codec: causal.
            codebooks: K.
            mel: definition of the slice.
            mel_sources: S names (:mod:`wgpt_jax.mel_sources`).
        """
        self._codec, self._bands = codec, mel.bands
        self._tokens = TokenStream(codec, codebooks)
        self._sources = [
            (name, SampleStream(codec), MelStream(mel, codec.clock, look_ahead(name, mel, codec.clock)))
            for name in mel_sources
        ]

    def push(self, samples: np.ndarray, following: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens int16 [B, n, K] and mel float16 [S, B, n, M] of the next frames.

        Args:
            samples: float32 [B, n * hop].
            following: float32 [B, A], the samples after them, which no causal source reads; A the farthest that
                :func:`look_ahead` says of the sources.
        """
        with one_thread():
            tokens, latents = self._tokens.push_with_latents(samples)
            slices = []
            for name, decoder, mel in self._sources:
                codebooks = codec_codebooks(name)
                if name == LATENT:
                    slices.append(stored_latents(latents, self._codec, self._bands))
                elif codebooks is None:
                    slices.append(mel.push(samples, following))
                else:
                    slices.append(mel.push(decoder.push(tokens[..., :codebooks]), following[:, :0]))
        return tokens, np.stack(slices)


def look_ahead(source: str, mel: MelConfig, clock: Clock) -> int:
    """Samples after a frame that its slice depends on: 0, but for the centred mel, whose window is around its start."""
    return max(0, mel.n_fft // 2 - clock.hop) if source == CENTRED else 0


def stored_latents(latents: np.ndarray, codec: "Codec", bands: int) -> np.ndarray:
    """Latents as records store them: float32 [..., H] -> float16 [..., M].

    Divided by the root mean square of the first codebook's entries, a constant of the codec, and filled up with zeros.
    """
    entries = codec.model.quantizer.layers[0].codebook.embed
    scaled = latents / float(torch.sqrt(torch.mean(entries.float() ** 2)))
    return np.pad(scaled, [(0, 0)] * (latents.ndim - 1) + [(0, bands - latents.shape[-1])]).astype(np.float16)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread: sums are then made in one order, and worker processes do not fight for cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
