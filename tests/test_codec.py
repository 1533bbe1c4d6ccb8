import shutil
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from audio_samples import random_codec, save_codec, sound
from transformers import EncodecModel

from wgpt_jax.errors import RequestError
from wgpt_jax.prepare import pieces
from wgpt_jax.prepare.codec import BUNDLED_FOLDER, load_codec
from wgpt_jax.prepare.encodec import Codec

HOP = 320


@pytest.fixture(scope="module", params=["constant", "reflect"])
def codec(request, codec_folder, reflect_folder) -> Codec:
    return load_codec(str({"constant": codec_folder, "reflect": reflect_folder}[request.param]))


def transformers_tokens(folder: str, samples: np.ndarray, bandwidth: float = 1.8) -> np.ndarray:
    model = EncodecModel.from_pretrained(folder)
    with torch.no_grad():
        return model.encode(torch.from_numpy(samples)[None, None], bandwidth=bandwidth).audio_codes[0, 0].T.numpy()


def test_tokens_are_transformers_own_behind_the_warm_up(codec):
    samples = sound(2.0)
    lead = codec.warmup_frames
    assert lead == (8 if "reflect" in codec.name else 0)
    expected = transformers_tokens(codec.name, np.pad(samples, (lead * HOP, 0)))[lead:]
    tokens = codec.encode(samples)
    assert (tokens.dtype, tokens.shape) == (np.int16, (150, 4))
    assert len(np.unique(tokens[:, 0])) > 5
    np.testing.assert_array_equal(tokens, expected)


def test_fewer_codebooks_are_the_first_ones(codec):
    samples = sound(0.5)
    tokens = codec.encode(samples)
    for codebooks in (1, 2, 3):
        np.testing.assert_array_equal(codec.encode(samples, codebooks), tokens[:, :codebooks])
    for codebooks in (0, 5):
        with pytest.raises(RequestError, match="has 4 codebooks"):
            codec.encode(samples, codebooks)


@pytest.mark.parametrize("samples", [0, 1, 319, 320, 321, 6399])
def test_only_whole_frames_are_encoded(codec, samples):
    signal = sound(0.5)
    frames = samples // HOP
    tokens = codec.encode(signal[:samples])
    assert tokens.shape == (frames, 4)
    np.testing.assert_array_equal(tokens, codec.encode(signal[: frames * HOP]))


def test_a_batch_gives_each_signal_its_own_tokens(codec):
    signals = np.stack([sound(0.5, seed=seed) for seed in range(3)])
    np.testing.assert_array_equal(codec.encode(signals), [codec.encode(signal) for signal in signals])


@pytest.mark.parametrize("frames", [9, 40])
def test_pieces_of_a_long_signal_leave_no_seam(codec, frames, monkeypatch):
    samples = sound(2.0)
    tokens, audio = codec.encode(samples), codec.decode(codec.encode(samples))
    monkeypatch.setattr(pieces, "PIECE_FRAMES", frames)
    np.testing.assert_array_equal(codec.encode(samples), tokens)
    np.testing.assert_allclose(codec.decode(tokens), audio, atol=1e-5 * np.abs(audio).max())


def test_decoded_samples_are_transformers_own_behind_the_warm_up(codec):
    tokens, lead = codec.encode(sound(1.0)), codec.warmup_frames
    silence = codec.encode(np.zeros(lead * HOP, np.float32))
    codes = torch.from_numpy(np.concatenate([silence, tokens]).astype(np.int64))
    with torch.no_grad():
        expected = EncodecModel.from_pretrained(codec.name).decode(codes.T[None, None], [None]).audio_values
    audio = codec.decode(tokens)
    assert (audio.dtype, audio.shape) == (np.float32, (75 * HOP,))
    np.testing.assert_allclose(audio, expected[0, 0, lead * HOP :], atol=1e-5 * np.abs(audio).max())


def test_decoded_samples_depend_on_tokens_up_to_their_frame(codec):
    tokens = codec.encode(sound(0.5))
    audio = codec.decode(tokens)
    for frame in (0, 1, 2, 6, 20):
        changed = tokens.copy()
        changed[frame + 1 :] = np.random.default_rng(frame).integers(0, 64, changed[frame + 1 :].shape)
        end = (frame + 1) * HOP
        np.testing.assert_array_equal(codec.decode(changed)[:end], audio[:end])
    assert codec.decode(tokens[:0]).shape == (0,)


def test_encoding_leaves_the_callers_threads_alone(codec):
    torch.set_num_threads(2)
    codec.encode(sound(0.1))
    assert torch.get_num_threads() == 2


def test_fingerprint_survives_saving_and_sees_every_weight(codec, tmp_path):
    model = EncodecModel.from_pretrained(codec.name)
    model.save_pretrained(tmp_path / "copy")
    assert load_codec(str(tmp_path / "copy")).fingerprint == codec.fingerprint
    model.quantizer.layers[0].codebook.embed_avg.zero_()  # of use in training only
    assert Codec(model, "x").fingerprint == codec.fingerprint
    model.decoder.layers[0].conv.bias.data[0] += 1e-3
    assert Codec(model, "x").fingerprint != codec.fingerprint


def test_fingerprint_sees_the_padding(codec_folder, reflect_folder):
    assert load_codec(str(codec_folder)).fingerprint != load_codec(str(reflect_folder)).fingerprint


NONCAUSAL = {
    "like 32 kHz": {"use_causal_conv": False, "sampling_rate": 32000, "upsampling_ratios": [8, 5, 4, 4]},
    "like 48 kHz": {
        "use_causal_conv": False,
        "sampling_rate": 48000,
        "audio_channels": 2,
        "normalize": True,
        "chunk_length_s": 1.0,
        "overlap": 0.01,
        "norm_type": "time_group_norm",
        "target_bandwidths": [1.8],
    },
    "clip-normalised": {"normalize": True},
    "reflecting past the warm-up": {"pad_mode": "reflect", "kernel_size": 11},
}


@pytest.mark.parametrize("name", NONCAUSAL)
def test_codecs_that_look_ahead_need_permission(name, tmp_path):
    folder = save_codec(tmp_path / "codec", **NONCAUSAL[name])
    with pytest.raises(RequestError, match=r"not causal.*--allow-noncausal"):
        load_codec(str(folder))
    codec = load_codec(str(folder), allow_noncausal=True)
    assert not codec.info.causal and codec.warmup_frames == 0
    samples = sound(1.5, rate=codec.clock.sample_rate)
    tokens = codec.encode(samples)
    assert len(tokens) == codec.clock.frames(len(samples))
    if name in ("like 48 kHz", "clip-normalised"):
        with pytest.raises(RequestError, match="cannot decode"):
            codec.decode(tokens)


def test_bundled_codec_is_causal_and_on_the_clock():
    codec = load_codec("bundled")
    assert codec.causal and codec.codebooks >= 4
    assert (codec.clock.sample_rate, codec.clock.hop, codec.codebook_size) == (24000, 320, 1024)
    samples = sound(1.0)
    np.testing.assert_array_equal(codec.encode(samples), transformers_tokens(str(BUNDLED_FOLDER), samples, 6.0))


def damage(folder, how):
    weights = folder / "model.safetensors"
    if how == "no folder":
        shutil.rmtree(folder)
    elif how == "no weights":
        weights.unlink()
    elif how == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif how == "empty weights":
        weights.write_bytes(b"")
    elif how == "broken config":
        (folder / "config.json").write_text("{")
    elif how == "other config":
        config = (folder / "config.json").read_text().replace('"hidden_size": 16', '"hidden_size": 32')
        (folder / "config.json").write_text(config)
    elif how == "untrained":
        model = random_codec()
        model.quantizer.layers[1].codebook.embed.zero_()
        model.save_pretrained(folder)
    elif how == "not finite":
        model = random_codec()
        model.encoder.layers[0].conv.bias.data[0] = float("nan")
        model.save_pretrained(folder)


@pytest.mark.parametrize(
    "how",
    [
        *("no folder", "no weights", "truncated weights", "empty weights"),
        *("broken config", "other config", "untrained", "not finite"),
    ],
)
def test_a_codec_that_cannot_be_used_ends_in_a_sentence(how, codec_folder, tmp_path):
    folder = shutil.copytree(codec_folder, tmp_path / "codec")
    damage(folder, how)
    with pytest.raises(RequestError, match="--codec") as raised:
        load_codec(str(folder))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (urllib.error.URLError("Name or service not known"), "hub cannot be reached"),
        (TimeoutError("timed out"), "hub cannot be reached"),
        (urllib.error.HTTPError("", 404, "Not Found", {}, None), "neither a folder nor a model on the hub"),
    ],
)
def test_a_hub_that_does_not_answer_is_asked_once(answer, sentence, monkeypatch):
    calls = []

    def urlopen(request, timeout):
        calls.append(timeout)
        raise answer

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(RequestError, match=rf"{sentence}.*--codec DIR.*--codec bundled"):
        load_codec("nobody/no_such_codec")
    assert len(calls) == 1 and calls[0] <= 10
