"""What a preparation promises of its arrays, its order and its accounts, however it is run."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from audio_samples import sound, write_audio
from fixtures.make_libritts import UTTERANCES, samples
from hypothesis import given
from hypothesis import strategies as st

from wgpt_jax.data.index import file_sha256, load_index, load_inputs
from wgpt_jax.data.records import MAX_FRAMES
from wgpt_jax.data.statistics import Statistics
from wgpt_jax.prepare import convert as convert_module
from wgpt_jax.prepare import main, plan
from wgpt_jax.prepare.codec import load_codec
from wgpt_jax.prepare.documents import read_document
from wgpt_jax.prepare.shards import read_records
from wgpt_jax.prepare.splits import hash_fraction

ROOT = Path(__file__).parents[1]
RATE, HOP = 24000, 320


@pytest.fixture
def run(codec_folder, monkeypatch):
    """Runs the tool in this process on shards of a few seconds; returns its exit code."""
    monkeypatch.setattr(plan, "_SHORTEST", 4.0)
    return lambda source, out, *flags: main.main(
        [str(source), str(out), "--codec", str(codec_folder), "--workers", "1", *flags]
    )


@pytest.fixture
def audio(tmp_path) -> Path:
    """Twelve documents of 0.6 to 2.8 s and one of 12 s."""
    for i in range(12):
        write_audio(tmp_path / "audio" / f"{i:02d}.wav", sound(0.6 + 0.2 * i, seed=i), RATE, subtype="FLOAT")
    write_audio(tmp_path / "audio" / "long.wav", sound(12.0, seed=99), RATE, subtype="FLOAT")
    return tmp_path / "audio"


def hashes(out: Path) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in sorted(out.glob("*.array_record"))}


def rows(out: Path) -> dict[str, dict]:
    return {row.get("name", row["path"]): row for row in load_inputs(out)}


def document(out: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    return read_document(out / rows(out)[name]["shard"], name)


def test_two_files_that_are_equal_up_to_a_sample_have_equal_records_up_to_it(run, tmp_path):
    cut = 40 * HOP + 123
    samples = sound(2.0)
    other = np.concatenate([samples[:cut], np.random.default_rng(0).uniform(-1, 1, 30000).astype(np.float32)])
    write_audio(tmp_path / "audio" / "a.wav", samples, RATE, subtype="FLOAT")
    write_audio(tmp_path / "audio" / "b.wav", other, RATE, subtype="FLOAT")
    assert run(tmp_path / "audio", tmp_path / "out", "--mel-sources", "original,codec2") == 0
    (mel, tokens), (other_mel, other_tokens) = (document(tmp_path / "out", name) for name in ("a.wav", "b.wav"))
    np.testing.assert_array_equal(tokens[:40], other_tokens[:40])
    np.testing.assert_array_equal(mel[:, :40], other_mel[:, :40])
    assert (tokens[40:42] != other_tokens[40:42]).any() and (mel[:, 40] != other_mel[:, 40]).any(axis=1).all()


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_at_another_rate_only_the_resampler_looks_ahead(rate, run, tmp_path):
    """It makes the one waveform that mel and tokens are of, and reaches 45 ms ahead, above -80 dB 9 ms, at most."""
    seconds = 1.0
    samples = sound(2.0, rate)
    other = samples.copy()
    other[int(seconds * rate) :] = np.random.default_rng(0).uniform(-1, 1, len(samples) - int(seconds * rate))
    write_audio(tmp_path / "audio" / "a.wav", samples, rate, subtype="FLOAT")
    write_audio(tmp_path / "audio" / "b.wav", other, rate, subtype="FLOAT")
    assert run(tmp_path / "audio", tmp_path / "out") == 0
    frames = int((seconds - 0.045) * 75)
    (mel, tokens), (other_mel, other_tokens) = (document(tmp_path / "out", name) for name in ("a.wav", "b.wav"))
    np.testing.assert_array_equal(tokens[:frames], other_tokens[:frames])
    np.testing.assert_array_equal(mel[:, :frames], other_mel[:, :frames])


def test_the_same_audio_is_stored_once_and_never_in_another_split(run, audio, tmp_path):
    copy = np.rint(sound(0.6, seed=0) * 32768) / 32768
    write_audio(audio / "00.wav", copy, RATE, subtype="FLOAT")
    write_audio(audio / "zz" / "copy.flac", copy, RATE, subtype="PCM_24")
    write_audio(audio / "zz" / "copy.wav", np.stack([copy, copy], axis=1), RATE, subtype="FLOAT")
    assert run(audio, tmp_path / "out", "--validation", "0.3", "--test", "0.3") == 0
    fates = rows(tmp_path / "out")
    assert fates["zz/copy.flac"]["reason"] == fates["zz/copy.wav"]["reason"] == "the same audio as 00.wav"
    assert {name for name, row in fates.items() if row["fate"] == "used"} == fates.keys() - {
        "zz/copy.flac",
        "zz/copy.wav",
    }
    # Copies that come later are known from what is stored, also if they are first by name.
    write_audio(audio / "0.wav", copy, RATE, subtype="FLOAT")
    before = hashes(tmp_path / "out")
    assert run(audio, tmp_path / "out", "--validation", "0.3", "--test", "0.3") == 0
    assert rows(tmp_path / "out")["0.wav"]["reason"] == "the same audio as 00.wav"
    assert hashes(tmp_path / "out") == before


def test_given_splits_hold_and_their_leaks_are_said(run, audio, tmp_path, capsys):
    manifest = audio / "all.jsonl"
    lines = [
        {"path": "00.wav", "split": "train", "speaker": "ann"},
        {"path": "01.wav", "split": "validation", "speaker": "ann"},
        {"path": "long.wav", "end": 3, "split": "train", "speaker": "bob"},
        {"path": "long.wav", "start": 3, "split": "test", "speaker": "bob"},
        {"path": "02.wav", "split": "train"},
        {"path": "02.wav", "name": "copy", "split": "test"},
        {"path": "03.wav", "speaker": "bob"},
    ]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run(manifest, tmp_path / "out") == 0
    fates = rows(tmp_path / "out")
    splits = {name: row["split"] for name, row in fates.items() if row["fate"] == "used"}
    assert splits == {
        "00.wav": "train", "01.wav": "validation", "long.wav@0-3": "train", "long.wav@3-": "test", "copy": "test",
        "03.wav": splits["03.wav"],
    }  # fmt: skip
    assert fates["02.wav"]["reason"] == "the same audio as copy", "a test set keeps what is given to it"
    assert load_index(tmp_path / "out").leaks == {"file": ["long.wav"], "speaker": ["ann", "bob"]}
    summary = capsys.readouterr().out
    assert "LEAK    1 file is in more than one split: long.wav" in summary
    assert "LEAK    2 speakers are in more than one split: ann, bob; --split-by speaker keeps each in one" in summary


def test_a_column_of_the_manifest_is_kept_whole_and_carried_through(run, audio, tmp_path):
    manifest = audio / "all.jsonl"
    lines = [{"path": f"{i:02d}.wav", "work": f"w{i // 3}", "take": i} for i in range(12)]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    flags = ("--split-by", "work", "--validation", "0.3", "--test", "0.3")
    assert run(manifest, tmp_path / "out", *flags) == 0
    fates = rows(tmp_path / "out")
    splits: dict[str, set] = {}
    for name, row in fates.items():
        assert row["metadata"]["take"] == int(name[:2])
        splits.setdefault(row["metadata"]["work"], set()).add(row["split"])
    assert len(splits) == 4 and all(len(where) == 1 for where in splits.values())
    assert set.union(*splits.values()) == {"train", "validation", "test"}
    assert run(manifest, tmp_path / "other", "--split-by", "chapter") == 2


def test_the_order_is_random_across_documents_and_always_the_same(run, audio, tmp_path):
    assert run(audio, tmp_path / "out", "--validation", "0", "--test", "0") == 0
    stored = []
    for path in sorted((tmp_path / "out").glob("*.array_record")):
        for record in read_records(path):
            assert len(record.tokens) <= MAX_FRAMES
            stored += [segment.document for segment in record.segments]
    names = sorted(set(stored))
    assert stored == sorted(names, key=lambda name: hash_fraction(name, 0)) != names
    assert len(load_index(tmp_path / "out").shards) > 3


@given(st.floats(1.0, 1e9))
def test_shards_hold_half_an_hour_where_that_makes_64_to_1024(total):
    length = plan.shard_seconds(total)
    shards = total / length
    assert length >= 60 and shards <= 1024.001
    assert length == 60 or shards >= 63.999
    if 64 * 1800 <= total <= 1024 * 1800:
        assert length == 1800


@given(st.lists(st.floats(0.1, 5000.0), min_size=1, max_size=60), st.integers(0, 3))
def test_every_item_is_in_one_shard_and_shards_are_of_alike_length(lengths, seed):
    seconds = {f"{i}": length for i, length in enumerate(lengths)}
    made = plan.Plan({}, {}, [])
    made.add(seconds, dict.fromkeys(seconds, "train"), seed)
    assert sorted(name for shard in made.shards for name in shard.items) == sorted(seconds)
    aim = plan.shard_seconds(sum(lengths))
    for shard in made.shards:
        assert shard.seconds == pytest.approx(sum(seconds[name] for name in shard.items))
        assert len(shard.items) == 1 or shard.seconds <= 2 * aim


def test_statistics_are_those_of_the_stored_frames(run, audio, tmp_path, codec_folder):
    assert run(audio, tmp_path / "out", "--mel-sources", "original,codec1") == 0
    index = load_index(tmp_path / "out")
    stored = [document(tmp_path / "out", name) for name in rows(tmp_path / "out")]
    tokens = np.concatenate([tokens for _, tokens in stored])
    mel = np.concatenate([mel for mel, _ in stored], axis=1).astype(np.float64)
    found = index.statistics
    assert found["frames"] == len(tokens) == sum(index.frames(split) for split in ("train", "validation", "test"))
    for column, histogram, bits in zip(
        tokens.T, found["tokens"]["histogram"], found["tokens"]["entropy_bits"], strict=True
    ):
        assert histogram == [int((column == entry).sum()) for entry in range(64)]
        share = np.unique(column, return_counts=True)[1] / len(column)
        assert bits == pytest.approx(-(share * np.log2(share)).sum(), abs=1e-4)
    for name, slices in zip(("original", "codec1"), mel, strict=True):
        np.testing.assert_allclose(found["mel"][name]["mean"], slices.mean(axis=0), atol=1e-4)
        np.testing.assert_allclose(found["mel"][name]["std"], slices.std(axis=0), atol=1e-4)
    assert sum(index.hours.values()) == pytest.approx(len(tokens) / 75 / 3600, abs=1e-3)


def test_statistics_survive_their_file_and_add_up():
    rng = np.random.default_rng(0)
    one, two = (Statistics.empty(2, 8, 1, 3) for _ in range(2))
    for part in (one, two):
        part.frames, part.histogram[:], part.pairs[:] = 9, rng.integers(0, 5, (2, 8)), rng.integers(0, 3, (9, 8))
        part.mel_sum[:], part.mel_square[:] = rng.normal(size=(1, 3)), rng.normal(size=(1, 3))
    again = Statistics.from_bytes(one.to_bytes())
    for field in dataclasses.fields(Statistics):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(one, field.name))
    assert one.to_bytes() == again.to_bytes()
    expected = {field.name: getattr(one, field.name) + getattr(two, field.name) for field in dataclasses.fields(one)}
    one.add(two)
    for name, value in expected.items():
        np.testing.assert_array_equal(getattr(one, name), value)


def test_batches_give_each_document_its_own_arrays_and_always_the_same_bytes(run, audio, tmp_path, monkeypatch, capsys):
    assert run(audio, tmp_path / "one", "--mel-sources", "original,codec1") == 0
    monkeypatch.setattr(convert_module, "_GROUP_SECONDS", 8.0)
    flags = ("--mel-sources", "original,codec1", "--batch", "3", "--verify-tokens", "13")
    assert run(audio, tmp_path / "three", *flags) == 0
    summary = capsys.readouterr().out
    assert run(audio, tmp_path / "again", *flags) == 0
    assert hashes(tmp_path / "three") == hashes(tmp_path / "again")
    different = frames = 0
    for name in rows(tmp_path / "one"):
        (mel, tokens), (other_mel, other_tokens) = (document(tmp_path / out, name) for out in ("one", "three"))
        np.testing.assert_array_equal(mel[0], other_mel[0])
        different += (tokens != other_tokens).sum(axis=0)
        frames += len(tokens)
    assert (different <= 0.02 * frames).all(), "only near ties may fall the other way"
    lines = [
        "100 %" if not count else f"{100 * (frames - count) / frames:.3f} % ({count:,} differ)" for count in different
    ]
    assert f"verify  13 documents, {frames:,} frames encoded again on the CPU, one by one" in summary
    assert ", ".join(lines) in summary


def test_one_channel_can_be_taken(run, tmp_path):
    left, right = sound(1.0, seed=1), sound(1.0, seed=2)
    write_audio(tmp_path / "two" / "a.wav", np.stack([left, right], axis=1), RATE, subtype="FLOAT")
    write_audio(tmp_path / "one" / "a.wav", right, RATE, subtype="FLOAT")
    assert run(tmp_path / "two", tmp_path / "from_two", "--channel", "1") == 0
    assert run(tmp_path / "one", tmp_path / "from_one") == 0
    assert hashes(tmp_path / "from_two") == hashes(tmp_path / "from_one")
    assert run(tmp_path / "two", tmp_path / "none", "--channel", "2") == 1


def test_strict_fails_after_everything_is_done(run, audio, tmp_path, capsys):
    (audio / "bad.wav").write_bytes(b"")
    assert run(audio, tmp_path / "out", "--strict") == 1
    assert "--strict: 1 inputs could not be used; the others are prepared" in capsys.readouterr().err
    assert load_index(tmp_path / "out").failed == ({"path": "bad.wav", "reason": "the file is empty"},)
    assert run(audio, tmp_path / "out") == 0


def test_every_input_has_one_line_in_the_index(run, audio, tmp_path):
    (audio / "bad.wav").write_bytes(b"")
    assert run(audio, tmp_path / "out") == 0
    text = (tmp_path / "out" / "index.json").read_text()
    for path in audio.iterdir():
        lines = [line for line in text.splitlines() if f'"path": "{path.name}", "fate"' in line]
        assert len(lines) == 1
    index = load_index(tmp_path / "out")
    fields = json.loads(text)
    assert fields["mel_hash"] == index.mel.fingerprint() and fields["codec"]["fingerprint"]
    assert all(len(shard.sha256) == 64 for shard in index.shards) and index.tool_version


def test_a_touched_file_is_not_prepared_again_and_a_changed_one_is_told(run, audio, tmp_path, capsys):
    assert run(audio, tmp_path / "out") == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.array_record")}
    (audio / "00.wav").touch()
    write_audio(audio / "01.wav", sound(1.0, seed=1234), RATE)
    capsys.readouterr()
    assert run(audio, tmp_path / "out") == 0
    assert "1 inputs have changed since they were stored (01.wav" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_beam_writes_the_bytes_of_the_local_engine(run, audio, tmp_path):
    assert run(audio, tmp_path / "local") == 0
    assert run(audio, tmp_path / "beam", "--runner", "beam", "--", "--runner", "DirectRunner") == 0
    assert hashes(tmp_path / "beam") == hashes(tmp_path / "local")
    assert load_index(tmp_path / "beam") == load_index(tmp_path / "local")
    assert not [path for path in (tmp_path / "beam").iterdir() if "tmp" in path.name or path.name.startswith(".")]


def test_beams_options_are_beams_alone(run, audio, tmp_path, capsys):
    assert run(audio, tmp_path / "out", "--", "--runner", "DirectRunner") == 2
    assert "they go with --runner beam" in capsys.readouterr().err
    assert run(audio, tmp_path / "out", "--runner", "beam", "--", "--no_such_option", "1") == 2
    assert "no_such_option" in capsys.readouterr().err
    assert run(audio, "gs://bucket/out") == 2
    assert "--runner beam writes there" in capsys.readouterr().err


def test_a_tfds_data_set_is_prepared_in_its_own_splits(run, tmp_path):
    fixtures = ROOT / "tests" / "fixtures"
    assert run("tfds:libritts", tmp_path / "out", "--data-dir", str(fixtures)) == 0
    fates = rows(tmp_path / "out")
    assert len(fates) == 9
    for name, row in fates.items():
        assert row["split"] == {"train_clean100": "train", "dev_clean": "validation"}[name.split("/")[0]]
        assert row["speaker"] and row["metadata"]["text_normalized"]
    # Asked again, what was read of the examples is known.
    before = hashes(tmp_path / "out")
    assert run("tfds:libritts", tmp_path / "out", "--data-dir", str(fixtures)) == 0
    assert hashes(tmp_path / "out") == before and rows(tmp_path / "out") == fates
    flags = ("--data-dir", str(fixtures), "--tfds-splits", "dev_clean", "--resplit", "--split-by", "speaker")
    assert run("tfds:libritts", tmp_path / "dev", *flags) == 0
    splits: dict[str, set] = {}
    for row in rows(tmp_path / "dev").values():
        splits.setdefault(row["speaker"], set()).add(row["split"])
    assert len(splits) > 1 and all(len(where) == 1 for where in splits.values())


def test_folder_manifest_tfds_and_beam_give_the_same_arrays(run, tmp_path):
    folder = tmp_path / "audio"
    for utterance in UTTERANCES:
        write_audio(folder / f"{utterance.id}.wav", samples(utterance).astype(np.int16), RATE)
    manifest = folder / "all.jsonl"
    manifest.write_text("".join(json.dumps({"path": f"{utterance.id}.wav"}) + "\n" for utterance in UTTERANCES))
    ways = {
        "folder": (folder,),
        "manifest": (manifest,),
        "tfds": ("tfds:libritts", "--data-dir", str(ROOT / "tests" / "fixtures")),
        "beam": (folder, "--runner", "beam"),
    }
    stored = {}
    for way, (source, *flags) in ways.items():
        assert run(source, tmp_path / way, "--mel-sources", "original,codec1", *flags) == 0
        fates = rows(tmp_path / way)
        names = {row.get("metadata", {}).get("id", name.removesuffix(".wav")): name for name, row in fates.items()}
        stored[way] = {name: document(tmp_path / way, names[name]) for name in names}
    assert stored["folder"].keys() == {utterance.id for utterance in UTTERANCES}
    for way, documents in stored.items():
        assert documents.keys() == stored["folder"].keys(), way
        for name, (mel, tokens) in documents.items():
            np.testing.assert_array_equal(mel, stored["folder"][name][0])
            np.testing.assert_array_equal(tokens, stored["folder"][name][1])


MEMORY = """
import resource, sys
from wgpt_jax.prepare.main import main
code = main(sys.argv[1:])
print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.exit(code)
"""


@pytest.mark.parametrize("minutes", [12, pytest.param(600, marks=pytest.mark.slow)])
def test_a_long_file_needs_no_more_memory_than_a_short_one(minutes, codec_folder, tmp_path):
    peaks = []
    for name, length in (("short", 2), ("long", minutes)):
        minute = sound(60.0, 8000)
        write_audio(tmp_path / name / "a.wav", np.tile(minute, length), 8000)
        arguments = [str(tmp_path / name), str(tmp_path / f"{name}_out"), "--codec", str(codec_folder)]
        flags = ["--workers", "1", "--num-codebooks", "1"]
        command = [sys.executable, "-c", MEMORY, *arguments, *flags]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
        peaks.append(int(done.stdout.rsplit("PEAK", 1)[1]) // 1024)
    assert peaks[1] < peaks[0] + 40, f"{peaks} MiB"


def test_the_documents_of_a_codec_are_those_it_encodes_alone(run, audio, tmp_path, codec_folder):
    """Longer than a piece: at the seams too."""
    assert run(audio, tmp_path / "out") == 0
    codec = load_codec(str(codec_folder))
    samples = sound(12.0, seed=99)
    np.testing.assert_array_equal(document(tmp_path / "out", "long.wav")[1], codec.encode(samples))
