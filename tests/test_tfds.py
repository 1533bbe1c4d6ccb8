import base64
import dataclasses
import io
import json
import pickle
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from array_record.python.array_record_module import ArrayRecordWriter
from fixtures.make_libritts import FOLDER, RATE, UTTERANCES, samples
from tensorflow_datasets.proto import tf_example_pb2

from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.prepare.items import Item, SourceError
from wgpt_jax.prepare.sources import tfds_find
from wgpt_jax.prepare.sources.tfds import TfdsSource, open_tfds, split_of

DATA_DIR = FOLDER.parents[1]
BY_ID = {utterance.id: utterance for utterance in UTTERANCES}
PCM = np.random.default_rng(0).integers(-32768, 32768, 2400).astype(np.int16)
PCM[:2] = -32768, 32767
FLOATS = np.random.default_rng(1).uniform(-1, 1, 2400).astype(np.float32)


@pytest.fixture(autouse=True)
def without_tensorflow(request, monkeypatch):
    """As on a machine that has none, so that no test builds anything by accident."""
    if "tensorflow" not in request.fixturenames:
        _pretend(monkeypatch, tensorflow=False)


def _pretend(monkeypatch, tensorflow: bool) -> None:
    find_spec = tfds_find.importlib.util.find_spec

    def pretend(name, *args):
        return tensorflow or None if name == "tensorflow" else find_spec(name, *args)

    monkeypatch.setattr(tfds_find.importlib.util, "find_spec", pretend)


# --- data sets by hand, in the words in which TFDS 4.9.10 writes them ---


def audio_feature(**content) -> dict:
    content = {"dtype": "int16", "encoding": "NONE", "sampleRate": "16000", "shape": {"dimensions": ["-1"]}} | content
    return {"audio": content, "pythonClassName": "tensorflow_datasets.core.features.audio_feature.Audio"}


def tensor(dtype: str, *shape: str, encoding: str = "none") -> dict:
    content = {"dtype": dtype, "encoding": encoding, "shape": {"dimensions": list(shape)} if shape else {}}
    return {"pythonClassName": "tensorflow_datasets.core.features.tensor_feature.Tensor", "tensor": content}


TEXT = {"pythonClassName": "tensorflow_datasets.core.features.text_feature.Text", "text": {}}


def label(classes: int) -> dict:
    content = {"numClasses": str(classes)}
    return {
        "classLabel": content,
        "pythonClassName": "tensorflow_datasets.core.features.class_label_feature.ClassLabel",
    }


def dictionary(**features) -> dict:
    name = "tensorflow_datasets.core.features.features_dict.FeaturesDict"
    return {"featuresDict": {"features": features}, "pythonClassName": name}


def sequence(feature: dict) -> dict:
    name = "tensorflow_datasets.core.features.sequence_feature.Sequence"
    return {"pythonClassName": name, "sequence": {"feature": feature, "length": "-1"}}


def example(**values) -> bytes:
    """A serialised example; values are bytes or arrays of integers or floats."""
    message = tf_example_pb2.Example()
    for name, value in values.items():
        feature = message.features.feature[name.replace("__", "/")]
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        elif np.asarray(value).dtype.kind == "f":
            feature.float_list.value.extend(np.ravel(value).tolist())
        else:
            feature.int64_list.value.extend(np.ravel(value).tolist())
    return message.SerializeToString()


def prepare(folder: Path, features: dict, shards: list[list[bytes]], **info) -> Path:
    """A prepared data set with one split, ``train``."""
    folder.mkdir(parents=True)
    for number, records in enumerate(shards):
        writer = ArrayRecordWriter(
            str(folder / f"tiny-train.array_record-{number:05d}-of-{len(shards):05d}"), "group_size:1"
        )
        for record in records:
            writer.write(record)
        writer.close()
    split = {
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "name": "train",
        "numBytes": "1",
        "shardLengths": [str(len(records)) for records in shards],
    }
    info = {"fileFormat": "array_record", "name": "tiny", "splits": [split], "version": folder.name} | info
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "features.json").write_text(json.dumps(dictionary(**features)))
    return folder


def tiny(tmp_path: Path, feature: dict, *records: bytes) -> TfdsSource:
    prepare(tmp_path / "tiny" / "1.0.0", {"sound": feature}, [list(records)])
    return open_tfds("tfds:tiny", tmp_path, None, False)


def heard(source: TfdsSource, item: Item) -> np.ndarray:
    with source.open(item) as sound:
        blocks = list(sound.blocks)
    assert all(block.dtype == np.float32 and len(block) and block.shape[1] == sound.channels for block in blocks)
    return np.concatenate(blocks)


def encoded(data: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, data, 22050, format=kind)
    return file.getvalue()


# --- what the real builder made ---


def test_sound_texts_and_speakers_are_those_that_libritts_was_made_of():
    source = open_tfds("tfds:libritts", DATA_DIR, None, False)
    seen = set()
    for item in source.items():
        described = source.describe(item)
        utterance = BY_ID[described.metadata["id"]]
        with source.open(item) as sound:
            assert (sound.rate, sound.channels) == (RATE, 1)
            got = np.concatenate(list(sound.blocks))
        np.testing.assert_array_equal(got[:, 0], samples(utterance) / np.float32(32768), strict=True)
        assert described == dataclasses.replace(
            item,
            speaker=str(utterance.speaker),
            metadata={
                "id": utterance.id,
                "speaker_id": utterance.speaker,
                "chapter_id": utterance.chapter,
                "text_original": utterance.written,
                "text_normalized": utterance.text + "\n",  # so the builder leaves it
            },
        )
        assert item.name.startswith(utterance.split + "/")
        seen.add(utterance.id)
    assert seen == set(BY_ID)


def test_items_are_sorted_and_say_where_their_examples_lie():
    source = open_tfds("tfds:libritts:1.0.1", DATA_DIR, None, False)
    assert source.root == source.folder == FOLDER.resolve().as_posix()
    counts = {split: sum(u.split == split for u in UTTERANCES) for split in ("dev_clean", "train_clean100")}
    expected = [
        Item(
            f"{split}/{number:07d}",
            f"libritts-{split}.array_record-00000-of-00001",
            record=number,
            split="train" if split.startswith("train") else "validation",
        )
        for split, count in counts.items()
        for number in range(count)
    ]
    assert source.items() == expected


def test_what_tfds_itself_reads_is_what_we_read():
    tf = pytest.importorskip("tensorflow", reason="TFDS's own reader of audio needs TensorFlow")
    import tensorflow_datasets as tfds

    assert tf is not None
    source = open_tfds("tfds:libritts", DATA_DIR, None, False)
    for split in source.splits:
        theirs = tfds.data_source("libritts", split=split, data_dir=str(DATA_DIR))
        ours = [item for item in source.items() if item.name.startswith(split)]
        assert len(theirs) == len(ours) > 0
        for item in ours:
            record = theirs[item.record]
            np.testing.assert_array_equal(heard(source, item)[:, 0], record["speech"] / np.float32(32768))
            metadata = source.describe(item).metadata
            assert metadata["text_normalized"].encode() == record["text_normalized"]
            assert metadata["chapter_id"] == record["chapter_id"]


def test_reading_imports_no_tensorflow_and_importing_nothing_heavy():
    code = f"""if True:
    import sys
    from pathlib import Path
    from wgpt_jax.prepare.sources.tfds import open_tfds
    heavy = {{"tensorflow", "tensorflow_datasets", "torch", "jax"}}
    assert not heavy & set(sys.modules), heavy & set(sys.modules)
    source = open_tfds("tfds:libritts", Path({str(DATA_DIR)!r}), None, False)
    item = source.describe(source.items()[0])
    with source.open(item) as sound:
        assert sum(map(len, sound.blocks)) > 1000
    assert "tensorflow_datasets" in sys.modules
    heavy = {{"tensorflow", "torch", "jax"}}
    assert not heavy & set(sys.modules), heavy & set(sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_source_travels_to_another_process():
    source = open_tfds("tfds:libritts", DATA_DIR, ["dev_clean"], True)
    item = source.items()[0]
    expected = heard(source, item)  # readers are open by now
    parcel = pickle.dumps(source)
    assert len(parcel) < 1000
    code = f"""if True:
    import base64, pickle, sys
    source = pickle.loads(base64.b64decode({base64.b64encode(parcel)!r}))
    with source.open(source.items()[0]) as sound:
        sys.stdout.buffer.write(b"".join(block.tobytes() for block in sound.blocks))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.stdout == expected.tobytes(), done.stderr.decode()


# --- splits ---


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train", "train"),
        ("train_clean100", "train"),
        ("dev_other", "validation"),
        ("valid", "validation"),
        ("validation", "validation"),
        ("test_clean", "test"),
        ("unlabelled", None),
        ("my_train", None),
    ],
)
def test_the_data_sets_splits_become_ours(name, expected):
    assert split_of(name) == expected


def test_resplit_leaves_every_split_open():
    source = open_tfds("tfds:libritts", DATA_DIR, None, True)
    assert {item.split for item in source.items()} == {None}


def test_only_the_chosen_splits_are_listed():
    source = open_tfds("tfds:libritts", DATA_DIR, ["dev_clean", "dev_clean"], False)
    assert [item.name for item in source.items()] == [f"dev_clean/{number:07d}" for number in range(4)]


def test_numbers_run_on_over_shards_and_records_do_not(tmp_path):
    shards = [[example(sound=[n]) for n in numbers] for numbers in ([1, 2], [], [3])]
    prepare(tmp_path / "tiny" / "1.0.0", {"sound": audio_feature()}, shards)
    source = open_tfds("tfds:tiny", tmp_path, None, False)
    items = source.items()
    assert [(item.name, item.path[-14:], item.record) for item in items] == [
        ("train/0000000", "00000-of-00003", 0),
        ("train/0000001", "00000-of-00003", 1),
        ("train/0000002", "00002-of-00003", 0),
    ]
    assert [heard(source, item).item() * 32768 for item in items] == [1, 2, 3]


def test_listing_reads_no_example(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "libritts" / "1.0.1")
    for shard in (tmp_path / "libritts" / "1.0.1").glob("*array_record*"):
        shard.write_bytes(b"")
    assert len(open_tfds("tfds:libritts", tmp_path, None, False).items()) == len(UTTERANCES)


# --- what an Audio feature can be ---

STEREO = {"shape": {"dimensions": ["-1", "2"]}}


@pytest.mark.parametrize(
    ("content", "stored", "expected"),
    [
        ({}, PCM, PCM / 32768),
        ({"dtype": "int64"}, PCM, PCM / 32768),
        ({"dtype": "int32"}, PCM, PCM / 32768),
        ({"shape": {"dimensions": ["2400"]}}, PCM, PCM / 32768),
        ({"dtype": "float32"}, FLOATS, FLOATS),
        ({"dtype": "float64"}, FLOATS, FLOATS),
        ({"dtype": "float32"}, PCM.astype(np.float32), PCM / 32768),
        ({"encoding": "ZLIB"}, zlib.compress(PCM.tobytes()), PCM / 32768),
        ({"encoding": "BYTES", "dtype": "int64"}, PCM.astype(np.int64).tobytes(), PCM / 32768),
        ({"encoding": "BYTES", "dtype": "float32"}, FLOATS.tobytes(), FLOATS),
        (STEREO, PCM, PCM.reshape(-1, 2) / 32768),
        (STEREO | {"encoding": "ZLIB"}, zlib.compress(PCM.tobytes()), PCM.reshape(-1, 2) / 32768),
        (STEREO | {"dtype": "float32"}, FLOATS, FLOATS.reshape(-1, 2)),
    ],
)
def test_decoded_audio_of_every_kind_is_read(tmp_path, content, stored, expected):
    source = tiny(tmp_path, audio_feature(**content), example(sound=stored))
    item = source.items()[0]
    with source.open(item) as sound:
        assert (sound.rate, sound.channels) == (16000, expected.ndim)
    np.testing.assert_array_equal(heard(source, item), expected.reshape(len(expected), -1).astype(np.float32))


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("kind", ["FLAC", "WAV"])
@pytest.mark.parametrize("channels", [1, 2])
def test_files_kept_as_they_were_are_decoded_at_their_own_rate(tmp_path, kind, channels, named):
    data = PCM.reshape(-1, channels)
    content = {"fileFormat": kind.lower()} if named else {}
    feature = audio_feature(lazyDecode=True, **content)  # says 16 kHz, the file 22.05
    source = tiny(tmp_path, feature, example(sound=encoded(data, kind)))
    with source.open(source.items()[0]) as sound:
        assert (sound.rate, sound.channels) == (22050, channels)
        np.testing.assert_array_equal(np.concatenate(list(sound.blocks)), data / np.float32(32768))


def test_an_mp3_kept_as_it_was_is_decoded(tmp_path):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(22050) / 22050)
    feature = audio_feature(lazyDecode=True, fileFormat="mp3")
    source = tiny(tmp_path, feature, example(sound=encoded(tone, "MP3")))
    got = heard(source, source.items()[0])[:, 0]
    spectrum = np.abs(np.fft.rfft(got[2000:20000] * np.hanning(18000)))
    assert abs(spectrum.argmax() * 22050 / 18000 - 440) < 2


def test_a_long_sound_comes_in_blocks(tmp_path):
    data = np.resize(PCM, 300_000)
    source = tiny(tmp_path, audio_feature(encoding="BYTES"), example(sound=data.tobytes()))
    with source.open(source.items()[0]) as sound:
        blocks = list(sound.blocks)
    assert max(map(len, blocks)) < 150_000
    np.testing.assert_array_equal(np.concatenate(blocks)[:, 0], data / np.float32(32768))


def test_scalars_and_texts_become_json_values_and_a_label_its_name(tmp_path):
    features = {
        "sound": audio_feature(),
        "sound/filename": TEXT,
        "speaker": label(2),
        "mood": label(2),
        "grade": label(3),
        "ok": tensor("bool"),
        "gain": tensor("float32"),
        "lost": tensor("float32"),
        "packed": tensor("int32", encoding="zlib"),
        "absent": tensor("int64"),
        "vector": tensor("float32", "2"),
        "words": sequence(TEXT),
        "pieces": sequence(dictionary(sound=audio_feature())),
        "place": dictionary(town=TEXT, kind=label(1)),
    }
    record = example(
        sound=[1],
        sound__filename="naïve.wav".encode(),
        speaker=[1],
        mood=[-1],
        grade=[2],
        ok=[1],
        gain=[0.5],
        lost=[np.nan],
        packed=zlib.compress(np.int32(-7).tobytes()),
        vector=[1.0, 2.0],
        words=b"a",
        place__town=b"\xff!",
        place__kind=[0],
    )
    folder = prepare(tmp_path / "tiny" / "1.0.0", features, [[record]])
    (folder / "speaker.labels.txt").write_text("ann\nbob\n")
    (folder / "mood.labels.txt").write_text("glad\nsad\n")
    (folder / "place-kind.labels.txt").write_text("village\n")
    source = open_tfds("tfds:tiny", tmp_path, None, False)
    item = source.describe(source.items()[0])
    assert item.speaker == "bob"
    assert item.metadata == {
        "sound/filename": "naïve.wav",
        "speaker": "bob",
        "mood": None,
        "grade": 2,
        "ok": True,
        "gain": 0.5,
        "lost": None,
        "packed": -7,
        "place/town": "\ufffd!",
        "place/kind": "village",
    }
    assert item.metadata["ok"] is True
    json.dumps(item.metadata, allow_nan=False)


# --- examples that cannot be used ---

TRUNCATED = encoded(np.resize(PCM, 100_000), "FLAC")[:100_000]


@pytest.mark.parametrize(
    ("content", "record", "reason"),
    [
        ({}, b"\xff\xff\xff not a message", "not a tf.train.Example"),
        ({}, example(other=[1]), "no samples in its feature sound"),
        ({}, example(sound=b"RIFF"), "no samples in its feature sound"),
        ({"dtype": "float32"}, example(sound=[1, 2]), "no samples in its feature sound"),
        ({}, example(sound=np.zeros(0, np.int64)), "no samples in it"),
        ({"encoding": "BYTES"}, example(sound=[1, 2]), "no audio in its feature sound"),
        ({"encoding": "ZLIB"}, example(sound=b"not zlib"), "its feature sound is damaged"),
        ({"encoding": "BYTES"}, example(sound=b"odd"), "its feature sound is damaged"),
        (STEREO, example(sound=[1, 2, 3]), "3 samples do not divide into 2 channels"),
        ({"dtype": "int32"}, example(sound=[0, -8_000_000]), "samples reach 8000000, more than 16 bits hold"),
        ({"lazyDecode": True}, example(sound=b"hello, I am text"), "not recognised"),
        ({"lazyDecode": True}, example(sound=b""), "empty"),
        ({"lazyDecode": True, "fileFormat": "wav"}, example(sound=encoded(PCM, "WAV")[:2000]), "truncated"),
        ({"lazyDecode": True}, example(sound=[1, 2]), "no audio in its feature sound"),
        ({"lazyDecode": True}, example(sound=encoded(PCM[:0], "WAV")), "no samples in it"),
        ({"lazyDecode": True}, example(sound=TRUNCATED), "lost sync|truncated"),
    ],
)
def test_a_damaged_example_is_told_in_a_few_words(tmp_path, content, record, reason):
    source = tiny(tmp_path, audio_feature(**content), record, example(sound=[1]))
    with pytest.raises(SourceError, match=reason) as raised:
        heard(source, source.items()[0])
    assert "\n" not in str(raised.value)
    assert str(tmp_path) not in str(raised.value)


def test_no_damage_to_an_example_raises_anything_else(tmp_path):
    """Bytes flipped, cut out and doubled in examples as they are stored."""
    record = example(sound=zlib.compress(PCM[:50].tobytes()), text=b"hello", gain=zlib.compress(b"\0" * 4), mood=[1])
    random = np.random.default_rng(0)
    mutants = []
    for _ in range(400):
        data, at = bytearray(record), random.integers(len(record), size=3)
        data[at[0]] = random.integers(256)
        data[at[1] : at[1] + random.integers(3)] = data[at[2] : at[2] + random.integers(3)]
        mutants.append(bytes(data))
    packed = tensor("float32", encoding="zlib")
    features = {"sound": audio_feature(encoding="ZLIB"), "text": TEXT, "gain": packed, "mood": label(2)}
    folder = prepare(tmp_path / "tiny" / "1.0.0", features, [[record, *mutants]])
    (folder / "mood.labels.txt").write_text("glad\nsad\n")
    source = open_tfds("tfds:tiny", tmp_path, None, False)
    outcomes = {"read": 0, "refused": 0}
    for item in source.items():
        for use in (heard, TfdsSource.describe):
            try:
                use(source, item)
                outcomes["read"] += 1
            except SourceError:
                outcomes["refused"] += 1
    assert min(outcomes.values()) > 50, outcomes


def test_a_damaged_file_costs_its_examples_alone(tmp_path):
    shards = [[example(sound=PCM)], [example(sound=PCM)], [example(sound=PCM)], [example(sound=PCM)]]
    folder = prepare(tmp_path / "tiny" / "1.0.0", {"sound": audio_feature()}, shards)
    paths = sorted(folder.glob("*array_record*"))
    data = bytearray(paths[0].read_bytes())
    data[200] ^= 255
    paths[0].write_bytes(data)
    paths[1].write_bytes(paths[1].read_bytes()[:1000])
    source = open_tfds("tfds:tiny", tmp_path, None, False)
    paths[2].unlink()
    flipped, cut, gone, sane = source.items()
    for item, reason in ((flipped, "damaged .*hash mismatch"), (cut, "damaged"), (gone, "gone")):
        with pytest.raises(SourceError, match=reason):
            heard(source, item)
        with pytest.raises(SourceError, match=reason):
            source.describe(item)
    assert len(heard(source, sane)) == len(PCM)


# --- data sets that cannot be used ---


def refused(spec: str, data_dir: Path | None, splits=None) -> str:
    with pytest.raises(RequestError) as raised:
        open_tfds(spec, data_dir, splits, False)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    "spec", ["tfds:", "libritts", "tfds:../libritts", "tfds:libritts:new", "tfds:a/b/c", "tfds:a "]
)
def test_a_name_of_another_form_is_refused_with_the_form(spec):
    assert "it is tfds:NAME or tfds:NAME/CONFIG" in refused(spec, DATA_DIR)


def test_a_misspelt_name_gets_the_names_there_are():
    told = refused("tfds:libritz", DATA_DIR)
    assert f"no data set libritz in {DATA_DIR} (it holds libritts; did you mean tfds:libritts?)" in told


def test_a_name_that_tfds_knows_gets_the_commands_that_prepare_it(tmp_path):
    told = refused("tfds:libritts/clean:1.0.1", tmp_path / "my data")
    assert "(it holds none)" in told
    assert 'pip install "wgpt_jax[tfds]" && tfds build libritts/clean:1.0.1 --file_format=array_record ' in told
    assert told.endswith(f"--data_dir='{tmp_path}/my data'")


def test_a_version_that_is_not_there_is_told_with_those_that_are():
    told = refused("tfds:libritts:9.9.9", DATA_DIR)
    assert "has no version 9.9.9 (prepared: 1.0.1)" in told
    assert "tfds build libritts:9.9.9 " in told


def test_a_config_that_is_not_there_is_told_with_those_that_are(tmp_path):
    for config in ("clean", "noisy"):
        prepare(tmp_path / "tiny" / config / "1.0.0", {"sound": audio_feature()}, [[example(sound=[1])]])
    assert "has no config loud (prepared: clean, noisy)" in refused("tfds:tiny/loud", tmp_path)
    assert "has several configs: clean, noisy; name one, as tfds:tiny/clean" in refused("tfds:tiny", tmp_path)
    assert open_tfds("tfds:tiny/noisy", tmp_path, None, False).folder.endswith("tiny/noisy/1.0.0")
    assert "has no config foo (prepared: none)" in refused("tfds:libritts/foo", DATA_DIR)


def test_the_newest_version_and_the_only_config_are_found(tmp_path, monkeypatch):
    for version in ("1.9.0", "1.10.0", "incomplete.ABC_2.0.0"):
        prepare(tmp_path / "tiny" / "clean" / version, {"sound": audio_feature()}, [[example(sound=[1])]])
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert open_tfds("tfds:tiny", None, None, False).folder == f"{tmp_path}/tiny/clean/1.10.0"
    assert open_tfds("tfds:tiny:1.9.0", None, None, False).folder == f"{tmp_path}/tiny/clean/1.9.0"


def test_without_a_folder_tfds_own_is_looked_in(tmp_path, monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert f"in {tmp_path}/tensorflow_datasets " in refused("tfds:libritts", None)


def test_a_split_that_is_not_there_is_told_with_those_that_are():
    told = refused("tfds:libritts", DATA_DIR, ["train"])
    assert told == f"{FOLDER} has no split 'train'; it has train_clean100, dev_clean"


def test_a_missing_shard_is_told_before_anything_is_done(tmp_path):
    folder = tmp_path / "libritts" / "1.0.1"
    shutil.copytree(FOLDER, folder)
    shard = folder / "libritts-train_clean100.array_record-00000-of-00001"
    shard.unlink()
    assert refused("tfds:libritts", tmp_path) == f"{shard} is missing; copy or prepare the data set again"
    assert len(open_tfds("tfds:libritts", tmp_path, ["dev_clean"], False).items()) == 4


def test_tfrecord_is_refused_with_the_command_that_converts_it(tmp_path):
    folder = prepare(tmp_path / "tiny" / "1.0.0", {"sound": audio_feature()}, [[b""]], fileFormat="tfrecord")
    told = refused("tfds:tiny", tmp_path)
    assert "is prepared as tfrecord, which cannot be read at random" in told
    assert f"tfds convert_format --dataset_version_dir={folder} --out_file_format=array_record" in told


def test_tfrecord_that_was_converted_where_it_lies_is_read(tmp_path):
    info = {"fileFormat": "tfrecord", "alternativeFileFormats": ["array_record"]}
    prepare(tmp_path / "tiny" / "1.0.0", {"sound": audio_feature()}, [[example(sound=[5])]], **info)
    source = open_tfds("tfds:tiny", tmp_path, None, False)
    assert heard(source, source.items()[0]).item() == 5 / 32768


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", "null", b"\xff\xfe", '{"fileFormat": "array_record"}'])
def test_a_damaged_description_is_named(tmp_path, file, content):
    folder = prepare(tmp_path / "tiny" / "1.0.0", {"sound": audio_feature()}, [[example(sound=[1])]])
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    told = refused("tfds:tiny", tmp_path)
    if file == "dataset_info.json" and content == "{}":  # TFDS's default where it names no format
        assert "is prepared as tfrecord" in told
    else:
        assert str(folder / file) in told
        assert "prepare" in told  # the remedy


@pytest.mark.parametrize(
    ("features", "told"),
    [
        ({"image": tensor("int64", "3"), "text": TEXT}, "has no Audio feature (its features: image, text)"),
        ({"pieces": sequence(audio_feature())}, "has no Audio feature"),
        ({"left": audio_feature(), "more": dictionary(right=audio_feature())}, "Audio features (left, more/right)"),
        ({"sound": audio_feature(sampleRate="0")}, "features.json gives no sample rate for the Audio feature sound; "),
        ({"sound": audio_feature(dtype="uint8")}, "has dtype uint8 and shape (-1,)"),
        ({"sound": audio_feature(shape={"dimensions": ["-1", "-1"]})}, "shape (-1, -1)"),
        ({"sound": audio_feature(shape={})}, "shape ()"),
        ({"sound": audio_feature(encoding="LZMA")}, "encoding lzma"),
    ],
)
def test_audio_that_cannot_be_told_is_refused(tmp_path, features, told):
    prepare(tmp_path / "tiny" / "1.0.0", features, [[example(sound=[1])]])
    assert told in refused("tfds:tiny", tmp_path)


def test_the_sample_rate_can_be_added_by_hand_as_the_message_says(tmp_path):
    feature = audio_feature()
    del feature["audio"]["sampleRate"]
    folder = prepare(tmp_path / "tiny" / "1.0.0", {"sound": feature}, [[example(sound=[1])]])
    assert 'add "sampleRate": "16000" (or what it is) beside its "dtype"' in refused("tfds:tiny", tmp_path)
    path = folder / "features.json"
    path.write_text(path.read_text().replace('"dtype": "int16"', '"dtype": "int16", "sampleRate": "8000"'))
    source = open_tfds("tfds:tiny", tmp_path, None, False)
    with source.open(source.items()[0]) as sound:
        assert sound.rate == 8000


# --- building ---


@pytest.fixture
def tensorflow(monkeypatch):
    """As if TensorFlow were installed; TFDS's builders are the tests' own."""
    _pretend(monkeypatch, tensorflow=True)
    tfds = pytest.importorskip("tensorflow_datasets")

    def install(builder) -> list:
        calls = []

        def make(name, **options):
            calls.append((name, options))
            return builder(Path(options["data_dir"]))

        monkeypatch.setattr(tfds, "builder", make)
        return calls

    return install


class CopyingBuilder:
    """Prepares libritts from the fixture."""

    def __init__(self, data_dir: Path):
        self.data_dir = str(data_dir / "libritts" / "1.0.1")

    def download_and_prepare(self, download_config=None):
        shutil.copytree(FOLDER, self.data_dir)


def test_with_tensorflow_what_is_not_there_is_built(tmp_path, tensorflow, capsys):
    calls = tensorflow(CopyingBuilder)
    source = open_tfds("tfds:libritts:1.0.1", tmp_path, None, False)
    assert calls == [("libritts:1.0.1", {"data_dir": str(tmp_path), "file_format": "array_record"})]
    assert len(source.items()) == len(UTTERANCES)
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"there is no data set libritts in {tmp_path}" in told
    assert "building it" in told
    assert open_tfds("tfds:libritts", tmp_path, None, False) == source
    assert len(calls) == 1  # built once


def test_a_build_that_fails_is_told_in_one_sentence(tmp_path, tensorflow):
    class Failing(CopyingBuilder):
        def download_and_prepare(self, download_config=None):
            raise OSError("Failed to get url https://www.openslr.org.\n\n  HTTP code: 503.")

    tensorflow(Failing)
    with pytest.raises(WorkError) as raised:
        open_tfds("tfds:libritts", tmp_path, None, False)
    assert str(raised.value) == (
        f"TFDS could not build libritts in {tmp_path}: Failed to get url https://www.openslr.org. HTTP code: 503"
    )


def test_what_tfds_cannot_build_is_refused(tmp_path, tensorflow):
    import tensorflow_datasets as tfds

    def unknown(data_dir):
        raise tfds.core.DatasetNotFoundError("Dataset libritz not found.\nAvailable datasets:\n - a thousand lines")

    tensorflow(unknown)
    told = refused("tfds:libritz", tmp_path)
    assert "did you mean tfds:libritts?" in told
    assert told.endswith("and TFDS has none of that name to build")

    def no_such_version(data_dir):
        options = """builder_kwargs "{'version': '9.9.9', 'data_dir': '/data'}": """
        said = "Dataset libritts cannot be loaded at version 9.9.9, only: 1.0.1."
        raise AssertionError(f'Failed to construct dataset "libritts", {options}{said}')

    tensorflow(no_such_version)
    told = refused("tfds:libritts:9.9.9", DATA_DIR)
    reason = "Dataset libritts cannot be loaded at version 9.9.9, only: 1.0.1"
    assert told.endswith(f"(prepared: 1.0.1), and TFDS cannot build libritts:9.9.9: {reason}")
