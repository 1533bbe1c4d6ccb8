"""The conversion itself, apart from any engine: audio to aligned tokens and mel, piece by piece."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from wgpt_jax.audio.clock import Clock
from wgpt_jax.audio.mel import MelConfig, log_mel
from wgpt_jax.data.records import DocumentStream
from wgpt_jax.errors import WorkError
from wgpt_jax.mel_sources import CENTRED, LATENT, codec_codebooks
from wgpt_jax.prepare.codec import cached_codec
from wgpt_jax.prepare.inspection import Inspected, file_stamp
from wgpt_jax.prepare.items import SourceError
from wgpt_jax.prepare.reading.mono import mono_blocks, resampled
from wgpt_jax.prepare.sources.opening import Source
from wgpt_jax.prepare.workplace import device_of_worker, note_progress

if TYPE_CHECKING:
    from wgpt_jax.prepare.encodec import Codec

_GROUP_SECONDS = 1800.0  # audio whose arrays are held at once where several documents are encoded together
CHANGED = "it changed or went away while it was prepared; run the same command again"

Piece = tuple[np.ndarray, np.ndarray]
"""Tokens int16 [n, K] and mel float16 [S, n, M] of some frames."""


@dataclasses.dataclass(frozen=True)
class Conversion:
    """Everything that a document's arrays depend on besides its audio."""

    codec: str
    """Name or folder that :func:`wgpt_jax.prepare.codec.load_codec` takes."""
    codec_fingerprint: str
    """Identity the loaded codec must have."""
    clock: Clock
    """Sample rate and hop of the codec."""
    allow_noncausal: bool
    codebooks: int
    """Codebooks stored, K."""
    mel: MelConfig
    mel_sources: tuple[str, ...]
    """Mels stored, in order (:mod:`wgpt_jax.mel_sources`)."""
    channel: int | None
    """Channel that is heard, from 0; None for the mean of all."""
    devices: tuple[str, ...]
    """Torch devices; worker processes are spread over them."""
    batch: int
    """Documents encoded together. Their sums may be made in another order than those of one, so tokens whose two
    nearest codebook entries are equally near may differ; which documents are together depends on the plan alone."""

    def load_codec(self) -> "Codec":
        """The codec, on this process's device.

        Raises:
            WorkError: if it is not the one the conversion began with.
        """
        codec = cached_codec(self.codec, self.allow_noncausal, device_of_worker(self.devices))
        if codec.fingerprint != self.codec_fingerprint:
            raise WorkError(f"codec {self.codec} changed while the data was prepared; run the command again")
        return codec


class ItemFailed(Exception):
    """An item that could be read when it was inspected cannot be now."""

    def __init__(self, name: str, reason: str):
        """Names the item, and why it cannot be used."""
        super().__init__(name, reason)
        self.name, self.reason = name, reason


def convert(inputs: Sequence[Inspected], source: Source, conversion: Conversion) -> Iterator[DocumentStream]:
    """Converts inputs in order. Each stream must be read to its end before the next one is asked for.

    Memory is that of a piece, whatever a document's length; where several documents are encoded together, that of half
    an hour's arrays.

    Yields:
        a document per input; its pieces raise :class:`ItemFailed` if it cannot be read as it was inspected.
    """
    codec = conversion.load_codec()
    for group in _groups(inputs, conversion.batch):
        if len(group) == 1:
            pieces = {group[0].item.name: _convert_together(group, source, conversion, codec)}
        else:
            pieces = _convert_group(group, source, conversion, codec)
        for entry in group:
            name = entry.item.name
            stream = (piece for _, *piece in pieces[name]) if len(group) == 1 else pieces.pop(name)
            yield DocumentStream(name, entry.item.domain, entry.frames, stream)


def _groups(inputs: Sequence[Inspected], batch: int) -> Iterator[list[Inspected]]:
    """Cuts inputs into runs that are encoded together: half an hour at most, a longer document by itself."""
    group: list[Inspected] = []
    for entry in inputs:
        if group and (batch == 1 or sum(other.seconds for other in [*group, entry]) > _GROUP_SECONDS):
            yield group
            group = []
        group.append(entry)
    if group:
        yield group


def _convert_group(
    group: Sequence[Inspected], source: Source, conversion: Conversion, codec: "Codec"
) -> dict[str, list[Piece]]:
    """Converts a group, the most alike in length together, and holds the pieces of each document by its name."""
    held: dict[str, list[Piece]] = {entry.item.name: [] for entry in group}
    by_length = sorted(group, key=lambda entry: (-entry.frames, entry.item.name))
    for start in range(0, len(by_length), conversion.batch):
        together = by_length[start : start + conversion.batch]
        for row, *piece in _convert_together(together, source, conversion, codec):
            held[together[row].item.name].append(tuple(piece))
    return held


def _convert_together(
    inputs: Sequence[Inspected], source: Source, conversion: Conversion, codec: "Codec"
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Converts documents side by side, longest first; yields row, tokens [n, K] and mel [S, n, M] of each piece."""
    if not codec.causal:
        yield from _convert_whole(inputs, source, conversion, codec)
        return
    from wgpt_jax.prepare.pieces import PIECE_FRAMES
    from wgpt_jax.prepare.streams import DocumentsStream, look_ahead

    hop = codec.clock.hop
    stream = DocumentsStream(codec, conversion.codebooks, conversion.mel, conversion.mel_sources)
    ahead = max(look_ahead(name, conversion.mel, codec.clock) for name in conversion.mel_sources)
    readers = [_pieces(entry, source, conversion, PIECE_FRAMES, ahead) for entry in inputs]
    while readers:
        pieces = [next(reader, None) for reader in readers]
        pieces = pieces[: next((i for i, piece in enumerate(pieces) if piece is None), len(pieces))]
        readers = readers[: len(pieces)]
        if not pieces:
            break
        size = max(frames for frames, _ in pieces) * hop
        samples = np.zeros((len(pieces), size + ahead), np.float32)
        for row, (_, piece) in zip(samples, pieces, strict=True):
            row[: len(piece)] = piece
        tokens, mel = stream.push(samples[:, :size], samples[:, size:])
        for row, (frames, _) in enumerate(pieces):
            note_progress(codec.clock.seconds(frames))
            yield row, tokens[row, :frames], mel[:, row, :frames]


def _convert_whole(
    inputs: Sequence[Inspected], source: Source, conversion: Conversion, codec: "Codec"
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """The same by a codec that looks ahead, and so wants whole signals."""
    for row, entry in enumerate(inputs):
        [(_, samples)] = _pieces(entry, source, conversion, entry.frames)
        tokens = codec.encode(samples, conversion.codebooks)
        mel = [source_mel(name, samples, codec, conversion.mel, tokens) for name in conversion.mel_sources]
        note_progress(entry.seconds)
        yield row, tokens, np.stack(mel)


def _pieces(
    entry: Inspected, source: Source, conversion: Conversion, frames: int, ahead: int = 0
) -> Iterator[tuple[int, np.ndarray]]:
    """An input, ``frames`` frames at a time, to its last whole frame.

    Yields:
        frames n, and samples float32 [n * hop + a] of them and of what follows: ``ahead``, or all there is.

    Raises:
        ItemFailed: if it cannot be read, or is not what was inspected.
    """
    clock, size, total = conversion.clock, conversion.clock.samples(frames), 0
    held = np.zeros(0, np.float32)
    try:
        with source.open(entry.item) as sound, contextlib.closing(mono_blocks(sound, conversion.channel)) as blocks:
            if sound.rate != entry.rate:
                raise SourceError(CHANGED)
            for block in resampled(blocks, sound.rate, clock.sample_rate):
                total += len(block)
                if clock.frames(total) > entry.frames:
                    raise SourceError(CHANGED)
                held = np.concatenate([held, block])
                while len(held) >= size + ahead:
                    yield frames, held[: size + ahead]
                    held = held[size:]
        while left := min(frames, clock.frames(len(held))):
            yield left, held[: clock.samples(left) + ahead]
            held = held[clock.samples(left) :]
        if clock.frames(total) != entry.frames or file_stamp(source.root, entry.item) != entry.stamp:
            raise SourceError(CHANGED)
    except (SourceError, MemoryError) as error:
        raise ItemFailed(entry.item.name, str(error) or "needs more memory than there is") from error


def source_mel(
    source: str, samples: np.ndarray, codec: "Codec", mel: MelConfig, tokens: np.ndarray | None = None
) -> np.ndarray:
    """The slices of one mel source, as a record stores them.

    ``codecN`` is what a model hears that generates: the decode of tokens up to each frame, of the first N codebooks.

    Args:
        source: one of :mod:`wgpt_jax.mel_sources`.
        samples: float32 [N], the original.
        codec: causal, unless the source is ``original``.
        mel: definition of the slice.
        tokens: int16 [n, K] of the samples with the source's codebooks or more, if they are known already.

    Returns:
        float16 [n, M].
    """
    codebooks = codec_codebooks(source)
    if source == LATENT:
        return codec.latents(samples, mel.bands)
    if source == CENTRED:
        from wgpt_jax.prepare.streams import MelStream, look_ahead

        ahead, size = look_ahead(source, mel, codec.clock), codec.clock.samples(codec.clock.frames(len(samples)))
        signal = np.pad(samples, (0, ahead))[None].astype(np.float32)
        return MelStream(mel, codec.clock, ahead).push(signal[:, :size], signal[:, size:])[0]
    if codebooks is not None:
        tokens = codec.encode(samples, codebooks) if tokens is None else tokens
        samples = codec.decode(tokens[:, :codebooks])
    return log_mel(samples, mel, codec.clock).astype(np.float16)
