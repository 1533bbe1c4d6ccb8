import itertools
import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from audio_samples import random_codec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wgpt_jax.audio.codec_file import CODEC_NAME, CodecDecoder, load_codec_decoder, save_codec_decoder
from wgpt_jax.audio.encodec import decode, initial_carry
from wgpt_jax.errors import RequestError
from wgpt_jax.prepare.codec import load_codec
from wgpt_jax.prepare.encodec import Codec
from wgpt_jax.prepare.export import export_decoder

ENCODEC_24KHZ = {  # the sizes of facebook/encodec_24khz
    "num_filters": 32,
    "hidden_size": 128,
    "num_lstm_layers": 2,
    "codebook_size": 1024,
    "target_bandwidths": [1.5, 3.0, 6.0],
}


FRAMES = 12  # as few shapes as possible: each is compiled for a second
TINY = {"upsampling_ratios": [4, 2], "sampling_rate": 600}


@pytest.fixture(scope="module", params=["constant", "reflect"])
def codec(request) -> Codec:
    """A tiny codec of either padding."""
    return Codec(random_codec(pad_mode=request.param, **TINY), request.param)


@pytest.fixture(scope="module")
def decoder(codec) -> CodecDecoder:
    return export_decoder(codec, codec.codebooks)


def random_tokens(codec: Codec, frames: int = FRAMES, batch: int = 1, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, codec.codebook_size, (batch, frames, codec.codebooks))


def by_transformers(codec: Codec, tokens: np.ndarray) -> np.ndarray:
    codes = torch.from_numpy(tokens).permute(0, 2, 1)[None]
    with torch.no_grad():
        return codec.model.decode(codes, [None]).audio_values[:, 0].numpy()


def start(decoder: CodecDecoder, tokens: np.ndarray):
    return initial_carry(decoder.spec, decoder.weights, len(tokens), tokens.shape[-1])


def in_chunks(decoder: CodecDecoder, tokens: np.ndarray, cuts=None, carry=None) -> np.ndarray:
    """Samples of chunks that end at ``cuts``; one token at a time by default."""
    parts = []
    for chunk in np.split(tokens, range(1, tokens.shape[1]) if cuts is None else cuts, axis=1):
        samples, carry = decode(decoder.spec, decoder.weights, chunk, carry)
        parts.append(samples)
    return np.concatenate(parts, axis=1)


def assert_same(samples, expected):
    scale = np.abs(expected).max()
    assert samples.shape == expected.shape and samples.dtype == np.float32 and scale > 1e-2
    np.testing.assert_allclose(samples, expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("name", ["bundled", "24 kHz"])
def test_real_sizes_decode_as_transformers_does(name):
    codec = load_codec("bundled") if name == "bundled" else Codec(random_codec(**ENCODEC_24KHZ), name)
    decoder = export_decoder(codec, codec.codebooks)
    tokens = random_tokens(codec, 12)
    samples, _ = decode(decoder.spec, decoder.weights, tokens)
    assert_same(samples, by_transformers(codec, tokens))

    @jax.jit
    def stream(weights, tokens, carry):
        def step(carry, token):
            samples, carry = decode(decoder.spec, weights, token[:, None], carry)
            return carry, samples

        return jax.lax.scan(step, carry, tokens.swapaxes(0, 1))[1].swapaxes(0, 1).reshape(len(tokens), -1)

    samples = stream(decoder.weights, jnp.asarray(tokens), start(decoder, tokens))
    assert_same(samples, codec.decode(tokens[0])[None])


def random_structure(seed: int) -> dict:
    """A small codec; it reflects no further than the warm-up, 7 frames."""
    rng = np.random.default_rng(seed)
    ratios = rng.integers(1, 5, rng.integers(1, 3)).tolist()
    filters = int(rng.integers(2, 5))
    return {
        "num_filters": filters,
        "hidden_size": int(rng.integers(1, 9)),
        "upsampling_ratios": ratios,
        "sampling_rate": 75 * math.prod(ratios),
        "kernel_size": int(rng.integers(1, 9)),
        "last_kernel_size": int(rng.integers(1, 9)),
        "residual_kernel_size": int(rng.integers(2, 5)),
        "num_residual_layers": int(rng.integers(1, 3)),
        "dilation_growth_rate": 2,
        "compress": int(rng.integers(1, filters + 1)),
        "use_conv_shortcut": bool(seed & 1),
        "num_lstm_layers": int(rng.integers(1, 3)),
        "pad_mode": "reflect" if seed & 2 else "constant",
    }


@pytest.mark.parametrize("seed", range(4))
def test_any_structure_decodes_as_transformers_does(seed):
    codec = Codec(random_codec(**random_structure(seed)), "random")
    decoder = export_decoder(codec, codec.codebooks)
    tokens = random_tokens(codec, frames=seed + 3)
    whole, _ = decode(decoder.spec, decoder.weights, tokens)
    assert_same(whole, by_transformers(codec, tokens))
    assert_same(in_chunks(decoder, tokens, carry=start(decoder, tokens)), codec.decode(tokens[0])[None])


@pytest.mark.parametrize("frames", [1, 6, FRAMES])
def test_a_start_is_padded_as_the_codec_pads(codec, decoder, frames):
    """Below 7 frames the first convolution reflects zeros from behind the clip's end."""
    tokens = random_tokens(codec, frames)
    samples, _ = decode(decoder.spec, decoder.weights, tokens)
    assert_same(samples, by_transformers(codec, tokens))


@pytest.mark.parametrize("codebooks", [1, 4])
def test_the_initial_carry_starts_as_the_codec_decodes(codec, decoder, codebooks):
    tokens = random_tokens(codec)[..., :codebooks]
    samples, _ = decode(decoder.spec, decoder.weights, tokens, start(decoder, tokens))
    assert_same(samples, codec.decode(tokens[0])[None])


def test_a_decoder_with_fewer_codebooks_decodes_as_one_with_all(codec, decoder):
    fewer = export_decoder(codec, 1)
    tokens = random_tokens(codec)[..., :1]
    expected, _ = decode(decoder.spec, decoder.weights, tokens, start(decoder, tokens))
    samples, _ = decode(fewer.spec, fewer.weights, tokens, start(fewer, tokens))
    np.testing.assert_array_equal(samples, expected)
    for wrong in (random_tokens(codec), tokens[..., :0]):
        with pytest.raises(ValueError, match="has 1 codebooks"):
            decode(fewer.spec, fewer.weights, wrong)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(sizes=st.lists(st.sampled_from([1, 5]), min_size=1, max_size=FRAMES))
def test_any_chunks_give_the_samples_of_one_pass(codec, decoder, sizes):
    tokens = random_tokens(codec, batch=2)
    whole, _ = decode(decoder.spec, decoder.weights, tokens, start(decoder, tokens))
    cuts = [cut for cut in itertools.accumulate(sizes) if cut <= FRAMES]
    samples = in_chunks(decoder, tokens[:, : cuts[-1]], cuts[:-1], start(decoder, tokens))
    assert_same(samples, np.asarray(whole)[:, : codec.clock.samples(cuts[-1])])


def test_one_token_at_a_time_gives_the_samples_of_one_pass(codec, decoder):
    tokens = random_tokens(codec, 60)
    assert_same(in_chunks(decoder, tokens, carry=start(decoder, tokens)), codec.decode(tokens[0])[None])


def test_a_start_without_a_carry_continues_with_one(codec, decoder):
    """From 7 frames on the reflected samples are all in the first chunk."""
    tokens = random_tokens(codec, batch=2)
    assert_same(in_chunks(decoder, tokens, [7]), by_transformers(codec, tokens))


def test_samples_depend_on_no_later_token_and_no_other_row(codec, decoder):
    tokens = random_tokens(codec, batch=2)
    samples, _ = decode(decoder.spec, decoder.weights, tokens, start(decoder, tokens))
    for frame in (0, 1, 6):
        changed = random_tokens(codec, batch=2, seed=frame + 1)
        changed[1, : frame + 1] = tokens[1, : frame + 1]
        others, _ = decode(decoder.spec, decoder.weights, changed, start(decoder, tokens))
        end = codec.clock.samples(frame + 1)
        np.testing.assert_array_equal(others[1, :end], samples[1, :end])
        assert np.abs(others[1, end:] - samples[1, end:]).max() > 0
    alone, _ = decode(decoder.spec, decoder.weights, tokens[1:], start(decoder, tokens[1:]))
    assert_same(np.asarray(alone), np.asarray(samples[1:]))


def test_the_carry_keeps_its_shapes(codec, decoder):
    """As a scan demands."""
    tokens = random_tokens(codec)
    carry = start(decoder, tokens)
    for given_carry in (carry, None):
        _, after = decode(decoder.spec, decoder.weights, tokens, given_carry)
        assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, carry)


def test_a_token_above_the_codebook_is_heard_of(codec, decoder):
    tokens = random_tokens(codec)
    tokens[0, 1, 0] = codec.codebook_size
    samples, _ = decode(decoder.spec, decoder.weights, tokens, start(decoder, tokens))
    broken, hop = np.isnan(samples[0]), codec.clock.hop
    assert not broken[:hop].any() and broken[hop:].all()


def test_a_file_brings_back_every_bit(decoder, tmp_path):
    path, again = tmp_path / CODEC_NAME, tmp_path / "again.safetensors"
    save_codec_decoder(decoder, path)
    loaded = load_codec_decoder(path)
    assert loaded.spec == decoder.spec and hash(loaded.spec) == hash(decoder.spec)
    assert sorted(loaded.weights) == sorted(decoder.weights)
    for name, array in decoder.weights.items():
        assert loaded.weights[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded.weights[name], array)
    save_codec_decoder(loaded, again)
    assert again.read_bytes() == path.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([path.name, again.name])


def test_equal_codecs_give_equal_bytes(codec, decoder, tmp_path):
    for name, each in (("a", decoder), ("b", export_decoder(codec, codec.codebooks))):
        save_codec_decoder(each, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.fixture(scope="module")
def file_bytes(decoder, tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("decoder") / CODEC_NAME
    save_codec_decoder(decoder, path)
    return path.read_bytes()


def assert_refused(path, sentence):
    with pytest.raises(RequestError, match=rf"{sentence}.*; copy codec.safetensors from the prepared data") as raised:
        load_codec_decoder(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_flipped_bit_is_noticed(file_bytes, tmp_path, data):
    header = 8 + int.from_bytes(file_bytes[:8], "little")
    place = data.draw(st.integers(0, header - 1) | st.integers(0, len(file_bytes) - 1))
    damaged = bytearray(file_bytes)
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path / CODEC_NAME
    path.write_bytes(damaged)
    assert_refused(path, "is damaged|is of version")


@pytest.mark.parametrize("end", [0, 4, 100, -1])
def test_a_truncated_file_is_noticed(file_bytes, tmp_path, end):
    path = tmp_path / CODEC_NAME
    path.write_bytes(file_bytes[:end])
    assert_refused(path, "is damaged")


def test_a_file_that_is_missing_or_of_another_kind_or_version_ends_in_a_sentence(decoder, tmp_path, monkeypatch):
    assert_refused(tmp_path / CODEC_NAME, "there is no")
    assert_refused(tmp_path, "there is no")
    codec_itself = tmp_path / "model.safetensors"
    random_codec().save_pretrained(tmp_path)
    assert_refused(codec_itself, "is damaged or no codec decoder")
    save_codec_decoder(decoder, tmp_path / CODEC_NAME)
    monkeypatch.setattr("wgpt_jax.audio.codec_file.CODEC_VERSION", 2)
    assert_refused(tmp_path / CODEC_NAME, "is of version 1, this version reads 2")


def test_weights_of_another_structure_are_refused(decoder):
    for change in ({"last.bias": np.zeros(2, np.float32)}, {"last.bias": np.zeros(1)}, {"extra": np.zeros(1)}):
        with pytest.raises(ValueError, match="shapes and types"):
            CodecDecoder(decoder.spec, decoder.weights | change)


def test_the_export_names_the_codec_and_refuses_codebooks_it_has_not(codec, decoder):
    spec = decoder.spec
    assert (spec.codec, spec.fingerprint, spec.clock) == (codec.name, codec.fingerprint, codec.clock)
    assert spec.warmup_frames == codec.warmup_frames == (8 if codec.name == "reflect" else 0)
    for codebooks in (0, 5):
        with pytest.raises(RequestError, match="has 4 codebooks"):
            export_decoder(codec, codebooks)


@pytest.mark.parametrize("config", [{"use_causal_conv": False}, {"normalize": True}, {"trim_right_ratio": 0.5}])
def test_a_codec_that_looks_ahead_is_refused(config):
    with pytest.raises(RequestError, match="audio that does not exist yet"):
        export_decoder(Codec(random_codec(**config), "ahead"), 1)


def test_decoding_needs_no_torch_and_the_file_no_jax():
    for module, others in (("encodec", {"torch", "transformers"}), ("codec_file", {"torch", "transformers", "jax"})):
        code = f"import sys, wgpt_jax.audio.{module}; print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert not others & set(done.stdout.split())
