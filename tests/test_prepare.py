"""A folder of audio becomes a data set: complete, reproducible, resumable, and honest about what failed."""

import ast
import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from audio_samples import save_codec, sound, write_audio
from transformers import EncodecModel

from wgpt_jax.audio.clock import Clock
from wgpt_jax.audio.codec_file import CODEC_NAME, load_codec_decoder
from wgpt_jax.audio.mel import MelConfig, log_mel
from wgpt_jax.config import load_config
from wgpt_jax.data.index import SPLITS, DataIndex, file_sha256, load_index
from wgpt_jax.data.ngrams import load_ngrams
from wgpt_jax.data.pipeline import training_batches
from wgpt_jax.errors import RequestError
from wgpt_jax.prepare import plan as plan_module
from wgpt_jax.prepare.codec import load_codec
from wgpt_jax.prepare.main import main
from wgpt_jax.prepare.reading.decode import decode_audio
from wgpt_jax.prepare.shards import ShardMaker, read_records
from wgpt_jax.prepare.summary import describe
from wgpt_jax.prepare.verify import verify_prepared
from wgpt_jax.runs import check_model_fits_data

ROOT = Path(__file__).parents[1]
CLOCK = Clock(24000, 320)
BAD = {
    "music/band/8.wav": "non-finite",
    "music/band/9.m4a": "ffmpeg",
    "music/short.wav": "shorter than one frame",
    "speech/ann/zero.wav": "file is empty",
    "speech/text.mp3": "not recognised",
    "speech/cut.mp3": "truncated",
}


def add_speech(root: Path, speaker: str, count: int = 1) -> None:
    for i in range(count):
        samples = sound(1.0 + 0.37 * i, rate=16000, seed=zlib.crc32(speaker.encode()) + i)
        write_audio(root / "speech" / speaker / f"{i}.flac", samples, 16000)


@pytest.fixture(scope="module")
def audio(tmp_path_factory) -> Path:
    """Speech of five speakers, music of four bands, mixed formats, and a malformed file of every kind."""
    root = tmp_path_factory.mktemp("audio")
    for speaker in ("ann", "bob", "cleo", "dan", "eve"):
        add_speech(root, speaker, 2)
    for i, band in enumerate(("band", "choir", "duo", "trio")):
        stereo = np.stack([sound(1.5, 44100, i), sound(1.5, 44100, i + 9)], axis=1)
        write_audio(root / "music" / band / "1.ogg", stereo, 44100, format="OGG", subtype="VORBIS")
    write_audio(root / "music/band/long.wav", sound(30.0, 8000), 8000)
    broken = sound(1.0)
    broken[100] = np.nan
    write_audio(root / "music/band/8.wav", broken, 24000, subtype="FLOAT")
    (root / "music/band/9.m4a").write_bytes(b"\0\0\0\x20ftypM4A ")
    write_audio(root / "music/short.wav", sound(0.01), 24000)
    (root / "speech/ann/zero.wav").write_bytes(b"")
    (root / "speech/text.mp3").write_text("no audio\n" * 200)
    mp3 = write_audio(root / "speech/cut.mp3", sound(2.0), 24000, format="MP3", subtype="MPEG_LAYER_III")
    mp3.write_bytes(mp3.read_bytes()[: mp3.stat().st_size // 2])
    return root


@pytest.fixture(autouse=True, scope="module")
def small_shards():
    """Shards of 4 seconds, so that a few files fill several."""
    patch = pytest.MonkeyPatch()
    patch.setattr(plan_module, "_SHORTEST", 4.0)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def run(audio, codec_folder):
    """Runs the tool in this process; returns its exit code."""

    def run(out: Path, *flags: str, source: Path = audio, workers: int = 1) -> int:
        flags = ("--domains", "--split-by", "speaker", "--validation", "0.2", "--test", "0.2", *flags)
        return main([str(source), str(out), "--codec", str(codec_folder), "--workers", str(workers), *flags])

    return run


@pytest.fixture(scope="module")
def prepared(run, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("data") / "out"
    assert run(out) == 0
    return out


@pytest.fixture
def copy(prepared, tmp_path) -> Path:
    return shutil.copytree(prepared, tmp_path / "copy")


def hashes(out: Path) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in sorted(out.glob("*.array_record"))}


def documents(out: Path) -> dict[str, str]:
    """Split of every document."""
    reports = [json.loads(path.read_text()) for path in out.glob("*-*.json")]
    return {row["item"]["name"]: report["shard"]["split"] for report in reports for row in report["documents"]}


def test_every_good_file_is_a_document_and_every_bad_one_has_its_reason(audio, prepared):
    index = load_index(prepared)
    failed = {failure["path"]: failure["reason"] for failure in index.failed}
    assert failed.keys() == BAD.keys()
    for path, reason in BAD.items():
        assert re.search(reason, failed[path])
    good = {path.relative_to(audio).as_posix() for path in audio.rglob("*.*")} - BAD.keys()
    assert documents(prepared).keys() == good
    assert index.domains == ("music", "speech")
    assert sum(index.documents(split) for split in SPLITS) == len(good)


def test_stored_arrays_are_those_of_the_decoded_audio(audio, prepared, codec_folder):
    index, codec = load_index(prepared), load_codec(str(codec_folder))
    frames = 0
    for shard in index.shards:
        assert file_sha256(prepared / shard.file) == shard.sha256
        for record in read_records(prepared / shard.file):
            offset = 0
            for segment in record.segments:
                samples = decode_audio(audio / segment.document, 24000)
                rows = slice(offset, offset + segment.length)
                where = slice(segment.start, segment.start + segment.length)
                np.testing.assert_array_equal(record.tokens[rows], codec.encode(samples)[where])
                mel = log_mel(samples, MelConfig(), CLOCK).astype(np.float16)
                np.testing.assert_array_equal(record.mel[0, rows], mel[where])
                offset += segment.length
                frames += segment.length - segment.context
    assert frames == sum(index.frames(split) for split in SPLITS) > 0
    assert load_ngrams(prepared).pairs.sum() == index.frames("train")
    assert index.mel_sources == ("original",)


def transformers_decode(folder: Path, tokens: np.ndarray, lead: int) -> np.ndarray:
    """Samples of tokens behind those of ``lead`` frames of silence, by the library alone."""
    model = EncodecModel.from_pretrained(folder)
    with torch.no_grad():
        silence = model.encode(torch.zeros(1, 1, lead * 320), bandwidth=1.8).audio_codes[0, 0] if lead else None
        codes = torch.from_numpy(tokens.T.astype(np.int64))
        codes = codes if silence is None else torch.cat([silence[: len(codes)], codes], dim=1)
        return model.decode(codes[None, None], [None]).audio_values[0, 0, lead * 320 :].numpy()


def librosa_mel(samples: np.ndarray) -> np.ndarray:
    """Slices whose windows end with their frame, by the library alone."""
    padded = np.concatenate([np.zeros(1024 - 320, np.float32), samples])
    power = librosa.feature.melspectrogram(y=padded, sr=24000, n_fft=1024, hop_length=320, n_mels=64, center=False)
    return (np.log(np.maximum(power.T, 1e-5)) + 6.0) / 4.0


@pytest.fixture(scope="module", params=["constant", "reflect"])
def several(request, run, codec_folder, reflect_folder, tmp_path_factory) -> tuple[Path, Path, Path]:
    """Data of three mel sources, its audio, its codec."""
    folder = tmp_path_factory.mktemp("several")
    codec = {"constant": codec_folder, "reflect": reflect_folder}[request.param]
    for i in range(3):
        write_audio(folder / "audio" / f"{i}.wav", sound(1.0 + i, seed=i), 24000)
    flags = ("--codec", str(codec), "--mel-sources", "codec4,original, codec1")
    assert run(folder / "out", *flags, source=folder / "audio") == 0
    return folder / "out", folder / "audio", codec


def test_stored_codec_mels_are_those_of_the_decoded_tokens(several):
    out, audio, folder = several
    index, codec = load_index(out), load_codec(str(folder))
    assert index.mel_sources == ("codec4", "original", "codec1")
    for record in (record for shard in index.shards for record in read_records(out / shard.file)):
        assert record.mel.shape == (3, len(record.tokens), 64)
        offset = 0
        for segment in record.segments:
            rows = slice(offset, offset + segment.length)
            offset += segment.length
            stored, tokens = record.mel[:, rows], record.tokens[rows]
            samples = decode_audio(audio / segment.document, 24000)
            np.testing.assert_array_equal(stored[1], log_mel(samples, MelConfig(), CLOCK).astype(np.float16))
            for row, codebooks in ((0, 4), (2, 1)):
                heard = codec.decode(tokens[:, :codebooks])
                np.testing.assert_array_equal(stored[row], log_mel(heard, MelConfig(), CLOCK).astype(np.float16))
                expected = librosa_mel(transformers_decode(folder, tokens[:, :codebooks], codec.warmup_frames))
                np.testing.assert_allclose(stored[row], expected, atol=5e-3)
            assert np.abs(stored[0] - stored[2]).max() > 0.1


def test_every_stored_mel_is_causal(several):
    out, _, _ = several
    reports = list(verify_prepared(out, documents=1))
    assert [report.name.split(" of ")[0] for report in reports] == [
        "codec4 mel",
        "original mel",
        "codec1 mel",
        "tokens",
    ]
    assert all(report.passed for report in reports), reports


def test_the_codecs_decoder_lies_beside_the_data(several):
    out, _, folder = several
    decoder, codec = load_codec_decoder(out / CODEC_NAME), load_codec(str(folder))
    assert (decoder.spec.fingerprint, decoder.spec.codebooks) == (codec.fingerprint, 4)


def try_next_command(summary: str, index: DataIndex, out: Path) -> list[str]:
    """Follows the summary's last line as far as `wgpt train` does before it trains; returns the flags it needed."""
    words = shlex.split(summary.strip().splitlines()[-1])
    command = ["next", "wgpt", "train", "configs/demo_hybrid.py", "--data", str(out), "--workdir", "RUN"]
    assert words[: len(command)] == command
    flags = words[len(command) :]
    config = load_config(ROOT / "configs/demo_hybrid.py", flags)
    check_model_fits_data(config, index, out)
    training_batches(out, index, config.data, batch=1).close()
    assert config.data.main_mel in index.mel_sources
    return flags


def test_the_summary_names_the_mels_and_a_command_that_trains_on_them(run, tmp_path, capsys):
    write_audio(tmp_path / "audio" / "a.wav", sound(0.5), 24000)
    out = tmp_path / "out"
    assert run(out, "--mel-sources", "codec2,codec1", source=tmp_path / "audio") == 0
    summary = capsys.readouterr().out
    assert "mel     codec2, codec1 (64 bands)" in summary
    flags = try_next_command(summary, load_index(out), out)
    assert flags == ["--data.mel-mix", "codec2", "1", "--model.vocabulary", "64"]


@pytest.mark.parametrize("sources", [("original",), ("codec1",), ("original", "codec1"), ("codec4", "original")])
@pytest.mark.parametrize(("entries", "codebooks", "bands"), [(1024, 8, 64), (64, 4, 64), (1024, 1, 80)])
def test_the_next_command_fits_whatever_was_prepared(prepared, sources, entries, codebooks, bands):
    index = load_index(prepared)
    codec, mel = dataclasses.replace(index.codec, codebook_size=entries), dataclasses.replace(index.mel, bands=bands)
    index = dataclasses.replace(index, codec=codec, codebooks=codebooks, mel=mel, mel_sources=sources)
    flags = try_next_command(describe(index, [], [], str(prepared)), index, prepared)
    if (sources, entries, bands) == (("original", "codec1"), 1024, 64):
        assert not flags, "what the demo makes needs none"


def test_a_codec_that_looks_ahead_has_the_mel_of_the_original_only(run, tmp_path, capsys):
    codec = save_codec(tmp_path / "codec", use_causal_conv=False)
    write_audio(tmp_path / "audio" / "a.wav", sound(1.0), 24000)
    flags = ("--codec", str(codec), "--allow-noncausal")
    assert run(tmp_path / "out", *flags, "--mel-sources", "original,codec1", source=tmp_path / "audio") == 2
    assert re.search("--mel-sources codec1: codec .* is not causal.* only original", capsys.readouterr().err)
    assert run(tmp_path / "out", *flags, source=tmp_path / "audio") == 0
    assert not (tmp_path / "out" / CODEC_NAME).exists()


def test_speakers_stay_together_and_every_domain_is_in_every_split(prepared):
    splits = documents(prepared)
    speakers = {}
    for name, split in splits.items():
        assert speakers.setdefault(name.rsplit("/", 1)[0], split) == split
    for domain in ("speech", "music"):
        assert {split for name, split in splits.items() if name.startswith(domain)} == set(SPLITS)


def test_stored_data_is_causal(prepared):
    reports = list(verify_prepared(prepared, documents=2))
    assert len(reports) == 4 and all(report.passed for report in reports)


def test_verification_needs_the_audio_and_notices_other_audio(prepared, audio, tmp_path):
    with pytest.raises(RequestError, match="--audio-root"):
        next(verify_prepared(prepared, audio_root=tmp_path))
    other = shutil.copytree(audio, tmp_path / "audio")
    for path in other.rglob("*.*"):
        if path.suffix in (".flac", ".ogg", ".wav") and path.stat().st_size > 1000:
            path.write_bytes((audio / "speech/ann/1.flac").read_bytes())
    reports = list(verify_prepared(prepared, documents=2, audio_root=other))
    assert not all(report.passed for report in reports)
    assert "is not what its audio gives" in "".join(map(str, reports))


def test_two_workers_write_the_bytes_of_one(prepared, run, tmp_path):
    assert run(tmp_path / "out", workers=2) == 0
    assert hashes(tmp_path / "out") == hashes(prepared)
    index, other = load_index(prepared), load_index(tmp_path / "out")
    assert index == other


def test_a_second_run_makes_nothing_again(copy, run):
    before = {path: path.stat().st_mtime_ns for path in copy.glob("*.array_record")}
    assert run(copy) == 0
    assert {path: path.stat().st_mtime_ns for path in copy.glob("*.array_record")} == before


@pytest.mark.parametrize("damage", ["deleted", "empty", "no report", "broken report"])
def test_a_lost_shard_is_made_again_with_the_same_bytes(damage, copy, prepared, run):
    shard = copy / "train-00001.array_record"
    if damage == "deleted":
        shard.unlink()
        with pytest.raises(RequestError, match="train-00001"):
            load_index(copy)
    elif damage == "empty":
        shard.write_bytes(b"")
    elif damage == "no report":
        shard.with_suffix(".json").unlink()
    else:
        shard.with_suffix(".json").write_text("{")
    assert run(copy) == 0
    assert hashes(copy) == hashes(prepared)
    assert load_index(copy) == load_index(prepared)


def test_an_interrupted_run_is_continued_to_the_same_bytes(prepared, run, tmp_path, monkeypatch):
    real, done = ShardMaker.__call__, []

    def interrupted(maker, task):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(task.name)
        return real(maker, task)

    monkeypatch.setattr(ShardMaker, "__call__", interrupted)
    assert run(tmp_path / "out") == 130
    assert len(hashes(tmp_path / "out")) <= 2 and not (tmp_path / "out" / "index.json").exists()
    (tmp_path / "out" / "train-00002.tmp").write_bytes(b"what a killed process leaves")
    monkeypatch.undo()
    assert run(tmp_path / "out") == 0
    assert hashes(tmp_path / "out") == hashes(prepared)
    assert not list((tmp_path / "out").glob("*.tmp"))


def test_added_files_get_new_shards_and_move_nothing(copy, audio, run):
    before, splits = hashes(copy), documents(copy)
    extra = audio / "speech" / "ann" / "later.wav"
    try:
        write_audio(extra, sound(1.0, seed=77), 24000)
        assert run(copy) == 0
    finally:
        extra.unlink()
    after = hashes(copy)
    assert before.items() < after.items() and len(after) == len(before) + 1
    assert splits.items() < documents(copy).items()
    assert documents(copy)["speech/ann/later.wav"] == splits["speech/ann/0.flac"], "a speaker stays in its split"
    # Asked again, also for a lost old shard, nothing changes.
    (copy / "train-00000.array_record").unlink()
    assert run(copy) == 0
    assert hashes(copy) == after


def test_a_repaired_file_is_tried_again(copy, audio, run):
    broken = audio / "speech" / "text.mp3"
    content = broken.read_bytes()
    before = hashes(copy)
    try:
        write_audio(broken, sound(1.0), 24000, format="MP3", subtype="MPEG_LAYER_III")
        assert run(copy) == 0
    finally:
        broken.write_bytes(content)
    assert before.items() < hashes(copy).items()
    assert "speech/text.mp3" in documents(copy)
    assert {failure["path"] for failure in load_index(copy).failed} == BAD.keys() - {"speech/text.mp3"}


@pytest.mark.parametrize(
    ("flags", "option"),
    [
        (("--num-codebooks", "2"), "num_codebooks = 4, now num_codebooks = 2"),
        (("--mel.bands", "80"), "mel.bands = 64, now mel.bands = 80"),
        (("--mel-sources", "codec1,original"), "mel_sources = original, now mel_sources = codec1,original"),
        (("--seed", "1"), "seed = 0, now seed = 1"),
        (("--split-by", "file"), "split_by = speaker, now split_by = file"),
        (("--validation", "0.1"), "validation = 0.2, now validation = 0.1"),
    ],
)
def test_other_options_are_refused(flags, option, copy, run, capsys):
    assert run(copy, *flags) == 2
    error = capsys.readouterr().err
    assert option in error and "choose another OUT" in error


def test_another_codec_is_refused(copy, audio, reflect_folder, run, capsys):
    assert run(copy, "--codec", str(reflect_folder)) == 2
    assert "was prepared with codec_fingerprint = " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--num-codebooks", "5"), "--num-codebooks 5: codec .* has 1 to 4"),
        (("--num-codebooks", "0"), "--num-codebooks 0: codec .* has 1 to 4"),
        (("--validation", "1.5"), "not a fraction"),
        (("--validation", "0.5", "--test", "0.5"), "nothing to train on"),
        (("--workers", "0"), "at least one"),
        (("--mel.n-fft", "256"), "shorter than a frame"),
        (("--mel-sources", "original,codec5"), "'codec5' is none of original, latent, centred, codec1, .*, codec4$"),
        (("--num-codebooks", "2", "--mel-sources", "codec3"), "'codec3' is none of original, .*, codec1, codec2$"),
        (("--mel-sources", ""), "'' is none of original"),
        (("--mel-sources", "codec01"), "'codec01' is none of original"),
        (("--mel-sources", "codec1,original,codec1"), "names codec1 twice"),
        (("--codec", "nowhere/at/all"), "no codec folder"),
    ],
)
def test_wrong_flags_end_in_a_sentence(flags, sentence, run, tmp_path, capsys):
    assert run(tmp_path / "out", *flags) == 2
    assert re.search(sentence, capsys.readouterr().err.strip())
    assert not (tmp_path / "out").exists()


def test_a_folder_of_bad_files_fails_and_says_why(run, tmp_path, capsys):
    source = tmp_path / "audio"
    source.mkdir()
    (source / "a.wav").write_bytes(b"")
    (source / os.fsdecode(b"\xff.wav")).write_bytes(b"RIFF")
    assert run(tmp_path / "out", source=source) == 1
    error = capsys.readouterr().err
    assert "no input could be used" in error and "a.wav: " in error and "\\udcff.wav: " in error


def test_one_file_makes_train_alone_and_says_so(run, tmp_path, capsys):
    source = tmp_path / "audio"
    write_audio(source / "a.wav", sound(1.0), 24000)
    assert run(tmp_path / "out", source=source) == 0
    assert "no validation documents" in capsys.readouterr().out
    index = load_index(tmp_path / "out")
    assert (index.documents("train"), index.domains) == (1, ("audio",))


def test_the_tool_says_that_there_is_no_audio(tmp_path):
    (tmp_path / "notes.txt").touch()
    command = [sys.executable, ROOT / "tools" / "prepare_audio.py", tmp_path, tmp_path / "out", "--codec", "bundled"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert f"no audio in {tmp_path}" in done.stderr and "Traceback" not in done.stderr


def test_preparation_starts_without_jax_and_torch():
    code = "import sys, wgpt_jax.prepare.main, wgpt_jax.prepare.verify; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert not {"jax", "torch", "transformers", "librosa", "tensorflow"} & set(done.stdout.split())


def test_preparation_imports_only_what_needs_no_jax():
    allowed = (
        *("errors", "command", "folder_lock", "mel_sources", "processor", "prepare"),
        *("audio.clock", "audio.codec_file", "audio.mel"),
        *("data.index", "data.records", "data.ngrams", "data.statistics"),
    )
    for path in (ROOT / "wgpt_jax" / "prepare").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("wgpt_jax."):
                module = node.module.removeprefix("wgpt_jax.")
                assert module in allowed or module.startswith("prepare."), f"{path.name} imports {node.module}"
