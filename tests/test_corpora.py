"""What the experiment's corpora promise: nothing heard in two splits, fewer hours within more, no work done twice."""

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from wgpt_jax.errors import RequestError
from wgpt_jax.prepare.corpus import make_experiment_corpus, piano, reading
from wgpt_jax.prepare.corpus.chapters import divide_book, phrases, read_chapters
from wgpt_jax.prepare.corpus.composer import Note, Part
from wgpt_jax.prepare.corpus.fluid import fluidsynth_available, midi_bytes
from wgpt_jax.prepare.corpus.holdout import FEWEST, SHARES, Document, choose, divide
from wgpt_jax.prepare.corpus.midi import read_midi
from wgpt_jax.prepare.corpus.performances import find_performances, piece_of, work_of
from wgpt_jax.prepare.corpus.voices import VARIANTS, espeak_available
from wgpt_jax.prepare.sources.manifest import open_manifest
from wgpt_jax.prepare.splits import find_leaks

MAKE_CORPUS = Path(__file__).parents[1] / "tools" / "make_corpus.py"
HOURS, LONGEST = 0.02, 6.0  # 72 s in documents of 3 to 6 s
unhurried = settings(deadline=None)
needs_fluidsynth = pytest.mark.skipif(not fluidsynth_available(), reason="fluidsynth or a sound font is missing")
needs_espeak = pytest.mark.skipif(not espeak_available(), reason="espeak-ng is not installed")


def scale(lowest: int) -> bytes:
    """Twelve keys upwards, one a second, each held for 0.9 s."""
    return midi_bytes([Part(0, [Note(float(step), 0.9, lowest + step, 100) for step in range(12)])])


@pytest.fixture(scope="module")
def midi(tmp_path_factory) -> Path:
    """Ten works of two movements, each played twice; keys differ, so that no two files are equal."""
    root = tmp_path_factory.mktemp("midi")
    for work in range(10):
        for movement in (1, 2):
            for player, shift in (("Ann", 0), ("Bob", 1)):
                path = root / "Nobody" / "Sonatas" / f"{work}-{movement}" / f"{player}01.mid"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(scale(24 + 4 * work + 2 * movement + shift))
    return root


@pytest.fixture(scope="module")
def books(tmp_path_factory) -> Path:
    """Two books of twenty chapters, every sentence of them unique."""
    root = tmp_path_factory.mktemp("books")
    for book in ("first", "second"):
        text = "Licence.\n\n*** START OF THIS BOOK ***\nCHAPTER I. Of the sea        1\n    II. Of the land  9\n\n"
        for chapter in range(20):
            text += f"CHAPTER {chapter + 1}.\n\nA TITLE IN CAPITALS\n\n"
            for number in range(45):
                text += f"The {book} tale counts {chapter} hundred and {number} ships upon the sea.\n"
        (root / f"{book}.txt").write_text(text + "\n*** END OF THIS BOOK ***\nMore licence.\n")
    return root


# Splits


@unhurried
@given(
    st.dictionaries(st.text(min_size=1, max_size=8), st.floats(0.1, 10), min_size=1, max_size=60),
    st.integers(0, 99),
)
def test_no_split_gets_more_than_its_share_and_one_group(weights, seed):
    splits = divide(weights, seed)
    assert splits.keys() == weights.keys()
    for split, share in SHARES.items():
        filled = sum(weight for group, weight in weights.items() if splits[group] == split)
        assert filled <= share * sum(weights.values()) + max(weights.values()) + 1e-9


def queues(lengths: list[float]) -> dict[str, list[Document]]:
    return {
        split: [Document(f"{split}/{number}", split, length, {}, None) for number, length in enumerate(lengths)]
        for split in SHARES
    }


@unhurried
@given(st.lists(st.floats(5, 60), min_size=40, max_size=60), st.floats(0.01, 0.2), st.floats(0.01, 0.2))
def test_the_corpus_for_fewer_hours_lies_within_the_one_for_more(lengths, some, more):
    some, more = sorted((some, more))
    small, large = (choose(queues(lengths), hours) for hours in (some, more))
    assert {(document.path, document.split) for document in small} <= {(d.path, d.split) for d in large}
    for split, share in SHARES.items():
        chosen = [document.seconds for document in small if document.split == split]
        wanted = share * some * 3600
        assert sum(chosen) >= wanted
        fewest = int(FEWEST * some / 2) if split != "train" else 0
        assert sum(chosen[:-1]) < wanted or len(chosen) == fewest


def test_two_hours_hold_out_twelve_documents_each_however_long_they_are():
    chosen = choose(queues([600.0] * 20), 2.0)
    assert [sum(d.split == split for d in chosen) for split in ("validation", "test")] == [12, 12]


@unhurried
@given(st.lists(st.floats(5, 60), min_size=1, max_size=30))
def test_too_many_hours_are_refused_with_the_hours_that_there_are(lengths):
    with pytest.raises(RequestError, match=r"enough for [\d.]+ hours") as refusal:
        choose(queues(lengths), 100.0)
    possible = float(str(refusal.value).split("enough for ")[1].split()[0])
    if possible > 0:
        assert choose(queues(lengths), possible)
    with pytest.raises(RequestError):
        choose(queues(lengths), possible + 0.02)


# MIDI


def test_midi_times_follow_tempo_changes_running_status_and_silent_strokes():
    events = [
        b"\x00\xff\x51\x03\x07\xa1\x20",  # 0.5 s a quarter note of 100 ticks
        b"\x64\x90\x3c\x40",  # tick 100: 0.5 s
        b"\x64\x3c\x00",  # tick 200: running status; without velocity, a release, at 1 s
        b"\x00\xff\x51\x03\x0f\x42\x40",  # from here 1 s a quarter note
        b"\x32\xb0\x40\x7f",  # tick 250: pedal, at 1.5 s
        b"\x00\xb0\x07\x10\x00\xc0\x28\x00\x99\x24\x50",  # volume, an instrument, a drum: left out
        b"\x81\x48\x90\x3e\x40",  # 200 ticks later: 3.5 s
        b"\x00\xff\x2f\x00",
    ]
    track = b"".join(events)
    data = b"MThd\0\0\0\x06\0\0\0\x01\0\x64MTrk" + len(track).to_bytes(4, "big") + track
    performance = read_midi(data)
    assert performance.seconds == pytest.approx([0.5, 1.0, 1.5, 3.5])
    assert performance.messages.tolist() == [[0x90, 60, 64], [0x80, 60, 0], [0xB0, 64, 127], [0x90, 62, 64]]
    assert performance.onsets == pytest.approx([0.5, 3.5]) and performance.end == pytest.approx(3.5)
    later = read_midi(performance.cut(3.0, 5.0))
    assert later.seconds == pytest.approx([0.0, 0.5], abs=2e-3)
    assert later.messages[0].tolist() == [0xB0, 64, 127]  # the pedal is still down


@unhurried
@given(st.integers(0, 9000), st.integers(100, 9000))
def test_a_stretch_holds_the_strokes_of_its_seconds_and_no_others(begin, length):
    begin, length = begin / 1000, length / 1000
    performance = read_midi(scale(40))
    inside = [step for step in range(12) if begin <= step <= begin + length]
    cut = read_midi(performance.cut(begin, begin + length))
    assert cut.onsets == pytest.approx([step - begin for step in inside], abs=2e-3)


@unhurried
@given(st.binary(max_size=80), st.integers(14, 200))
def test_a_damaged_midi_file_is_refused_with_a_value_error(noise, end):
    for data in (noise, scale(30)[:22] + noise, scale(30)[:end] + noise):
        try:
            assert np.all(np.diff(read_midi(data).seconds) >= 0)
        except ValueError as error:
            assert str(error).startswith("it ")


@unhurried
@given(
    st.lists(st.floats(0.05, 12), min_size=2, max_size=80),
    st.integers(0, 9),
    st.floats(4, 60),
)
def test_an_excerpt_begins_at_a_stroke_and_avoids_long_pauses(gaps, seed, longest):
    starts = np.cumsum(gaps)
    performance = read_midi(midi_bytes([Part(0, [Note(float(s), 0.04, 60, 90) for s in starts])]))
    stretch = piano.draw_stretch(performance, np.random.default_rng(seed), longest)
    available = performance.end - performance.onsets[0]
    if stretch is None:
        assert available < min(10, longest / 2)
        return
    begin, seconds = stretch
    assert min(longest / 2, available) - 0.02 <= seconds <= longest
    assert np.abs(performance.onsets - begin).min() < 0.01
    assert begin + seconds <= performance.end + 0.05

    def pauses(at: float) -> bool:
        inside = performance.onsets[(performance.onsets >= at - 0.005) & (performance.onsets <= at + seconds)]
        return bool(np.any(np.diff([*inside, at + seconds]) > 4.05))

    unbroken = [at for at in performance.onsets if at + seconds <= performance.end and not pauses(at)]
    within = performance.onsets[(performance.onsets > begin + 0.005) & (performance.onsets < begin + seconds - 0.01)]
    if unbroken:
        assert np.all(np.diff([begin, *within]) <= 4.05)


# Pieces


@pytest.mark.parametrize(
    ("folders", "piece", "work"),
    [
        ("Beethoven/Piano_Sonatas/17-1_no_repeat", "Beethoven/Piano_Sonatas/17-1", "Beethoven/Piano_Sonatas/17"),
        ("Beethoven/Piano_Sonatas/24-1_no_2_repeat", "Beethoven/Piano_Sonatas/24-1", "Beethoven/Piano_Sonatas/24"),
        ("Beethoven/Piano_Sonatas/31-3_4", "Beethoven/Piano_Sonatas/31-3_4", "Beethoven/Piano_Sonatas/31"),
        ("Beethoven/Piano_Sonatas/9-2_no_trio", "Beethoven/Piano_Sonatas/9-2", "Beethoven/Piano_Sonatas/9"),
        ("Chopin/Sonata_2/2nd_no_repeat", "Chopin/Sonata_2/2nd", "Chopin/Sonata_2"),
        ("Bach/Fugue/bwv_846", "Bach/Fugue/bwv_846", "Bach/bwv_846"),
        ("Bach/Prelude/bwv_846", "Bach/Prelude/bwv_846", "Bach/bwv_846"),
        ("Liszt/Etudes/6_Theme_and_Variations_repeat", *["Liszt/Etudes/6_Theme_and_Variations"] * 2),
        ("Schumann/Kreisleriana/1_no_first_repeat", *["Schumann/Kreisleriana/1"] * 2),
        ("Schumann/Toccata_repeat", *["Schumann/Toccata"] * 2),
        ("Schubert/Impromptu_op.90_D.899/4", *["Schubert/Impromptu_op.90_D.899/4"] * 2),
    ],
)
def test_repeats_and_movements_belong_to_one_work(folders, piece, work):
    assert piece_of(tuple(folders.split("/"))) == piece
    assert work_of(piece) == work


def test_one_performance_of_each_piece_comes_before_any_second_one(midi):
    for queue in piano.queue_performances(find_performances(midi), seed=1).values():
        pieces = [source.piece for source in queue]
        distinct = len(set(pieces))
        assert len(set(pieces[:distinct])) == distinct
        assert len(pieces) == 2 * distinct


def test_an_archive_and_its_folder_are_the_same_and_equal_files_count_once(midi, tmp_path):
    with tarfile.open(tmp_path / "midi.tar.xz", "w:xz") as archive:
        archive.add(midi, arcname=".")
        copy = tarfile.TarInfo("Nobody/Sonatas/9-9/Copy.mid")
        copy.size = len(scale(26))
        archive.addfile(copy, io.BytesIO(scale(26)))
    assert find_performances(tmp_path / "midi.tar.xz") == find_performances(midi)


# Books


def test_chapters_are_prose_without_contents_titles_and_licence(books):
    chapters = read_chapters(books)
    assert [chapter.name for chapter in chapters[:2]] == ["first-001", "first-002"]
    assert len(chapters) == 40
    assert chapters[3].sentences == tuple(
        f"The first tale counts 3 hundred and {number} ships upon the sea." for number in range(45)
    )


def test_a_book_without_headings_is_cut_into_blocks_of_consecutive_sentences():
    sentences = [f"Sentence number {number} was said to Mr. Wood in the evening." for number in range(600)]
    chapters = divide_book("plain", " ".join(sentences))
    assert len(chapters) > 2
    assert [sentence for chapter in chapters for sentence in chapter.sentences] == sentences


@unhurried
@given(st.lists(st.text("abc,;", min_size=1, max_size=12), min_size=1, max_size=30), st.integers(14, 60))
def test_phrases_say_all_of_a_sentence(words, longest):
    parts = phrases(" ".join(words), longest)
    assert all(len(part) <= longest for part in parts)
    assert " ".join(parts).split() == words


def plan_reading(books, monkeypatch, hours, seed=0):
    monkeypatch.setattr(reading, "espeak_available", lambda: True)
    return reading.plan_reading(books, hours, seed, LONGEST)


def test_held_out_passages_have_an_unseen_speaker_and_an_unseen_chapter(books, monkeypatch):
    documents = plan_reading(books, monkeypatch, 0.5)
    for column in ("speaker", "chapter_id"):
        seen = {split: {d.columns[column] for d in documents if d.split == split} for split in SHARES}
        assert all(seen.values())
        assert sum(map(len, seen.values())) == len(set.union(*seen.values())), column
    assert len({(d.columns["voice"], d.columns["speed"], d.columns["pitch"]) for d in documents}) > 100


def test_every_voice_variant_speaks_in_one_split_beside_its_namesakes():
    speakers = reading.speakers_by_split(seed=5)
    assert sorted(v for variants in speakers.values() for v in variants) == sorted(VARIANTS)
    assert any({"klatt", "klatt2", "klatt3", "klatt4"} <= set(variants) for variants in speakers.values())


def test_a_passage_is_consecutive_sentences_of_its_chapter(books, monkeypatch):
    chapters = {chapter.name: " ".join(chapter.sentences) for chapter in read_chapters(books)}
    documents = plan_reading(books, monkeypatch, 0.2)
    assert all(d.columns["text"] in chapters[d.columns["chapter_id"]] for d in documents)
    assert all(0 < d.seconds <= LONGEST for d in documents)


def test_the_seed_decides_the_plan(books, monkeypatch):
    first, again, other = (plan_reading(books, monkeypatch, 0.1, seed) for seed in (0, 0, 1))
    assert first == again
    assert {d.path for d in first} != {d.path for d in other}


# Whole corpora


def rows_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def check_corpus(out: Path) -> None:
    """Files as the manifest says, and a manifest that a preparation takes without a leak."""
    rows = rows_of(out)
    for row in rows:
        info = soundfile.info(out / row["path"])
        assert (info.samplerate, info.channels, info.subtype) == (24_000, 1, "PCM_16")
        assert info.duration == pytest.approx(row["seconds"], abs=1e-3) and info.duration <= LONGEST
    items = open_manifest(str(out / "manifest.jsonl"), resplit=False).items()
    assert {item.split for item in items} == set(SHARES)
    assert not any(find_leaks((item, item.split) for item in items).values())


@pytest.fixture(scope="module")
def piano_corpus(midi, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("piano")
    make_experiment_corpus(out, "piano", midi, HOURS, LONGEST, seed=1, workers=1, progress=False)
    return out


@needs_fluidsynth
def test_a_piano_corpus_is_24_khz_flac_with_whole_works_held_out(piano_corpus):
    check_corpus(piano_corpus)
    assert "CC BY-NC-SA 4.0" in (piano_corpus / "README.md").read_text()


@needs_fluidsynth
def test_a_piano_excerpt_begins_with_the_key_that_is_struck_there(piano_corpus, midi):
    for row in rows_of(piano_corpus)[:6]:
        source = midi / row["piece"] / f"{row['performance']}.mid"
        performance = read_midi(source.read_bytes())
        at = int(np.abs(performance.onsets - row["from"]).argmin())
        key = performance.messages[performance.messages[:, 0] == 0x90][at, 1]
        audio = soundfile.read(piano_corpus / row["path"])[0][2400:16800]
        spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio)), 1 << 17))

        def harmonics(candidate: int, spectrum: np.ndarray = spectrum) -> float:
            frequency = 440 * 2 ** ((candidate - 69) / 12)
            bins = [round(frequency * n / 24_000 * (1 << 17)) for n in range(1, 7)]
            return sum(spectrum[b - 12 : b + 13].max() for b in bins)

        assert max(range(int(key) - 3, int(key) + 4), key=harmonics) == key
        assert np.sqrt(np.mean(audio**2)) > 1e-3


@needs_fluidsynth
def test_a_second_run_makes_what_is_missing_with_the_same_bytes_and_fewer_hours_are_a_part(piano_corpus, midi):
    before = {row["path"]: row["split"] for row in rows_of(piano_corpus)}
    lost = piano_corpus / next(iter(before))
    data = lost.read_bytes()
    lost.unlink()
    summary = make_experiment_corpus(piano_corpus, "piano", midi, HOURS, LONGEST, seed=1, workers=2, progress=False)
    assert (summary.made, lost.read_bytes() == data) == (1, True)
    fewer = make_experiment_corpus(piano_corpus, "piano", midi, HOURS / 2, LONGEST, seed=1, workers=1, progress=False)
    assert fewer.made == 0
    small = {row["path"]: row["split"] for row in rows_of(piano_corpus)}
    assert len(small) < len(before) and small.items() <= before.items()
    make_experiment_corpus(piano_corpus, "piano", midi, HOURS, LONGEST, seed=1, workers=1, progress=False)


@needs_espeak
def test_the_command_makes_a_reading_corpus_of_about_the_hours_asked_for(books, tmp_path):
    flags = ["--kind", "reading", "--books", str(books), "--hours", str(HOURS), "--longest", str(LONGEST)]
    done = subprocess.run([sys.executable, str(MAKE_CORPUS), str(tmp_path), *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    check_corpus(tmp_path)
    rows = rows_of(tmp_path)
    assert f"{tmp_path / 'manifest.jsonl'}: {len(rows)} documents; {len(rows)} made now" in done.stdout
    # Each split ends with a whole document, and lengths are estimated.
    seconds = sum(row["seconds"] for row in rows)
    assert 0.8 * HOURS * 3600 < seconds < 1.2 * (HOURS * 3600 + 3 * LONGEST)


# Refusals


def test_missing_programs_material_and_senseless_flags_are_named(books, midi, tmp_path, monkeypatch):
    make = make_experiment_corpus
    with pytest.raises(RequestError, match="--kind piano needs --midi"):
        make(tmp_path / "c", "piano", None, 1.0)
    with pytest.raises(RequestError, match="--longest 1: it must be at least 4 seconds"):
        make(tmp_path / "c", "piano", midi, 1.0, longest=1.0)
    for module, name in ((piano, "fluidsynth_available"), (reading, "espeak_available")):
        monkeypatch.setattr(module, name, lambda: False)
    with pytest.raises(RequestError, match="apt-get install --no-install-recommends fluidsynth"):
        make(tmp_path / "c", "piano", midi, 1.0)
    with pytest.raises(RequestError, match="apt-get install --no-install-recommends espeak-ng"):
        make(tmp_path / "c", "reading", books, 1.0)
    for module, name in ((piano, "fluidsynth_available"), (reading, "espeak_available")):
        monkeypatch.setattr(module, name, lambda: True)
    with pytest.raises(RequestError, match="there is no such archive or folder"):
        make(tmp_path / "c", "piano", tmp_path / "nowhere", 1.0)
    (tmp_path / "broken.tar").write_bytes(b"no archive")
    with pytest.raises(RequestError, match="not a tar archive"):
        make(tmp_path / "c", "piano", tmp_path / "broken.tar", 1.0)
    with pytest.raises(RequestError, match="no composer/collection/piece/performance"):
        make(tmp_path / "c", "piano", books, 1.0)
    with pytest.raises(RequestError, match=r"no \.txt file"):
        make(tmp_path / "c", "reading", midi, 1.0)
    with pytest.raises(RequestError, match=r"the material is enough for 0\.0"):
        make(tmp_path / "c", "piano", midi, 100.0, LONGEST)
    bad = tmp_path / "bad" / "A" / "B"
    bad.mkdir(parents=True)
    (bad / "x.mid").write_bytes(b"MThd")
    with pytest.raises(RequestError, match=r"A/B/x.mid cannot be read as MIDI: it is damaged; remove it"):
        make(tmp_path / "c", "piano", tmp_path / "bad", 1.0)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--kind", "piano"], "error: --kind piano needs --midi, an archive or folder of MIDI files"),
        (["--kind", "reading", "--midi", "x"], "error: --midi is not for --kind reading"),
        (["--kind", "reading", "--engine", "numpy"], "error: --engine numpy: --kind reading has one engine only"),
        (["--kind", "music", "--midi", "x"], "error: --midi is for --kind piano only"),
    ],
)
def test_the_command_refuses_in_one_line(flags, said, tmp_path):
    done = subprocess.run(
        [sys.executable, str(MAKE_CORPUS), str(tmp_path / "c"), *flags], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith(said) and done.stderr.count("\n") == 1
