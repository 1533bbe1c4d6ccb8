"""A digest of arrays that any mesh computes alike: it tells a damaged checkpoint from the one that was saved."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_BITS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def digest(tree: Any) -> dict[str, int]:
    """A number of 32 bits for every array, computed where the array lies.

    The sum, modulo 2^32, of each element's bits times an odd number drawn from the element's place: integers add up to
    the same in any order, and no change of a single element, however small, leaves the sum as it was.

    Args:
        tree: jax arrays of at most 4 bytes per element.

    Returns:
        by the path of each array in the tree.
    """
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    sums = jax.device_get(_sums(jax.tree.leaves(tree)))
    return dict(zip(paths, map(int, sums), strict=True))


@jax.jit
def _sums(leaves: list[jax.Array]) -> list[jax.Array]:
    return [_sum(leaf) for leaf in leaves]


def _sum(x: jax.Array) -> jax.Array:
    x = x.astype(jnp.uint8) if x.dtype == jnp.bool_ else x
    bits = jax.lax.bitcast_convert_type(x, _BITS[x.dtype.itemsize]).astype(jnp.uint32)
    place = jnp.zeros(x.shape, jnp.uint32)
    for axis in range(x.ndim):
        stride = np.uint32(math.prod(x.shape[axis + 1 :]) % 2**32)
        place += jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis) * stride
    return jnp.sum(bits * (_mixed(place) | jnp.uint32(1)), dtype=jnp.uint32)


def _mixed(x: jax.Array) -> jax.Array:
    """A bijection of 32 bits without pattern (the last steps of MurmurHash3, Appleby)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
