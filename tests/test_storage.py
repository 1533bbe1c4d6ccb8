import errno
import gzip
import io
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from apache_beam.io.filesystem import BeamIOError, FileMetadata
from apache_beam.io.localfilesystem import LocalFileSystem

from wgpt_jax.errors import RequestError
from wgpt_jax.prepare.storage import LocalStorage, local_copy, open_storage


class StrictFileSystem(LocalFileSystem):
    """A folder by URL, as strict as HDFS: no renaming over a file, no listing of a folder that does not exist."""

    @classmethod
    def scheme(cls):
        return "strict"

    def create(self, path, *args, **kwargs):
        return super().create(self._local(path), *args, **kwargs)

    def open(self, path, *args, **kwargs):
        return super().open(self._local(path), *args, **kwargs)

    def exists(self, path):
        return super().exists(self._local(path))

    def metadata(self, path):
        return FileMetadata(path, os.path.getsize(self._local(path)), os.path.getmtime(self._local(path)))

    def rename(self, source_file_names, destination_file_names):
        if any(map(self.exists, destination_file_names)):
            raise BeamIOError("Rename operation failed", BeamIOError("it exists"))
        super().rename([*map(self._local, source_file_names)], [*map(self._local, destination_file_names)])

    def delete(self, paths):
        for path in paths:
            os.remove(self._local(path))

    def _list(self, dir_or_prefix):
        if not os.path.isdir(self._local(dir_or_prefix)):
            raise BeamIOError("List operation failed", {dir_or_prefix: "it does not exist"})
        yield from self._found(self._local(dir_or_prefix))

    def _found(self, folder):
        for parent, _, files in os.walk(folder):
            for file in files:
                yield self.metadata(f"{self.scheme()}:/{parent}/{file}")

    def _local(self, url):
        return url.removeprefix(f"{self.scheme()}:/")


class Lost(Exception):
    """What a client library raises: its own, no OSError."""


class BucketFileSystem(StrictFileSystem):
    """As a bucket is: files replace each other, folders and times are unknown, errors are the client library's."""

    @classmethod
    def scheme(cls):
        return "bucket"

    def has_dirs(self):
        return False

    def exists(self, path):
        return os.path.isfile(self._local(path))

    def open(self, path, *args, **kwargs):
        try:
            return super().open(path, *args, **kwargs)
        except OSError as error:
            raise Lost(str(error)) from error

    def metadata(self, path):
        return FileMetadata(path, os.path.getsize(self._local(path)))

    def rename(self, source_file_names, destination_file_names):
        for source, destination in zip(source_file_names, destination_file_names, strict=True):
            os.replace(self._local(source), self._local(destination))

    def _list(self, dir_or_prefix):
        found = self._found(os.path.dirname(self._local(dir_or_prefix)))
        yield from (file for file in found if file.path.startswith(dir_or_prefix))


@pytest.fixture(params=["local", "beam", "strict", "bucket"])
def storage(request, tmp_path):
    folder = tmp_path / "data" / "set"
    out = str(folder) if request.param in ("local", "beam") else f"{request.param}:/{folder}"
    return open_storage(out, beam=request.param != "local")


@pytest.fixture
def folder(tmp_path):
    """Where the files of ``storage`` lie on this machine."""
    return tmp_path / "data" / "set"


def test_nothing_is_made_before_the_first_file(storage, tmp_path):
    assert storage.read("a") is None
    assert storage.stamp("a") is None
    assert storage.names("") == []
    storage.remove("a")
    storage.clear_scratch()
    with pytest.raises(FileNotFoundError), storage.fetch("a"):
        pass
    assert os.listdir(tmp_path) == []


def test_what_is_written_is_read_again_and_replaced(storage, folder):
    for data in (b"one", b"", bytes(range(256)) * 20_000):
        storage.write("a.json", data)
        assert storage.read("a.json") == (folder / "a.json").read_bytes() == data
        with storage.fetch("a.json") as path:
            assert path.name == "a.json"
            assert path.read_bytes() == data
    assert os.listdir(folder) == ["a.json"]


def test_a_name_does_not_compress(storage, folder):
    storage.write("a.gz", b"plain")
    assert (folder / "a.gz").read_bytes() == storage.read("a.gz") == b"plain"
    storage.write("b.gz", gzip.compress(b"packed"))
    with storage.fetch("b.gz") as path:
        assert gzip.decompress(path.read_bytes()) == b"packed"


def test_a_scratch_file_is_published_as_it_is(storage, folder):
    for data in (b"first", b"second" * 1_000_000):
        with storage.scratch("a.array_record") as path:
            path.write_bytes(data)
            assert storage.read("a.array_record") != data
            storage.publish(path, "a.array_record")
            assert not path.exists()
        assert (folder / "a.array_record").read_bytes() == data
    assert os.listdir(folder) == ["a.array_record"]


def test_a_scratch_file_that_is_not_published_is_gone(storage):
    with pytest.raises(ValueError, match="broken off"), storage.scratch("a") as path:
        path.write_bytes(b"half")
        raise ValueError("broken off")
    assert not path.exists()
    assert storage.names("") == []


def test_scratch_files_of_killed_processes_are_cleared(storage, folder):
    storage.write("a.json", b"kept")
    for name in ("a.json.elsewhere-123.tmp", ".0123-tasks-00.tmp"):
        (folder / name).write_bytes(b"left")
    storage.clear_scratch()
    assert os.listdir(folder) == ["a.json"]


def test_names_are_those_of_the_folder_itself_in_order(storage, folder):
    for name in ("b.json", "a.json", "c.txt", "json", ".hidden.json"):
        storage.write(name, b"")
    (folder / "below").mkdir()
    (folder / "below" / "d.json").touch()
    (folder / "folder.json").mkdir()
    assert storage.names(".json") == [".hidden.json", "a.json", "b.json"]
    assert storage.names("") == [".hidden.json", "a.json", "b.json", "c.txt", "json"]


def test_a_stamp_is_size_and_time_of_change(storage, folder):
    storage.write("a", b"four")
    os.utime(folder / "a", ns=(0, 1_700_000_000_123_456_789))
    size, time_ns = storage.stamp("a")
    assert size == 4
    if storage.root.startswith("bucket"):
        assert time_ns == 0
    else:
        assert time_ns == LocalStorage(str(folder)).stamp("a")[1]
        assert time_ns == pytest.approx(1_700_000_000_123_456_789, abs=300, rel=0)


def test_a_removed_file_is_gone(storage, folder):
    storage.write("a", b"")
    storage.write("b", b"")
    storage.remove("a")
    storage.remove("a")
    assert os.listdir(folder) == ["b"]


def test_it_travels_to_workers(storage):
    storage.write("a", b"here")
    assert pickle.loads(pickle.dumps(storage)).read("a") == b"here"


def test_a_full_disk_is_told_and_changes_nothing(storage, folder):
    storage.write("a", b"before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with storage.scratch("a") as path:
        path.write_bytes(bytes(1 << 20))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
        try:
            with pytest.raises(OSError) as written:
                storage.write("a", bytes(1 << 20))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert written.value.errno == errno.EFBIG
    assert storage.read("a") == b"before"
    assert os.listdir(folder) == ["a"]


def test_a_folder_that_cannot_be_is_an_os_error(tmp_path):
    (tmp_path / "file").touch()
    for beam in (False, True):
        with pytest.raises(OSError, match="Not a directory"):
            open_storage(str(tmp_path / "file" / "out"), beam).write("a", b"")


def test_what_a_client_library_raises_becomes_an_os_error(tmp_path, monkeypatch):
    storage = open_storage(f"bucket:/{tmp_path}", beam=True)
    storage.write("a", b"")
    monkeypatch.setattr(io, "open", lambda *_: (_ for _ in ()).throw(PermissionError("no access")))
    with pytest.raises(OSError, match="Lost: no access"):
        storage.read("a")


@pytest.mark.parametrize("beam", [False, True])
def test_a_writer_killed_at_any_time_leaves_the_old_bytes_or_the_new(tmp_path, beam):
    script = (
        "import sys, itertools\n"
        "from wgpt_jax.prepare.storage import open_storage\n"
        f"storage = open_storage(sys.argv[1], beam={beam})\n"
        "for n in itertools.count():\n"
        "    storage.write('a', bytes([n % 256]) * (1 << 20))\n"
    )
    for pause in (0, 0.013, 0.027):
        (tmp_path / "a").unlink(missing_ok=True)
        writer = subprocess.Popen([sys.executable, "-c", script, tmp_path])
        while not (tmp_path / "a").exists():
            assert writer.poll() is None
            time.sleep(0.01)
        time.sleep(pause)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        data = (tmp_path / "a").read_bytes()
        assert data == data[:1] * (1 << 20)
    open_storage(str(tmp_path), beam).clear_scratch()
    assert os.listdir(tmp_path) == ["a"]


def test_out_on_another_machine_needs_beam():
    with pytest.raises(RequestError, match="--runner beam"):
        open_storage("gs://bucket/out", beam=False)


@pytest.mark.parametrize("beam", [False, True])
def test_out_that_is_a_file_is_refused(tmp_path, beam):
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="is a file; OUT is a folder"):
        open_storage(str(tmp_path / "file"), beam)


def test_out_whose_name_beam_takes_for_a_pattern_is_refused(tmp_path):
    with pytest.raises(RequestError, match="choose another OUT"):
        open_storage(str(tmp_path / "music [2024]"), beam=True)
    open_storage(str(tmp_path / "music [2024]"), beam=False).write("a", b"")


def test_a_scheme_that_cannot_be_reached_is_named():
    with pytest.raises(RequestError, match="carrier-pigeon:// cannot be reached"):
        open_storage("carrier-pigeon://loft/out", beam=True)
    with pytest.raises(RequestError, match=r'pip install "apache-beam\[gcp\]"'):
        open_storage("gs://bucket/out", beam=True)
    with pytest.raises(RequestError, match="hadoop beam extra"), local_copy("hdfs://a/b.wav"):
        pass


def test_a_relative_out_is_the_same_for_workers_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for beam in (False, True):
        storage = open_storage("out", beam)
        monkeypatch.chdir("/")
        storage.write("a", b"")
        monkeypatch.chdir(tmp_path)
        (tmp_path / "out" / "a").unlink()


def test_an_input_of_this_machine_is_read_where_it_is(tmp_path):
    name = os.fsdecode(b"not utf-8 \xff [1].wav")
    (tmp_path / name).write_bytes(b"sound")
    with local_copy(str(tmp_path / name)) as path:
        assert path == tmp_path / name
    with pytest.raises(FileNotFoundError), local_copy(str(tmp_path / "none.wav")):
        pass


def test_an_input_elsewhere_is_read_from_a_copy_that_is_gone_after(tmp_path):
    (tmp_path / "a [1].wav").write_bytes(b"sound")
    with local_copy(f"bucket:/{tmp_path}/a [1].wav") as path:
        assert path.read_bytes() == b"sound"
        assert path.name == "a [1].wav"
        assert path.parent != tmp_path
    assert not Path(path).parent.exists()
    with pytest.raises(FileNotFoundError, match=r"none\.wav"), local_copy(f"bucket:/{tmp_path}/none.wav"):
        pass


def test_beam_that_is_not_installed_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r'--runner beam needs Apache Beam: pip install "wgpt_jax\[beam\]"'):
        open_storage(str(tmp_path), beam=True)
    with pytest.raises(RequestError, match=r"gs://bucket/a\.wav needs Apache Beam"), local_copy("gs://bucket/a.wav"):
        pass
