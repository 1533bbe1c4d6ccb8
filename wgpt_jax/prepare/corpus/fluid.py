"""Music through FluidSynth: a list of parts becomes MIDI bytes, and those a 24 kHz waveform."""

import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from wgpt_jax.errors import WorkError
from wgpt_jax.prepare.corpus.composer import Part

SOUND_FONTS = (
    Path("/usr/share/sounds/sf2/FluidR3_GM.sf2"),
    Path("/usr/share/sounds/sf2/TimGM6mb.sf2"),
    Path("/usr/share/sounds/sf2/default-GM.sf2"),
)
TICKS_PER_SECOND = 960  # 480 ticks a quarter note at 120 quarter notes a minute, so ticks are plain time


def find_sound_font() -> Path | None:
    """The first General MIDI sound font found where Debian installs them."""
    return next((path for path in SOUND_FONTS if path.is_file()), None)


def fluidsynth_available() -> bool:
    """Whether the program and a sound font are installed."""
    return shutil.which("fluidsynth") is not None and find_sound_font() is not None


def variable_length(value: int) -> bytes:
    """MIDI's variable-length quantity: 7 bits a byte, high bit set on all but the last."""
    out = [value & 0x7F]
    while value := value >> 7:
        out.insert(0, (value & 0x7F) | 0x80)
    return bytes(out)


def midi_bytes(parts: Sequence[Part]) -> bytes:
    """A format-0 Standard MIDI File of the parts (one channel each, drums on channel 10, at most 15 others)."""
    events: list[tuple[int, int, bytes]] = []  # tick, order within the tick, message
    channels = [c for c in range(16) if c != 9]
    for part in parts:
        channel = 9 if part.drums else channels.pop(0)
        events.append((0, 0, bytes([0xC0 | channel, part.program])))
        events.append((0, 1, bytes([0xB0 | channel, 10, part.pan])))
        events.append((0, 1, bytes([0xB0 | channel, 1, part.vibrato])))
        for note in part.notes:
            start = round(note.start * TICKS_PER_SECOND)
            stop = round((note.start + note.duration) * TICKS_PER_SECOND)
            events.append((start, 3, bytes([0x90 | channel, note.key, note.velocity])))
            events.append((max(stop, start + 1), 2, bytes([0x80 | channel, note.key, 0])))
            if part.glide:
                # The pitch wheel slides up to the note over 80 ms.
                for step in range(6):
                    bend = 8192 - 1200 * (5 - step)
                    message = bytes([0xE0 | channel, bend & 0x7F, bend >> 7])
                    events.append((start + round(step * 0.016 * TICKS_PER_SECOND), 4, message))
    ordered = sorted(events, key=lambda event: event[:2])
    return midi_file([(tick, message) for tick, _, message in ordered], ordered[-1][0] if ordered else 0)


def midi_file(events: Sequence[tuple[int, bytes]], end: int) -> bytes:
    """A format-0 Standard MIDI File.

    Args:
        events: tick (960 a second, ascending) and channel message.
        end: tick at which the track ends, at or after the last event's.
    """
    track, now = bytearray(), 0
    for tick, message in [*events, (end, b"\xff\x2f\x00")]:
        track += variable_length(tick - now) + message
        now = tick
    return (
        b"MThd" + struct.pack(">IHHH", 6, 0, 1, TICKS_PER_SECOND // 2) + b"MTrk" + struct.pack(">I", len(track)) + track
    )


def render_fluidsynth(parts: Sequence[Part], seconds: float, rate: int) -> np.ndarray:
    """Plays ``parts`` with FluidSynth; returns the first ``seconds`` as float32 mono ``[n]`` at ``rate`` Hz.

    Raises:
        WorkError: FluidSynth failed or wrote no audio.
    """
    return play_midi(midi_bytes(parts), rate)[: round(seconds * rate)]


def play_midi(data: bytes, rate: int, gain: float = 0.6) -> np.ndarray:
    """Plays a MIDI file with FluidSynth; returns float32 mono ``[n]`` at ``rate`` Hz, from its start to its end.

    Args:
        data: the file.
        rate: sampling rate in Hz.
        gain: FluidSynth's own, linear.

    Raises:
        WorkError: FluidSynth failed or wrote no audio.
    """
    with tempfile.TemporaryDirectory() as folder:
        score, wave = Path(folder) / "score.mid", Path(folder) / "audio.wav"
        score.write_bytes(data)
        flags = ["-ni", "-q", "-o", "synth.dynamic-sample-loading=1", "-g", str(gain), "-r", str(rate), "-F", str(wave)]
        command = ["fluidsynth", *flags, str(find_sound_font()), str(score)]
        done = subprocess.run(command, capture_output=True, text=True)
        if not wave.is_file():
            raise WorkError(f"fluidsynth wrote no audio: {done.stderr.strip()[-200:]}")
        audio, _ = soundfile.read(wave, dtype="float32", always_2d=True)
    if len(audio) == 0:
        raise WorkError(f"fluidsynth wrote an empty file: {done.stderr.strip()[-200:]}")
    return audio.mean(axis=1)
