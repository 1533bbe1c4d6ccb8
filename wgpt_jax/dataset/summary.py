"""The numbers of a prepared data set, from its index, and their tables."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from wgpt_jax.data.index import INDEX_NAME, SPLITS
from wgpt_jax.data.statistics import entropy_bits
from wgpt_jax.dataset.folder import Prepared, printable
from wgpt_jax.errors import RequestError

_QUANTILES = {"min": 0.0, "5%": 0.05, "50%": 0.5, "95%": 0.95, "max": 1.0}
_MOST = 10  # speakers, reasons and leaks that are listed


def summarise(prepared: Prepared) -> dict[str, Any]:
    """All numbers, as JSON values.

    Returns:
        ``parts`` (split and domain: ``documents``, ``frames``, ``hours``, quantiles of the documents' ``seconds``);
        ``codebooks`` (``entropy_bits``, ``perplexity``, ``used`` entries of ``size``, the share of the
        ``most_frequent`` one); ``mel`` by source (``mean`` and ``std`` of all values, lowest and highest mean of a
        band); ``fates`` of the inputs and ``reasons`` of those not used; the largest ``speakers``; ``leaks``.

    Raises:
        RequestError: if the statistics in the index are damaged.
    """
    index = prepared.index
    try:
        codebooks = [_codebook(np.array(counts)) for counts in index.statistics["tokens"]["histogram"]]
        mel = {name: _mel(np.array(v["mean"]), np.array(v["std"])) for name, v in index.statistics["mel"].items()}
    except (KeyError, TypeError, ValueError) as error:
        raise RequestError(
            f"the statistics in {prepared.folder / INDEX_NAME} are damaged ({error!r}); dataset.py repair makes it anew"
        ) from error
    reasons = Counter(row.get("reason", "").split(" as ")[0] for row in prepared.inputs if row["fate"] != "used")
    speakers = list(_speakers(prepared))
    return {
        "folder": str(prepared.folder),
        "codec": dataclasses.asdict(index.codec),
        "frames_per_second": index.clock.frames_per_second,
        "shards": len(index.shards),
        "parts": list(_parts(prepared)),
        "codebooks": codebooks,
        "mel": mel,
        "fates": {fate: sum(row["fate"] == fate for row in prepared.inputs) for fate in ("used", "skipped", "failed")},
        "reasons": dict(reasons.most_common(_MOST)),
        "speakers": {"count": len(speakers), "largest": speakers[:_MOST]},
        "leaks": index.leaks,
    }


def _parts(prepared: Prepared) -> Iterator[dict[str, Any]]:
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in prepared.used().values():
        rows.setdefault((row["split"], row.get("domain", "")), []).append(row)
    for split, domain in sorted(rows, key=lambda key: (SPLITS.index(key[0]), key[1])):
        part = rows[split, domain]
        frames = sum(row["frames"] for row in part)
        quantiles = np.quantile([row["seconds"] for row in part], list(_QUANTILES.values()))
        yield {
            "split": split,
            "domain": domain,
            "documents": len(part),
            "frames": frames,
            "hours": prepared.index.clock.seconds(frames) / 3600,
            "seconds": dict(zip(_QUANTILES, map(float, quantiles), strict=True)),
        }


def _codebook(counts: np.ndarray) -> dict[str, Any]:
    """Of counts [V]."""
    bits = entropy_bits(counts)
    return {
        "entropy_bits": bits,
        "perplexity": 2.0**bits,
        "used": int((counts > 0).sum()),
        "size": len(counts),
        "most_frequent": float(counts.max() / max(1, counts.sum())),
    }


def _mel(mean: np.ndarray, std: np.ndarray) -> dict[str, float]:
    """Of the mean and deviation of each band, [M]."""
    whole = mean.mean()
    deviation = np.sqrt(max(0.0, (std**2 + mean**2).mean() - whole**2))
    return {
        "mean": float(whole),
        "std": float(deviation),
        "lowest_band_mean": float(mean.min()),
        "highest_band_mean": float(mean.max()),
    }


def _speakers(prepared: Prepared) -> Iterator[dict[str, Any]]:
    """Speakers, the one with most audio first."""
    frames: Counter[str] = Counter()
    documents: Counter[str] = Counter()
    for row in prepared.used().values():
        if row.get("speaker"):
            frames[row["speaker"]] += row["frames"]
            documents[row["speaker"]] += 1
    for speaker, count in frames.most_common():
        hours = prepared.index.clock.seconds(count) / 3600
        yield {"speaker": speaker, "documents": documents[speaker], "hours": hours}


def format_summary(summary: dict[str, Any]) -> str:
    """The tables."""
    codec, fates = summary["codec"], summary["fates"]
    causal = "" if codec["causal"] else ", NOT CAUSAL: its tokens contain the future"
    header = ("split", "domain", "hours", "documents", "frames", *(f"{name} s" for name in _QUANTILES))
    rows = [
        (
            *(part["split"], part["domain"], f"{part['hours']:,.3f}", f"{part['documents']:,}", f"{part['frames']:,}"),
            *(f"{seconds:,.1f}" for seconds in part["seconds"].values()),
        )
        for part in summary["parts"]
    ]
    blocks = [
        f"{summary['folder']}: {summary['shards']:,} shards, codec {codec['name']} ({codec['fingerprint']}), "
        f"{summary['frames_per_second']:g} frames/s{causal}",
        _table(header, rows, left=2),
        _table(
            ("codebook", "entropy (bits)", "perplexity", "used", "most frequent"),
            [
                (
                    *(str(number), f"{row['entropy_bits']:.2f}", f"{row['perplexity']:,.0f}"),
                    *(f"{row['used']:,} of {row['size']:,}", f"{100 * row['most_frequent']:.2f} %"),
                )
                for number, row in enumerate(summary["codebooks"], 1)
            ],
        ),
        _table(
            ("mel", "mean", "std", "band means"),
            [
                (
                    *(name, f"{row['mean']:.3f}", f"{row['std']:.3f}"),
                    f"{row['lowest_band_mean']:.2f} to {row['highest_band_mean']:.2f}",
                )
                for name, row in summary["mel"].items()
            ],
            left=1,
        ),
    ]
    largest = summary["speakers"]["largest"]
    if largest:
        found = [(printable(r["speaker"]), f"{r['documents']:,}", f"{r['hours']:.3f}") for r in largest]
        blocks.append(_table((f"speaker, of {summary['speakers']['count']:,}", "documents", "hours"), found, left=1))
    notes = [f"inputs   {sum(fates.values()):,}: {', '.join(f'{count:,} {fate}' for fate, count in fates.items())}"]
    notes += [f"         {count:,} not used: {printable(reason)}" for reason, count in summary["reasons"].items()]
    for kind, values in summary["leaks"].items():
        some = ", ".join(map(printable, values[:_MOST])) + (", ..." if len(values) > _MOST else "")
        notes += [f"LEAK     {len(values):,} by {kind} in more than one split: {some}"] if values else []
    if not any(summary["leaks"].values()):
        notes.append(f"leaks    none by {' or '.join(summary['leaks'])}")
    notes.append(f"picture  {summary['picture']}")
    return "\n\n".join([*blocks, "\n".join(notes)])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 0) -> str:
    """Aligned columns, the first ``left`` of them to the left."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in (header, *rows):
        cells = enumerate(zip(row, widths, strict=True))
        lines.append("  ".join(cell.ljust(width) if i < left else cell.rjust(width) for i, (cell, width) in cells))
    return "\n".join(lines)
