"""Whatever happens to a preparation, the same command ends at the bytes of one that nothing has happened to."""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from audio_samples import sound, write_audio

from wgpt_jax.data.index import file_sha256, load_index, load_inputs
from wgpt_jax.folder_lock import locked
from wgpt_jax.prepare.main import LOCK_NAME
from wgpt_jax.prepare.shards import ShardMaker

ROOT = Path(__file__).parents[1]
FILES = 14
# The shortest shard is shortened, so that a few files fill several.
COMMAND = """
import sys
from wgpt_jax.prepare import main, plan
plan._SHORTEST = 3.0
{patch}
if __name__ == "__main__":
    sys.exit(main.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def audio(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("audio")
    for i in range(FILES):
        write_audio(root / f"{i:02d}.flac", sound(1.5 + 0.1 * i, 16000, seed=i), 16000)
    (root / "broken.wav").write_bytes(b"RIFF")
    return root


@pytest.fixture(scope="module")
def command(codec_folder, tmp_path_factory):
    """Starts the tool in a process group of its own."""
    folder = tmp_path_factory.mktemp("command")

    def start(audio: Path, out: Path, *flags: str, patch: str = "") -> subprocess.Popen:
        script = folder / f"prepare{abs(hash(patch))}.py"
        script.write_text(COMMAND.format(patch=patch))
        arguments = [str(audio), str(out), "--codec", str(codec_folder), "--workers", "2", *flags]
        return subprocess.Popen(
            [sys.executable, str(script), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            # Where tests run in the background of a script, SIGINT is ignored, and children would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip

    return start


@pytest.fixture(scope="module")
def undisturbed(command, audio, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    process = command(audio, out)
    output = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert len(contents(out)) >= 6
    return out


def contents(out: Path) -> dict[str, str]:
    """Hashes of everything that must not depend on what has happened."""
    names = [*out.glob("*.array_record"), *out.glob("*.npz"), *out.glob("index.json"), *out.glob("plan.json")]
    return {path.name: file_sha256(path) for path in names}


def same_but_for_the_folder(out: Path, other: Path) -> bool:
    ours, theirs = contents(out), contents(other)
    assert load_index(out) == load_index(other) and load_inputs(out) == load_inputs(other)
    for name in ("plan.json",):  # names OUT
        ours.pop(name), theirs.pop(name)
    return ours == theirs


def wait_for(condition, process: subprocess.Popen) -> None:
    while not condition() and process.poll() is None:
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def survivors(pids: list[int], seconds: float = 30) -> dict[int, str]:
    """Processes that have not ended within some seconds, each with its command.

    Not at once: multiprocessing's resource tracker ends when it sees that its parent has.
    """
    deadline = time.monotonic() + seconds
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    commands = {}
    for pid in filter(is_alive, pids):
        with contextlib.suppress(OSError):
            commands[pid] = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return commands


@pytest.mark.parametrize(
    "shards", [pytest.param(0, marks=pytest.mark.slow), 1, pytest.param(3, marks=pytest.mark.slow)]
)
def test_a_run_killed_at_any_time_is_finished_by_the_next_one(shards, command, audio, undisturbed, tmp_path):
    out = tmp_path / "out"
    process = command(audio, out)
    wait_for(lambda: len(list(out.glob("*.array_record"))) >= shards and (out / "inspected.jsonl").exists(), process)
    workers = children(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not survivors(workers), "workers end with their parent"
    assert not (out / "index.json").exists()
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.array_record")}
    process = command(audio, out)
    output = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert same_but_for_the_folder(out, undisturbed)
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before, "what was finished is kept"
    assert not list(out.glob("*.tmp"))


def test_a_killed_worker_costs_its_shard_only_a_second_try(command, audio, undisturbed, tmp_path):
    out = tmp_path / "out"
    process = command(audio, out)
    wait_for(lambda: len(list(out.glob("*.array_record"))) >= 1, process)
    os.kill(children(process.pid)[-1], signal.SIGKILL)
    output = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert same_but_for_the_folder(out, undisturbed)


def test_a_worker_that_always_dies_is_one_sentence_and_loses_nothing(command, audio, undisturbed, tmp_path):
    deadly = (
        "import os\nfrom wgpt_jax.prepare.shards import ShardMaker\nmake = ShardMaker.__call__\n"
        "def die(maker, task):\n    if task.name == 'train-00001':\n        os._exit(9)\n    return make(maker, task)\n"
        "ShardMaker.__call__ = die"
    )
    process = command(audio, tmp_path / "out", patch=deadly)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "shard train-00001 has died 2 times" in error and "same command continues" in error
    assert "Traceback" not in error
    process = command(audio, tmp_path / "out")
    process.communicate(timeout=120)
    assert process.returncode == 0 and same_but_for_the_folder(tmp_path / "out", undisturbed)


def test_ctrl_c_says_how_to_go_on_and_leaves_no_process(command, audio, undisturbed, tmp_path):
    out = tmp_path / "out"
    process = command(audio, out)
    wait_for(lambda: len(list(out.glob("*.array_record"))) >= 1, process)
    workers = children(process.pid)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command continues" in error and "Traceback" not in error
    assert not survivors(workers)
    process = command(audio, out)
    process.communicate(timeout=120)
    assert process.returncode == 0 and same_but_for_the_folder(out, undisturbed)


def test_two_preparations_do_not_share_a_folder(run, audio, tmp_path, capsys):
    out = tmp_path / "out"
    with locked(out, LOCK_NAME, "data folder", "prepares into"):
        assert run(audio, out) == 2
    assert re.search(rf"process {os.getpid()} on .* prepares into {out}; wait for it", capsys.readouterr().err)
    assert not list(out.glob("*.json"))
    assert run(audio, out) == 0


def test_a_decoder_that_crashes_costs_its_file_only(command, audio, tmp_path):
    crash = (
        "import os\nfrom wgpt_jax.prepare.inspection import Inspector\ninspect = Inspector.inspect\n"
        "def crash(inspector, item):\n    if item.name == '03.flac':\n        os.kill(os.getpid(), 11)\n"
        "    return inspect(inspector, item)\nInspector.inspect = crash"
    )
    process = command(audio, tmp_path / "out", patch=crash)
    output = process.communicate(timeout=120)
    assert process.returncode == 0, output
    failed = {row["path"]: row["reason"] for row in load_index(tmp_path / "out").failed}
    assert failed.keys() == {"03.flac", "broken.wav"}
    assert "its decoder failed" in failed["03.flac"] and "SIGSEGV" in failed["03.flac"]


@pytest.mark.parametrize("what", ["vanishes", "grows", "shrinks", "becomes noise"])
def test_a_file_that_changes_during_the_run_fails_alone_and_is_tried_again(what, run, audio, tmp_path, monkeypatch):
    root = shutil.copytree(audio, tmp_path / "audio")
    victim, content = root / "05.flac", (root / "05.flac").read_bytes()
    real = ShardMaker.__call__

    def changing(maker, task):
        if any(entry.item.name == victim.name for entry in task.inputs):
            if what == "vanishes":
                victim.unlink()
            else:
                other = {"grows": content + content, "shrinks": content[:-500], "becomes noise": b"x" * len(content)}
                victim.write_bytes(other[what])
        return real(maker, task)

    monkeypatch.setattr(ShardMaker, "__call__", changing)
    assert run(root, tmp_path / "out") == 0
    failed = {row["path"]: row["reason"] for row in load_index(tmp_path / "out").failed}
    assert "changed or went away" in failed[victim.name]
    monkeypatch.undo()
    before = contents(tmp_path / "out")
    victim.write_bytes(content)
    assert run(root, tmp_path / "out") == 0
    assert victim.name in {row["path"] for row in load_inputs(tmp_path / "out") if row["fate"] == "used"}
    after = contents(tmp_path / "out")
    assert all(after[name] == digest for name, digest in before.items() if name.endswith(".array_record"))


@pytest.fixture
def run(codec_folder, monkeypatch):
    """Runs the tool in this process; returns its exit code."""
    from wgpt_jax.prepare import main, plan

    monkeypatch.setattr(plan, "_SHORTEST", 3.0)
    return lambda audio, out, *flags: main.main(
        [str(audio), str(out), "--codec", str(codec_folder), "--workers", "1", *flags]
    )


def test_a_full_disk_is_one_sentence_and_space_is_all_it_takes(run, audio, undisturbed, tmp_path, capsys):
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "none", mount], capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        assert run(audio, mount / "out") == 1
        error = capsys.readouterr().err
        assert "No space left on device" in error and "Traceback" not in error
        subprocess.run(["mount", "-o", "remount,size=50m", mount], check=True)
        assert run(audio, mount / "out") == 0
        assert same_but_for_the_folder(mount / "out", undisturbed)
    finally:
        subprocess.run(["umount", mount], check=True)


@pytest.mark.slow
def test_random_kills_of_runs_and_workers_change_nothing(command, audio, undisturbed, tmp_path):
    rng = random.Random(0)
    for trial in range(12):
        out = tmp_path / f"{trial}"
        for _ in range(50):
            process = command(audio, out)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=rng.uniform(0.5, 9.0))
            if process.returncode is not None:
                break
            victims = children(process.pid) if rng.random() < 0.4 else []
            os.kill(rng.choice(victims) if victims else process.pid, signal.SIGKILL)
            if victims:
                process.communicate(timeout=120)
                break
            process.communicate()
        if process.returncode != 0:
            process = command(audio, out)
            process.communicate(timeout=120)
        assert process.returncode == 0 and same_but_for_the_folder(out, undisturbed)
