"""The ENCODEC codec by ``transformers``: audio to tokens and back, on the clock, without a look ahead."""

import functools
import hashlib
import json
from collections.abc import Iterator

import numpy as np
import torch
from transformers import EncodecConfig, EncodecModel

from wgpt_jax.audio.clock import Clock
from wgpt_jax.data.index import CodecInfo
from wgpt_jax.errors import RequestError
from wgpt_jax.prepare import pieces
from wgpt_jax.prepare.streams import SampleStream, TokenStream, one_thread, stored_latents

WARMUP_FRAMES = 8
"""Frames of silence in front of a signal whose codec pads by reflection.

Reflection shows the first frames what comes after them (measured: as far as frame 6). Behind 8 frames of silence all
that is reflected is silence, so no kept frame sees the future.
"""

_TRAINING_ONLY = ("embed_avg", "cluster_size", "inited")  # buffers that no token and no sample depends on
_CONFIG_FIELDS = (
    *("sampling_rate", "audio_channels", "normalize", "chunk_length_s", "hidden_size", "num_filters"),
    *("num_residual_layers", "upsampling_ratios", "norm_type", "kernel_size", "last_kernel_size"),
    *("residual_kernel_size", "dilation_growth_rate", "use_causal_conv", "pad_mode", "compress"),
    *("num_lstm_layers", "trim_right_ratio", "codebook_size", "codebook_dim", "use_conv_shortcut", "target_bandwidths"),
)


class Codec:
    """An ENCODEC model with its clock and identity.

    Attributes:
        name: name or folder it was loaded from.
        clock: sample rate and hop, from the configuration.
        codebook_size: entries per codebook, V.
        codebooks: codebooks it has, the largest K.
        causal: whether token t depends on samples before (t + 1) * hop only.
        warmup_frames: frames of silence put before every signal and dropped after.
        model: transformers' model.
        device: torch device that it is on.
    """

    def __init__(self, model: EncodecModel, name: str, device: str = "cpu"):
        """Wraps a model and puts it on a device; see :func:`wgpt_jax.prepare.codec.load_codec`."""
        config = model.config
        self.name = name
        self.clock = Clock.of_codec(config.sampling_rate, config.upsampling_ratios)
        self.codebook_size = int(config.codebook_size)
        self.codebooks = int(config.num_quantizers)
        self.causal = (
            config.use_causal_conv
            and (config.pad_mode == "constant" or (config.pad_mode == "reflect" and _reflects_within_warmup(config)))
            and config.norm_type == "weight_norm"
            and config.trim_right_ratio == 1.0
            and config.chunk_length_s is None
            and config.audio_channels == 1
            and not config.normalize
        )
        self.warmup_frames = WARMUP_FRAMES if self.causal and config.pad_mode == "reflect" else 0
        self.device = torch.device(device)
        self.model = model.eval().to(self.device)
        if not self.causal:
            # Chunks that overlap would give two tokens for one instant; end to end they lie on the clock.
            self.model.config.overlap = 0.0

    @functools.cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of the configuration and the float32 weights; saving and loading keep it."""
        config = self.model.config.to_dict()
        fields = {key: config[key] for key in _CONFIG_FIELDS}
        digest = hashlib.sha256(json.dumps(fields, sort_keys=True, default=list).encode())
        for key, value in sorted(self.model.state_dict().items()):
            if not key.endswith(_TRAINING_ONLY):
                digest.update(f"{key} {tuple(value.shape)}".encode())
                digest.update(value.to("cpu", torch.float32).contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def info(self) -> CodecInfo:
        """What the index records."""
        return CodecInfo(self.name, self.fingerprint, self.codebook_size, self.causal)

    @torch.no_grad()
    def encode(self, samples: np.ndarray, codebooks: int | None = None) -> np.ndarray:
        """Tokens of whole signals; the last partial frame is cut off first.

        Deterministic: one torch thread, whatever the caller has set. Long signals are encoded in pieces that carry
        the state (:mod:`wgpt_jax.prepare.pieces`): besides the signal itself, an hour needs no more memory than 10 s.

        Args:
            samples: float32 [N] or [B, N], mono, at the codec's sample rate, full scale 1.
            codebooks: K; all the codec has by default.

        Returns:
            int16 [N // hop, K] or [B, N // hop, K].
        """
        codebooks = self.check_codebooks(self.codebooks if codebooks is None else codebooks)
        frames = self.clock.frames(samples.shape[-1])
        batch = np.require(np.atleast_2d(samples)[:, : self.clock.samples(frames)], np.float32, ["C", "W"])
        tokens = np.zeros((len(batch), frames, codebooks), np.int16)
        if frames:
            encode = self._encode_causal if self.causal else self._encode_as_is
            with one_thread():
                tokens[:] = encode(batch, codebooks)[:, :frames]
        return tokens if samples.ndim == 2 else tokens[0]

    def latents(self, samples: np.ndarray, bands: int) -> np.ndarray:
        """The encoder's output before quantisation, as records store it, of a causal codec.

        Args:
            samples: float32 [N].
            bands: M, at least the codec's channels H.

        Returns:
            float16 [N // hop, M] (:func:`wgpt_jax.prepare.streams.stored_latents`).
        """
        frames = self.clock.frames(len(samples))
        batch = np.require(samples[None, : self.clock.samples(frames)], np.float32, ["C", "W"])
        with one_thread():
            parts = [latents for _, latents in self._causal_parts(batch, 1)]
        return stored_latents(np.concatenate(parts, axis=1)[0], self, bands)

    def _encode_causal(self, batch: np.ndarray, codebooks: int) -> np.ndarray:
        return np.concatenate([tokens for tokens, _ in self._causal_parts(batch, codebooks)], axis=1)

    def _causal_parts(self, batch: np.ndarray, codebooks: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        stream, piece = TokenStream(self, codebooks), self.clock.samples(pieces.PIECE_FRAMES)
        for start in range(0, batch.shape[1], piece):
            yield stream.push_with_latents(batch[:, start : start + piece])

    def _encode_as_is(self, batch: np.ndarray, codebooks: int) -> np.ndarray:
        signal = torch.from_numpy(batch)[:, None].expand(-1, self.model.config.audio_channels, -1).to(self.device)
        codes = self.model.encode(signal, bandwidth=self.bandwidth(codebooks)).audio_codes[:, :, :codebooks]
        return codes.permute(1, 0, 3, 2).flatten(1, 2).cpu().numpy()  # [chunks, B, K, T] -> [B, chunks * T, K]

    @torch.no_grad()
    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """Samples of tokens, by any number of leading codebooks.

        A codec that is warmed up is given its tokens of silence first, and their samples are dropped: sample s then
        depends on the tokens of frames up to s // hop only.

        Args:
            tokens: integers [n, K'] with K' up to :attr:`codebooks`.

        Returns:
            float32 [n * hop].

        Raises:
            RequestError: for chunked or normalised codecs: the scale of a chunk is no token.
        """
        config = self.model.config
        if config.normalize or config.chunk_length_s is not None or config.audio_channels != 1:
            raise RequestError(f"codec {self.name} cannot decode tokens alone: it needs the scale of every chunk")
        self.check_codebooks(tokens.shape[-1])
        if len(tokens) == 0:
            return np.zeros(0, np.float32)
        with one_thread():
            if self.causal:
                stream, piece = SampleStream(self), pieces.PIECE_FRAMES
                parts = [stream.push(tokens[None, start : start + piece]) for start in range(0, len(tokens), piece)]
                return np.concatenate(parts, axis=1)[0]
            codes = torch.from_numpy(np.ascontiguousarray(tokens, np.int64)).T[:, None].to(self.device)  # [K, B=1, T]
            audio = self.model.decoder(self.model.quantizer.decode(codes))
            return audio[0, 0, : self.clock.samples(len(tokens))].cpu().numpy()

    @functools.cached_property
    def silence(self) -> np.ndarray:
        """Tokens of the warm-up: int16 [warmup_frames, K]."""
        return self.encode(np.zeros(self.clock.samples(self.warmup_frames), np.float32))

    def check_codebooks(self, codebooks: int) -> int:
        """Returns ``codebooks``; RequestError if the codec has not as many."""
        if not 1 <= codebooks <= self.codebooks:
            raise RequestError(f"codec {self.name} has {self.codebooks} codebooks, {codebooks} were asked for")
        return codebooks

    def bandwidth(self, codebooks: int) -> float:
        """The codec's smallest bandwidth, in kbit/s, with at least that many codebooks."""
        quantizer = self.model.quantizer
        bandwidths = sorted(self.model.config.target_bandwidths)
        return next(b for b in bandwidths if quantizer.get_num_quantizers_for_bandwidth(b) >= codebooks)


def _reflects_within_warmup(config: EncodecConfig) -> bool:
    """Whether the convolutions at the frame rate, which reflect the farthest, show silence nothing but silence."""
    return max(config.kernel_size, config.last_kernel_size) <= WARMUP_FRAMES
