from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgpt_jax.errors import RequestError
from wgpt_jax.prepare.items import Item
from wgpt_jax.prepare.sources.folder import domain_of, speaker_of
from wgpt_jax.prepare.splits import Splitting, assign_splits, find_leaks

names = st.lists(st.text("abcdefgh", min_size=1, max_size=4), min_size=1, max_size=30, unique=True)
splittings = st.builds(
    Splitting,
    validation=st.sampled_from([0.0, 0.05, 0.3]),
    test=st.sampled_from([0.0, 0.05, 0.3]),
    seed=st.integers(0, 9),
)


@pytest.mark.parametrize(
    ("name", "domains", "domain", "speaker"),
    [
        ("a.wav", False, "audio", "a.wav"),
        ("ann/x/a.wav", False, "audio", "ann"),
        ("a.wav", True, "audio", "a.wav"),
        ("speech/a.wav", True, "speech", "speech/a.wav"),
        ("speech/ann/a.wav", True, "speech", "speech/ann"),
        ("speech/ann/book/a.wav", True, "speech", "speech/ann"),
    ],
)
def test_folders_name_domain_and_speaker(name, domains, domain, speaker):
    assert (domain_of(name, domains), speaker_of(name, domains)) == (domain, speaker)


def test_a_group_is_a_file_a_speaker_or_a_column():
    item = Item("a.wav@1-2", "a.wav", 1.0, 2.0, speaker="ann", metadata={"book": 7})
    assert [Splitting(unit).group(item) for unit in ("file", "speaker", "book")] == ["a.wav", "ann", "7"]
    assert Splitting("file").group(Item("train/0000001", "x.array_record", record=1)) == "train/0000001"
    with pytest.raises(RequestError, match=r"--split-by chapter: a\.wav@1-2 has none"):
        Splitting("chapter").group(item)


def test_leaks_are_files_speakers_and_works_in_two_splits():
    used = [
        (Item("a@0-1", "a", 0.0, 1.0, speaker="ann", metadata={"book": "x"}), "train"),
        (Item("a@1-2", "a", 1.0, 2.0, speaker="bob", metadata={"book": "x"}), "test"),
        (Item("b", "b", speaker="bob", metadata={"book": "y"}), "test"),
        (Item("c", "c", speaker="ann", metadata={"text": "same"}), "validation"),
        (Item("d", "d", metadata={"text": "same"}), "test"),
    ]
    assert find_leaks(used) == {"file": ["a"], "speaker": ["ann"], "book": ["x"]}


@given(names, splittings)
def test_train_is_never_empty_and_every_requested_split_has_something_if_it_can(groups, splitting):
    splits = assign_splits(dict.fromkeys(groups, "speech"), {}, splitting)
    counts = Counter(splits.values())
    assert counts["train"] >= 1
    requested = [name for name in ("validation", "test") if getattr(splitting, name) > 0]
    for split in requested[: len(groups) - 1]:
        assert counts[split] >= 1
    for split in {"validation", "test"} - set(requested):
        assert counts[split] == 0


@given(names, names, splittings)
def test_additions_move_nothing(groups, more, splitting):
    before = assign_splits(dict.fromkeys(groups, "speech"), {}, splitting)
    after = assign_splits(dict.fromkeys([*groups, *more], "speech"), before, splitting)
    assert before.items() <= after.items()


@given(names, splittings)
def test_order_does_not_matter(groups, splitting):
    forward = assign_splits(dict.fromkeys(groups, "speech"), {}, splitting)
    assert forward == assign_splits(dict.fromkeys(reversed(groups), "speech"), {}, splitting)


def test_every_domain_has_its_validation_and_test():
    groups = {f"{domain}/{i}": domain for domain in ("speech", "music") for i in range(5)}
    splits = assign_splits(groups, {}, Splitting(validation=0.01, test=0.01))
    for domain in ("speech", "music"):
        assert {splits[group] for group in groups if groups[group] == domain} == {"train", "validation", "test"}


@pytest.mark.parametrize(("count", "expected"), [(1, {"train"}), (2, {"train", "validation"})])
def test_few_groups_leave_the_test_split_empty_first(count, expected):
    groups = {f"{i}.wav": "audio" for i in range(count)}
    for seed in range(20):
        assert set(assign_splits(groups, {}, Splitting(validation=0.4, test=0.4, seed=seed)).values()) == expected


def test_many_groups_come_out_at_their_fractions():
    groups = {f"{i}.wav": "audio" for i in range(4000)}
    counts = Counter(assign_splits(groups, {}, Splitting(validation=0.1, test=0.05)).values())
    assert counts["validation"] == pytest.approx(400, abs=60) and counts["test"] == pytest.approx(200, abs=45)
