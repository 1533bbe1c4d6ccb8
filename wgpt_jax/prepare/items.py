"""What is prepared: one item becomes one document. A file, a part of a file, or an example of a TFDS data set."""

import dataclasses
from typing import Any

DEFAULT_DOMAIN = "audio"
"""Domain of everything when nothing names one."""


class SourceError(Exception):
    """One item cannot be used; the message says why in a few words, without the path."""


@dataclasses.dataclass(frozen=True)
class Item:
    """One input, as its source lists it."""

    name: str
    """Name of its document, unique in the data set, with forward slashes."""
    path: str
    """File it is in: relative to the source's root, absolute, or with a scheme (``gs://``)."""
    start: float = 0.0
    """Where it begins in the file, in seconds."""
    end: float | None = None
    """Where it ends, in seconds; None for the end of the file."""
    record: int | None = None
    """Number of the example in a file of a TFDS data set."""
    split: str | None = None
    """``train``, ``validation`` or ``test`` where the source gives it."""
    domain: str = DEFAULT_DOMAIN
    """Kind of audio (speech, music, ...), for reports."""
    speaker: str = ""
    """Whose it is; empty if that is not known."""
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What else the source says of it, carried through to the index; JSON values."""
