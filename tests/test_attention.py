"""Every kernel of attention that runs here against a NumPy reference: values and gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from synthetic import tiny_config

from wgpt_jax.config import MeshConfig
from wgpt_jax.errors import RequestError
from wgpt_jax.model.attention import KERNELS, attend, kernel_for
from wgpt_jax.parallel.mesh import check_mesh_fits, make_mesh, sharded

SEGMENTS = (0.3, 0.35, 0.2)  # of T; the rest is padding, segment 0


def numpy_attention(query, key, value, segment_ids, weights):
    """Attention in float64, one query at a time; and the gradients of ``sum(weights * output)``."""
    b, t, h, c = query.shape
    output = np.zeros_like(value)
    gradients = np.zeros_like(query), np.zeros_like(key), np.zeros_like(value)
    for i, head, s in np.ndindex(b, h, t):
        seen = np.flatnonzero(segment_ids[i, : s + 1] == segment_ids[i, s])
        q, k, v, w = query[i, s, head], key[i, seen, head], value[i, seen, head], weights[i, s, head]
        logits = k @ q / np.sqrt(c)
        p = np.exp(logits - logits.max())
        p /= p.sum()
        output[i, s, head] = p @ v
        d_logits = p * (v @ w - (p @ v) @ w) / np.sqrt(c)
        gradients[0][i, s, head] = d_logits @ k
        gradients[1][i, seen, head] += np.outer(d_logits, q)
        gradients[2][i, seen, head] += np.outer(p, w)
    return output, gradients


@pytest.mark.parametrize("on_mesh", [False, True])
@pytest.mark.parametrize(
    ("kernel", "t", "channels"),
    [("einsum", 40, 8), ("splash", 128, 32), ("splash", 256, 48), ("splash", 200, 64), ("splash", 128, 128)],
)
def test_a_kernel_computes_causal_attention_within_segments(kernel, t, channels, on_mesh):
    rng = np.random.default_rng(t + channels)
    query, key, value, weights = rng.normal(size=(4, 2, t, 2, channels))
    edges = (np.cumsum(SEGMENTS) * t).astype(int)
    segment_ids = np.searchsorted(edges, np.arange(t), side="right") + 1
    segment_ids[edges[-1] :] = 0
    segment_ids = np.stack([segment_ids, np.ones_like(segment_ids)]).astype(np.int32)
    expected, gradients = numpy_attention(query, key, value, segment_ids, weights)

    def weighted(query, key, value):
        output = attend(query, key, value, jnp.asarray(segment_ids), kernel)
        return jnp.sum(output * weights.astype(np.float32)), output

    run = jax.jit(jax.grad(weighted, argnums=(0, 1, 2), has_aux=True))
    arrays = [x.astype(np.float32) for x in (query, key, value)]
    if on_mesh:
        with sharded(make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])):
            ours, output = run(*arrays)
    else:
        ours, output = run(*arrays)
    np.testing.assert_allclose(output, expected, atol=2e-5)
    for mine, reference in zip(ours, gradients, strict=True):
        np.testing.assert_allclose(mine, reference, atol=5e-5)


def test_what_cudnn_is_asked_for_is_causal_attention_within_segments(monkeypatch):
    """cuDNN needs a GPU; the same call by XLA shows that mask and causality mean what they should."""
    asked = []

    def by_xla(*args, implementation, **kwargs):
        asked.append(implementation)
        return dot_product_attention(*args, implementation="xla", **kwargs)

    dot_product_attention = jax.nn.dot_product_attention
    monkeypatch.setattr(jax.nn, "dot_product_attention", by_xla)
    query, key, value, weights = np.random.default_rng(0).normal(size=(4, 1, 10, 2, 8)).astype(np.float32)
    segment_ids = np.array([[1, 1, 1, 2, 2, 2, 2, 0, 0, 0]], np.int32)
    expected, _ = numpy_attention(query, key, value, segment_ids, weights)
    np.testing.assert_allclose(KERNELS["cudnn"](query, key, value, segment_ids), expected, atol=2e-6)
    assert asked == ["cudnn"]


@pytest.mark.parametrize(
    ("t", "channels", "dtype", "kernel"),
    [
        (256, 64, jnp.bfloat16, "cudnn"),
        (256, 48, jnp.bfloat16, "cudnn"),
        (256, 64, jnp.float32, "einsum"),
        (255, 64, jnp.bfloat16, "einsum"),
        (256, 60, jnp.bfloat16, "einsum"),
        (256, 256, jnp.bfloat16, "einsum"),
    ],
)
def test_on_a_gpu_cudnn_gets_what_it_can_take(monkeypatch, t, channels, dtype, kernel):
    monkeypatch.setattr("wgpt_jax.model.attention.platform", lambda: "gpu")
    assert kernel_for(jax.ShapeDtypeStruct((1, t, 1, channels), dtype)) == kernel


def test_the_platform_chooses_and_short_sequences_take_the_einsum():
    long, short = (jax.ShapeDtypeStruct((1, t, 1, 8), jnp.bfloat16) for t in (128, 127))
    assert kernel_for(long) == "einsum"  # this is a CPU
    assert kernel_for(long, "splash") == "splash"
    assert kernel_for(short, "splash") == "einsum"


def test_a_kernel_of_another_platform_is_refused():
    config = tiny_config()
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, attention="cudnn"))
    with pytest.raises(RequestError, match="cudnn runs on gpu, not on cpu"):
        check_mesh_fits(config, make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1]))
