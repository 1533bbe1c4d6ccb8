"""Names of what can stand beside the tokens: the mel of the original audio, or of what the codec makes of it, ..."""

import re

ORIGINAL = "original"
"""The mel of the original audio, which holds more than its tokens do."""
LATENT = "latent"
"""ENCODEC's latent before quantisation, in place of a mel slice: all that the codec's encoder knows of the frame."""
CENTRED = "centred"
"""The original's mel with librosa's centred window, which looks ahead of its frame: a leak, to show what one wins."""
NULL = "null"
"""The learned null slice everywhere: a hybrid's token-only mode."""
NONE = "none"
"""What a token-only model reads."""


def codec_codebooks(source: str) -> int | None:
    """N of ``codecN``, the mel of the decode from the first N codebooks; None for every other name."""
    found = re.fullmatch(r"codec([1-9][0-9]*)", source)
    return int(found[1]) if found else None


def is_source(name: str) -> bool:
    """Whether records can hold such slices."""
    return name in (ORIGINAL, LATENT, CENTRED) or codec_codebooks(name) is not None
