"""Where audio comes from: a folder or a manifest, and what is said when that is wrong."""

import json
import os

import numpy as np
import pytest
from audio_samples import sound, write_audio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wgpt_jax.errors import RequestError
from wgpt_jax.prepare.documents import read_samples
from wgpt_jax.prepare.items import Item, SourceError
from wgpt_jax.prepare.reading.decode import decode_audio
from wgpt_jax.prepare.sources.folder import FolderSource, find_audio
from wgpt_jax.prepare.sources.manifest import ManifestSource, open_manifest, parse_line
from wgpt_jax.prepare.sources.opening import moved_source, open_source

RATE = 24000


def test_audio_is_found_everywhere_but_in_hidden_places_and_in_order(tmp_path):
    for name in ("b/2.flac", "b/10.WAV", "a.mp3", "c/d/e.opus", "c/song.m4a", "c/notes.txt", ".x.wav", ".git/y.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "c" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert find_audio(tmp_path) == ["a.mp3", "b/10.WAV", "b/2.flac", "c/d/e.opus", "c/song.m4a"]


def test_what_cannot_be_audio_is_listed_so_that_it_gets_its_reason(tmp_path):
    (tmp_path / "empty.wav").mkdir()
    (tmp_path / "takes.wav").mkdir()
    (tmp_path / "takes.wav" / "1.flac").touch()
    (tmp_path / "link.mp3").symlink_to(tmp_path / "nowhere.mp3")
    os.mkfifo(tmp_path / "pipe.ogg")
    names = find_audio(tmp_path)
    assert names == ["empty.wav", "link.mp3", "pipe.ogg", "takes.wav/1.flac"]
    source = FolderSource(str(tmp_path))
    for item, reason in zip(source.items(), ("a folder", "a link to nothing", "a named pipe", "empty"), strict=True):
        with pytest.raises(SourceError, match=reason):
            read_samples(source, item, RATE, None)


def write_manifest(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_manifest_gives_parts_of_files_and_carries_its_columns_through(tmp_path):
    samples = sound(3.0)
    write_audio(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    write_manifest(
        tmp_path / "x.jsonl",
        {"path": "a.wav", "start": 0.5, "end": 1.25, "speaker": "ann", "split": "dev", "text": "hello", "book": 7},
        {"path": str(tmp_path / "a.wav"), "name": "whole", "domain": "speech"},
        {"path": "a.wav", "start": 2},
    )
    source = open_source(str(tmp_path / "x.jsonl"))
    part, rest, whole = source.items()
    metadata = {"text": "hello", "book": 7}
    assert part == Item("a.wav@0.5-1.25", "a.wav", 0.5, 1.25, None, "validation", "audio", "ann", metadata)
    assert (rest.name, rest.start, rest.end) == ("a.wav@2-", 2.0, None)
    assert (whole.name, whole.domain) == ("whole", "speech")
    for item, start, end in ((part, 12000, 30000), (rest, 48000, 72000), (whole, 0, 72000)):
        np.testing.assert_array_equal(read_samples(source, item, RATE, None), samples[start:end])
    assert all(item.split is None for item in open_source(str(tmp_path / "x.jsonl"), resplit=True).items())


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: not a JSON object"),
        ('{"file": "a.wav"}', 'line 2: no "path"'),
        ('{"path": ""}', 'line 2: no "path"'),
        ('{"path": ["a"]}', r"line 2: path is \[\"a\"\], not a text"),
        ('{"path": "a.wav", "start": -1}', "line 2: start is -1, not a number of seconds"),
        ('{"path": "a.wav", "end": "5"}', 'line 2: end is "5", not a number of seconds'),
        ('{"path": "a.wav", "end": NaN}', "line 2: end is NaN"),
        ('{"path": "a.wav", "start": 5, "end": 5}', "line 2: end 5 is not after start 5"),
        ('{"path": "a.wav", "split": "training"}', "line 2: split 'training' is none of train, validation, test"),
        ('{"path": "first.wav"}', "line 2: first.wav is the name of line 1 already"),
    ],
)
def test_a_wrong_line_is_named(line, sentence, tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(f'{{"path": "first.wav"}}\n{line}\n')
    with pytest.raises(RequestError, match=sentence):
        open_manifest(str(path), False).items()


values = st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5), st.lists, max_leaves=3)


@settings(suppress_health_check=[HealthCheck.too_slow])  # on a busy machine the first draw can take a second
@given(st.dictionaries(st.sampled_from(["path", "name", "start", "end", "split", "speaker", "x"]), values))
def test_any_object_is_an_item_or_a_sentence(fields):
    try:
        item = parse_line(json.dumps(fields), "here")
    except RequestError as error:
        assert str(error).startswith("here: ")
    else:
        assert item.path == str(fields["path"]) and item.start >= 0 and (item.end is None or item.end > item.start)
        assert item.metadata.keys() <= {"x"}


@pytest.mark.parametrize(
    ("spec", "flags", "sentence"),
    [
        ("nowhere", {}, "there is no folder nowhere"),
        ("nowhere.jsonl", {}, "there is no manifest nowhere.jsonl"),
        (".", {"tfds_splits": ["train"]}, "--data-dir and --tfds-splits go with tfds:NAME"),
        (".", {"resplit": True}, "a folder gives none"),
        ("x.jsonl", {"domains": True}, "a manifest has a domain column"),
    ],
)
def test_a_source_that_is_not_there_is_one_sentence(spec, flags, sentence):
    with pytest.raises(RequestError, match=sentence):
        open_source(spec, **flags)


def test_a_manifest_that_is_no_text_is_one_sentence(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RequestError, match=r"cannot read the manifest .*x\.jsonl"):
        open_manifest(str(path), False).items()


def test_items_are_opened_where_the_audio_has_moved_to(tmp_path):
    samples = sound(0.5)
    write_audio(tmp_path / "new" / "a.wav", samples, RATE, subtype="FLOAT")
    for spec in ("/old/folder", "/old/x.jsonl"):
        source = moved_source(spec, str(tmp_path / "new"), domains=False, resplit=False)
        np.testing.assert_array_equal(read_samples(source, Item("a.wav", "a.wav"), RATE, None), samples)
    assert isinstance(source, ManifestSource)
    np.testing.assert_array_equal(decode_audio(tmp_path / "new" / "a.wav", RATE), samples)
