"""Windows of a record: T frames to predict, with the frame before them."""

from collections.abc import Iterator

import numpy as np

from wgpt_jax.data.batch import Batch
from wgpt_jax.data.records import Record


def cut_window(record: Record, start: int, context: int, source: int = 0) -> Batch:
    """Frames ``[start, start + context)`` of a record as one window.

    What lies past the record's end is padding (segment 0), and so is a segment's leading context frame: it is input
    of the frame after it, never a target, and no other position sees it through attention.

    Args:
        record: tokens, mel slices and their segments.
        start: first frame to predict, in the record.
        context: window length T.
        source: which of the record's mel sources the window shows.

    Returns:
        A batch without its batch axis: tokens [T + 1, K], mel [T + 1, M], the rest [T].
    """
    n = len(record.tokens)
    stop = min(start + context, n)
    first = max(start - 1, 0)
    tokens = np.zeros((context + 1, record.tokens.shape[1]), record.tokens.dtype)
    mel = np.zeros((context + 1, record.mel.shape[2]), record.mel.dtype)
    offset = first - (start - 1)
    tokens[offset : offset + stop - first] = record.tokens[first:stop]
    mel[offset : offset + stop - first] = record.mel[source, first:stop]

    segment_ids = np.zeros(context, np.int32)
    positions = np.zeros(context, np.int32)
    starts = np.zeros(context, bool)
    edge = 0
    for number, segment in enumerate(record.segments, start=1):
        begin, end = max(edge + segment.context, start), min(edge + segment.length, stop)
        if begin < end:
            here = slice(begin - start, end - start)
            segment_ids[here] = number
            positions[here] = np.arange(end - begin)
            starts[begin - start] = segment.start == 0 and begin == edge
        edge += segment.length
    return Batch(tokens, mel, segment_ids, positions, starts)


def tile_record(record: Record, context: int, source: int = 0) -> Iterator[tuple[int, Batch]]:
    """Windows side by side that hold every frame of a record once, each with its start."""
    for start in range(0, len(record.tokens), context):
        yield start, cut_window(record, start, context, source)


def random_start(frames: int, context: int, rng: np.random.Generator) -> int:
    """Start of a random window in a record of ``frames`` frames.

    A window that hangs over an edge is pushed back in, so that the record's first and last frames are trained on as
    often as its middle (frames a window's length from an edge twice as often).
    """
    start = rng.integers(-context, frames, endpoint=True)
    return int(np.clip(start, 0, max(frames - context, 0)))


def stack_windows(windows: list[Batch], size: int) -> Batch:
    """Stacks windows into a batch of ``size`` rows; missing rows are padding."""
    empty = Batch(*(np.zeros_like(field) for field in windows[0]))
    rows = windows + [empty] * (size - len(windows))
    return Batch(*(np.stack(fields) for fields in zip(*rows, strict=True)))
