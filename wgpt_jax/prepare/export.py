"""A codec's decoder, out of ``transformers`` and into arrays: what generation needs of a codec."""

import numpy as np
from torch import nn

from wgpt_jax.audio.codec_file import CodecDecoder, DecoderSpec
from wgpt_jax.errors import RequestError
from wgpt_jax.prepare.encodec import Codec


def export_decoder(codec: Codec, codebooks: int) -> CodecDecoder:
    """The decoder with the first ``codebooks`` codebooks, its weight normalisation folded in.

    Raises:
        RequestError: if the codec is not causal, or has fewer codebooks.
    """
    if not codec.causal:
        raise RequestError(
            f"the decoder of codec {codec.name} cannot be exported: it needs audio that does not exist yet, so no "
            "loop of generation can be closed over it; use a causal codec, such as a 24 kHz ENCODEC"
        )
    codec.check_codebooks(codebooks)
    config, model = codec.model.config, codec.model
    spec = DecoderSpec(
        clock=codec.clock,
        codec=codec.name,
        fingerprint=codec.fingerprint,
        codebook_size=codec.codebook_size,
        codebooks=codebooks,
        latent=config.hidden_size,
        pad_mode=config.pad_mode,
        warmup_frames=codec.warmup_frames,
        filters=config.num_filters,
        ratios=tuple(config.upsampling_ratios),
        kernel=config.kernel_size,
        last_kernel=config.last_kernel_size,
        residual_kernel=config.residual_kernel_size,
        dilations=tuple(config.dilation_growth_rate**block for block in range(config.num_residual_layers)),
        compress=config.compress,
        conv_shortcut=config.use_conv_shortcut,
        lstm_layers=config.num_lstm_layers,
    )
    weights = {
        "codebooks": np.stack([_array(layer.codebook.embed) for layer in model.quantizer.layers[:codebooks]]),
        "silence": codec.silence[:, :codebooks].astype(np.int32),
    }
    layers = iter(layer for layer in model.decoder.layers if not isinstance(layer, nn.ELU))
    weights |= _named("first", _convolution(next(layers)))
    weights |= _lstm(next(layers).lstm)
    for stage in range(len(spec.ratios)):
        weights |= _named(f"{stage}.up", _upsampling(next(layers)))
        for block in range(len(spec.dilations)):
            residual = next(layers)
            weights |= _named(f"{stage}.{block}.in", _convolution(residual.block[1]))
            weights |= _named(f"{stage}.{block}.out", _residual_output(residual))
    weights |= _named("last", _convolution(next(layers)))
    return CodecDecoder(spec, {name: np.ascontiguousarray(array) for name, array in weights.items()})


def _array(tensor) -> np.ndarray:
    return tensor.detach().cpu().float().numpy()


def _named(name: str, kernel_and_bias: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
    kernel, bias = kernel_and_bias
    return {f"{name}.kernel": kernel, f"{name}.bias": bias}


def _convolution(layer: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """Kernel [taps * C_in, C_out] and bias of an ``EncodecConv1d``."""
    weight = _array(layer.conv.weight)  # [C_out, C_in, taps], folded by its parametrisation
    return weight.transpose(2, 1, 0).reshape(-1, len(weight)), _array(layer.conv.bias)


def _upsampling(layer: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """Kernel [2 * C_in, r * C_out] and bias of an ``EncodecConvTranspose1d`` of 2r taps and stride r.

    The first r taps are what an input adds to its own r samples, the others what it adds to the next r.
    """
    ratio = layer.conv.stride[0]
    weight = _array(layer.conv.weight)  # [C_in, C_out, 2r]
    channels_in, channels_out, _ = weight.shape
    taps = weight.reshape(channels_in, channels_out, 2, ratio).transpose(2, 0, 3, 1)[::-1]
    return taps.reshape(2 * channels_in, ratio * channels_out), np.tile(_array(layer.conv.bias), ratio)


def _residual_output(layer: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of an ``EncodecResnetBlock``'s second convolution, above those of its shortcut if it has any."""
    kernel, bias = _convolution(layer.block[3])
    if isinstance(layer.shortcut, nn.Identity):
        return kernel, bias
    shortcut_kernel, shortcut_bias = _convolution(layer.shortcut)
    return np.concatenate([kernel, shortcut_kernel]), bias + shortcut_bias


def _lstm(lstm: nn.LSTM) -> dict[str, np.ndarray]:
    weights = {}
    for layer in range(lstm.num_layers):
        weights[f"lstm.{layer}.input"] = _array(getattr(lstm, f"weight_ih_l{layer}")).T
        weights[f"lstm.{layer}.recurrent"] = _array(getattr(lstm, f"weight_hh_l{layer}")).T
        weights[f"lstm.{layer}.bias"] = _array(getattr(lstm, f"bias_ih_l{layer}") + getattr(lstm, f"bias_hh_l{layer}"))
    return weights
