"""Data of one name that was prepared twice: whether it is the same, so that runs on both belong to one table.

Shards hold mels, whose last bits differ between processors, and so do fingerprints of shards. Of the rest nothing may
differ. On another processor a few tokens in 100,000 may differ too, since a codec rounds as well: then the hashes of
tokens differ, and the two are rightly not taken as one.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from wgpt_jax.report.numbers import listed
from wgpt_jax.report.rows import Row, of_kind

_EQUAL = ("codec", "codec_causal", "codebooks", "mel_sources", "splits", "test_groups")
"""What both rows say. Mels of the same sources, too, though a run reads but one: other sources are another request, and
to ask for the same costs nothing."""
_EQUAL_WHERE_SAID = {"mel": "the mel's definition", "codec_fingerprint": "the codec's hash"}
"""What older rows do not say, in words."""
_ABOVE = "tokens of the codebooks above the first"
_ALL_TOKENS = "the tokens of all codebooks of every document are equal, by their hashes"
_COARSE_TOKENS = (
    "the coarse tokens of the {} split have the same NLL, with the same standard error, in every digit under unigram, "
    "bigram and trigram of the training split"
)


@dataclasses.dataclass(frozen=True)
class Match:
    """Two preparations of one name."""

    data: str
    first: str
    """Fingerprint of the one whose rows come first."""
    other: str
    evidence: str | None
    """Why they are the same data and what could not be compared, in words; None if nothing shows it."""


def unify(rows: Sequence[Row]) -> tuple[list[Row], list[Match]]:
    """Gives rows of data that is shown to be that of an earlier row the earlier one's fingerprint.

    Rows of kind ``data`` keep theirs, and say the earlier one as ``same_as``.

    Returns:
        all rows in their order, and every pair that was compared.
    """
    described, matches = of_kind(rows, "data"), []
    renamed: dict[tuple[str, str], str] = {}
    for number, row in enumerate(described):
        for earlier in described[:number]:
            key = row["data"], row["data_fingerprint"]
            if earlier["data"] != key[0] or earlier["data_fingerprint"] == key[1] or key in renamed:
                continue
            if (earlier["data"], earlier["data_fingerprint"]) in renamed:
                continue  # compared with the first of its kind only
            evidence = _evidence(earlier, row, rows)
            matches.append(Match(key[0], earlier["data_fingerprint"], key[1], evidence))
            if evidence:
                renamed[key] = earlier["data_fingerprint"]
    return [_as_first(row, renamed) for row in rows], matches


def fingerprint_of(data: Row) -> str:
    """The fingerprint under which runs on some data are, of its row of kind ``data``."""
    return data.get("same_as", data["data_fingerprint"])


def _as_first(row: Row, renamed: Mapping[tuple[str, str], str]) -> Row:
    first = renamed.get((row.get("data", ""), row.get("data_fingerprint", "")))
    if first is None:
        return row
    return row | {"same_as" if row["kind"] == "data" else "data_fingerprint": first}


def _evidence(first: Row, other: Row, rows: Sequence[Row]) -> str | None:
    if any(first[key] != other[key] for key in _EQUAL):
        return None
    if any(first[key] != other[key] for key in _EQUAL_WHERE_SAID if key in first and key in other):
        return None
    if "tokens" in first and "tokens" in other:
        return _ALL_TOKENS + _not_compared(first, other) if first["tokens"] == other["tokens"] else None
    scores, theirs = (_baselines(data, rows) for data in (first, other))
    splits = [split for split in scores if scores[split] == theirs.get(split)]
    if not splits or any(scores[split] != theirs[split] for split in scores if split in theirs):
        return None
    return _COARSE_TOKENS.format(" and ".join(splits)) + _not_compared(first, other)


def _not_compared(first: Row, other: Row) -> str:
    """What a row of two does not record, so that nothing is known of it; empty if both record all."""
    words = _EQUAL_WHERE_SAID | {"tokens": _ABOVE}
    absent = [said for key, said in words.items() if key not in first or key not in other]
    whose = [row["data_fingerprint"] for row in (first, other) if any(key not in row for key in words)]
    return f"; not recorded of {listed(whose)}, hence not compared: {listed(absent)}" if absent else ""


def _baselines(data: Row, rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """By split, all that n-grams scored on some data: its counts, and every NLL with its error."""
    return {
        row["split"]: {key: row[key] for key in row if key in ("documents", "frames") or "_nll" in key}
        for row in of_kind(rows, "baseline")
        if (row["data"], row.get("data_fingerprint")) == (data["data"], data["data_fingerprint"])
    }
