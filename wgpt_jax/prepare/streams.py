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
from wgpt_jax.mel_sources import codec_codebooks
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

    @torch.no_grad()
    def push(self, samples: np.ndarray) -> np.ndarray:
        """Tokens int16 [B, n, K] of the next frames, samples float32 [B, n * hop]."""
        codec, lead = self._codec, self._lead
        signal = torch.from_numpy(np.require(samples, np.float32, ["C", "W"]))[:, None].to(codec.device)
        if lead:  # the silence in front of the first piece
            signal, self._lead = torch.nn.functional.pad(signal, (codec.clock.samples(lead), 0)), 0
        codes = codec.model.quantizer.encode(self._pieces.push(signal), codec.bandwidth(self._codebooks))
        return codes[: self._codebooks].permute(1, 2, 0)[:, lead:].to("cpu", torch.int16).numpy()  # [K, B, T] before


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

    def __init__(self, config: MelConfig, clock: Clock):
        """Begins at the start of the signals."""
        self._config, self._clock = config, clock
        self._before: np.ndarray | None = None  # what windows still reach back to, [B, n_fft - hop]

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Slices float16 [B, n, M] of the next frames, samples float32 [B, n * hop]."""
        reach = self._config.n_fft - self._clock.hop
        before = np.zeros((len(samples), reach), np.float32) if self._before is None else self._before[: len(samples)]
        rows = zip(samples, before, strict=True)
        mel = np.stack([log_mel(row, self._config, self._clock, context).astype(np.float16) for row, context in rows])
        self._before = np.concatenate([before, samples], axis=1)[:, samples.shape[1] :]
        return mel


class DocumentsStream:
    """Tokens and all mels of signals: what records store."""

    def __init__(self, codec: "Codec", codebooks: int, mel: MelConfig, mel_sources: Sequence[str]):
        """Begins at the start of the signals.

        Args:
            codec: causal.
            codebooks: K.
            mel: definition of the slice.
            mel_sources: S names, ``original`` or ``codecN``.
        """
        self._tokens = TokenStream(codec, codebooks)
        self._mels = [(codec_codebooks(name), SampleStream(codec), MelStream(mel, codec.clock)) for name in mel_sources]

    def push(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens int16 [B, n, K] and mel float16 [S, B, n, M] of the next frames, samples float32 [B, n * hop]."""
        with one_thread():
            tokens = self._tokens.push(samples)
            mels = [
                mel.push(samples if codebooks is None else decoder.push(tokens[..., :codebooks]))
                for codebooks, decoder, mel in self._mels
            ]
        return tokens, np.stack(mels)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread: sums are then made in one order, and worker processes do not fight for cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
