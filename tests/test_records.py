import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wgpt_jax.data.records import Document, Record, Segment, decode_record, encode_record, pack_documents
from wgpt_jax.data.windows import cut_window, tile_record
from wgpt_jax.errors import RequestError

BANDS, CODEBOOKS, SOURCES = 3, 2, 2
EMPTY = Record(np.zeros((0, 1)), np.zeros((1, 0, 1)), ())


def document(name: str, frames: int, seed: int = 0) -> Document:
    rng = np.random.default_rng((seed, frames))
    return Document(
        name=name,
        domain="speech",
        tokens=rng.integers(0, 1024, (frames, CODEBOOKS)).astype(np.int16),
        mel=rng.normal(size=(SOURCES, frames, BANDS)).astype(np.float16),
    )


@st.composite
def records(draw) -> Record:
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    segments = tuple(
        Segment(draw(st.text(max_size=8)), draw(st.text(max_size=8)), draw(st.integers(0, 10**6)), length, i % 2)
        for i, length in enumerate(lengths)
    )
    whole = document("", sum(lengths), seed=draw(st.integers(0, 99)))
    return Record(whole.tokens, whole.mel, segments)


@given(records())
def test_bytes_give_the_record_back(record):
    copy = decode_record(encode_record(record))
    assert copy.segments == record.segments
    assert (copy.tokens.dtype, copy.mel.dtype) == (np.int16, np.float16)
    np.testing.assert_array_equal(copy.tokens, record.tokens)
    np.testing.assert_array_equal(copy.mel, record.mel)


@given(st.lists(st.integers(1, 60), max_size=12), st.integers(2, 24))
def test_packing_predicts_every_frame_once_and_from_the_frame_before(lengths, max_frames):
    documents = {f"d{i}": document(f"d{i}", frames, seed=i) for i, frames in enumerate(lengths)}
    predicted = {name: [] for name in documents}
    for record in pack_documents(documents.values(), max_frames):
        assert 1 <= len(record.tokens) <= max_frames
        offset = 0
        for segment in record.segments:
            original = documents[segment.document]
            where = slice(segment.start, segment.start + segment.length)
            np.testing.assert_array_equal(record.tokens[offset : offset + segment.length], original.tokens[where])
            np.testing.assert_array_equal(record.mel[:, offset : offset + segment.length], original.mel[:, where])
            # The frame before is in the record, unless there is none.
            assert segment.context == (1 if segment.start or predicted[segment.document] else 0)
            predicted[segment.document] += range(segment.start + segment.context, segment.start + segment.length)
            offset += segment.length
    assert predicted == {name: list(range(len(doc.tokens))) for name, doc in documents.items()}


@settings(max_examples=30)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=20))
def test_short_documents_are_never_cut(lengths):
    packed = list(pack_documents((document(f"d{i}", frames) for i, frames in enumerate(lengths)), 20))
    assert sum(len(record.segments) for record in packed) == len(lengths)


@pytest.mark.parametrize("data", [b"", b"text", b"\x81\xa1v\x63", encode_record(EMPTY)[:-3]])
def test_damaged_bytes_end_in_a_sentence(data):
    with pytest.raises(RequestError, match="prepare the data again"):
        decode_record(data)


def test_arrays_that_do_not_fit_their_segments_are_refused():
    with pytest.raises(ValueError, match="frames in segments"):
        Record(np.zeros((3, 1)), np.zeros((1, 3, 1)), (Segment("a", "b", 0, 2, 0),))


def test_records_of_an_older_schema_are_refused():
    fields = msgpack.unpackb(encode_record(EMPTY))
    with pytest.raises(RequestError, match="record of schema 1, this version reads 2; prepare the data again"):
        decode_record(msgpack.packb({**fields, "v": 1}))


@pytest.mark.parametrize("source", [0, 1])
def test_a_window_shows_the_mel_source_asked_for(source):
    whole = document("d", 9)
    record = next(pack_documents([whole]))
    window = cut_window(record, 4, 3, source)
    np.testing.assert_array_equal(window.mel, whole.mel[source, 3:7])
    assert [(start, row.mel[1, 0]) for start, row in tile_record(record, 4, source)] == [
        (start, whole.mel[source, start, 0]) for start in (0, 4, 8)
    ]
