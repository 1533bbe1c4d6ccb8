"""Storage through Apache Beam's file systems: ``gs://``, ``s3://``, ``hdfs://``, and folders of this machine."""

import contextlib
import importlib.util
import io
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from wgpt_jax.errors import RequestError
from wgpt_jax.prepare.storage import SCRATCH, has_scheme, scratch_name, stamp_time

if TYPE_CHECKING:
    from apache_beam.io.filesystems import FileSystems

_PATTERN = "*?["
"""Characters that make a pattern of a path, in Beam's file systems; they know no way to quote them."""


@dataclass(frozen=True)
class BeamStorage:
    """A folder that Beam's file systems reach; see ``wgpt_jax.prepare.storage.Storage`` for the methods.

    Where a file system cannot replace a file by renaming (HDFS), the old one is deleted just before.
    """

    root: str

    def read(self, name: str) -> bytes | None:
        """See ``Storage``."""
        with _as_os_error():
            if not _systems().exists(self._path(name)):
                return None
            with _opened(self._path(name)) as file:
                return file.read()

    def write(self, name: str, data: bytes) -> None:
        """See ``Storage``."""
        self._save(io.BytesIO(data), name)

    def publish(self, local: Path, name: str) -> None:
        """See ``Storage``."""
        with local.open("rb") as file:
            self._save(file, name)
        local.unlink()

    def stamp(self, name: str) -> tuple[int, int] | None:
        """See ``Storage``."""
        with _as_os_error():
            [match] = _systems().match([self._path(name)])
        for found in match.metadata_list:
            return found.size_in_bytes, stamp_time(found.last_updated_in_seconds or 0)
        return None

    @contextlib.contextmanager
    def fetch(self, name: str) -> Iterator[Path]:
        """See ``Storage``."""
        with copy_of(self._path(name)) as copy:
            yield copy

    def remove(self, name: str) -> None:
        """See ``Storage``."""
        with _as_os_error():
            if _systems().exists(self._path(name)):
                _systems().delete([self._path(name)])

    def names(self, suffix: str) -> list[str]:
        """See ``Storage``."""
        systems = _systems()
        with _as_os_error():
            if systems.get_filesystem(self.root).has_dirs() and not systems.exists(self.root):
                return []  # HDFS fails to list what does not exist; a bucket has no folders that could
            [match] = systems.match([self._path(f"*{suffix}")])
        paths = (found.path.removeprefix(self._path("")) for found in match.metadata_list)
        return sorted(path for path in paths if "/" not in path)

    @contextlib.contextmanager
    def scratch(self, name: str) -> Iterator[Path]:
        """See ``Storage``. It is in the folder for temporary files of this machine."""
        with tempfile.TemporaryDirectory(prefix="wgpt-") as folder:
            yield Path(folder, name)

    def clear_scratch(self) -> None:
        """See ``Storage``."""
        for name in self.names(SCRATCH):
            self.remove(name)

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _save(self, data: BinaryIO, name: str) -> None:
        path, scratch = self._path(name), self._path(scratch_name(name))
        systems = _systems()
        try:
            with _as_os_error():
                with _created(scratch) as file:
                    shutil.copyfileobj(data, file, 1 << 20)
                try:
                    systems.rename([scratch], [path])
                except OSError:
                    if not systems.exists(path):
                        raise
                    systems.delete([path])
                    systems.rename([scratch], [path])
        except BaseException:
            with contextlib.suppress(OSError):
                self.remove(scratch_name(name))
            raise


def open_beam(out: str) -> BeamStorage:
    """The storage for OUT, a folder or a place with a scheme.

    Raises:
        RequestError: if it has no file system, or a name that Beam takes for a pattern.
    """
    if any(character in out for character in _PATTERN):
        raise RequestError(f"{out} has one of {' '.join(_PATTERN)} in its name, a pattern to Beam; choose another OUT")
    _check_file_system(out)
    return BeamStorage(out.rstrip("/"))


@contextlib.contextmanager
def copy_of(path: str) -> Iterator[Path]:
    """A local copy of a file, under its own name.

    Raises:
        FileNotFoundError: if there is none.
        RequestError: if its scheme is unknown.
    """
    _check_file_system(path)
    with _as_os_error():
        if not _systems().exists(path):
            raise FileNotFoundError(f"there is no {path}")
    with tempfile.TemporaryDirectory(prefix="wgpt-") as folder:
        copy = Path(folder, path.rsplit("/", 1)[-1])
        with _as_os_error(), _opened(path) as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        yield copy


def files_below(root: str) -> list[str]:
    """Paths of all files below a place, relative to it, sorted; RequestError if it cannot be listed."""
    _check_file_system(root)
    try:
        with _as_os_error():
            [match] = _systems().match([f"{root}/**"])
    except OSError as error:
        raise RequestError(f"cannot list {root} ({error})") from error
    return sorted(found.path.removeprefix(f"{root}/") for found in match.metadata_list)


def need_beam(what: str) -> None:
    """Refuses what needs Apache Beam if that is not installed.

    Raises:
        RequestError: naming ``what`` and the remedy.
    """
    if importlib.util.find_spec("apache_beam") is None:
        raise RequestError(f'{what} needs Apache Beam: pip install "wgpt_jax[beam]"')


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps Beam's logs from the terminal; it would also set up logging for all of this process."""
    root, beam = logging.getLogger(), logging.getLogger("apache_beam")
    silence, level = logging.NullHandler(), beam.level
    root.addHandler(silence)
    beam.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        root.removeHandler(silence)
        beam.setLevel(level)


def _systems() -> type["FileSystems"]:
    with quiet():  # the first import warns of what is not installed
        from apache_beam.io.filesystems import FileSystems

    return FileSystems


def _check_file_system(path: str) -> None:
    need_beam(path if has_scheme(path) else "--runner beam")
    try:
        _systems().get_filesystem(path)
    except ValueError as error:
        scheme = path.split("://")[0]
        extra = {"gs": "gcp", "s3": "aws", "azfs": "azure"}.get(scheme)
        remedy = f'pip install "apache-beam[{extra}]"' if extra else "Beam has no file system of that name"
        raise RequestError(f"{path}: {scheme}:// cannot be reached; {remedy}") from error
    except OSError as error:
        raise RequestError(f"{path} cannot be reached: {_cause(error)}") from error


@contextlib.contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    from apache_beam.io.filesystem import CompressionTypes

    # Beam would decompress by the name.
    with contextlib.closing(_systems().open(path, compression_type=CompressionTypes.UNCOMPRESSED)) as file:
        yield file


@contextlib.contextmanager
def _created(path: str) -> Iterator[BinaryIO]:
    from apache_beam.io.filesystem import CompressionTypes

    with contextlib.closing(_systems().create(path, compression_type=CompressionTypes.UNCOMPRESSED)) as file:
        yield file
        file.flush()
        if not has_scheme(path):
            os.fsync(file.fileno())


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """Whatever a file system raises, each its own, becomes an OSError that says the reason."""
    try:
        yield
    except Exception as error:
        cause = _cause(error)
        if cause is error and isinstance(error, OSError):
            raise
        raise (cause if isinstance(cause, OSError) else OSError(f"{type(cause).__name__}: {cause}")) from error


def _cause(error: Exception) -> Exception:
    """What lies below Beam's wrappings: a BeamIOError lists the files with an error each, an IOError holds another."""
    details = getattr(error, "exception_details", None)
    inner = next(iter(details.values()), None) if isinstance(details, dict) else details
    if inner is None and len(error.args) == 1:
        inner = error.args[0]
    return _cause(inner) if isinstance(inner, Exception) else error
