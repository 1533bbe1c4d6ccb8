"""A prepared data set that is damaged is found to be so, and mended to the bytes that it had."""

import json
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest
from audio_samples import sound, write_audio

from wgpt_jax.data.index import file_sha256
from wgpt_jax.data.ngrams import NGrams, save_ngrams
from wgpt_jax.dataset.main import main
from wgpt_jax.prepare import main as preparation
from wgpt_jax.prepare.codec import load_codec


@pytest.fixture(scope="module")
def prepared(codec_folder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    for i in range(6):
        write_audio(folder / "audio" / f"{i}.wav", sound(1.0 + i, seed=i), 24000)
    flags = ("--codec", str(codec_folder), "--workers", "1", "--validation", "0.3", "--test", "0.3")
    assert preparation.main([str(folder / "audio"), str(folder / "out"), *flags]) == 0
    return folder / "out"


def hashes(out: Path) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in out.iterdir() if path.suffix in (".array_record", ".npz")}


def flip(path: Path, place: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    path.write_bytes(data)


def edit_index(out: Path, change) -> None:
    fields = json.loads((out / "index.json").read_text())
    change(fields)
    (out / "index.json").write_text(json.dumps(fields))


DAMAGE = {
    "a flipped bit": (lambda out: flip(out / "train-00000.array_record", 0.1), "FAILED shards: train-00000"),
    "a lost shard": (lambda out: (out / "train-00000.array_record").unlink(), "FAILED shards: train-00000"),
    "a cut shard": (lambda out: (out / "train-00000.array_record").write_bytes(b"x" * 65536), "FAILED shards"),
    "other n-grams": (lambda out: save_ngrams(NGrams(np.ones((65, 64), np.int64)), out), "FAILED ngrams"),
    "a wrong count": (lambda out: edit_index(out, lambda f: f["shards"][0].update(frames=1)), "FAILED"),
    "a wrong histogram": (
        lambda out: edit_index(out, lambda f: f["statistics"]["tokens"]["histogram"][0].reverse()),
        "FAILED statistics",
    ),
}


def test_a_good_data_set_passes_with_a_proof_on_its_audio(prepared, capsys):
    assert main(["verify", str(prepared), "--documents", "1"]) == 0
    text = capsys.readouterr().out
    assert "FAILED" not in text and "ok     causality: tokens of" in text and "nothing is wrong" in text


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_and_mended_to_the_same_bytes(damage, prepared, tmp_path, capsys):
    out = shutil.copytree(prepared, tmp_path / "out")
    before, (make, sentence) = hashes(out), DAMAGE[damage]
    make(out)
    assert main(["verify", str(out), "--documents", "1"]) == 1
    told = capsys.readouterr()
    assert sentence in told.out and "dataset.py repair" in told.err
    assert main(["repair", str(out), "--workers", "1"]) == 0
    assert hashes(out) == before
    assert main(["verify", str(out), "--documents", "1"]) == 0


def test_the_statistics_are_said_as_json_and_drawn(prepared, tmp_path, capsys):
    assert main(["stats", str(prepared), "--out", str(tmp_path), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary
    assert (tmp_path / "stats.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("command", ["verify", "stats", "show", "repair"])
def test_a_folder_that_is_no_data_set_is_one_sentence(command, tmp_path, capsys):
    flags = ["--utt", "x"] if command == "show" else []
    assert main([command, str(tmp_path), *flags]) == 2
    assert f"no prepared data in {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize("codebooks", [1, 4])
def test_the_wav_that_is_shown_is_what_the_codec_makes_of_the_tokens(
    codebooks, prepared, codec_folder, tmp_path, capsys
):
    flags = ("--utt", "5.wav", "--out", str(tmp_path), "--codebooks", str(codebooks))
    assert main(["show", str(prepared), *flags]) == 0
    codec = load_codec(str(codec_folder))
    tokens = codec.encode(sound(6.0, seed=5))
    expected = codec.decode(tokens[:, :codebooks])
    [path] = tmp_path.glob("*.wav")
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels()) == (24000, 1)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
    np.testing.assert_allclose(samples, np.clip(expected, -1, 1 - 2**-15), atol=1e-4)
    [picture] = tmp_path.glob("*.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "450 frames" in capsys.readouterr().out


def test_a_document_that_is_not_there_is_one_sentence_with_the_nearest_name(prepared, capsys):
    assert main(["show", str(prepared), "--utt", "55.wav"]) == 2
    error = capsys.readouterr().err
    assert "55.wav" in error and "5.wav" in error.replace("55.wav", "") and "Traceback" not in error
