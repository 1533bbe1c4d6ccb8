"""Names of the mels that can stand beside the tokens: of the original audio, or of what the codec makes of it."""

import re

ORIGINAL = "original"
"""The mel of the original audio, which holds more than its tokens do."""
NULL = "null"
"""The learned null slice everywhere: a hybrid's token-only mode."""
NONE = "none"
"""What a token-only model reads."""


def codec_codebooks(source: str) -> int | None:
    """N of ``codecN``, the mel of the decode from the first N codebooks; None for every other name."""
    found = re.fullmatch(r"codec([1-9][0-9]*)", source)
    return int(found[1]) if found else None
