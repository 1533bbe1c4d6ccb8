"""What can stand beside the tokens is what its name says, piece by piece as well; one leaks, as its name says too."""

import functools

import librosa
import numpy as np
import pytest
import torch
from audio_samples import sound, write_audio

from wgpt_jax.audio.clock import Clock
from wgpt_jax.audio.mel import MelConfig
from wgpt_jax.data.index import load_index
from wgpt_jax.prepare import pieces
from wgpt_jax.prepare.causality import verify_function
from wgpt_jax.prepare.codec import load_codec
from wgpt_jax.prepare.convert import source_mel
from wgpt_jax.prepare.documents import read_document
from wgpt_jax.prepare.main import main as prepare
from wgpt_jax.prepare.verify import verify_prepared

CLOCK, MEL = Clock(24000, 320), MelConfig()
SOURCES = ("original", "latent", "centred", "codec2")


def test_the_centred_mel_is_librosas(codec_folder):
    samples = sound(1.01)
    power = librosa.feature.melspectrogram(
        y=np.append(samples, np.zeros(1024, np.float32)), sr=24000, n_fft=1024, hop_length=320, n_mels=64
    )
    expected = (np.log(np.maximum(power.T, MEL.floor)) - MEL.mean) / MEL.std
    ours = source_mel("centred", samples, load_codec(str(codec_folder)), MEL)
    assert ours.shape == (75, 64)
    np.testing.assert_allclose(ours, expected[:75], atol=2e-3)


def test_the_latent_is_what_transformers_encoder_gives(codec_folder):
    codec, samples = load_codec(str(codec_folder)), sound(1.0)
    with torch.no_grad():
        latents = codec.model.encoder(torch.from_numpy(samples)[None, None])[0].T.numpy()
    entries = codec.model.quantizer.layers[0].codebook.embed.numpy()
    ours = source_mel("latent", samples, codec, MEL)
    channels = latents.shape[1]
    np.testing.assert_allclose(ours[:, :channels], latents / np.sqrt(np.mean(entries**2)), rtol=2e-3, atol=2e-3)
    assert not ours[:, channels:].any(), "filled up with zeros"


def test_the_latent_is_causal_and_the_centred_mel_is_not(codec_folder):
    codec, samples = load_codec(str(codec_folder)), sound(0.5)
    for name, causal in (("latent", True), ("centred", False)):
        report = verify_function(name, functools.partial(source_mel, name, codec=codec, mel=MEL), samples, CLOCK)
        assert report.passed == causal, report


@pytest.mark.parametrize("batch", [1, 3])
def test_what_is_stored_piece_by_piece_is_what_the_whole_gives(batch, codec_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE_FRAMES", 20)
    for i, seconds in enumerate((0.9, 1.3, 0.8)):
        write_audio(tmp_path / f"in/{i}.wav", sound(seconds, seed=i), 24000)
    flags = ["--codec", str(codec_folder), "--mel-sources", ",".join(SOURCES), "--workers", "1", "--batch", str(batch)]
    assert prepare([str(tmp_path / "in"), str(tmp_path / "out"), "--validation", "0", "--test", "0", *flags]) == 0
    index = load_index(tmp_path / "out")
    assert index.mel_sources == SOURCES
    codec = load_codec(str(codec_folder))
    for i, seconds in enumerate((0.9, 1.3, 0.8)):
        samples, found = sound(seconds, seed=i), []
        for shard in index.shards:
            try:
                found.append(read_document(tmp_path / "out" / shard.file, f"{i}.wav"))
            except KeyError:
                continue
        [(mel, _)] = found
        for name, stored in zip(SOURCES, mel, strict=True):
            np.testing.assert_allclose(stored, source_mel(name, samples, codec, MEL), atol=0.01, err_msg=name)
    reports = list(verify_prepared(tmp_path / "out", documents=1))
    assert all(report.passed for report in reports)
    assert [str(report).split()[0] for report in reports] == ["ok", "ok", "leaks", "ok", "ok"]


def test_latents_wider_than_the_mel_are_refused_with_the_remedy(codec_folder, tmp_path, capsys):
    write_audio(tmp_path / "in/a.wav", sound(0.5), 24000)
    channels = load_codec(str(codec_folder)).model.config.hidden_size
    flags = ["--codec", str(codec_folder), "--mel-sources", "latent", "--mel.bands", str(channels - 1)]
    assert prepare([str(tmp_path / "in"), str(tmp_path / "out"), *flags]) == 2
    assert f"give --mel.bands {channels}" in capsys.readouterr().err


def test_a_leak_that_does_not_leak_fails_its_label():
    report = verify_function("mel", lambda x: x.reshape(-1, 320)[:, :4], sound(1.0), CLOCK)
    labelled = report.__class__(**vars(report) | {"labelled": True})
    assert report.passed and not labelled.passed and "no cut shows one" in str(labelled)
