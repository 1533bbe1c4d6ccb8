"""Training never waits on the device between logged steps, and what it reports as speed is the device's.

Under ``jax.transfer_guard("disallow")`` JAX refuses transfers that nobody asked for. On a CPU it lets those to the host
through (device memory is host memory), so that metrics are also replaced by ones that tell when they are read.
"""

import contextlib
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from synthetic import markov_dataset, tiny_config

from wgpt_jax.metrics import read_metrics
from wgpt_jax.parallel.mesh import make_mesh
from wgpt_jax.performance.chips import chip_of
from wgpt_jax.performance.flops import flops_per_step
from wgpt_jax.performance.roofline import mfu_ceiling
from wgpt_jax.training import logs, loop, throughput
from wgpt_jax.training.checkpoint import Checkpoints
from wgpt_jax.training.evaluations import Evaluations
from wgpt_jax.training.state import abstract_model, count_parameters

STEPS, EVERY, SAVE = 11, 3, 5
CHIP = chip_of("TPU v5 lite")


class Told:
    """An array that tells when the host reads it, by whatever way waits for the device."""

    def __init__(self, value: jax.Array, on_read):
        self.value, self.on_read = value, on_read

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        self.on_read()
        return np.asarray(jax.device_get(self.value), dtype)

    def __float__(self) -> float:
        return float(self.__array__())

    def __int__(self) -> int:
        return int(self.__array__())

    def __bool__(self) -> bool:
        return bool(self.__array__())

    __index__ = __int__

    def item(self) -> float:
        return self.__array__().item()

    def block_until_ready(self) -> "Told":
        self.on_read()
        return self


class Device:
    """A pretended device that takes a second per step, in order; the host's own work takes no time."""

    def __init__(self):
        self.now = 0.0
        """The host's clock, seconds."""
        self.dispatched = 0
        self.done: dict[int, float] = {}
        """When each step is done."""
        self.reads: list[tuple[int, int]] = []
        """Step whose metrics were read, and steps dispatched by then; one of a kind."""

    def dispatch(self) -> int:
        self.dispatched += 1
        compilation = 500.0 if self.dispatched == 1 else 0.0
        self.done[self.dispatched] = max(self.now, self.done.get(self.dispatched - 1, 0.0)) + compilation + 1.0
        return self.dispatched

    def read(self, step: int) -> None:
        self.now = max(self.now, self.done[step])
        if (step, self.dispatched) not in self.reads:
            self.reads.append((step, self.dispatched))


@pytest.fixture
def device(monkeypatch) -> Device:
    """Training as it is, on a device that tells when it is waited for; guarded from the second step on.

    Tracing and compiling make constants, which are transfers: the first step is free, and so are evaluations and saves.
    """
    device = Device()
    real_step, real_save, real_evaluate = loop.make_train_step, Checkpoints.save, Evaluations.evaluate
    guard = contextlib.ExitStack()

    def make_train_step(*args):
        step_fn = real_step(*args)

        def step(state, batch):
            state, metrics = step_fn(state._replace(step=getattr(state.step, "value", state.step)), batch)
            number = device.dispatch()
            if number == 1:
                guard.enter_context(jax.transfer_guard("disallow"))

            def told(value):
                return Told(value, lambda: device.read(number))

            return state._replace(step=told(state.step)), {name: told(value) for name, value in metrics.items()}

        return step

    def save(self, state, *args):
        device.now += 100.0
        with jax.transfer_guard("allow"):
            real_save(self, state._replace(step=state.step.value), *args)

    def evaluate(*args):
        device.now += 1000.0
        with jax.transfer_guard("allow"):
            return real_evaluate(*args)

    monkeypatch.setattr(loop, "make_train_step", make_train_step)
    monkeypatch.setattr(Checkpoints, "save", save)
    monkeypatch.setattr(Evaluations, "evaluate", evaluate)
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: device.now))
    with guard:
        yield device


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("markov")
    markov_dataset(folder)
    return folder


def config(every: int = EVERY):
    """Everything that draws or reads on the way is on; validation every second save."""
    return tiny_config(
        model={"dropout": 0.1, "mel_dropout": 0.1, "output_codebooks": 2},
        training={"steps": STEPS, "eval_every": 2 * SAVE},
        checkpoint={"every": SAVE},
        logging={"every": every, "tensorboard": True},
    )


# Logged steps are read when the next one is under way; steps that are saved are read at once, lest a diverged one be.
ALLOWED = [(3, 4), (5, 5), (6, 7), (9, 10), (10, 10), (11, 11)]


def test_the_host_reads_a_logged_step_one_step_late_and_nothing_between(device, data, tmp_path):
    assert loop.train(config(), data, tmp_path / "run") == STEPS
    assert device.dispatched == STEPS
    assert device.reads == ALLOWED
    rows = read_metrics(tmp_path / "run/metrics.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "train"] == [3, 6, 9, 11]


def test_a_loop_that_reads_every_step_would_be_noticed(device, data, tmp_path):
    loop.train(config(every=1), data, tmp_path / "run")
    assert device.reads != ALLOWED and {step for step, _ in device.reads} == set(range(1, STEPS + 1))


def test_the_guard_is_up_while_training(device, data, tmp_path, monkeypatch):
    """The control: an array handed over by the way is refused, in the very place where the loop works."""
    real = logs.RunLog.advance

    def careless(self, step):
        real(self, step)
        jnp.ones(3) + np.ones(3)

    monkeypatch.setattr(logs.RunLog, "advance", careless)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
        loop.train(config(), data, tmp_path / "run")


def test_speed_is_that_of_the_device_whatever_lies_between(device, data, tmp_path, monkeypatch, capsys):
    """A second per step, though steps are dispatched in no time, the first compiles, and saves and evaluations wait."""
    monkeypatch.setattr(throughput, "chip_of", lambda kind: CHIP)
    loop.train(config(), data, tmp_path / "run")
    rows = [row for row in read_metrics(tmp_path / "run/metrics.jsonl") if row["kind"] == "train"]
    assert "frames_per_second" not in rows[0], "no window before the first logged step, which holds the compilation"
    assert [row["step"] for row in rows[1:]] == [6, 9, 11]
    for row in rows[1:]:
        assert row["mfu"] == pytest.approx(flops_per_step(config()) / CHIP.peak_bf16_flops)
        # At most all positions of a step's windows in its second.
        assert 200 < row["frames_per_second"] <= 8 * 32
        assert row["frames_per_second_per_device"] == row["frames_per_second"] / jax.device_count()
    captured = capsys.readouterr()
    parameters = count_parameters(abstract_model(config().model, make_mesh(config().mesh))[1])
    ceiling = mfu_ceiling(config(), CHIP, parameters).mfu
    assert f"ceiling on MFU for these widths on TPU v5e: {100 * ceiling:.0f} % (roofline)" in captured.out
    assert f"MFU 0.0 % (at most {100 * ceiling:.0f} %)" in captured.out, "in the progress"
