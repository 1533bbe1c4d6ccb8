"""Read books: espeak-ng reads passages of consecutive sentences, whole voices and whole chapters held out together."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wgpt_jax.errors import RequestError
from wgpt_jax.prepare.corpus.chapters import Chapter, phrases, read_chapters
from wgpt_jax.prepare.corpus.files import SAMPLE_RATE
from wgpt_jax.prepare.corpus.holdout import SHARES, Document, choose, divide, generator
from wgpt_jax.prepare.corpus.voices import FOREIGN, VARIANTS, Voice, espeak_available, speak
from wgpt_jax.prepare.splits import hash_fraction

LONGEST = 30.0
"""Seconds of a passage, at most."""
_CHARACTERS = 0.099  # espeak-ng's characters a second for each word a minute, measured; foreign voices take longer
_FOREIGN = 1.2
_AMPLITUDE, _GAIN = 25, 3.0  # no voice is clipped by espeak-ng; the loudest are made quieter when they are written
_PHRASE = 240  # characters: longer sentences may be cut

ABOUT = """# Read books

espeak-ng reading passages of consecutive sentences: 24 kHz mono FLAC. Held-out passages have an unseen speaker (a voice
variant of espeak-ng, with any accent, speed and pitch) and come from an unseen chapter (`manifest.jsonl`).
"""


@dataclass(frozen=True)
class Passage:
    """What is read, by whom, and the seconds after which it is cut off."""

    voice: Voice
    text: str
    longest: float


def plan_reading(books: Path, hours: float, seed: int, longest: float) -> list[Document]:
    """The passages that make up about ``hours`` hours; their lengths are estimates.

    Args:
        books: folder of ``*.txt``, or one such file.
        hours: of all splits.
        seed: of every draw.
        longest: seconds of a passage at most; half of that at least, where the chapter goes on.

    Raises:
        RequestError: no espeak-ng, no books, or too little text.
    """
    if not espeak_available():
        raise RequestError("--kind reading needs espeak-ng: apt-get install --no-install-recommends espeak-ng")
    chapters = read_chapters(books)
    splits = divide({chapter.name: chapter.characters for chapter in chapters}, seed)
    speakers = speakers_by_split(seed)
    queues: dict[str, list[Document]] = {split: [] for split in SHARES}
    for chapter in chapters:
        split = splits[chapter.name]
        queues[split] += _passages(chapter, split, speakers[split], seed, longest)
    for queue in queues.values():
        queue.sort(key=lambda document: (hash_fraction(document.path, seed), document.path))
    return choose(queues, hours)


def speaker_of(variant: str) -> str:
    """The speaker that a voice variant of espeak-ng is: "klatt" to "klatt4" are one, and "steph" and "steph2"."""
    return re.sub(r"(?<=[a-z]{2})\d$", "", variant)


def speakers_by_split(seed: int) -> dict[str, list[str]]:
    """Split -> voice variants; a speaker is in one split only."""
    families: dict[str, list[str]] = {}
    for variant in VARIANTS:
        families.setdefault(speaker_of(variant), []).append(variant)
    splits = divide({name: len(family) for name, family in families.items()}, seed)
    return {
        split: [v for name, family in families.items() if splits[name] == split for v in family] for split in SHARES
    }


def _passages(chapter: Chapter, split: str, variants: list[str], seed: int, longest: float) -> Iterator[Document]:
    """The chapter from its first to its last sentence, each passage in a voice of its own."""
    waiting = [part for sentence in chapter.sentences for part in phrases(sentence, min(_PHRASE, int(longest * 8)))][
        ::-1
    ]
    number = 0
    while waiting:
        number += 1
        rng = generator(seed, f"{chapter.name}:{number}")
        voice = Voice.draw(rng, flite=False, variants=variants)
        # A tenth is left for voices that are slower than the estimate.
        wanted = rng.uniform(longest / 2, longest) * 0.9
        text = waiting.pop()
        while waiting and estimate_seconds(voice, f"{text} {waiting[-1]}") <= wanted:
            text += " " + waiting.pop()
        seconds = min(estimate_seconds(voice, text), longest)
        if seconds < longest / 6:
            continue  # the last words of a chapter
        variant = voice.name.partition("+")[2]
        columns = {
            "domain": "speech",
            "speaker": speaker_of(variant),
            "voice": voice.name,
            "speed": voice.speed,
            "pitch": voice.pitch,
            "chapter_id": chapter.name,
            "passage": number,
            "text": text,
        }
        name = f"{chapter.book}/{chapter.name}/{number:03d}_{voice.folder}_{len(text)}.flac"
        yield Document(name, split, seconds, columns, Passage(voice, text, longest))


def estimate_seconds(voice: Voice, text: str) -> float:
    """About how long espeak-ng reads ``text`` in a voice."""
    slower = _FOREIGN if voice.name.partition("+")[0] in FOREIGN else 1.0
    return len(text) / (_CHARACTERS * voice.speed) * slower


def render_passage(passage: Passage) -> np.ndarray:
    """Reads a passage aloud: float32 mono ``[n]`` at 24 kHz, its peak perhaps above 1.

    Raises:
        WorkError: espeak-ng failed or stayed silent.
    """
    audio = _GAIN * speak(passage.voice, passage.text, SAMPLE_RATE, _AMPLITUDE)
    return audio[: round(passage.longest * SAMPLE_RATE)]
