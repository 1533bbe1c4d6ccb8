"""Prepared data can be verified, repaired, described and shown; every kind of damage is named."""

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import msgpack
import numpy as np
import pytest
import soundfile
import torch
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from audio_samples import sound, write_audio
from transformers import EncodecModel

from wgpt_jax.data.index import file_sha256
from wgpt_jax.data.records import Record, decode_record, encode_record
from wgpt_jax.dataset import folder as folder_module
from wgpt_jax.dataset.find import find_document
from wgpt_jax.dataset.folder import open_prepared
from wgpt_jax.dataset.main import main
from wgpt_jax.dataset.show import safe_stem
from wgpt_jax.prepare import plan as plan_module
from wgpt_jax.prepare.main import main as prepare_main

LONG = "songs/long.wav"
"""Of 30 seconds, so that it fills more than one record."""
FILES = {
    LONG: (30.0, "train", "music", "ann"),
    "songs/one.wav": (3.0, "train", "music", "ann"),
    "words/two.wav": (2.5, "train", "speech", "bob"),
    "words/four.wav": (4.5, "train", "speech", "bob"),
    "words/five.wav": (1.5, "validation", "speech", "cleo"),
    "words/six.wav": (2.0, "test", "speech", "dan"),
}
SHARD = "train-00000.array_record"


@pytest.fixture(scope="module")
def audio(tmp_path_factory) -> Path:
    """A manifest, its audio, a copy of one of its files, and one that is no audio."""
    root = tmp_path_factory.mktemp("audio")
    rows = []
    for number, (name, (seconds, split, domain, speaker)) in enumerate(FILES.items()):
        write_audio(root / name, sound(seconds, seed=number), 24000)
        fields = {"split": split, "domain": domain, "speaker": speaker, "id": f"utt-{number}"}
        rows.append({"path": name, **fields})
    shutil.copy(root / "words/two.wav", root / "words/zwei.wav")
    (root / "words/text.wav").write_text("no audio\n" * 20)
    rows += [{"path": f"words/{name}.wav", "split": "train", "speaker": "bob"} for name in ("zwei", "text")]
    (root / "all.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return root


@pytest.fixture(scope="module")
def prepared(audio, codec_folder, tmp_path_factory) -> Path:
    """Shards of 4 seconds at least."""
    out = tmp_path_factory.mktemp("data") / "out"
    flags = ["--codec", str(codec_folder), "--mel-sources", "original,codec1", "--workers", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "_SHORTEST", 4.0)
        assert prepare_main([str(audio / "all.jsonl"), str(out), *flags]) == 0
    return out


@pytest.fixture
def copy(prepared, tmp_path) -> Path:
    return shutil.copytree(prepared, tmp_path / "copy")


@pytest.fixture
def run(capsys) -> Callable[..., tuple[int, str, str]]:
    """Runs the tool; returns its exit code and what it printed on stdout and stderr."""

    def run(*words) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def contents(out: Path) -> dict[str, str]:
    """Of all files that must be as before; reports also hold the time of their shard's change."""
    paths = [path for pattern in ("*.array_record", "*.npz", "index.json", "codec.*") for path in out.glob(pattern)]
    return {path.name: file_sha256(path) for path in sorted(paths)}


def raw_records(path: Path) -> list[bytes]:
    reader = ArrayRecordReader(str(path))
    try:
        return [reader.read([i])[0] for i in range(reader.num_records())]
    finally:
        reader.close()


def stored(out: Path) -> dict[str, dict]:
    """Documents by name with their split, tokens [n, K] and mel [S, n, M], read by msgpack and NumPy alone."""
    documents: dict[str, dict] = {}
    for path in sorted(out.glob("*.array_record")):
        for data in raw_records(path):
            fields = msgpack.unpackb(data)
            tokens = np.frombuffer(fields["tokens"], "<i2").reshape(-1, fields["codebooks"])
            mel = np.frombuffer(fields["mel"], "<f2").reshape(fields["sources"], len(tokens), fields["bands"])
            offset = 0
            for name, domain, _, length, context in fields["segments"]:
                row = documents.setdefault(name, {"split": path.name.split("-")[0], "domain": domain, "parts": []})
                rows = slice(offset + context, offset + length)
                row["parts"].append((tokens[rows], mel[:, rows]))
                offset += length
    for row in documents.values():
        row["tokens"] = np.concatenate([tokens for tokens, _ in row["parts"]])
        row["mel"] = np.concatenate([mel for _, mel in row["parts"]], axis=1)
    return documents


# What can happen to a data set. Each changes the folder that it is given.


def edit_json(file: str, change: Callable[[dict], None]) -> Callable[[Path], None]:
    def damage(out: Path) -> None:
        fields = json.loads((out / file).read_text())
        change(fields)
        (out / file).write_text(json.dumps(fields))

    return damage


def edit_shard_row(**fields) -> Callable[[Path], None]:
    return edit_json("index.json", lambda index: index["shards"][0].update(fields))


def edit_input(name: str, **fields) -> Callable[[Path], None]:
    return edit_json("index.json", lambda i: next(r for r in i["inputs"] if r["path"] == name).update(fields))


def flip_byte(out: Path) -> None:
    """As a disk does it: size and time of change stay."""
    path = out / SHARD
    status, data = path.stat(), bytearray(path.read_bytes())
    data[70_000] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def cut(out: Path) -> None:
    os.truncate(out / SHARD, (out / SHARD).stat().st_size // 2 + 7)


def swap(suffix: str) -> Callable[[Path], None]:
    def damage(out: Path) -> None:
        first, second = out / f"train-00000{suffix}", out / f"train-00001{suffix}"
        first.rename(out / "third")
        second.rename(first)
        (out / "third").rename(second)

    return damage


def remove(name: str) -> Callable[[Path], None]:
    return lambda out: (out / name).unlink()


def overwrite(name: str, data: bytes) -> Callable[[Path], None]:
    def damage(out: Path) -> None:
        assert (out / name).is_file()
        (out / name).write_bytes(data)

    return damage


def other_ngrams(out: Path) -> None:
    with np.load(out / "ngrams.npz") as fields:
        changed = dict(fields) | {"counts": fields["counts"] + 1}
    np.savez_compressed(out / "ngrams.npz", **changed)


def rewrite(change: Callable[[list[Record]], list[Record]]) -> Callable[[Path], None]:
    """Records that are wrong, in a shard whose checksum is right: what a bug would leave."""

    def damage(out: Path) -> None:
        holder = next(path for path in sorted(out.glob("train*.array_record")) if len(raw_records(path)) > 1)
        records = change([decode_record(data) for data in raw_records(holder)])
        writer = ArrayRecordWriter(str(holder), "group_size:1")
        for record in records:
            writer.write(encode_record(record))
        writer.close()
        for file in ("index.json", holder.with_suffix(".json").name):
            fields = json.loads((out / file).read_text())
            row = fields.get("shard") or next(r for r in fields["shards"] if r["file"] == holder.name)
            row.update(sha256=file_sha256(holder), records=len(records))
            (out / file).write_text(json.dumps(fields))

    return damage


def with_arrays(change: Callable[[np.ndarray, np.ndarray], None]) -> Callable[[Path], None]:
    """Changes the tokens and the mel of the first record."""

    def changed(records: list[Record]) -> list[Record]:
        tokens, mel = records[0].tokens.copy(), records[0].mel.copy()
        change(tokens, mel)
        return [dataclasses.replace(records[0], tokens=tokens, mel=mel), *records[1:]]

    return rewrite(changed)


def with_segment(**fields) -> Callable[[Path], None]:
    """Changes the last segment of the last record."""

    def changed(records: list[Record]) -> list[Record]:
        *others, last = records[-1].segments
        segments = (*others, dataclasses.replace(last, **fields))
        return [*records[:-1], dataclasses.replace(records[-1], segments=segments)]

    return rewrite(changed)


def set_nan(tokens: np.ndarray, mel: np.ndarray) -> None:
    mel[1, 3, 5] = np.nan


def set_loud(tokens: np.ndarray, mel: np.ndarray) -> None:
    mel[0, 3, 5] = 100


def set_token(tokens: np.ndarray, mel: np.ndarray) -> None:
    tokens[3, 2] = 64


def fewer_codebooks(records: list[Record]) -> list[Record]:
    return [dataclasses.replace(record, tokens=record.tokens[:, :2]) for record in records]


def too_long(records: list[Record]) -> list[Record]:
    """Both records in one, which readers do not expect."""
    first, second = records
    (segment,), (after,) = first.segments, second.segments
    joined = dataclasses.replace(segment, length=segment.length + after.length - 1)
    mel = np.concatenate([first.mel, second.mel[:, 1:]], axis=1)
    return [Record(np.concatenate([first.tokens, second.tokens[1:]]), mel, (joined,))]


def stored_twice(records: list[Record]) -> list[Record]:
    return [*records, records[0]]


def other_context(records: list[Record]) -> list[Record]:
    mel = records[1].mel.copy()
    mel[0, 0] = 0.0
    return [records[0], dataclasses.replace(records[1], mel=mel)]


def in_two_splits(out: Path) -> None:
    """A document of train in validation as well, the sums of that shard adapted."""
    path = out / "validation-00000.array_record"
    train = [data for shard in sorted(out.glob("train*.array_record")) for data in raw_records(shard)]
    extra = next(data for data in train if decode_record(data).segments[0].document == LONG)
    records = [*raw_records(path), extra]
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for data in records:
        writer.write(data)
    writer.close()


DAMAGE: dict[str, tuple[Callable[[Path], None], set[str], str]] = {
    "a flipped byte": (flip_byte, {"shards", "records"}, f"shards: {SHARD} is damaged: its sha256"),
    "a shard cut short": (cut, {"shards", "records"}, f"records: {SHARD} cannot be read: it ends too early"),
    "an empty shard": (overwrite(SHARD, b""), {"shards", "records"}, f"records: {SHARD} cannot be read: it "),
    "a lost shard": (remove(SHARD), {"shards"}, f"shards: {SHARD} is missing"),
    "shards swapped": (
        swap(".array_record"),
        {"shards", "records", "documents", "inputs", "statistics"},
        "the index says train-00000.array_record (train)",
    ),
    "another sha256": (edit_shard_row(sha256="0" * 64), {"shards", "reports"}, f"shards: {SHARD} is damaged"),
    "another count of records": (edit_shard_row(records=9), {"records", "reports"}, "records, the index says 9"),
    "another count of documents": (edit_shard_row(documents=9), {"documents", "reports"}, "the index says 9 of"),
    "another count of frames": (edit_shard_row(frames=9), {"documents", "reports"}, "frames, the index says"),
    "other hours": (
        edit_json("index.json", lambda index: index["hours"].update(train=1.0)),
        {"documents"},
        "hours, the index says 1.0",
    ),
    "another number of codebooks": (
        edit_json("index.json", lambda index: index.update(codebooks=2)),
        {"index", "records", "codec"},
        "index: num_codebooks is 2, its options say 4",
    ),
    "a value of another type": (
        edit_json("index.json", lambda index: index.update(codebooks="four")),
        {"index"},
        "codebooks has a value that it cannot have",
    ),
    "half an index": (
        lambda out: os.truncate(out / "index.json", (out / "index.json").stat().st_size // 2),
        {"index"},
        "index.json is damaged",
    ),
    "no index": (remove("index.json"), {"index"}, "the preparation was not finished, or it was deleted"),
    "an input of another split": (
        edit_input("words/five.wav", split="train"),
        {"inputs"},
        "inputs: words/five.wav is in validation-00000",
    ),
    "an input of other length": (edit_input(LONG, frames=7), {"inputs"}, f"inputs: {LONG} has 2,250 frames"),
    "a document that is in no shard": (
        edit_input("words/text.wav", fate="used", split="train", shard=SHARD, frames=3, seconds=1.0),
        {"inputs"},
        f"inputs: words/text.wav is not in {SHARD}",
    ),
    "a document that is no input": (
        edit_input(LONG, fate="skipped", reason="lost"),
        {"inputs"},
        f"inputs: {LONG} is in train-",
    ),
    "another histogram": (
        edit_json("index.json", lambda index: index["statistics"]["tokens"]["histogram"][0].reverse()),
        {"statistics"},
        "statistics: the histogram of the tokens in the index is not that of the records",
    ),
    "another mel mean": (
        edit_json("index.json", lambda index: index["statistics"]["mel"]["codec1"]["mean"].reverse()),
        {"statistics"},
        "statistics: the mean of the codec1 mel in the index",
    ),
    "no statistics": (
        edit_json("index.json", lambda index: index.update(statistics={})),
        {"statistics"},
        "statistics: the statistics in the index are damaged",
    ),
    "leaks unsaid": (
        edit_json("index.json", lambda index: index["leaks"].update(speaker=["ann"])),
        {"leaks"},
        "leaks: the index does not say",
    ),
    "statistics files swapped": (
        swap(".statistics.npz"),
        {"statistics"},
        "statistics: train-00000.statistics.npz is not of the records",
    ),
    "a statistics file cut short": (
        overwrite("train-00000.statistics.npz", b"PK\3\4"),
        {"statistics"},
        "statistics: train-00000.statistics.npz cannot be read",
    ),
    "a lost report": (remove("train-00000.json"), {"reports"}, "reports: train-00000.json is missing or damaged"),
    "reports swapped": (swap(".json"), {"reports"}, "reports: train-00001.json is not of the train-00000"),
    "other n-grams": (other_ngrams, {"ngrams"}, "ngrams: ngrams.npz is not of the train records"),
    "no n-grams": (remove("ngrams.npz"), {"ngrams"}, "ngrams: cannot read"),
    "no codec": (remove("codec.safetensors"), {"codec"}, "codec: there is no codec decoder"),
    "a codec cut short": (overwrite("codec.safetensors", b"half"), {"codec"}, "codec.safetensors is damaged"),
    "a mel that is not finite": (with_arrays(set_nan), {"values"}, "values: record 0 of train-"),
    "a mel that is no audio's": (with_arrays(set_loud), {"values"}, "no audio leaves"),
    "a token that is none": (with_arrays(set_token), {"values"}, "to 64; they are 0 to 63"),
    "fewer codebooks": (rewrite(fewer_codebooks), {"records"}, "it has 2 codebooks; the data set has 4"),
    "a record that is too long": (rewrite(too_long), {"records"}, "it has 2,250 frames; 1 to 2,048 can be"),
    "a document stored twice": (
        rewrite(stored_twice),
        {"documents", "statistics", "ngrams"},
        f"{LONG}, frame 0: it is stored twice",
    ),
    "frames left out": (
        with_segment(start=2050),
        {"documents", "inputs"},
        f"{LONG}, frame 2050: the frames from 2048 on are missing",
    ),
    "frames predicted twice": (
        with_segment(start=2000),
        {"documents", "inputs"},
        f"{LONG}, frame 2000: it is stored twice",
    ),
    "a segment without its context": (
        with_segment(context=0),
        {"documents", "statistics", "ngrams"},
        "frames, 0 of them context",
    ),
    "a context of other frames": (
        rewrite(other_context),
        {"documents"},
        f"{LONG}: its context is not the frame before",
    ),
}  # fmt: skip


def failed_checks(out: str) -> set[str]:
    return {line[7:].split(":")[0] for line in out.splitlines() if line.startswith("FAILED")}


def test_a_sound_data_set_passes_every_check(prepared, run):
    before = contents(prepared)
    code, out, err = run("verify", prepared, "--documents", "1", "--workers", "2")
    assert (code, err) == (0, "")
    assert failed_checks(out) == set()
    assert out.count("ok     causality: ") == 3 and "not checked" not in out
    assert "ok     documents: 6 of 3,261 frames" in out
    assert contents(prepared) == before


MENDED = (
    *("a flipped byte", "a shard cut short", "a lost shard", "shards swapped", "another number of codebooks"),
    *("half an index", "no index", "an input of other length", "statistics files swapped", "a lost report"),
    *("reports swapped", "other n-grams", "a codec cut short", "a mel that is not finite", "frames predicted twice"),
)
"""One of each kind: what repairs one repairs the others of its kind, and takes longer than finding them."""


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(damage, copy, run):
    do, failing, sentence = DAMAGE[damage]
    do(copy)
    code, out, err = run("verify", copy, "--documents", "0", "--workers", "1")
    assert code == 1
    assert failed_checks(out) == failing
    assert sentence in out
    assert f"python tools/dataset.py repair {copy}" in err and "Traceback" not in err


@pytest.mark.parametrize("damage", MENDED)
def test_damage_is_mended_to_the_same_bytes(damage, prepared, copy, run):
    DAMAGE[damage][0](copy)
    assert contents(copy) != contents(prepared) or "report" in damage
    code, out, err = run("repair", copy, "--workers", "1")
    assert (code, err) == (0, "") and "damaged " in out
    assert contents(copy) == contents(prepared)
    assert run("verify", copy, "--documents", "0", "--workers", "1")[0] == 0


def test_a_document_in_two_splits_is_named(copy, run):
    in_two_splits(copy)
    code, out, _ = run("verify", copy, "--documents", "0", "--workers", "1")
    assert code == 1 and f"{LONG} is in train-0000" in out and "and in validation-00000" in out


def test_leaks_are_told_and_are_no_damage(audio, codec_folder, tmp_path, run):
    rows = [{"path": "words/four.wav", "split": s, "start": i, "end": i + 0.7} for i, s in enumerate(("train", "test"))]
    (audio / "leak.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    flags = ["--codec", str(codec_folder), "--workers", "1"]
    assert prepare_main([str(audio / "leak.jsonl"), str(tmp_path / "out"), *flags]) == 0
    code, out, _ = run("verify", tmp_path / "out", "--documents", "0", "--workers", "1")
    assert code == 0 and "note   leaks: 1 by file in more than one split: words/four.wav" in out


def test_other_audio_than_was_prepared_fails(prepared, audio, tmp_path, run):
    for number, name in enumerate(FILES):
        write_audio(tmp_path / name, sound(FILES[name][0], seed=100 + number), 24000)
    code, out, err = run("verify", prepared, "--documents", "1", "--audio-root", tmp_path, "--json")
    assert code == 1 and "causality failed" in err
    result = json.loads(out)
    assert not result["passed"]
    assert {check["name"] for check in result["checks"] if check["outcome"] == "FAILED"} == {"causality"}


def test_absent_audio_is_no_damage_and_said(prepared, tmp_path, run):
    code, out, _ = run("verify", prepared, "--documents", "1", "--audio-root", tmp_path)
    assert code == 0 and "note   causality: not checked: " in out and "--audio-root" in out


def test_verifying_needs_nothing_that_reads_audio(prepared, run, monkeypatch):
    monkeypatch.setattr(folder_module, "find_spec", lambda name: None)
    code, out, _ = run("verify", prepared, "--workers", "1")
    assert code == 0
    assert "note   causality: not checked: torch" in out and "ok     shards: " in out
    code, _, err = run("repair", prepared)
    assert code == 2 and "pip install 'wgpt_jax[prepare]'" in err


def test_json_of_verify_is_one_object(copy, run):
    flip_byte(copy)
    code, out, _ = run("verify", copy, "--documents", "0", "--workers", "1", "--json")
    result = json.loads(out)
    assert code == 1 and result["passed"] is False
    assert {"name": "values", "outcome": "ok"}.items() <= result["checks"][5].items()


def test_a_data_set_that_is_being_prepared_is_left_alone(prepared, run):
    from wgpt_jax.folder_lock import locked

    with locked(prepared, plan_module.LOCK_NAME, "data folder", "prepares into"):
        code, _, err = run("verify", prepared, "--documents", "0")
        assert code == 2 and f"prepares into {prepared}; wait for it" in err
        assert run("repair", prepared)[0] == 2


def test_repair_says_what_it_did(copy, run):
    flip_byte(copy)
    code, out, _ = run("repair", copy, "--workers", "1")
    sha256 = file_sha256(copy / SHARD)
    assert code == 0
    assert "damaged train-00000: its sha256 is not what it was when it was written" in out
    assert f"mended  train-00000: as it was, sha256 {sha256}" in out
    assert out.count("mended") == 1
    code, out, _ = run("repair", copy, "--workers", "1")
    assert code == 0 and out.startswith("nothing to repair")


def test_repair_touches_only_what_is_damaged(copy, run):
    times = {path.name: path.stat().st_mtime_ns for path in copy.glob("*.array_record")}
    cut(copy)
    assert run("repair", copy, "--workers", "1")[0] == 0
    after = {path.name: path.stat().st_mtime_ns for path in copy.glob("*.array_record")}
    assert {name for name in times if times[name] != after[name]} == {SHARD}


def test_repair_says_so_if_the_audio_has_changed(copy, audio, run):
    name = next(r["path"] for r in json.loads((copy / "index.json").read_text())["inputs"] if r.get("shard") == SHARD)
    content = (audio / name).read_bytes()
    (copy / SHARD).unlink()
    try:
        write_audio(audio / name, sound(FILES[name][0], seed=55), 24000)
        code, out, err = run("repair", copy, "--workers", "1")
    finally:
        (audio / name).write_bytes(content)
    assert code == 1
    assert f"OTHER   train-00000: the audio of {name} has changed" in out
    assert "train-00000 could be made, but not as before" in err


def test_repair_without_audio_changes_nothing(copy, audio, run):
    (copy / SHARD).unlink()
    before = {path.name: path.read_bytes() for path in copy.iterdir() if path.name != plan_module.LOCK_NAME}
    manifest = audio / "all.jsonl"
    manifest.rename(audio / "away.jsonl")
    try:
        code, _, err = run("repair", copy, "--workers", "1")
    finally:
        (audio / "away.jsonl").rename(manifest)
    assert code == 2 and "all.jsonl" in err and "repairing needs the audio where it was" in err
    assert {path.name: path.read_bytes() for path in copy.iterdir() if path.name in before} == before


def test_without_a_plan_the_way_out_is_said(copy, audio, codec_folder, run):
    (copy / "plan.json").unlink()
    code, out, err = run("verify", copy, "--documents", "0", "--workers", "1")
    assert code == 1 and failed_checks(out) == {"plan"} and "prepare the audio again into another OUT" in out
    code, _, err = run("repair", copy)
    assert code == 2
    assert f"python tools/prepare_audio.py {audio / 'all.jsonl'} OUT --codec {codec_folder}" in err
    assert "--num-codebooks 4 --mel-sources original,codec1" in err


def test_stats_are_those_of_the_records(prepared, tmp_path, run):
    code, out, _ = run("stats", prepared, "--out", tmp_path / "new", "--json")
    assert code == 0
    found, documents = json.loads(out), stored(prepared)
    for part in found["parts"]:
        same = [d for d in documents.values() if (d["split"], d["domain"]) == (part["split"], part["domain"])]
        seconds = np.array([len(d["tokens"]) / 75 for d in same])
        assert (part["documents"], part["frames"]) == (len(same), round(75 * seconds.sum()))
        assert part["hours"] == pytest.approx(seconds.sum() / 3600)
        expected = [seconds.min(), *np.percentile(seconds, [5, 50, 95]), seconds.max()]
        assert list(part["seconds"].values()) == pytest.approx(expected, abs=1e-3)
    assert sum(part["documents"] for part in found["parts"]) == len(documents) == len(FILES)
    tokens = np.concatenate([d["tokens"] for d in documents.values()])
    for column, row in zip(tokens.T, found["codebooks"], strict=True):
        shares = np.unique_counts(column).counts / len(column)
        entropy = -(shares * np.log2(shares)).sum()
        assert (row["used"], row["size"]) == (len(shares), 64)
        assert [row["entropy_bits"], row["perplexity"]] == pytest.approx([entropy, 2**entropy])
        assert row["most_frequent"] == pytest.approx(shares.max())
    mel = np.concatenate([d["mel"] for d in documents.values()], axis=1).astype(np.float64)
    for source, row in zip(mel, (found["mel"]["original"], found["mel"]["codec1"]), strict=True):
        assert [row["mean"], row["std"]] == pytest.approx([source.mean(), source.std()], abs=2e-4)
        assert row["lowest_band_mean"] == pytest.approx(source.mean(axis=0).min(), abs=1e-4)
    assert found["mel_sample"]["frames"] == len(tokens)
    assert found["fates"] == {"used": 6, "skipped": 1, "failed": 1}
    assert [s["speaker"] for s in found["speakers"]["largest"]] == ["ann", "bob", "dan", "cleo"]
    assert (tmp_path / "new" / "stats.png").read_bytes().startswith(b"\x89PNG")


def test_stats_print_tables(copy, run):
    code, out, _ = run("stats", copy)
    assert code == 0 and "inputs   8: 6 used, 1 skipped, 1 failed" in out and "leaks    none" in out
    assert (copy / "stats.png").is_file()
    cut(copy)
    code, _, err = run("stats", copy)
    assert code == 1 and f"{SHARD} cannot be read" in err


def test_the_wav_is_what_the_codec_decodes_from_the_stored_tokens(prepared, codec_folder, tmp_path, run):
    code, out, _ = run("show", prepared, "--utt", LONG, "--out", tmp_path, "--codebooks", "3")
    assert code == 0 and "split     train" in out and "length    30.000 s, 2,250 frames" in out
    assert "speaker   ann" in out and 'metadata  {"id": "utt-0"}' in out
    tokens = stored(prepared)[LONG]["tokens"]
    assert " ".join(f"{token:>2}" for token in tokens[:12, 0]) in out
    with torch.no_grad():
        codes = torch.from_numpy(tokens[:, :3].T.astype(np.int64))
        expected = EncodecModel.from_pretrained(codec_folder).decode(codes[None, None], [None]).audio_values[0, 0]
    samples, rate = soundfile.read(next(tmp_path.glob("*.wav")), dtype="float32")
    assert rate == 24000
    np.testing.assert_allclose(samples, expected.numpy().clip(-1, 1), atol=2e-4)
    assert next(tmp_path.glob("*.png")).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("wanted", ["words/two.wav", "two.wav", "TWO", "utt-2"])
def test_a_document_is_found_by_what_one_remembers(wanted, prepared):
    row = find_document(open_prepared(str(prepared)), wanted)
    assert (row["path"], row["metadata"]["id"]) == ("words/two.wav", "utt-2")


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ("words/", "'words/' is one of 4 documents: words/five.wav, words/four.wav"),
        ("words/tow.wav", "no document 'words/tow.wav'; did you mean words/two.wav"),
        ("lonng.wav", f"no document 'lonng.wav'; did you mean {LONG}"),
        ("words/zwei.wav", "words/zwei.wav was not used (skipped: the same audio as words/two.wav)"),
        ("words/text.wav", "words/text.wav was not used (failed: "),
        ("#", "no document '#'; there are songs/long.wav"),
    ],
)
def test_a_document_that_is_not_found_gets_the_nearest(wanted, sentence, prepared, tmp_path, run):
    code, out, err = run("show", prepared, "--utt", wanted, "--out", tmp_path)
    assert (code, out) == (2, "") and sentence in err
    assert not list(tmp_path.iterdir())


def test_file_names_are_safe_and_distinct():
    names = ["a.wav", "x/a.wav", "x_a.wav", "../../etc/passwd", "..", ".hidden", "ü", "\udcff.wav", "a" * 300, "$x$ y"]
    stems = [safe_stem(name) for name in names]
    assert stems[0] == "a.wav" and len(set(stems)) == len(names)
    for stem in stems:
        assert stem.isascii() and "/" not in stem and stem.strip("._-") and stem[0] not in ".-" and len(stem) < 100


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["verify", "{none}"], "there is no folder"),
        (["stats", "{empty}"], "no prepared data in .*make it with tools/prepare_audio.py"),
        (["show", "gs://bucket/data", "--utt", "x"], "not on this machine"),
        (["verify", "{data}", "--documents=-1"], "not a number of documents"),
        (["verify", "{data}", "--workers", "0"], "at least one is needed"),
        (["repair", "{data}", "--workers", "0"], "at least one is needed"),
        (["show", "{data}", "--utt", "one.wav", "--codebooks", "5"], "--codebooks 5: 1 to 4 are stored"),
        (["stats", "{data}", "--out", "{file}"], "cannot write .*choose another --out DIR"),
        (["show", "{data}", "--utt", "one.wav", "--out", "{file}"], "cannot write .*choose another --out DIR"),
        (["verfy", "{data}"], "no command 'verfy'; did you mean verify"),
    ],
)
def test_wrong_requests_end_in_a_sentence(words, sentence, prepared, tmp_path, run):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    places = {"none": tmp_path / "none", "empty": tmp_path / "empty", "data": prepared, "file": tmp_path / "file"}
    code, out, err = run(*(word.format(**places) for word in words))
    assert (code, out) == (2, "")
    first = err.splitlines()[0]
    assert first.startswith("error: ") and re.search(sentence, first)
