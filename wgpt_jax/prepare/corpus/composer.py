"""A seeded composer: short pieces of tonal music as a list of notes, for any engine that can play them."""

from dataclasses import dataclass, field

import numpy as np

MODES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
}
PROGRESSIONS = (  # scale degrees of the chord roots, one per bar
    (0, 4, 5, 3),
    (0, 5, 3, 4),
    (0, 3, 4, 0),
    (1, 4, 0, 5),
    (0, 6, 5, 4),
    (5, 3, 0, 4),
    (0, 2, 3, 4),
    (0, 3, 1, 4),
    (0, 0, 3, 4),
    (3, 4, 2, 5),
)
RHYTHMS = (  # one bar of a melody, in beats
    (1, 1, 1, 1),
    (1.5, 0.5, 1, 1),
    (0.5, 0.5, 1, 0.5, 0.5, 1),
    (2, 1, 1),
    (3, 1),
    (0.75, 0.25, 1, 0.75, 0.25, 1),
    (0.5, 0.5, 0.5, 0.5, 1, 1),
    (4,),
    (0.25, 0.25, 0.5, 1, 0.25, 0.25, 0.5, 1),
)
# General MIDI programs (counted from 0) by the job they do in an ensemble.
STRINGS, BRASS, WINDS, VOICES = (40, 41, 42, 48, 49, 44), (56, 57, 58, 60, 61), (68, 70, 71, 73, 64, 65), (52, 53, 54)
SOLOISTS = (40, 42, 56, 56, 57, 60, 64, 65, 66, 68, 69, 71, 72, 73, 74, 75, 78, 78, 79, 53, 22, 21, 110, 46, 24)
KEYBOARDS, GUITARS, ORGANS, BASSES = (0, 1, 4, 5, 6), (24, 25, 26, 27, 29), (16, 19, 21), (32, 33, 34, 35, 43)
MALLETS, PADS = (8, 9, 11, 12, 13, 10), (88, 89, 91, 95)
# How often each ensemble is drawn.
ENSEMBLES = {"solo": 0.22, "piano": 0.16, "chamber": 0.16, "orchestra": 0.18, "band": 0.16, "jazz": 0.12}


@dataclass(frozen=True)
class Note:
    """One note: ``start`` and ``duration`` in seconds, ``key`` and ``velocity`` as in MIDI (0..127)."""

    start: float
    duration: float
    key: int
    velocity: int


@dataclass
class Part:
    """The notes of one instrument; ``program`` is General MIDI counted from 0, ``drums`` selects the drum map."""

    program: int
    notes: list[Note] = field(default_factory=list)
    drums: bool = False
    pan: int = 64
    vibrato: int = 0
    glide: bool = False


@dataclass(frozen=True)
class Composer:
    """What stays the same over the pieces of one composer: ensemble, tempo range and modes."""

    ensemble: str
    programs: tuple[int, ...]
    tempo: float
    modes: tuple[str, ...]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Composer":
        """Draws a composer; the same generator state gives the same one."""
        ensemble = str(rng.choice(list(ENSEMBLES), p=list(ENSEMBLES.values())))
        pools = {
            "solo": (SOLOISTS,),
            "piano": (KEYBOARDS + GUITARS[:2] + ORGANS,),
            "chamber": (STRINGS + WINDS, WINDS + STRINGS, STRINGS + VOICES, STRINGS[:4] + BRASS),
            "orchestra": (STRINGS[3:5], WINDS + BRASS, STRINGS[3:] + VOICES, (43, 42, 58), (*MALLETS, 46), (47,)),
            "band": (SOLOISTS + GUITARS + VOICES, GUITARS + KEYBOARDS, BASSES, PADS + ORGANS + VOICES),
            "jazz": ((*MALLETS, 65, 66, 56), (*KEYBOARDS, 26), (32, 33, 35)),
        }[ensemble]
        programs = tuple(int(rng.choice(pool)) for pool in pools)
        modes = tuple(str(m) for m in rng.choice(list(MODES), size=2, replace=False))
        return cls(ensemble, programs, float(rng.uniform(58, 168)), modes)


def compose(composer: Composer, seconds: float, rng: np.random.Generator) -> list[Part]:
    """Writes a piece of at least ``seconds`` seconds; every draw comes from ``rng``."""
    piece = _Piece(composer, seconds, rng)
    programs = composer.programs
    match composer.ensemble:
        case "solo":
            return [piece.melody(programs[0], octave=int(rng.integers(4, 7)), rests=0.12)]
        case "piano":
            style = str(rng.choice(["block", "broken", "waltz", "alberti"]))
            accompaniment = piece.chords(programs[0], style, octave=3)
            return [piece.melody(programs[0], octave=5, rests=0.08), accompaniment]
        case "chamber":
            parts = [piece.melody(programs[0], octave=5, rests=0.1), piece.melody(programs[1], octave=4, rests=0.25)]
            parts += [piece.chords(programs[2], "sustained", octave=4), piece.bass(programs[3], octave=3)]
            return parts[: int(rng.integers(2, 5))]
        case "orchestra":
            parts = [piece.chords(programs[0], "sustained", octave=4), piece.melody(programs[1], octave=5, rests=0.1)]
            parts += [piece.chords(programs[2], str(rng.choice(["repeated", "sustained"])), octave=4)]
            parts += [piece.bass(programs[3], octave=2), piece.chords(programs[4], "broken", octave=5)]
            return [*parts[: int(rng.integers(3, 6))], piece.bass(programs[5], octave=2, hits=0.4)]
        case "band":
            parts = [
                piece.melody(programs[0], octave=5, rests=0.2),
                piece.bass(programs[2], octave=2),
                piece.drums("rock"),
            ]
            parts += [piece.chords(programs[1], str(rng.choice(["block", "repeated", "broken"])), octave=4)]
            return parts + [piece.chords(programs[3], "sustained", octave=4)] * int(rng.integers(0, 2))
        case _:
            parts = [
                piece.melody(programs[0], octave=5, rests=0.25, swing=True),
                piece.chords(programs[1], "offbeat", 4),
            ]
            return [*parts, piece.bass(programs[2], octave=2, walking=True), piece.drums("swing")]


class _Piece:
    """Key, tempo, form and motif of one piece, and the parts that can be written over them."""

    def __init__(self, composer: Composer, seconds: float, rng: np.random.Generator) -> None:
        self.rng = rng
        self.scale = MODES[str(rng.choice(list(composer.modes)))]
        self.tonic = int(rng.integers(-5, 7))
        self.beat = 60.0 / float(np.clip(composer.tempo * rng.uniform(0.9, 1.1), 50, 190))
        self.bars = max(2, int(np.ceil(seconds / (4 * self.beat))))
        form = [PROGRESSIONS[i] for i in rng.choice(len(PROGRESSIONS), size=2, replace=False)]
        self.roots = [form[(bar // 8) % 2][bar % 4] for bar in range(self.bars)]
        self.motif_rhythm = [RHYTHMS[i] for i in rng.integers(0, len(RHYTHMS), size=2)]
        self.motif_steps = rng.choice([-2, -1, -1, 0, 1, 1, 2, 3], size=16)
        self.loudness = float(rng.uniform(0.7, 1.0))

    def key(self, degree: int, octave: int) -> int:
        """MIDI key of a scale degree (any integer) in an octave; middle C is degree 0 of octave 5 in C major."""
        shift, step = divmod(int(degree), 7)
        return int(np.clip(12 * (octave + shift) + self.tonic + self.scale[step], 21, 108))

    def velocity(self, base: float, position: float) -> int:
        """Loudness: the part's base, an arch over eight bars, and a little chance."""
        arch = 0.85 + 0.15 * np.sin(np.pi * (position / (32 * self.beat) % 1.0))
        return int(np.clip(base * self.loudness * arch * self.rng.uniform(0.9, 1.1), 20, 127))

    def add(self, part: Part, beats: float, duration: float, key: int, base: float) -> None:
        """Adds a note at ``beats``, with some milliseconds of human error."""
        start = max(0.0, beats * self.beat + self.rng.normal(0, 0.006))
        part.notes.append(Note(start, max(0.05, duration * self.beat), key, self.velocity(base, start)))

    def melody(self, program: int, octave: int, rests: float, swing: bool = False) -> Part:
        """A motif over the chords: its rhythm and contour return, its first note moves to a chord tone."""
        part = Part(program, pan=int(self.rng.integers(50, 78)), vibrato=int(self.rng.choice([0, 0, 25, 60])))
        part.glide = program in (40, 42, 53, 57, 78, 79) and self.rng.random() < 0.35
        legato = self.rng.uniform(0.6, 1.02)
        for bar, root in enumerate(self.roots):
            degree = root + int(self.rng.choice([0, 2, 4]))
            beats, position = bar * 4.0, 0.0
            for index, length in enumerate(self.motif_rhythm[bar % 2]):
                if self.rng.random() > rests:
                    late = 0.16 if swing and position % 1 == 0.5 else 0.0
                    self.add(part, beats + position + late, length * legato, self.key(degree, octave), 96)
                step = int(self.motif_steps[(index + 5 * (bar % 2)) % 16])
                degree += step if self.rng.random() < 0.8 else int(self.rng.integers(-2, 3))
                degree = int(np.clip(degree, -3, 12))
                position += length
        return part

    def chords(self, program: int, style: str, octave: int) -> Part:
        """Triads, sometimes with a seventh, in one of several accompaniment figures."""
        part = Part(program, pan=int(self.rng.integers(40, 88)))
        seventh = self.rng.random() < 0.3
        for bar, root in enumerate(self.roots):
            degrees = [root, root + 2, root + 4] + ([root + 6] if seventh else [])
            keys = [self.key(d - 7 if d > 5 else d, octave) for d in degrees]
            beats = bar * 4.0
            match style:
                case "sustained":
                    hits = [(0.0, 3.95, keys)]
                case "block":
                    hits = [(0.0, 1.9, keys), (2.0, 1.9, keys)]
                case "repeated":
                    hits = [(0.5 * i, 0.4, keys) for i in range(8)]
                case "waltz":
                    hits = [(0.0, 0.9, keys[:1]), (1.0, 0.8, keys[1:]), (2.0, 0.8, keys[1:]), (3.0, 0.8, keys[1:])]
                case "offbeat":
                    hits = [(i + 0.66, 0.3, keys) for i in range(4) if self.rng.random() < 0.6]
                case _:
                    order = [0, 2, 1, 2] if style == "alberti" else [0, 1, 2, 1]
                    hits = [(0.5 * i, 0.55, [keys[order[i % 4]]]) for i in range(8)]
            for offset, length, chord in hits:
                for key in chord:
                    self.add(part, beats + offset, length, key, 74)
        return part

    def bass(self, program: int, octave: int, walking: bool = False, hits: float = 1.0) -> Part:
        """Roots and fifths, or a walking line of quarter notes; ``hits`` thins them out."""
        part = Part(program)
        for bar, root in enumerate(self.roots):
            line = [root, root + 2, root + 4, root + int(self.rng.integers(3, 6))] if walking else [root, root + 4]
            for index, degree in enumerate(line):
                if self.rng.random() < hits:
                    span = 4.0 / len(line)
                    key = self.key(degree - 7 * (degree > 4), octave + 1)
                    self.add(part, bar * 4 + index * span, span * 0.9, key, 90)
        return part

    def drums(self, style: str) -> Part:
        """Kick, snare and hats on the General MIDI drum map, with a fill every fourth bar."""
        part = Part(0, drums=True)
        for bar in range(self.bars):
            for half in range(8):
                at = bar * 4 + half / 2
                if style == "swing":
                    late = 0.16 if half % 2 else 0.0
                    if half % 4 != 1 and half % 4 != 5:
                        self.add(part, at + late, 0.2, 51, 78)
                    if half in (2, 6):
                        self.add(part, at, 0.2, 44, 66)
                else:
                    self.add(part, at, 0.2, 46 if half == 7 and bar % 2 else 42, 70 if half % 2 else 86)
                    if half in (0, 5) or (half == 3 and self.rng.random() < 0.3):
                        self.add(part, at, 0.2, 36, 104)
                    if half in (2, 6):
                        self.add(part, at, 0.2, 38, 100)
            if bar % 4 == 3:
                for index in range(4):
                    self.add(part, bar * 4 + 3 + index / 4, 0.2, int(self.rng.choice([38, 45, 47, 50])), 92)
            if bar % 8 == 0 and self.rng.random() < 0.5:
                self.add(part, bar * 4, 1.0, 49, 90)
        return part
