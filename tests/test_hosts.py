"""Several processes on one machine: they train as one, stop as one, end as one, and say who was late."""

import dataclasses
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from synthetic import markov_dataset

from wgpt_jax.errors import RequestError
from wgpt_jax.parallel.hosts import own_rows
from wgpt_jax.parallel.hub import End, Hub
from wgpt_jax.parallel.line import Line
from wgpt_jax.parallel.place import HostFlags, Place, find_place

CONFIG = """
import sys
sys.path.insert(0, {tests!r})
from synthetic import tiny_config
from wgpt_jax.config import MeshConfig
config = tiny_config(
    training={{"steps": 20, "eval_every": 10}}, checkpoint={{"every": 1000}}, mesh=MeshConfig(data=2, fsdp=2, tensor=2)
)
"""
PATIENCE = 900  # seconds until a test gives up; on a machine of its own nothing here takes a tenth of that
XLA = "--xla_backend_optimization_level=0 --xla_force_host_platform_device_count="
"""Flags of XLA: most of the time here would go into compiling."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


class Ended(NamedTuple):
    """What one process left behind."""

    code: int
    out: str
    err: str


class Processes:
    """``wgpt`` as ``count`` processes with four virtual devices each; only those in ``started`` are."""

    def __init__(self, folder: Path, *argv, count=2, started=(0, 1), timeout=300, extra=((), ())):
        self.folder = folder
        folder.mkdir(parents=True)
        env = {**os.environ, "XLA_FLAGS": XLA + "4"}
        flags = ["--coordinator", f"localhost:{free_port()}", "--num-processes", str(count), "--timeout", str(timeout)]
        self.running = {}
        for i in started:
            line = [sys.executable, "-m", "wgpt_jax.cli", *map(str, argv), *flags, "--process-id", str(i), *extra[i]]
            with open(folder / f"{i}.out", "w") as out, open(folder / f"{i}.err", "w") as err:
                self.running[i] = subprocess.Popen(line, stdout=out, stderr=err, env=env)

    def after(self, lines: int, metrics: Path) -> None:
        """Waits until the run has logged ``lines`` more training steps than before."""
        before, deadline = losses(metrics), time.monotonic() + PATIENCE
        while len(losses(metrics)) < len(before) + lines:
            assert time.monotonic() < deadline, "no step in time"
            assert all(process.poll() is None for process in self.running.values()), self.ended()
            time.sleep(0.05)

    def ended(self, within: float = PATIENCE) -> list[Ended]:
        """Waits for the end of all."""
        try:
            codes = [process.wait(within) for process in self.running.values()]
        finally:
            for process in self.running.values():
                process.kill()
        texts = [[(self.folder / f"{i}.{kind}").read_text() for kind in ("out", "err")] for i in self.running]
        return [Ended(code, *text) for code, text in zip(codes, texts, strict=True)]


def losses(metrics: Path) -> dict[int, float]:
    """Training loss of each step."""
    rows = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    return {row["step"]: row["loss"] for row in rows if row["kind"] == "train"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hosts")
    markov_dataset(folder / "data")
    (folder / "config.py").write_text(CONFIG.format(tests=str(Path(__file__).parent)))
    return folder


def train(folder: Path, run: str) -> list:
    return ["train", folder / "config.py", "--data", folder / "data", "--workdir", folder / run]


def evaluate(folder: Path) -> list:
    return ["evaluate", folder / "whole", "--data", folder / "data", "--json"]


@pytest.fixture(scope="module")
def whole(folder) -> list[Ended]:
    """Two processes, from the first step to the last."""
    return Processes(folder / "whole-output", *train(folder, "whole")).ended()


@pytest.fixture(scope="module")
def stopped(folder) -> list[Ended]:
    """Two processes, of which one was asked to stop on the way."""
    processes = Processes(folder / "stopped-output", *train(folder, "parts"))
    processes.after(2, folder / "parts/metrics.jsonl")
    processes.running[1].send_signal(signal.SIGTERM)
    ended = processes.ended()
    shutil.copytree(folder / "parts", folder / "alone")
    return ended


@pytest.fixture(scope="module")
def killed(folder, stopped) -> list[Ended]:
    """Two new processes that go on, of which one is killed."""
    processes = Processes(folder / "killed-output", *train(folder, "parts"))
    processes.after(2, folder / "parts/metrics.jsonl")
    processes.running[1].kill()
    return processes.ended(within=300)


@pytest.fixture(scope="module")
def resumed(folder, killed) -> list[Ended]:
    """Two more new processes, to the last step."""
    return Processes(folder / "resumed-output", *train(folder, "parts")).ended()


ALONE = """
import json, sys
from wgpt_jax.cli import main
sys.exit(max(main(argv) for argv in json.loads(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def alone(folder, whole, stopped) -> dict[str, Any]:
    """One process with eight devices: a run of its own, the rest of the run that two processes began, an evaluation."""
    env = {**os.environ, "XLA_FLAGS": XLA + "8"}
    lines = [[str(word) for word in argv] for argv in (train(folder, "one"), train(folder, "alone"), evaluate(folder))]
    done = subprocess.run([sys.executable, "-c", ALONE, json.dumps(lines)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def step_of(ended: Ended) -> int:
    return int(ended.out.split("stopped and saved at step ")[1].split(";")[0])


def test_two_processes_compute_what_one_computes(folder, whole, alone):
    assert [ended.code for ended in whole] == [0, 0], whole
    ours, reference = losses(folder / "whole/metrics.jsonl"), losses(folder / "one/metrics.jsonl")
    assert list(ours) == list(range(1, 21))
    assert ours == pytest.approx(reference, rel=1e-5)
    validation = [
        [
            json.loads(line)["nll"]
            for line in (folder / run / "metrics.jsonl").read_text().splitlines()
            if '"nll"' in line
        ]
        for run in ("whole", "one")
    ]
    assert len(validation[0]) == 2
    assert validation[0] == pytest.approx(validation[1], rel=1e-5)


def test_only_process_0_prints_and_each_has_a_log(folder, whole):
    assert "2 processes, 4 device(s) each; logs of the others in" in whole[0].err
    assert "Gloo" not in whole[0].out
    assert whole[1][1:] == ("", "")
    assert sorted(path.name for path in (folder / "whole/logs").iterdir()) == ["process-0000.log", "process-0001.log"]


def test_one_asked_to_stop_stops_all_after_the_same_step(folder, stopped, killed):
    assert [ended.code for ended in stopped] == [0, 0], stopped
    step = step_of(stopped[0])
    assert 0 < step < 20
    assert f"stopped and saved at step {step};" in (folder / "alone/logs/process-0001.log").read_text()
    assert f"resuming at step {step} of 20" in killed[0].out


def test_a_killed_process_ends_the_other_with_a_sentence(folder, stopped, killed):
    other, victim = killed
    assert victim.code == -signal.SIGKILL
    assert other.code == 1
    assert "Traceback" not in other.err
    sentence = other.err.splitlines()[-1]
    assert sentence.startswith("error: process 1 of 2 went away: it was killed, it crashed or its machine is lost")
    assert f"checkpoints up to step {step_of(stopped[0])} are kept" in sentence


def test_new_processes_go_on_bit_for_bit(folder, whole, resumed):
    assert [ended.code for ended in resumed] == [0, 0], resumed
    assert losses(folder / "parts/metrics.jsonl") == losses(folder / "whole/metrics.jsonl")


def test_one_process_goes_on_where_two_stopped(folder, whole, alone):
    assert losses(folder / "alone/metrics.jsonl") == pytest.approx(losses(folder / "whole/metrics.jsonl"), rel=1e-5)


def test_two_processes_evaluate_as_one(folder, whole, alone):
    two = Processes(folder / "evaluate-output", *evaluate(folder)).ended()
    assert [ended.code for ended in two] == [0, 0], two
    assert two[1].out == ""
    summary = json.loads(two[0].out)
    assert summary["nll"] == pytest.approx(alone["nll"], rel=1e-5)
    assert summary["frames"] == alone["frames"]


def test_a_process_that_never_comes_is_named(folder):
    """Process 0 knows which is missing; any other knows only that process 0 is."""
    waiting = [
        Processes(folder / f"never-output-{i}", *train(folder, f"never-{i}"), started=(i,), timeout=2) for i in (0, 1)
    ]
    zero, one = (processes.ended()[0] for processes in waiting)
    assert (zero.code, one.code) == (1, 1)
    assert "error: process 1 of 2 did not connect within 2 s (--timeout); nothing was saved yet" in zero.err
    assert "process 1: error: process 0 of 2 did not answer at localhost:" in one.err
    assert "Traceback" not in zero.err + one.err


def test_processes_with_other_configurations_are_refused(folder):
    extra = ((), ("--optimizer.clip", "0.5"))
    both = Processes(folder / "differ-output", *train(folder, "differ"), extra=extra).ended()
    assert [ended.code for ended in both] == [2, 2], both
    for ended in both:
        assert "optimizer.clip is 0.5 on process 1 but 1.0 on process 0; start all" in ended.err
    assert not (folder / "differ/run.json").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"process_id": 1}, "give --coordinator and --num-processes too"),
        ({"coordinator": "host:1", "num_processes": 2}, "give --process-id too"),
        ({"coordinator": "host:1", "num_processes": 2, "process_id": 2}, "--process-id 2 must be from 0 to 1"),
        ({"coordinator": "host:1", "num_processes": 2, "process_id": -1}, "--process-id -1 must be from 0 to 1"),
        ({"coordinator": "host:1", "num_processes": 0, "process_id": 0}, "--num-processes 0 must be at least 1"),
        ({"coordinator": "host", "num_processes": 2, "process_id": 0}, "--coordinator host is no HOST:PORT"),
        ({"coordinator": "host:x", "num_processes": 2, "process_id": 0}, "--coordinator host:x is no HOST:PORT"),
        ({"coordinator": "host:99999", "num_processes": 2, "process_id": 0}, "is no HOST:PORT"),
        ({"coordinator": "::1:80", "num_processes": 2, "process_id": 0}, "is no HOST:PORT"),
        ({"timeout": 0}, "--timeout 0 must be at least 1 second"),
    ],
)
def test_mistaken_flags_are_told_in_a_sentence(flags, message):
    with pytest.raises(RequestError, match=message):
        find_place(HostFlags(**flags))


def test_the_place_is_what_the_flags_or_the_cluster_say(monkeypatch):
    def place(**env) -> Place | None:
        with monkeypatch.context() as patch:
            for name in list(os.environ):
                if name.startswith(("SLURM_", "OMPI_", "TPU_", "MEGASCALE_")):
                    patch.delenv(name)
            for name, value in env.items():
                patch.setenv(name, value)
            return find_place(HostFlags())

    assert place() is None
    assert find_place(HostFlags("host:1", 1, 0)) is None
    assert find_place(HostFlags("[::1]:80", 2, 1)).address == ("::1", 80)
    slurm = {
        "SLURM_JOB_ID": "4097", "SLURM_STEP_NODELIST": "node[07-09]", "SLURM_NTASKS": "3", "SLURM_PROCID": "2",
        "SLURM_LOCALID": "0",
    }  # fmt: skip
    assert place(**slurm) == Place("node07:61441", 3, 2, (0,))
    assert place(**slurm, SLURM_STEP_NUM_TASKS="1") is None  # a single task in a job of several
    assert place(SLURM_JOB_ID="4097", SLURM_NTASKS="3", SLURM_PROCID="0") is None  # a batch script
    mpi = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
    assert place(**mpi, OMPI_MCA_orte_hnp_uri="4096.0;tcp://10.0.0.1:999") == Place("10.0.0.1:61441", 2, 1, (1,))
    with pytest.raises(RequestError, match=r"where process 0 is cannot be found .*; give --coordinator"):
        place(**mpi)
    monkeypatch.setattr("jax._src.cloud_tpu_init.running_in_cloud_tpu_vm", True)
    slices = {
        "JAX_PLATFORMS": "tpu", "TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1", "MEGASCALE_NUM_SLICES": "2",
        "MEGASCALE_SLICE_ID": "1", "MEGASCALE_COORDINATOR_ADDRESS": "localhost:8080",
    }  # fmt: skip
    assert place(**slices).count == 4
    assert place(**slices).process == 3
    assert place(JAX_PLATFORMS="tpu", TPU_WORKER_HOSTNAMES="localhost") is None
    assert place(**{**slices, "JAX_PLATFORMS": "cpu"}) is None


@dataclasses.dataclass(frozen=True)
class Device:
    id: int
    process_index: int


class Layout:
    """A sharding that gives each of four devices of two processes its rows."""

    def __init__(self, *rows: slice):
        self.rows = rows

    def devices_indices_map(self, shape):
        return {Device(i, i // 2): (rows,) for i, rows in enumerate(self.rows)}


def test_every_process_feeds_its_own_rows():
    assert own_rows(8, Layout(slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8))) == [0, 1, 2, 3]
    assert own_rows(8, Layout(slice(0, 2), slice(4, 6), slice(2, 4), slice(6, 8))) == [0, 1, 4, 5]
    assert own_rows(8, Layout(slice(4, 8), slice(4, 8), slice(0, 4), slice(0, 4))) == [4, 5, 6, 7]
    for shared in (Layout(*[slice(None)] * 4), Layout(slice(0, 4), slice(4, 8), slice(0, 4), slice(4, 8))):
        with pytest.raises(RequestError, match=r"training\.batch 8 cannot be split over 2 processes"):
            own_rows(8, shared)


def lines(count: int, timeout: int = 1) -> tuple[list[Line], dict[int, End]]:
    """Connected lines, as threads of this process; why each ended is noted."""
    port, ends = free_port(), {}
    Hub(port, count, silence=5, say=print).start()

    def end_of(process: int):
        def on_end(end: End) -> None:
            ends[process] = end
            threading.Event().wait()  # in a process of its own it would not return either

        return on_end

    made = [Line(i, timeout, 5, end_of(i)) for i in range(count)]
    for line in made:
        line.connect(("localhost", port), count, print)
    return made, ends


def wait_for(condition) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_wait_names_every_process_that_is_late():
    made, ends = lines(4)
    for i in (0, 2):
        threading.Thread(target=made[i].meet, args=("the restore",), daemon=True).start()
    wait_for(lambda: len(ends) == 4)
    sentence = "processes 1, 3 of 4 did not reach the restore within 1 s (--timeout)"
    assert {end.sentence for end in ends.values()} == {sentence}


def test_what_takes_too_long_inside_is_named():
    made, ends = lines(2)
    made[1].limit = ("the save of step 5", 0.0)
    wait_for(lambda: len(ends) == 2)
    assert ends[0].sentence == "process 1 did not finish the save of step 5 within 1 s (--timeout)"


def test_the_failure_of_one_reaches_all():
    made, ends = lines(3)
    threading.Thread(target=made[2].fail, args=(End("the shard is damaged", 1, 2),), daemon=True).start()
    wait_for(lambda: len(ends) == 3)
    assert set(ends.values()) == {End("the shard is damaged", 1, 2)}


def test_a_number_is_taken_once_and_all_count_alike():
    port, ends = free_port(), []

    def on_end(end: End) -> None:
        ends.append(end)
        raise SystemExit

    Hub(port, 3, silence=5, say=print).start()
    Line(0, 1, 5, on_end).connect(("localhost", port), 3, print)
    for process, count in ((0, 3), (1, 2)):
        with pytest.raises(SystemExit):
            Line(process, 1, 5, on_end).connect(("localhost", port), count, print)
    assert "two processes were started as process 0" in ends[0].sentence
    assert "process 1 was started as one of 2, process 0 as one of 3" in ends[1].sentence
    assert {end.code for end in ends} == {2}


@pytest.mark.parametrize("seed", range(4))
def test_all_stop_after_the_same_step_whoever_is_ahead(seed):
    """Each may run two steps ahead of the slowest, as collectives allow, and one is asked at a random moment."""
    made, _ = lines(3, timeout=PATIENCE)
    rng = random.Random(seed)
    steps, turn = [0, 0, 0], threading.Condition()
    asked, when = rng.randrange(3), rng.randrange(1, 20)
    pauses = [[rng.random() * 0.01 for _ in range(50)] for _ in range(3)]

    def run(i: int) -> None:
        while not made[i].stops_before(steps[i], asked=i == asked and steps[i] >= when):
            time.sleep(pauses[i][steps[i] % 50])
            with turn:
                steps[i] += 1
                turn.notify_all()
                turn.wait_for(lambda: steps[i] <= min(steps) + 2)

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(set(steps)) == 1
    assert steps[0] >= when
