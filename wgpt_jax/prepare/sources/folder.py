"""A folder of audio as a source: every file below it that has an audio suffix."""

import contextlib
import dataclasses
import os
from pathlib import Path

from wgpt_jax.errors import RequestError
from wgpt_jax.prepare.items import DEFAULT_DOMAIN, Item, SourceError
from wgpt_jax.prepare.reading.files import AUDIO_SUFFIXES, open_sound
from wgpt_jax.prepare.reading.sound import Sound
from wgpt_jax.prepare.storage import has_scheme, list_below, local_copy


@dataclasses.dataclass(frozen=True)
class FolderSource:
    """All audio below a folder."""

    root: str
    """The folder; with a scheme (``gs://``) if Beam's file systems are to read it."""
    domains: bool = False
    """Whether the first folder below the root names the domain."""

    def items(self) -> list[Item]:
        """One item per file, sorted by name.

        The speaker is the first folder below the root, or below the domain's folder, the domain being part of the
        speaker's name; a file that lies directly there is a speaker of its own.
        """
        if has_scheme(self.root):
            names = sorted(name for name in list_below(self.root) if _is_audio(name))
        else:
            names = find_audio(Path(self.root))
        return [
            Item(name, name, domain=domain_of(name, self.domains), speaker=speaker_of(name, self.domains))
            for name in names
        ]

    def open(self, item: Item) -> contextlib.AbstractContextManager[Sound]:
        """Opens an item's audio; SourceError if that cannot be."""
        return open_item(self.root, item)

    def describe(self, item: Item) -> Item:
        """The item itself: its name has said everything."""
        return item


def open_folder(root: str, domains: bool) -> FolderSource:
    """A folder as a source.

    Raises:
        RequestError: if there is no such folder.
    """
    if has_scheme(root):
        return FolderSource(root.rstrip("/"), domains)
    if not Path(root).is_dir():
        raise RequestError(f"there is no folder {root}")
    return FolderSource(Path(root).resolve().as_posix(), domains)


def find_audio(root: Path) -> list[str]:
    """Paths below ``root``, with forward slashes, of everything that has an audio suffix, sorted.

    Hidden files and folders are left out; links to folders are followed, each folder once. What cannot be audio is
    listed as well, so that reading says what is wrong with it: folders that cannot be read, folders with an audio
    suffix and no audio in them, links that lead nowhere.
    """
    found, seen, suspects = set(), set(), set()

    def relative(*parts: str) -> str:
        return Path(*parts).relative_to(root).as_posix()

    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=lambda e: found.add(relative(e.filename))):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        suspects.update(relative(folder, name) for name in subfolders if _is_audio(name))
        found.update(relative(folder, name) for name in files if _is_audio(name) and not name.startswith("."))
    suspects -= {parent.as_posix() for name in found for parent in Path(name).parents}
    return sorted(found | suspects)


def _is_audio(name: str) -> bool:
    return name.lower().endswith(AUDIO_SUFFIXES)


@contextlib.contextmanager
def open_item(root: str, item: Item):
    """Opens the file of an item, or the part of it that the item is.

    Args:
        root: what the item's path is relative to.
        item: without a ``record``.

    Yields:
        the :class:`Sound`.

    Raises:
        SourceError: if it cannot be read.
    """
    where = located(root, item.path)
    with contextlib.ExitStack() as stack:
        path = Path(where)
        if has_scheme(where):
            try:
                path = stack.enter_context(local_copy(where))
            except OSError as error:
                raise SourceError(f"cannot be fetched ({error})") from error
        yield stack.enter_context(open_sound(path, item.start, item.end))


def located(root: str, path: str) -> str:
    """A path relative to ``root`` as one to open; absolute ones and those with a scheme stay."""
    return path if has_scheme(path) or os.path.isabs(path) else f"{root}/{path}"


def domain_of(name: str, domains: bool) -> str:
    """Domain of a file: the first folder below the root if ``domains``, else :data:`DEFAULT_DOMAIN`."""
    first, _, rest = name.partition("/")
    return first if domains and rest else DEFAULT_DOMAIN


def speaker_of(name: str, domains: bool) -> str:
    """Speaker of a file, see :meth:`FolderSource.items`."""
    folders = name.split("/")[:-1]
    level = 2 if domains else 1
    return "/".join(folders[:level]) if len(folders) >= level else name
