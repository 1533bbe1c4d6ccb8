"""Data-dependent initialisation of the codec."""

import torch
from torch import Tensor, nn
from transformers import EncodecModel
from transformers.models.encodec.modeling_encodec import EncodecConv1d, EncodecConvTranspose1d, EncodecResnetBlock

RESIDUAL_STD, OUTPUT_STD = 0.4, 0.05


@torch.no_grad()
def lsuv_(model: EncodecModel, audio: Tensor) -> None:
    """Scales every convolution in place so that its output has standard deviation 1 on real audio, biases zero.

    Layer-sequential unit variance (Mishkin and Matas, arXiv 1511.06422). Without it the encoder's output is some
    twenty times too small, because the library's Kaiming initialisation does not reach the weights behind the
    weight-norm parametrization, and training stays on the plateau of a constant output. The last convolution of a
    residual block aims at 0.4 and the decoder's last one at 0.05, the level of audio.

    Args:
        model: the codec; its parameters are changed.
        audio: float32 ``[B, 1, N]`` of real audio, N a multiple of the hop.
    """
    last_in_block = {id(m.block[-1]) for m in model.modules() if isinstance(m, EncodecResnetBlock)}
    goals = {id(model.decoder.layers[-1]): OUTPUT_STD, **dict.fromkeys(last_in_block, RESIDUAL_STD)}

    def rescale(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        layer.conv.bias.zero_()
        std = layer.forward(*inputs).std()
        layer.conv.parametrizations.weight.original0.mul_(goals.get(id(layer), 1.0) / std.clamp(min=1e-5))

    layers = [m for m in model.modules() if isinstance(m, (EncodecConv1d, EncodecConvTranspose1d))]
    hooks = [layer.register_forward_pre_hook(rescale) for layer in layers]
    model.decoder(model.encoder(audio))
    for hook in hooks:
        hook.remove()
