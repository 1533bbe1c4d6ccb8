"""The performances in an archive or a folder, and which of them are of one piece and of one work."""

import re
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from wgpt_jax.errors import RequestError

_SUFFIXES = (".mid", ".midi")
# "17-1_no_repeat", "24-1_no_2_repeat", "1_no_first_repeat", "Toccata_repeat", "9-2_no_trio": the same piece.
_REPEATS = re.compile(r"(_no(_[a-z\d]+)?)?_repeat$|_no_trio$")


@dataclass(frozen=True)
class Source:
    """One MIDI file of a performance."""

    name: str
    """composer/collection/piece/performance.mid; the collection may be missing."""
    composer: str
    """The first folder."""
    work: str
    """What is held out as a whole: composer and piece, movements of one sonata together."""
    piece: str
    """The movement or number, without what is said of its repeats."""
    data: bytes
    """The file."""


def find_performances(path: Path) -> list[Source]:
    """The MIDI files of a folder or a tar archive, sorted by name; of files with the same bytes the first.

    Raises:
        RequestError: there is no such archive or folder, it cannot be read, or it holds no performance.
    """
    if path.is_dir():
        files = {
            file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if _is_midi(file.name)
        }
    elif path.is_file():
        files = _unpack(path)
    else:
        raise RequestError(f"--midi {path}: there is no such archive or folder")
    sources, seen = [], set()
    for name in sorted(files):
        parts = PurePosixPath(name).parts
        if len(parts) >= 3 and files[name] not in seen:
            seen.add(files[name])
            piece = piece_of(parts[:-1])
            sources.append(Source(name, parts[0], work_of(piece), piece, files[name]))
    if not sources:
        raise RequestError(f"--midi {path}: no composer/collection/piece/performance.mid there")
    return sources


def _unpack(path: Path) -> dict[str, bytes]:
    files = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and _is_midi(member.name):
                    files[str(PurePosixPath(member.name))] = archive.extractfile(member).read()
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise RequestError(f"--midi {path}: not a tar archive that can be read ({error})") from error
    return files


def _is_midi(name: str) -> bool:
    return name.lower().endswith(_SUFFIXES)


def piece_of(folders: tuple[str, ...]) -> str:
    """The piece that lies in ``folders`` (composer, collection, piece), whatever is repeated or left out in it."""
    return "/".join([*folders[:-1], _REPEATS.sub("", folders[-1])])


def work_of(piece: str) -> str:
    """The work that a piece belongs to.

    Movements of a sonata are one work ("Piano_Sonatas/17-2": number 17; "Sonata_2/3rd": the collection), and so are a
    prelude and fugue of one catalogue number ("Prelude/bwv_846"). Numbers of a cycle are works of their own.
    """
    composer, *collection, name = piece.split("/")
    movement = re.fullmatch(r"(\d+)-\d+(_\d+)*", name)
    if movement:
        return "/".join([composer, *collection, movement[1]])
    if re.fullmatch(r"\d+(st|nd|rd|th)", name) and collection:
        return "/".join([composer, *collection])
    if re.fullmatch(r"bwv_\d+", name):
        return f"{composer}/{name}"
    return piece
