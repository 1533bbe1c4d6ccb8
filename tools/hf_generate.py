"""The speed of transformers' ``generate`` with a decoder of our shape, for ``benchmark_generate.py``."""

import os
import time

import torch
from transformers import PreTrainedModel, Starcoder2Config, Starcoder2ForCausalLM


def hf_tokens_per_second(
    layers: int,
    width: int,
    heads: int,
    hidden: int,
    vocabulary: int,
    context: int,
    batch: int,
    tokens: int,
    threads: int,
) -> float:
    """Times ``generate`` on the CPU in float32, sampling from the plain softmax with a cache, after a warm-up.

    The decoder is Starcoder2's with random weights: of transformers' architectures the nearest to ours. It is pre-norm,
    with rotary positions, no biases, a GELU (tanh) MLP without a gate and a head of its own; only its norms are
    LayerNorm, one fused operation in torch, where ours are RMSNorm. At 4 x 256, hidden 1024, vocabulary 1024 it has
    3,674,624 parameters, ours 3.67 M; Llama's gated MLP would make 4.72 M of that, and GPT-2 has no rotary positions.

    Args:
        layers, width, heads, hidden, vocabulary: sizes of the decoder.
        context: positions it is made for; beyond, its cache goes on growing.
        batch: sequences at once, each from one start token.
        tokens: new tokens per sequence.
        threads: of torch.

    Returns:
        tokens per second, all sequences together.
    """
    model = _random_decoder(layers, width, heads, hidden, vocabulary, context)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        _generate(model, batch, min(tokens, 8))
        begin = time.perf_counter()
        _generate(model, batch, tokens)
        return batch * tokens / (time.perf_counter() - begin)
    finally:
        torch.set_num_threads(before)


def best_threads(
    layers: int, width: int, heads: int, hidden: int, vocabulary: int, context: int, batch: int, tokens: int = 100
) -> int:
    """The number of threads, from 1 to all cores, with which :func:`hf_tokens_per_second` is fastest."""
    shape = (layers, width, heads, hidden, vocabulary, context, batch, tokens)
    return max(range(1, (os.cpu_count() or 1) + 1), key=lambda threads: hf_tokens_per_second(*shape, threads))


def _random_decoder(layers, width, heads, hidden, vocabulary, context) -> PreTrainedModel:
    config = Starcoder2Config(
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=hidden,
        vocab_size=vocabulary,
        max_position_embeddings=context,
        use_bias=False,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,  # nothing ends a sequence early
    )
    return Starcoder2ForCausalLM(config).eval()


def _generate(model: PreTrainedModel, batch: int, tokens: int) -> None:
    start = torch.zeros((batch, 1), dtype=torch.long)
    out = model.generate(
        start,
        attention_mask=torch.ones_like(start),
        do_sample=True,
        top_k=0,
        use_cache=True,
        min_new_tokens=tokens,
        max_new_tokens=tokens,
    )
    assert out.shape == (batch, 1 + tokens)
