import os
import socket
import struct

import numpy as np
import pytest
from audio_samples import sound, write_audio
from reading_files import FORMATS, RATE, cut, encode, put_ffmpeg_on_path, reason_for

from wgpt_jax.prepare.items import SourceError
from wgpt_jax.prepare.reading.decode import decode_audio
from wgpt_jax.prepare.reading.files import open_sound
from wgpt_jax.prepare.reading.sound import BLOCK_SAMPLES


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch):
    put_ffmpeg_on_path(tmp_path / "bin", monkeypatch)


def make_bad(folder, kind):
    """One malformed file, and what must be said about it."""
    good, path = sound(2.0), folder / "x.wav"
    if kind == "zero bytes":
        path.touch()
        return path, "file is empty"
    if kind.startswith("text as"):
        path = folder / f"x.{kind.split()[-1]}"
        path.write_text("no audio here\n" * 100)
        return path, "not recognised"
    if kind == "zeros":
        path.write_bytes(bytes(100_000))
        return path, "not recognised"
    if kind == "no samples":
        return write_audio(path, good[:0], RATE), "no samples"
    if kind == "nan":
        good[30_000] = np.nan
        return write_audio(path, good, RATE, subtype="FLOAT"), "non-finite samples .* at 1.25 seconds"
    if kind == "infinity":
        good[-1] = -np.inf
        return write_audio(path, good, RATE, subtype="FLOAT"), "non-finite"
    if kind == "integers as floats":
        return write_audio(path, good * 32768, RATE, subtype="FLOAT"), "full scale is 1"
    if kind == "absurd rate":
        return write_audio(path, good, 2_000_000), "sample rate of 2000000 Hz"
    if kind.startswith("truncated"):
        suffix = kind.split()[1]
        path = cut(write_audio(folder / f"x.{suffix}", good, RATE, **FORMATS[suffix]))
        return path, "lost sync|truncated" if suffix == "flac" else "truncated"
    if kind in ("damaged flac", "damaged ogg", "damaged opus"):
        suffix = kind.split()[1]
        path = write_audio(folder / f"x.{suffix}", good, RATE, **FORMATS[suffix])
        data = bytearray(path.read_bytes())
        data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
        path.write_bytes(data)
        return path, "flac|lost sync|truncated" if suffix == "flac" else "damaged: .*Ogg page"
    if kind == "ogg without a page":
        path = write_audio(folder / "x.ogg", sound(9.0), RATE, **FORMATS["ogg"])
        first, _, *rest = path.read_bytes().split(b"OggS")[1:]
        path.write_bytes(b"".join(b"OggS" + page for page in (first, *rest)))
        return path, "a page|Ogg page is missing"
    if kind == "header only":
        path.write_bytes(write_audio(folder / "y.wav", good, RATE).read_bytes()[:20])
        return path, "fmt"
    if kind == "folder":
        path.mkdir()
        return path, "a folder, not a file"
    if kind == "pipe":
        os.mkfifo(path)
        return path, "a named pipe, not a file"
    if kind == "device":
        path.symlink_to("/dev/zero")
        return path, "a device, not a file"
    if kind == "broken link":
        path.symlink_to(folder / "gone")
        return path, "a link to nothing"
    if kind == "link to itself":
        path.symlink_to(path)
        return path, "link"
    if kind == "name":
        return write_audio(path, good, RATE).rename(folder / "\udcff.wav"), "UTF-8"
    if kind == "nul in the name":
        return folder / "a\0.wav", "NUL"
    if kind == "long name":
        return folder / ("a" * 300 + ".wav"), "name too long"
    return folder / "gone.wav", "no such file"


@pytest.mark.parametrize(
    "kind",
    [
        *("zero bytes", "text as wav", "text as mp3", "text as flac", "text as ogg", "text as au", "zeros", "nan"),
        *("no samples", "infinity", "integers as floats", "absurd rate"),
        *(f"truncated {suffix}" for suffix in FORMATS),
        *("damaged flac", "damaged ogg", "damaged opus", "ogg without a page", "header only", "folder", "pipe"),
        *("device", "broken link", "link to itself", "name", "nul in the name", "long name", "missing"),
    ],
)
def test_a_malformed_file_has_its_reason(kind, tmp_path, capfd):
    path, reason = make_bad(tmp_path, kind)
    with pytest.raises(SourceError, match=reason):
        decode_audio(path, RATE)
    reason_for(path)
    assert capfd.readouterr() == ("", ""), "libraries must not write to the terminal"


def test_a_socket_is_not_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the address of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("x.wav")
        assert reason_for(tmp_path / "x.wav") == "a socket, not a file"


def test_a_file_that_may_not_be_read_has_its_reason(tmp_path):
    path = write_audio(tmp_path / "x.wav", sound(0.1), RATE)
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # the superuser may read everything
    try:
        assert reason_for(path) == "permission denied"
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("change", ["grows", "is cut", "is touched", "vanishes"])
@pytest.mark.parametrize("suffix", ["wav", "m4a"])
def test_a_file_that_changes_while_it_is_read_is_not_used(change, suffix, ffmpeg, tmp_path):
    path = write_audio(tmp_path / "x.wav", sound(30.0), RATE)
    path = encode(path, tmp_path / "x.m4a") if suffix == "m4a" else path
    with open_sound(path) as opened, pytest.raises(SourceError, match=r"while it was read|truncated"):
        next(opened.blocks)
        if change == "grows":
            path.write_bytes(path.read_bytes() + bytes(1000))
        elif change == "is cut":
            os.truncate(path, 500_000)
        elif change == "is touched":
            os.utime(path, ns=(0, 0))
        else:
            path.unlink()
        list(opened.blocks)


def test_an_error_of_the_reader_of_blocks_is_not_taken_for_the_file(tmp_path):
    path = write_audio(tmp_path / "x.wav", sound(1.0), RATE)
    with pytest.raises(OSError, match="No space left"), open_sound(path) as opened:
        next(opened.blocks)
        raise OSError(28, "No space left on device")


def test_a_header_that_claims_much_takes_no_memory(tmp_path):
    path = write_audio(tmp_path / "x.wav", sound(3.0), RATE)
    data = bytearray(path.read_bytes())
    channels = 1000
    data[22:36] = struct.pack("<HIIHH", channels, RATE, 2 * channels * RATE, 2 * channels, 16)[:14]
    path.write_bytes(data)
    with open_sound(path) as opened:
        assert opened.channels == channels
        blocks = list(opened.blocks)
    assert len(blocks) > 0 and max(block.size for block in blocks) <= BLOCK_SAMPLES
    assert sum(map(len, blocks)) == 3 * RATE // channels
