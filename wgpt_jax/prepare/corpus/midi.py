"""What a performance's MIDI file holds: keys and pedals by the second, and any stretch of it as a file of its own."""

import struct
from dataclasses import dataclass

import numpy as np

from wgpt_jax.prepare.corpus.fluid import TICKS_PER_SECOND, midi_file

PEDALS = (64, 66, 67)  # controllers: sustain, sostenuto, soft
_DEFAULT_TEMPO = 500_000  # microseconds a quarter note, until a file says otherwise
_DATA_BYTES = {0x8: 2, 0x9: 2, 0xA: 2, 0xB: 2, 0xC: 1, 0xD: 1, 0xE: 2}


@dataclass(frozen=True)
class Performance:
    """Keys and pedals in the order of time, all on one channel."""

    seconds: np.ndarray
    """float64 ``[n]``: when."""
    messages: np.ndarray
    """uint8 ``[n, 3]``: status (0x80 note off, 0x90 note on, 0xB0 pedal), key or controller, velocity or value."""

    @property
    def onsets(self) -> np.ndarray:
        """float64 ``[k]``: when keys are struck, in seconds."""
        return self.seconds[self.messages[:, 0] == 0x90]

    @property
    def end(self) -> float:
        """When the last key is released (or struck), in seconds; 0 without notes."""
        keys = self.seconds[self.messages[:, 0] < 0xB0]
        return float(keys[-1]) if len(keys) else 0.0

    def cut(self, begin: float, end: float) -> bytes:
        """The stretch from ``begin`` to ``end`` seconds as a MIDI file of its own, with the pedals as they lie."""
        ticks = np.rint((self.seconds - begin) * TICKS_PER_SECOND).astype(np.int64)
        last = round((end - begin) * TICKS_PER_SECOND)
        before = self.messages[ticks < 0]
        pedals = {int(m[1]): m for m in before[before[:, 0] == 0xB0]}
        inside = (ticks >= 0) & (ticks <= last)
        events = [(0, b"\xc0\x00"), *((0, bytes(message)) for message in pedals.values())]
        events += [(int(t), bytes(m)) for t, m in zip(ticks[inside], self.messages[inside], strict=True)]
        return midi_file(events, last)


def read_midi(data: bytes) -> Performance:
    """Reads a Standard MIDI File of format 0 or 1; instruments, bends and the drums' channel are left out.

    Source: Standard MIDI Files 1.0 (RP-001).

    Raises:
        ValueError: it is damaged, or timed in another way than by quarter notes.
    """
    try:
        return _merge(*_chunks(data))
    except (IndexError, KeyError, struct.error) as error:
        raise ValueError("it is damaged") from error


def _chunks(data: bytes) -> tuple[int, list[bytes]]:
    """Ticks a quarter note, and the bytes of every track."""
    if data[:4] != b"MThd":
        raise ValueError("it does not begin as a MIDI file does")
    length, form, _, division = struct.unpack(">IHHH", data[4:14])
    if form > 1 or not 0 < division < 0x8000:
        raise ValueError("it is of another kind than format 0 or 1, timed by quarter notes")
    tracks, at = [], 8 + length
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "big")
        if data[at : at + 4] == b"MTrk":
            tracks.append(data[at + 8 : at + 8 + length])
        at += 8 + length
    return division, tracks


def _merge(division: int, tracks: list[bytes]) -> Performance:
    tempos: dict[int, int] = {}
    events: list[tuple[int, int, int, int]] = []
    for track in tracks:
        _read_track(track, events, tempos)
    # Releases before strokes of the same instant: a key that is repeated at once must sound again.
    events.sort(key=lambda event: (event[0], event[1] == 0x90))
    table = np.array(events, np.int64).reshape(-1, 4)
    changes = sorted(({0: _DEFAULT_TEMPO} | tempos).items())
    starts = np.array([tick for tick, _ in changes])
    rates = np.array([tempo for _, tempo in changes]) / 1e6 / division  # seconds a tick
    offsets = np.concatenate([[0.0], np.cumsum(np.diff(starts) * rates[:-1])])
    piece = np.searchsorted(starts, table[:, 0], side="right") - 1
    seconds = offsets[piece] + (table[:, 0] - starts[piece]) * rates[piece]
    return Performance(seconds, table[:, 1:].astype(np.uint8))


def _read_track(track: bytes, events: list[tuple[int, int, int, int]], tempos: dict[int, int]) -> None:
    """Appends a track's keys and pedals (tick, status, two data bytes) and notes its tempos by tick."""
    at = tick = status = 0
    while at < len(track):
        delta, at = _variable_length(track, at)
        tick += delta
        if track[at] >= 0x80:
            status = track[at]
            at += 1
        if status in (0xF0, 0xF7, 0xFF):
            kind = track[at] if status == 0xFF else None
            length, at = _variable_length(track, at + (status == 0xFF))
            if kind == 0x51:
                tempos[tick] = int.from_bytes(track[at : at + 3], "big")
            at += length
            continue
        size = _DATA_BYTES[status >> 4]
        first, second = track[at], track[at + size - 1]
        if max(first, second) > 0x7F:
            raise ValueError("it is damaged")
        at += size
        command, drums = status & 0xF0, status & 0x0F == 9
        if drums or command not in (0x80, 0x90, 0xB0) or (command == 0xB0 and first not in PEDALS):
            continue
        if command == 0x90 and second == 0:
            command = 0x80  # a stroke without velocity is a release
        events.append((tick, command, first, second))


def _variable_length(data: bytes, at: int) -> tuple[int, int]:
    """The quantity at ``at`` (four bytes at most), and where the next byte is."""
    value = 0
    for _ in range(4):
        byte = data[at]
        value, at = (value << 7) | (byte & 0x7F), at + 1
        if byte < 0x80:
            return value, at
    raise ValueError("it is damaged")
