"""ENCODEC's decoder by JAX (arXiv 2210.13438), whole or as a stream: any chunks of tokens give the same samples.

Letters: B batch, T time, C channels, n frames, K codebooks. All is channels last, and every convolution is one matrix
product over its taps side by side: for the few samples of a frame that is faster than a convolution. A transposed
convolution by r with 2r taps, its tail cut off, is a causal convolution of two taps to r samples at once.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wgpt_jax.audio.codec_file import DecoderSpec

Weights = dict[str, jax.Array]
"""Arrays by name, as ``DecoderSpec.shapes`` lists them."""


class DecoderCarry(NamedTuple):
    """What the next chunk needs of all before it; shapes depend on the spec and B only."""

    inputs: dict[str, jax.Array]
    """The last inputs of every convolution, as many as it reaches back: float32 [B, (taps - 1) * dilation, C]."""
    lstm: tuple[tuple[jax.Array, jax.Array], ...]
    """Output and cell of each LSTM layer: float32 [B, C]."""


@partial(jax.jit, static_argnames="spec")
def decode(
    spec: DecoderSpec, weights: Weights, tokens: jax.Array, carry: DecoderCarry | None = None
) -> tuple[jax.Array, DecoderCarry]:
    """Samples of a clip's next ``n`` frames.

    Args:
        spec: the decoder's structure (static).
        weights: its arrays.
        tokens: integers [B, n, K'] below V, of the K' leading codebooks; one above gives NaN.
        carry: what the call for the frames before returned, or :func:`initial_carry`. None starts a clip with the
            codec's own padding, as ``EncodecModel.decode`` does: under ``reflect`` the first frames then depend on
            later ones of the same call.

    Returns:
        float32 [B, n * hop], and the carry for the frames after.

    Raises:
        ValueError: if the decoder has no K' codebooks.
    """
    codebooks = tokens.shape[-1]
    if not 1 <= codebooks <= spec.codebooks:
        raise ValueError(f"the decoder has {spec.codebooks} codebooks, the tokens {codebooks}")
    inputs = {}

    def convolve(name, x, dilation=1, pad_mode=spec.pad_mode):
        """Causal convolution, [B, T, C] -> [B, T, C']; keeps what the next chunk reaches back to."""
        kernel, bias = weights[f"{name}.kernel"], weights[f"{name}.bias"]
        reach = (kernel.shape[0] // x.shape[-1] - 1) * dilation
        if reach:
            past = _before_start(x, reach, pad_mode) if carry is None else carry.inputs[name]
            joined = jnp.concatenate([past, x], axis=1)
            inputs[name] = joined[:, x.shape[1] :]
            taps = [joined[:, first : first + x.shape[1]] for first in range(0, reach + 1, dilation)]
            x = jnp.concatenate(taps, axis=-1)
        return _product(x, kernel) + bias

    entries = weights["codebooks"].at[jnp.arange(codebooks), tokens.astype(jnp.int32)].get(mode="fill")
    x = convolve("first", entries.sum(axis=-2))
    if carry is None:
        zeros = jnp.zeros((x.shape[0], x.shape[-1]), x.dtype)
        lstm = ((zeros, zeros),) * spec.lstm_layers
    else:
        lstm = carry.lstm
    recurrent, lstm = _run_lstm(weights, x, lstm)
    x = x + recurrent
    for stage, ratio in enumerate(spec.ratios):
        x = convolve(f"{stage}.up", jax.nn.elu(x), pad_mode="constant")
        x = x.reshape(x.shape[0], x.shape[1] * ratio, -1)
        for block, dilation in enumerate(spec.dilations):
            hidden = jax.nn.elu(convolve(f"{stage}.{block}.in", jax.nn.elu(x), dilation))
            if spec.conv_shortcut:
                x = convolve(f"{stage}.{block}.out", jnp.concatenate([hidden, x], axis=-1))
            else:
                x = x + convolve(f"{stage}.{block}.out", hidden)
    return convolve("last", jax.nn.elu(x))[..., 0], DecoderCarry(inputs, lstm)


@partial(jax.jit, static_argnames=("spec", "batch", "codebooks"))
def initial_carry(spec: DecoderSpec, weights: Weights, batch: int, codebooks: int) -> DecoderCarry:
    """The carry before a clip's first frame, under which samples depend on no later frame's tokens.

    Zeros, or for a codec that pads by reflection the state behind its warm-up of silence, decoded with as many
    codebooks: as ``prepare.encodec.Codec.decode`` does.

    Args:
        spec: the decoder's structure (static).
        weights: its arrays.
        batch: B (static).
        codebooks: K', as in the tokens to come (static).
    """
    if spec.warmup_frames:
        _, carry = decode(spec, weights, weights["silence"][None, :, :codebooks])
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (batch, *leaf.shape[1:])), carry)
    frame = jax.ShapeDtypeStruct((batch, 1, codebooks), jnp.int32)
    _, carry = jax.eval_shape(partial(decode, spec), weights, frame)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), carry)


def _before_start(x: jax.Array, reach: int, pad_mode: str) -> jax.Array:
    """What stands for the ``reach`` inputs before a clip's first: [B, T, C] -> [B, reach, C].

    Reflection leaves the first input out; where it would go past the last one, zeros are (as in ``transformers``).
    """
    if pad_mode == "constant":
        return jnp.zeros((x.shape[0], reach, x.shape[-1]), x.dtype)
    missing = max(0, reach + 1 - x.shape[1])
    return jnp.pad(x, [(0, 0), (0, missing), (0, 0)])[:, reach:0:-1]


def _run_lstm(weights: Weights, x: jax.Array, states: tuple) -> tuple[jax.Array, tuple]:
    """Stacked LSTM layers: float32 [B, T, C] and (h, c) of each -> [B, T, C] and the states behind it."""
    after = []
    for layer, state in enumerate(states):
        gates = _product(x, weights[f"lstm.{layer}.input"]) + weights[f"lstm.{layer}.bias"]
        step = partial(_lstm_step, weights[f"lstm.{layer}.recurrent"])
        if x.shape[1] == 1:  # a loop of one step would only cost its overhead
            state, h = step(state, gates[:, 0])
            x = h[:, None]
        else:
            state, h = jax.lax.scan(step, state, gates.swapaxes(0, 1))
            x = h.swapaxes(0, 1)
        after.append(state)
    return x, tuple(after)


def _lstm_step(recurrent: jax.Array, state: tuple, gates: jax.Array) -> tuple[tuple, jax.Array]:
    """One step: (h, c) and the gates' share of the input [B, 4 * C] -> (h, c) and h."""
    h, c = state
    i, f, g, o = jnp.split(gates + _product(h, recurrent), 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h, c), h


def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[..., in] by [in, out], in full float32 on every accelerator."""
    return jnp.matmul(x, kernel, precision=jax.lax.Precision.HIGHEST)
