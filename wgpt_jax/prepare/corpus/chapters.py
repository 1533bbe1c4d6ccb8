"""Books in chapters of consecutive sentences: what a voice reads, and what is held out from it."""

import re
from dataclasses import dataclass
from pathlib import Path

from wgpt_jax.errors import RequestError

_START = re.compile(r"^\*\*\* ?START OF.*$", re.MULTILINE)
_END = re.compile(r"^(\*\*\* ?END OF|End of (the )?Project Gutenberg).*$", re.MULTILINE)
_HEADING = re.compile(r"^(?:(?:CHAPTER|EPOCH|BOOK|PART|Chapter)\s+[\w.]+.*|[IVXLC]+\.?)$")
_SENTENCE_END = re.compile(r"(?<=[.!?])(?<!\bMr\.)(?<!\bMrs\.)(?<!\bDr\.)(?<!\bSt\.)\s+|(?<=[.!?][\"'\u201d\u2019])\s+")
_FEWEST, _BLOCK = 2000, 10_000  # characters of a chapter at least, of a block where a book has no chapters


@dataclass(frozen=True)
class Chapter:
    """Consecutive sentences of one book."""

    book: str
    """The file's name without its ending."""
    name: str
    """book-number; the number counts what the file has."""
    sentences: tuple[str, ...]

    @property
    def characters(self) -> int:
        """How much there is to read."""
        return sum(len(sentence) + 1 for sentence in self.sentences)


def read_chapters(books: Path) -> list[Chapter]:
    """The chapters of every ``*.txt`` in a folder (or of one file), in order.

    Headings divide a book; what stands before the first is left out. A book with fewer than three is cut into blocks of
    consecutive sentences. Verse, contents and headings (indented lines, capitals) are not read.

    Raises:
        RequestError: no such folder, or no text in it.
    """
    files = sorted(books.rglob("*.txt")) if books.is_dir() else [books] if books.is_file() else []
    chapters = [chapter for file in files for chapter in divide_book(file.stem, file.read_text("utf-8", "replace"))]
    if not chapters:
        raise RequestError(f"--books {books}: no .txt file with {_FEWEST} characters of prose there")
    return chapters


def divide_book(book: str, text: str) -> list[Chapter]:
    """The chapters of one book's text."""
    if start := _START.search(text):
        text = text[start.end() :]
    if end := _END.search(text):
        text = text[: end.start()]
    parts: list[list[str]] = [[]]
    for line in text.splitlines():
        if _HEADING.match(line.rstrip()):
            parts.append([])
        else:
            parts[-1].append(line)
    bodies = [sentences for part in parts[1:] if _size(sentences := _sentences(part)) >= _FEWEST]
    if len(bodies) < 3:
        bodies = _blocks(_sentences(text.splitlines()))
    return [Chapter(book, f"{book}-{number:03d}", tuple(body)) for number, body in enumerate(bodies, 1)]


def _sentences(lines: list[str]) -> list[str]:
    prose = "\n".join("" if line.startswith("    ") else line for line in lines)
    prose = re.sub(r"\[[^\]]*\]", "", prose).replace("_", "")
    sentences: list[str] = []
    for paragraph in re.split(r"\n\s*\n", prose):
        plain = " ".join(paragraph.split())
        if any(letter.islower() for letter in plain):
            sentences += [sentence for sentence in _SENTENCE_END.split(plain) if any(map(str.isalnum, sentence))]
    return sentences


def _blocks(sentences: list[str]) -> list[list[str]]:
    blocks: list[list[str]] = [[]]
    for sentence in sentences:
        if _size(blocks[-1]) >= _BLOCK:
            blocks.append([])
        blocks[-1].append(sentence)
    return [block for block in blocks if _size(block) >= _FEWEST]


def _size(sentences: list[str]) -> int:
    return sum(len(sentence) + 1 for sentence in sentences)


def phrases(sentence: str, longest: int) -> list[str]:
    """A sentence in phrases of at most ``longest`` characters, cut after a comma or the like, else between words."""
    parts = []
    while len(sentence) > longest:
        cut = max(sentence.rfind(mark, 0, longest) for mark in (", ", "; ", ": ", "--")) + 1
        cut = cut or sentence.rfind(" ", 0, longest) + 1 or longest
        parts.append(sentence[:cut].strip())
        sentence = sentence[cut:].strip()
    return [part for part in [*parts, sentence] if part]
