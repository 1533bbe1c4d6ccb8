"""A codec's decoder without its framework: structure, weights, and the one file in which both travel."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from wgpt_jax.audio.clock import Clock
from wgpt_jax.errors import RequestError

CODEC_NAME = "codec.safetensors"
CODEC_VERSION = 1
_HEADER = "wgpt_jax codec decoder"  # the one key of the metadata: safetensors writes several in any order
_REMEDY = f"copy {CODEC_NAME} from the prepared data, or prepare the data again"


@dataclasses.dataclass(frozen=True)
class DecoderSpec:
    """Structure and identity of a causal ENCODEC's decoder (arXiv 2210.13438); hashable, to be static under jit."""

    clock: Clock
    codec: str
    """Name or folder the codec was loaded from, as in the index."""
    fingerprint: str
    """Of the whole codec, as in the index."""
    codebook_size: int
    """Entries per codebook, V."""
    codebooks: int
    """Codebooks stored, K; any number of leading ones can be decoded."""
    latent: int
    """Channels of a codebook entry, D."""
    pad_mode: str
    """What a convolution reads before a clip's first sample: ``constant`` (zeros) or ``reflect``."""
    warmup_frames: int
    """Frames of silence, W, decoded and dropped before every clip; 0 under ``constant``."""
    filters: int
    """Channels behind the last upsampling; each one before it has twice as many."""
    ratios: tuple[int, ...]
    """Upsampling ratios, first to last; their product is the hop."""
    kernel: int
    """Taps of the first convolution."""
    last_kernel: int
    """Taps of the last convolution."""
    residual_kernel: int
    """Taps of a residual block's first convolution; its second has one."""
    dilations: tuple[int, ...]
    """Dilation of the first convolution, for each residual block behind an upsampling."""
    compress: int
    """A residual block of C channels has C // compress inside."""
    conv_shortcut: bool
    """Whether a residual block's shortcut is a convolution of one tap instead of the identity."""
    lstm_layers: int

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the weights by name: ``silence`` (the warm-up's tokens) is int32, all others float32.

        A kernel is [taps * C_in, C_out], oldest tap first. An upsampling by r (``up``) is a convolution of two taps to
        r * C_out channels, which are r samples. A residual block's ``out`` is its second convolution above its
        shortcut's, with the sum of their biases. An LSTM's gates are input, forget, cell and output.
        """
        width = self.filters * 2 ** len(self.ratios)
        shapes = {
            "codebooks": (self.codebooks, self.codebook_size, self.latent),
            "silence": (self.warmup_frames, self.codebooks),
            **_convolution("first", self.kernel * self.latent, width),
            **_convolution("last", self.last_kernel * self.filters, 1),
        }
        for layer in range(self.lstm_layers):
            shapes |= {f"lstm.{layer}.{kind}": (width, 4 * width) for kind in ("input", "recurrent")}
            shapes[f"lstm.{layer}.bias"] = (4 * width,)
        for stage, ratio in enumerate(self.ratios):
            width //= 2
            hidden = width // self.compress
            shapes |= _convolution(f"{stage}.up", 2 * (2 * width), ratio * width)
            for block in range(len(self.dilations)):
                shapes |= _convolution(f"{stage}.{block}.in", self.residual_kernel * width, hidden)
                shapes |= _convolution(f"{stage}.{block}.out", hidden + self.conv_shortcut * width, width)
        return shapes


def _convolution(name: str, fan_in: int, channels: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.kernel": (fan_in, channels), f"{name}.bias": (channels,)}


@dataclasses.dataclass(frozen=True)
class CodecDecoder:
    """A decoder: ``spec`` is static, ``weights`` (arrays by name) an argument of what is jitted.

    Raises:
        ValueError: if the weights are not those of :meth:`DecoderSpec.shapes`.
    """

    spec: DecoderSpec
    weights: dict[str, np.ndarray]

    def __post_init__(self):
        found = {name: (array.shape, array.dtype) for name, array in self.weights.items()}
        types = {name: np.dtype("int32" if name == "silence" else "float32") for name in self.spec.shapes()}
        if found != {name: (shape, types[name]) for name, shape in self.spec.shapes().items()}:
            raise ValueError("the weights do not have the shapes and types of the structure")


def save_codec_decoder(decoder: CodecDecoder, path: str | os.PathLike) -> None:
    """Writes one safetensors file in one atomic step; equal decoders give equal bytes."""
    spec = dataclasses.asdict(decoder.spec)
    header = {"version": CODEC_VERSION, "sha256": _sha256(spec, decoder.weights), "spec": spec}
    temporary = Path(path).with_suffix(".tmp")
    temporary.write_bytes(save(decoder.weights, {_HEADER: json.dumps(header)}))
    os.replace(temporary, path)


def load_codec_decoder(path: str | os.PathLike) -> CodecDecoder:
    """Reads and checks a file of :func:`save_codec_decoder`.

    Raises:
        RequestError: if there is no such file, or it is damaged, of another kind or of another version.
    """
    if not Path(path).is_file():
        raise RequestError(f"there is no codec decoder {path}; {_REMEDY}")
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads(file.metadata()[_HEADER])
            if header["version"] != CODEC_VERSION:
                raise RequestError(
                    f"{path} is of version {header['version']}, this version reads {CODEC_VERSION}; {_REMEDY}"
                )
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
        if _sha256(header["spec"], weights) != header["sha256"]:
            raise ValueError("its checksum does not fit")
        return CodecDecoder(_spec(header["spec"]), weights)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise RequestError(f"{path} is damaged or no codec decoder ({error}); {_REMEDY}") from error


def _spec(fields: dict[str, Any]) -> DecoderSpec:
    tuples = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    return DecoderSpec(**(fields | tuples | {"clock": Clock(**fields["clock"])}))


def _sha256(spec: dict[str, Any], weights: dict[str, np.ndarray]) -> str:
    """Of the structure and of every array's name, shape, type and bytes."""
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode())
    for name, array in sorted(weights.items()):
        digest.update(f"{name} {array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
