"""The decoder in plain float64 NumPy, written from the papers and from nothing in the package."""

import numpy as np


def rms_norm(x, scale):
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6) * scale


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def rotate(x, positions, base=10_000.0):
    """x [T, H, C]: each pair (c, c + C/2) as a complex number, turned by position * base ** (-2 c / C)."""
    half = x.shape[-1] // 2
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(
        1j * positions[:, None, None] * base ** (-2 * np.arange(half) / x.shape[-1])
    )
    return np.concatenate([turned.real, turned.imag], axis=-1)


def attention(query, key, value, segment_ids, window=10**9):
    """[T, H, C] each: one query and one head at a time; `window`: positions seen, its own included."""
    out = np.zeros_like(value)
    for t in range(len(query)):
        seen = [s for s in range(max(0, t + 1 - window), t + 1) if segment_ids[s] == segment_ids[t]]
        for h in range(query.shape[1]):
            logits = key[seen, h] @ query[t, h] / np.sqrt(query.shape[-1])
            weights = np.exp(logits - logits.max())
            out[t, h] = weights @ value[seen, h] / weights.sum()
    return out


def block(x, p, segment_ids, positions, window=10**9):
    """x [T, D]; p: parameters of one block."""
    h = rms_norm(x, p["attention_norm"]["scale"])
    query, key, value = np.einsum("td,dnhc->nthc", h, p["attention"]["qkv"]["kernel"])
    mixed = attention(rotate(query, positions), rotate(key, positions), value, segment_ids, window)
    x = x + np.einsum("thc,hcd->td", mixed, p["attention"]["out"]["kernel"])
    h = rms_norm(x, p["mlp_norm"]["scale"])
    hidden = np.einsum("td,dgf->gtf", h, p["mlp"]["up"]["kernel"])
    hidden = gelu(hidden[0]) if len(hidden) == 1 else hidden[0] / (1 + np.exp(-hidden[0])) * hidden[1]
    return x + hidden @ p["mlp"]["down"]["kernel"]


def stack(x, p, segment_ids, positions, window=10**9):
    for layer in range(len(p["attention_norm"]["scale"])):
        x = block(x, _layer(p, layer), segment_ids, positions, window)
    return x


def _layer(tree, index):
    return {k: _layer(v, index) if isinstance(v, dict) else v[index] for k, v in tree.items()}


def convolve(x, kernel, positions):
    """Causal convolution [T, C] -> [T, E] within segments; kernel [taps, C, E], the newest last."""
    out = np.zeros((len(x), kernel.shape[2]))
    for t in range(len(x)):
        for back in range(min(len(kernel), positions[t] + 1)):
            out[t] += x[t - back] @ kernel[len(kernel) - 1 - back]
    return out


def hidden(p, fusion, tokens, mel, segment_ids, positions, starts, window=10**9):
    """Normalised states [T, D] of one window; tokens [T + 1, K], mel [T + 1, M] with the frame before it first."""
    x = p["embedding"][tokens[:-1, 0]]
    for k, table in enumerate(p.get("fine_embedding", ()), start=1):
        x = x + table[tokens[:-1, k]]
    x = np.where(starts[:, None], p["bos"], x)
    x = rms_norm(x, p["token_norm"]["scale"])
    if "token_conv" in p:
        conv = p["token_conv"]
        gathered = rms_norm(convolve(x, conv["conv"]["kernel"], positions), conv["norm"]["scale"])
        x = x + gathered @ conv["project"]["kernel"]
    if "mel_branch" in p:
        branch = p["mel_branch"]
        slices = np.where(starts[:, None], branch["null"], mel[:-1].astype(np.float64))
        features = convolve(slices, branch["stem"]["kernel"], positions)
        if "stack" in branch:
            features = stack(features, branch["stack"]["blocks"], segment_ids, positions, window)
        features = rms_norm(features, p["mel_norm"]["scale"])
        fused = np.concatenate([x, features], axis=-1) if fusion == "concat" else features
        x = (0 if fusion == "concat" else x) + fused @ p["fuse"]["kernel"]
    x = stack(x, p["stack"]["blocks"], segment_ids, positions, window)
    return rms_norm(x, p["head_norm"]["scale"])


def decoder(p, fusion, tokens, mel, segment_ids, positions, starts, window=10**9):
    """Logits [T, V] of the coarse tokens; arguments as of :func:`hidden`."""
    return hidden(p, fusion, tokens, mel, segment_ids, positions, starts, window) @ p["head"]["kernel"]


def depformer(p, state, codes):
    """Logits [K - 1, V] of one frame's finer codebooks from its state [D] and its codes [K], one after the other."""
    rows = []
    for k in range(len(codes) - 1):
        x = np.stack([state @ p["project"]["kernel"][j] for j in range(k + 1)])
        x += rms_norm(np.stack([p["embedding"][j][codes[j]] for j in range(k + 1)]), p["token_norm"]["scale"])
        x = stack(x, p["stack"]["blocks"], np.ones(k + 1), np.arange(k + 1))
        rows.append(rms_norm(x[k], p["head_norm"]["scale"]) @ p["head"]["kernel"][k])
    return np.stack(rows)
