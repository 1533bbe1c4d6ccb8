"""Where a prepared data set is written: a folder of this machine, or one that Apache Beam's file systems reach."""

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wgpt_jax.errors import RequestError

SCRATCH = ".tmp"
"""How the names of files end that are not finished."""
_SCHEME = re.compile(r"[a-zA-Z][-a-zA-Z0-9+.]*://")


class Storage(Protocol):
    """A folder that the launcher and its workers write to; it comes to be with the first file.

    It is picklable. Names are of files directly in it. Whatever the file system reports is raised as OSError.
    """

    root: str

    def read(self, name: str) -> bytes | None:
        """The bytes of a file; None if there is none."""

    def write(self, name: str, data: bytes) -> None:
        """Makes a file, or replaces it, in one step: it has the old bytes or the new ones, whenever this is killed."""

    def publish(self, local: Path, name: str) -> None:
        """Makes a finished file from ``scratch`` the file ``name``, in one step; the scratch file is gone after."""

    def stamp(self, name: str) -> tuple[int, int] | None:
        """Size in bytes and time of the last change in ns (0 if the file system has none); None if there is none."""

    def fetch(self, name: str) -> AbstractContextManager[Path]:
        """A local path to read a file from: itself, or a copy that is gone after.

        Raises:
            FileNotFoundError: if there is none.
        """

    def remove(self, name: str) -> None:
        """Deletes a file, if there is one."""

    def names(self, suffix: str) -> list[str]:
        """The files directly in it whose names end with ``suffix``, sorted."""

    def scratch(self, name: str) -> AbstractContextManager[Path]:
        """A local path, of this process alone, for the bytes that are to become ``name``.

        If it is not published, it is gone after.
        """

    def clear_scratch(self) -> None:
        """Removes what killed processes left; only for the one who holds the folder."""


@dataclass(frozen=True)
class LocalStorage:
    """A folder of this machine, or one that it has mounted."""

    root: str

    def read(self, name: str) -> bytes | None:
        """See ``Storage``."""
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """See ``Storage``."""
        with self.scratch(name) as scratch:
            scratch.write_bytes(data)
            self.publish(scratch, name)

    def publish(self, local: Path, name: str) -> None:
        """See ``Storage``."""
        _sync(local)
        os.replace(local, self._path(name))
        with contextlib.suppress(OSError):  # some mounts cannot sync a folder
            _sync(Path(self.root))

    def stamp(self, name: str) -> tuple[int, int] | None:
        """See ``Storage``."""
        try:
            status = self._path(name).stat()
        except FileNotFoundError:
            return None
        return status.st_size, stamp_time(status.st_mtime)

    @contextlib.contextmanager
    def fetch(self, name: str) -> Iterator[Path]:
        """See ``Storage``."""
        path = self._path(name)
        path.stat()
        yield path

    def remove(self, name: str) -> None:
        """See ``Storage``."""
        self._path(name).unlink(missing_ok=True)

    def names(self, suffix: str) -> list[str]:
        """See ``Storage``."""
        try:
            with os.scandir(self.root) as entries:
                return sorted(entry.name for entry in entries if entry.name.endswith(suffix) and entry.is_file())
        except FileNotFoundError:
            return []

    @contextlib.contextmanager
    def scratch(self, name: str) -> Iterator[Path]:
        """See ``Storage``. It is in the folder, so that publishing is a rename."""
        os.makedirs(self.root, exist_ok=True)
        path = self._path(scratch_name(name))
        path.unlink(missing_ok=True)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def clear_scratch(self) -> None:
        """See ``Storage``."""
        for name in self.names(SCRATCH):
            self.remove(name)

    def _path(self, name: str) -> Path:
        return Path(self.root, name)


def open_storage(out: str, beam: bool) -> Storage:
    """The storage for OUT. Nothing is written yet.

    Args:
        out: a folder, or with ``beam`` a place with a scheme as well (``gs://bucket/folder``).
        beam: through Beam's file systems; a folder of this machine too, so that both take the same way.

    Raises:
        RequestError: if OUT is a file, or cannot be reached in this way.
    """
    remote = has_scheme(out)
    if remote and not beam:
        raise RequestError(f"{out} is not on this machine; --runner beam writes there")
    if not remote:
        out = os.path.abspath(out)  # for workers that are elsewhere
        if os.path.lexists(out) and not os.path.isdir(out):
            raise RequestError(f"{out} is a file; OUT is a folder")
    if not beam:
        return LocalStorage(out)
    from wgpt_jax.prepare import storage_beam

    return storage_beam.open_beam(out)


@contextlib.contextmanager
def local_copy(path: str) -> Iterator[Path]:
    """A local path to read an input file from: itself, or a copy that is gone after.

    Raises:
        FileNotFoundError: if there is none.
        OSError: if it cannot be fetched.
        RequestError: if it has a scheme (``gs://``) and what reads that is not installed.
    """
    if has_scheme(path):
        from wgpt_jax.prepare import storage_beam

        with storage_beam.copy_of(path) as copy:
            yield copy
    else:
        os.stat(path)
        yield Path(path)


def list_below(root: str) -> list[str]:
    """Paths of all files below a place with a scheme, relative to it, sorted.

    Raises:
        RequestError: if what reads it is not installed, or it cannot be listed.
    """
    from wgpt_jax.prepare import storage_beam

    return storage_beam.files_below(root)


def has_scheme(path: str) -> bool:
    """Whether a path names its file system: ``gs://bucket/file``."""
    return _SCHEME.match(path) is not None


def scratch_name(name: str) -> str:
    """The name of an unfinished file, which no other process, here or elsewhere, uses at the same time."""
    return f"{name}.{socket.gethostname()}-{os.getpid()}{SCRATCH}"


def stamp_time(seconds: float) -> int:
    """A time of change in ns from seconds; all storages take this way, so that they agree."""
    return int(seconds * 1e9)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
