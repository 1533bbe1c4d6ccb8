"""Attention on TPU: JAX's splash kernel (Pallas; jax.experimental.pallas.ops.tpu.splash_attention), over a mesh.

Letters: B batch, T time, H heads, C head channels.
"""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from wgpt_jax.parallel.mesh import over_mesh, platform

LANES = 128
"""The kernel's blocks are multiples of a vector register's lanes, and so must be T."""
RESIDUALS = "attention"
"""Name under which a remat policy can keep what the backward kernels need."""
_LARGEST_BLOCK = 512


def splash_attention(query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array) -> jax.Array:
    """:func:`wgpt_jax.model.attention.attend` by the splash kernel: no [T, T] array is ever made.

    T is padded to a multiple of 128. Head channels need not be: the kernel pads them in its registers (24 to 128
    compile for v5e, v5p and v6e). On a CPU the kernel is interpreted, which is for tests.

    Args:
        query, key, value: [B, T, H, C].
        segment_ids: int32 [B, T].

    Returns:
        [B, T, H, C] in the type of ``value``.
    """
    t, c = query.shape[1], query.shape[-1]
    query = (query.astype(jnp.float32) * c**-0.5).astype(query.dtype)
    padding = -t % LANES
    query, key, value = (
        jnp.pad(x, ((0, 0), (0, padding), (0, 0), (0, 0))).transpose(0, 2, 1, 3) for x in (query, key, value)
    )
    # No document sees the padding, which comes after it.
    segment_ids = jnp.pad(segment_ids, ((0, 0), (0, padding)))

    def local(query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array) -> jax.Array:
        heads, length = query.shape[1], query.shape[2]
        mask = masks.MultiHeadMask([masks.CausalMask((length, length))] * heads)
        attend = kernel.make_splash_mha_single_device(
            mask, block_sizes=_blocks(length), residual_checkpoint_name=RESIDUALS, interpret=platform() == "cpu"
        )
        return jax.vmap(attend)(query, key, value, kernel.SegmentIds(segment_ids, segment_ids))

    return over_mesh(local, heads_axis=1)(query, key, value, segment_ids)[:, :, :t].transpose(0, 2, 1, 3)


def _blocks(length: int) -> kernel.BlockSizes:
    """The largest blocks that divide the length: few trips through the kernel's loop, all of them in fast memory."""
    block = max(size for size in range(LANES, _LARGEST_BLOCK + 1, LANES) if length % size == 0)
    return kernel.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
