"""A run that stops and goes on is the run that did not stop: bit for bit on the same devices, in data on any others."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic import markov_dataset

STEPS = 20
GROUPS = {
    # All that is random in a step, and all that a checkpoint can hold; 20 steps are five epochs and a part.
    "model": {
        "dropout": 0.1,
        "mel_dropout": 0.2,
        "mel_dropout_window": 0.1,
        "heads": 8,
        "mel_width": 16,
        "mel_heads": 8,
    },
    "data": {"workers": 1, "mel_mix": {"codec1": 3.0, "original": 1.0}},
    "training": {"steps": STEPS, "eval_every": 5, "spike_sigma": 6.0},
    "optimizer": {"ema": 0.9, "name": "muon", "schedule": "wsd"},
    "checkpoint": {"every": 1000},
}
RUN = """
import hashlib, json, os, signal, sys
sys.path.insert(0, {tests!r})
import numpy as np
from wgpt_jax.training import loop
from wgpt_jax.training.logs import RunLog
from wgpt_jax.cli import main

stop, dump = int(os.environ["STOP"]), os.environ["DUMP"]
to_devices, log_line = loop.to_devices, RunLog.train

def noting(batch, mesh):
    with open(dump, "a") as file:
        rows = [[np.ascontiguousarray(field[row]) for field in batch] for row in range(len(batch.tokens))]
        file.write(json.dumps([hashlib.sha256(b"".join(map(bytes, row))).hexdigest() for row in rows]) + "\\n")
    return to_devices(batch, mesh)

def stopping(log, step, values):
    log_line(log, step, values)
    if step == stop:
        os.kill(os.getpid(), signal.SIGTERM)

loop.to_devices, RunLog.train = noting, stopping
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""
CONFIG = """
import sys
sys.path.insert(0, {tests!r})
from synthetic import tiny_config
config = tiny_config(**{groups!r})
"""


class Runs:
    """Trainings in processes of their own, with any number of devices; a run is stopped after a step, or goes on."""

    def __init__(self, folder: Path):
        self.folder = folder
        markov_dataset(folder / "data", mel_sources=("original", "codec1"))
        tests = str(Path(__file__).parent)
        (folder / "run.py").write_text(RUN.format(tests=tests))
        (folder / "config.py").write_text(CONFIG.format(tests=tests, groups=GROUPS))

    def train(self, run: str, devices: int, *flags: str, stop: int = 0, processes: int = 1) -> None:
        """Trains until a signal that comes with the line of step ``stop``, or the end; ``devices`` per process."""
        xla = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
        line = [sys.executable, self.folder / "run.py", "train", self.folder / "config.py"]
        line += ["--data", self.folder / "data", "--workdir", self.folder / run, *flags]
        if processes > 1:
            with socket.socket() as probe:
                probe.bind(("", 0))
                line += ["--coordinator", f"localhost:{probe.getsockname()[1]}", "--num-processes", str(processes)]
        running = []
        for number in range(processes):
            env = {**os.environ, "XLA_FLAGS": xla, "STOP": str(stop), "DUMP": str(self.folder / f"{run}-{number}")}
            own = ["--process-id", str(number)] if processes > 1 else []
            running.append(subprocess.Popen([*line, *own], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
        for process in running:
            out = process.communicate(timeout=900)[0].decode()
            assert process.returncode == 0, out[-3000:]

    def rows(self, run: str, process: int = 0) -> list[list[str]]:
        """Hashes of the rows of every batch that a process fed."""
        return [json.loads(line) for line in (self.folder / f"{run}-{process}").read_text().splitlines()]

    def lines(self, run: str) -> list[dict]:
        """The log without speeds."""
        rows = [json.loads(line) for line in (self.folder / run / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in row.items() if k == "total_bits_per_second" or "per_second" not in k} for row in rows]

    def last(self, run: str) -> dict:
        """What the last checkpoint says of itself: a digest of every array, the data position."""
        step = max(int(path.name) for path in (self.folder / run / "checkpoints").iterdir() if path.name.isdigit())
        return json.loads((self.folder / run / f"checkpoints/{step}/meta/metadata").read_text())

    def losses(self, run: str) -> list[float]:
        return [row["loss"] for row in self.lines(run) if row["kind"] == "train"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    return Runs(tmp_path_factory.mktemp("resume"))


@pytest.fixture(scope="module")
def on_eight(runs) -> str:
    runs.train("eight", 8, "--mesh.fsdp", "8")
    return "eight"


def assert_same_run(runs: Runs, one: str, other: str) -> None:
    first, second = runs.last(one), runs.last(other)
    assert first["step"] == second["step"] == STEPS
    assert first["data"] == second["data"]
    assert {part.split("'")[1] for part in first["digest"]} == {"params", "ema", "optimizer"}
    assert first["digest"] == second["digest"]
    assert runs.lines(one) == runs.lines(other)


def test_20_steps_are_10_steps_and_10_resumed_bit_for_bit_on_one_device(runs):
    runs.train("one", 1)
    runs.train("one-stopped", 1, stop=10)
    assert runs.last("one-stopped")["step"] == 10
    index = json.loads((runs.folder / "data/index.json").read_text())
    records = sum(shard["records"] for shard in index["shards"] if shard["split"] == "train")
    assert 10 * 8 % records, "in the middle of an epoch"
    runs.train("one-stopped", 1)
    assert_same_run(runs, "one", "one-stopped")
    assert runs.rows("one") == runs.rows("one-stopped")


def test_20_steps_are_10_steps_and_10_resumed_bit_for_bit_on_an_fsdp_mesh(runs, on_eight):
    runs.train("eight-stopped", 8, "--mesh.fsdp", "8", stop=10)
    assert runs.last("eight-stopped")["step"] == 10
    runs.train("eight-stopped", 8, "--mesh.fsdp", "8")
    assert_same_run(runs, on_eight, "eight-stopped")


def test_8_then_2_then_4_devices_see_the_same_batches_and_losses(runs, on_eight):
    runs.train("elastic", 8, "--mesh.fsdp", "8", stop=6)
    runs.train("elastic", 2, "--mesh.fsdp", "2", stop=13)
    runs.train("elastic", 4, "--mesh.data", "2", "--mesh.fsdp", "1", "--mesh.tensor", "2")
    assert runs.rows("elastic") == runs.rows(on_eight)
    assert runs.losses("elastic") == pytest.approx(runs.losses(on_eight), rel=1e-5)
    assert len(runs.losses("elastic")) == STEPS


def test_1_then_2_then_1_processes_see_the_same_batches_and_losses(runs, on_eight):
    runs.train("hosts", 8, stop=6)
    alone = runs.last("hosts")["step"]
    runs.train("hosts", 4, stop=11, processes=2)
    together = runs.last("hosts")["step"] - alone
    runs.train("hosts", 8)
    first, second = runs.rows("hosts"), runs.rows("hosts", process=1)
    # A signal comes at any moment of the other process: it may have read a batch that is not trained on.
    assert 3 < together <= len(second) < STEPS - alone
    whole = [*first[:alone], *(a + b for a, b in zip(first[alone:], second[:together], strict=False))]
    assert whole + first[len(first) - (STEPS - alone - together) :] == runs.rows(on_eight)
    assert runs.losses("hosts") == pytest.approx(runs.losses(on_eight), rel=1e-5)


def test_two_processes_fall_back_together_from_a_checkpoint_that_one_of_them_cannot_read(runs, on_eight):
    fsdp = ("--mesh.data", "1", "--mesh.fsdp", "2")  # of fewer parts, so that they lie in files of their own
    runs.train("fallback", 1, *fsdp, stop=8, processes=2)
    folder = runs.folder / "fallback"
    newest = max(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())
    assert newest > 5
    for part in (folder / f"checkpoints/{newest}/params/ocdbt.process_1/d").iterdir():
        part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    runs.train("fallback", 1, *fsdp, processes=2)
    assert (folder / f"damaged-checkpoints/{newest}").is_dir()
    assert runs.losses("fallback") == pytest.approx(runs.losses(on_eight), rel=1e-5)
