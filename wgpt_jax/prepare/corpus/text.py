"""What the speech engines read: sentences from the user's books, or generated ones."""

import re
from pathlib import Path

import numpy as np

from wgpt_jax.errors import RequestError

_SUBJECTS = [
    "the old captain",
    "a quiet river",
    "my younger sister",
    "every teacher in town",
    "the orchestra",
    "this machine",
    "a grey whale",
    "nobody here",
    "the morning train",
    "her neighbour's dog",
    "our little garden",
    "a distant thunderstorm",
    "the judge",
    "two painters",
]
_VERBS = [
    "remembers",
    "follows",
    "cannot explain",
    "was looking for",
    "quickly measures",
    "sings about",
    "has always loved",
    "would rather keep",
    "turns towards",
    "gave away",
    "understands",
    "never believed",
    "is waiting for",
    "broke through",
]
_OBJECTS = [
    "the first letter",
    "a box of violins",
    "seven yellow apples",
    "the hidden staircase",
    "an honest answer",
    "those heavy curtains",
    "the northern harbour",
    "a cheap violin",
    "the whole village",
    "a question of physics",
    "fresh bread",
    "the shape of the wave",
    "a very large vocabulary",
    "thirty thousand sheep",
]
_TAILS = [
    "before sunrise",
    "without any reason",
    "in nineteen eighty four",
    "under the wooden bridge",
    "as usual",
    "more than once",
    "on the other side of the valley",
    "if the weather allows it",
    "for twenty six years",
    "at half past five",
    "through thick and thin",
    "with great pleasure",
]


def read_sentences(books: Path | None) -> list[str]:
    """Sentences of 30 to 240 characters from every ``*.txt`` under ``books``; an empty list without a folder.

    Raises:
        RequestError: the folder is missing or holds no usable sentence.
    """
    if books is None:
        return []
    files = sorted(books.rglob("*.txt")) if books.is_dir() else [books] if books.is_file() else []
    if not files:
        raise RequestError(f"--books {books}: no .txt file there")
    sentences: list[str] = []
    for file in files:
        text = re.sub(r"\s+", " ", file.read_text(encoding="utf-8", errors="replace").replace("_", ""))
        sentences += [
            s.strip() for s in re.split(r"(?<=[.!?])[\"'\u201d\u2019]?\s+", text) if 30 <= len(s.strip()) <= 240
        ]
    if not sentences:
        raise RequestError(f"--books {books}: no sentence of 30 to 240 characters in its .txt files")
    return sentences


def generated_sentence(rng: np.random.Generator) -> str:
    """One grammatical, meaningless English sentence, sometimes with a number to read."""
    subject, verb, tail = (str(rng.choice(words)) for words in (_SUBJECTS, _VERBS, _TAILS))
    what = f"{rng.integers(2, 9999)} boats" if rng.random() < 0.15 else str(rng.choice(_OBJECTS))
    return f"{subject.capitalize()} {verb} {what} {tail}{rng.choice(['.', '.', '?', '!'])}"


def passage(sentences: list[str], characters: int, rng: np.random.Generator) -> str:
    """Consecutive sentences (or generated ones where there are none) of about ``characters`` characters."""
    start, text = int(rng.integers(0, max(1, len(sentences)))), ""
    while len(text) < characters:
        text += (sentences[start % len(sentences)] if sentences else generated_sentence(rng)) + " "
        start += 1
    return text
