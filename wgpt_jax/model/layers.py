"""The one block of the house, used by the mel branch and by the decoder, and the layers it is made of.

Letters: B batch, T time, D model, H heads, C head channels, F hidden, L layers.
Every parameter names its logical axes; ``parallel.mesh`` says which mesh axis each lies on.
"""

import dataclasses
import operator
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from wgpt_jax.config import ModelConfig
from wgpt_jax.model.attention import KeyValueCache, attend, attend_cached, rotate
from wgpt_jax.model.splash import RESIDUALS
from wgpt_jax.parallel.mesh import split_rows


@dataclasses.dataclass(frozen=True)
class BlockConfig:
    """Sizes and habits of a block."""

    width: int
    heads: int
    hidden: int
    mlp: str
    dropout: float
    rope_base: float
    dtype: jnp.dtype
    attention: str
    """Kernel of full-sequence attention, as in the configuration."""
    depth: int
    """Blocks in the stack: the residual branches start smaller by its square root (GPT-2, section 2.3)."""

    @classmethod
    def narrow(cls, config: ModelConfig, dtype: jnp.dtype, width: int, heads: int, depth: int) -> "BlockConfig":
        """Blocks beside the decoder's own (mel branch, depth transformer): GELU, four times as wide inside."""
        return cls(width, heads, 4 * width, "gelu", config.dropout, config.rope_base, dtype, config.attention, depth)


class Einsum(nnx.Module):
    """A matrix product by einsum, without bias.

    The kernel is normal with standard deviation ``gain / sqrt(fan_in)`` and stored in float32; operands are rounded to
    ``dtype``, the result is in ``out_dtype`` (``dtype`` by default).
    """

    def __init__(self, equation, shape, axes, *, fan_in, dtype, rngs, gain=1.0, out_dtype=None):
        self.equation, self.dtype, self.out_dtype = equation, dtype, out_dtype or dtype
        std = gain * fan_in**-0.5
        self.kernel = nnx.Param(std * jax.random.normal(rngs.params(), shape, jnp.float32), out_sharding=axes)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., in] -> [..., out], as the equation says."""
        operands = x.astype(self.dtype), self.kernel[...].astype(self.dtype)
        return jnp.einsum(self.equation, *operands, preferred_element_type=self.out_dtype)


class RMSNorm(nnx.Module):
    """Root-mean-square normalisation of the last axis with a learned scale (arXiv 1910.07467), in float32."""

    def __init__(self, width):
        self.scale = nnx.Param(jnp.ones(width, jnp.float32), out_sharding=(None,))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., D] -> [..., D], same type."""
        wide = x.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + 1e-6)
        return (wide * self.scale[...]).astype(x.dtype)


class Attention(nnx.Module):
    """Causal multi-head self-attention with a fused QKV product and rotary positions."""

    def __init__(self, config: BlockConfig, rngs):
        d, h, c = config.width, config.heads, config.width // config.heads
        self.rope_base, self.kernel = config.rope_base, config.attention
        make = partial(Einsum, dtype=config.dtype, rngs=rngs, fan_in=d)
        self.qkv = make("btd,dnhc->btnhc", (d, 3, h, c), ("embed", None, "heads", None))
        # `k` is C: einsum contracts in alphabetical order, and c before h would transpose the kernel at every step.
        self.out = make("bthk,hkd->btd", (h, c, d), ("heads", None, "embed"), gain=(2 * config.depth) ** -0.5)

    def __call__(self, x: jax.Array, segment_ids: jax.Array, positions: jax.Array) -> jax.Array:
        """[B, T, D] -> [B, T, D]."""
        return self.out(attend(*self._heads(x, positions), segment_ids, self.kernel))

    def step(self, x, cache: KeyValueCache, slot, visible, positions) -> tuple[jax.Array, KeyValueCache]:
        """One position: [B, 1, D] -> [B, 1, D]; see :meth:`Block.step`."""
        mixed, cache = attend_cached(*self._heads(x, positions), cache, slot, visible)
        return self.out(mixed), cache

    def _heads(self, x: jax.Array, positions: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        query, key, value = jnp.unstack(self.qkv(x), axis=2)
        return rotate(query, positions, self.rope_base), rotate(key, positions, self.rope_base), value


class MLP(nnx.Module):
    """GELU (tanh form), or SwiGLU (arXiv 2002.05202) with a second input matrix as the gate."""

    def __init__(self, config: BlockConfig, rngs):
        d, f = config.width, config.hidden
        gates = 2 if config.mlp == "swiglu" else 1
        self.up = Einsum(
            "btd,dgf->btgf", (d, gates, f), ("embed", None, "mlp"), fan_in=d, dtype=config.dtype, rngs=rngs
        )
        self.down = Einsum(
            "btf,fd->btd",
            (f, d),
            ("mlp", "embed"),
            fan_in=f,
            gain=(2 * config.depth) ** -0.5,
            dtype=config.dtype,
            rngs=rngs,
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, T, D] -> [B, T, D]."""
        first, *gate = jnp.unstack(self.up(x), axis=2)
        return self.down(jax.nn.silu(first) * gate[0] if gate else jax.nn.gelu(first))


class Block(nnx.Module):
    """Pre-norm residual block: attention, then MLP."""

    def __init__(self, config: BlockConfig, rngs):
        self.dropout = config.dropout
        self.attention_norm = RMSNorm(config.width)
        self.attention = Attention(config, rngs)
        self.mlp_norm = RMSNorm(config.width)
        self.mlp = MLP(config, rngs)

    def __call__(self, x, segment_ids, positions, dropout_key=None) -> jax.Array:
        """[B, T, D] -> [B, T, D]; drops only where a key is given."""
        keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        x = x + drop(self.attention(self.attention_norm(x), segment_ids, positions), self.dropout, keys[0])
        return x + drop(self.mlp(self.mlp_norm(x)), self.dropout, keys[1])

    def step(self, x, cache: KeyValueCache, slot, visible, positions) -> tuple[jax.Array, KeyValueCache]:
        """One position of every row, the ones before it in a cache.

        Args:
            x: [B, 1, D].
            cache: keys and values of W positions.
            slot: int32 [], where in the cache this position is written.
            visible: bool [B, W], which slots the position sees, its own among them.
            positions: int32 [B, 1], index in the document.

        Returns:
            [B, 1, D] and the cache with this position in it.
        """
        mixed, cache = self.attention.step(self.attention_norm(x), cache, slot, visible, positions)
        x = x + mixed
        return x + self.mlp(self.mlp_norm(x)), cache


def drop(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Inverted dropout; the identity without a key or a rate."""
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros_like(x))


_POLICIES = jax.checkpoint_policies
REMAT_POLICIES = {
    # With what splash's backward kernels need: its forward kernel is no matrix product to the policy.
    "dots": _POLICIES.save_from_both_policies(
        _POLICIES.dots_with_no_batch_dims_saveable, _POLICIES.save_only_these_names(RESIDUALS)
    ),
    "full": _POLICIES.nothing_saveable,
}


class Stack(nnx.Module):
    """``config.depth`` blocks with stacked parameters [L, ...], run by one scan."""

    def __init__(self, config: BlockConfig, rngs, remat: str = "none"):
        self.depth, self.remat = config.depth, remat

        @nnx.split_rngs(splits=config.depth)
        @nnx.vmap(in_axes=0, out_axes=0, axis_size=config.depth, transform_metadata={nnx.PARTITION_NAME: "layers"})
        def make(rngs):
            return Block(config, rngs)

        self.blocks = make(rngs)

    def __call__(self, x, segment_ids, positions, dropout_key=None) -> jax.Array:
        """[B, T, D] -> [B, T, D]."""
        graph, stacked = nnx.split(self.blocks)
        keys = None if dropout_key is None else jax.random.split(dropout_key, self.depth)

        def body(x, layer):
            parameters, key = layer
            return split_rows(nnx.merge(graph, parameters)(x, segment_ids, positions, key)), None

        if self.remat != "none":
            body = jax.checkpoint(body, prevent_cse=False, policy=REMAT_POLICIES[self.remat])
        return jax.lax.scan(body, split_rows(x), (stacked, keys))[0]

    def unrolled(self) -> list[Block]:
        """The blocks one by one: a cached step reads each one's own arrays, stacked caches would be copied whole."""
        graph, stacked = nnx.split(self.blocks)
        return [nnx.merge(graph, jax.tree.map(operator.itemgetter(layer), stacked)) for layer in range(self.depth)]
