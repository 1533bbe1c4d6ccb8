import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.prepare.engines import beam, local
from wgpt_jax.prepare.storage import open_storage

PROCESSES = ("--direct_running_mode", "multi_processing", "--direct_num_workers", "2")
AGES = 600  # seconds; whatever takes them is to be ended


def square(number: int) -> int:
    return number * number


def refuse_two(number: int) -> int:
    if number == 2:
        raise RequestError("two is refused")
    return number


def inverse(number: int) -> float:
    return 1 / number


def die_of(how: str) -> str:
    if how.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, how))
    elif how == "exit":
        os._exit(3)
    elif how == "sys.exit":
        sys.exit(4)
    elif how == "ages":
        time.sleep(AGES)
    return how


def die_unseen(_: int) -> None:
    os._exit(5)


def pid_of(_: int) -> int:
    return os.getpid()


def announce_and_sleep(folder: str) -> None:
    Path(folder, f"{os.getpid()}.pid").touch()
    time.sleep(AGES)


def announce_and_answer_at_length(folder: str | None) -> bytes:
    if folder is None:
        return b""
    wait_until(Path(folder, "go").exists)
    Path(folder, f"{os.getpid()}.pid").touch()
    return bytes(1 << 24)


class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__(one)


def raise_unpicklable(number: int) -> None:
    raise Unpicklable("what it says", number)


def set_mark(value: str) -> None:
    os.environ["WGPT_TEST_MARK"] = value


def mark(_: int) -> str | None:
    return os.environ.get("WGPT_TEST_MARK")


def fail_to_begin() -> None:
    raise RequestError("no such device")


def announced(folder: Path, count: int) -> list[int]:
    files: list[Path] = []

    def all_there() -> bool:
        files[:] = folder.glob("*.pid")
        return len(files) == count

    wait_until(all_there)
    return [int(file.stem) for file in files]


def wait_until(true: Callable[[], bool]) -> None:
    patience = time.monotonic() + 120
    while not true():
        assert time.monotonic() < patience, "it does not happen"
        time.sleep(0.05)


def gone(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return state.strip()[:1] in ("", "Z")


@pytest.fixture(params=["here", "processes", "beam"])
def run(request, tmp_path):
    """An engine: (work, tasks) -> outcomes."""
    if request.param == "beam":
        return lambda work, tasks: beam.run_tasks(work, tasks, open_storage(str(tmp_path / "out"), beam=True), [])
    return lambda work, tasks: local.run_tasks(work, tasks, {"here": 1, "processes": 2}[request.param])


def test_every_task_is_done_once(run):
    outcomes = list(run(square, range(100)))
    assert sorted((outcome.task, outcome.result) for outcome in outcomes) == [(n, n * n) for n in range(100)]
    assert all(outcome.died is None for outcome in outcomes)


def test_nothing_to_do_is_done(run):
    assert list(run(square, [])) == []


def test_an_explained_failure_passes_through_as_it_was_raised(run):
    with pytest.raises(RequestError) as caught:
        list(run(refuse_two, range(4)))
    assert str(caught.value) == "two is refused"


def test_any_other_failure_is_raised_as_it_is_on_this_machine():
    for workers in (1, 2):
        with pytest.raises(ZeroDivisionError, match="division by zero"):
            list(local.run_tasks(inverse, [1, 0, 2], workers))


def test_an_error_that_cannot_travel_arrives_as_its_text():
    with pytest.raises(RuntimeError, match="Unpicklable: what it says"):
        list(local.run_tasks(raise_unpicklable, [1, 2], 2))


def test_a_process_that_dies_takes_its_own_task_alone():
    ways = ["SIGKILL", "SIGSEGV", "exit", "sys.exit", "ages"]
    outcomes = list(local.run_tasks(die_of, [*ways, *"abcdefgh"], 2, timeout=1))
    assert {o.task: o.died for o in outcomes if o.died} == {
        "SIGKILL": "killed by SIGKILL",
        "SIGSEGV": "killed by SIGSEGV",
        "exit": "exit code 3",
        "sys.exit": "exit code 4",
        "ages": "took longer than 1 s",
    }
    assert sorted(o.result for o in outcomes if o.died is None) == list("abcdefgh")


def test_one_task_may_be_isolated_too():
    [outcome] = local.run_tasks(die_of, ["SIGKILL"], 1, isolate=True)
    assert outcome.died == "killed by SIGKILL"
    [outcome] = local.run_tasks(pid_of, [0], 1, isolate=True)
    assert outcome.result != os.getpid()


def test_a_process_killed_while_it_has_nothing_to_do_costs_no_task():
    before = set(multiprocessing.active_children())
    outcomes = local.run_tasks(pid_of, range(20), 2)
    pids = set()
    for outcome in outcomes:
        assert outcome.died is None
        if not pids:
            time.sleep(1)  # both have answered, one its second task, and wait
            for child in set(multiprocessing.active_children()) - before:
                child.kill()
        pids.add(outcome.result)
    assert len(pids) > 2


def test_a_process_killed_while_it_answers_holds_nobody_up(tmp_path):
    outcomes = local.run_tasks(announce_and_answer_at_length, [str(tmp_path), None, None, None], 2)
    first = next(outcomes)
    (tmp_path / "go").touch()
    [pid] = announced(tmp_path, 1)
    time.sleep(0.5)  # nobody reads: the answer fills its pipe and waits
    os.kill(pid, signal.SIGKILL)
    outcomes = [first, *outcomes]
    assert [o.died for o in outcomes if o.task is not None] == ["killed by SIGKILL"]
    assert [o.result for o in outcomes if o.task is None] == [b"", b"", b""]


def test_the_initializer_runs_in_every_process(monkeypatch):
    monkeypatch.setenv("WGPT_TEST_MARK", "before")
    for workers in (2, 1):
        outcomes = local.run_tasks(mark, range(4), workers, initializer=set_mark, initargs=("set",))
        assert [outcome.result for outcome in outcomes] == ["set"] * 4


def test_an_initializer_that_fails_is_raised():
    with pytest.raises(RequestError, match="no such device"):
        list(local.run_tasks(square, range(4), 2, initializer=fail_to_begin))


def test_processes_that_die_before_they_begin_end_the_run():
    with pytest.raises(WorkError, match="exit code 5"):
        list(local.run_tasks(square, range(1000), 2, initializer=die_unseen, initargs=(0,)))


def test_no_process_outlives_an_abandoned_run():
    before = set(multiprocessing.active_children())  # other tests' data workers may still be on their way out
    outcomes = local.run_tasks(square, range(50), 2)
    next(outcomes)
    assert set(multiprocessing.active_children()) - before
    outcomes.close()
    assert not set(multiprocessing.active_children()) - before


@pytest.fixture(params=["at work", "importing"])
def sleeping_run(request, tmp_path):
    """A process with two processes that take ages, be it for their tasks or for their imports, and their pids."""
    imports = "if __name__ == '__mp_main__':\n    test_engines.announce_and_sleep(sys.argv[1])\n"
    script = (
        "import sys, test_engines\n"
        f"{imports if request.param == 'importing' else ''}"
        "from wgpt_jax.prepare.engines import local\n"
        "if __name__ == '__main__':\n"
        "    list(local.run_tasks(test_engines.announce_and_sleep, [sys.argv[1]] * 2, 2))\n"
    )
    (tmp_path / "sleeping.py").write_text(script)
    errors = tmp_path / "errors.txt"
    with errors.open("w") as stderr:
        parent = subprocess.Popen(
            [sys.executable, tmp_path / "sleeping.py", tmp_path],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=stderr,
            start_new_session=True,
        )
    yield parent, announced(tmp_path, 2), errors
    parent.kill()
    parent.wait()


@pytest.mark.parametrize("sleeping_run", ["at work"], indirect=True)
def test_processes_end_with_a_parent_that_is_killed(sleeping_run):
    parent, pids, _ = sleeping_run
    parent.kill()
    wait_until(lambda: all(map(gone, pids)))


def test_ctrl_c_ends_all_processes_and_only_the_parent_speaks(sleeping_run):
    parent, pids, errors = sleeping_run
    os.killpg(parent.pid, signal.SIGINT)  # as the terminal does: to all of them
    parent.wait()
    assert parent.returncode == -signal.SIGINT
    assert errors.read_text().count("Traceback") == 1
    wait_until(lambda: all(map(gone, pids)))


def test_beam_works_in_processes_of_this_machine(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    storage = open_storage(str(tmp_path), beam=True)
    outcomes = list(beam.run_tasks(pid_of, range(20), storage, PROCESSES))
    assert os.getpid() not in {outcome.result for outcome in outcomes}
    assert [outcome.task for outcome in outcomes] == list(range(20))
    with pytest.raises(WorkError, match="Beam job failed"):
        list(beam.run_tasks(die_of, ["SIGKILL", "a", "b"], storage, PROCESSES))
    assert os.listdir(tmp_path) == []
    assert capfd.readouterr() == ("", "")


def test_beam_says_in_one_sentence_why_work_failed_and_leaves_nothing_behind(tmp_path, capfd):
    storage = open_storage(str(tmp_path), beam=False)
    with pytest.raises(WorkError) as caught:
        list(beam.run_tasks(inverse, [1, 0, 2], storage, []))
    assert str(caught.value) == "the Beam job failed (ZeroDivisionError: division by zero); what is finished is kept"
    assert os.listdir(tmp_path) == []
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def sleeping_beam(request, tmp_path):
    """A process whose Beam pipeline takes ages, and the pids where it works."""
    options = request.param
    script = (
        "import sys, test_engines\n"
        "from wgpt_jax.prepare.engines import beam\n"
        "from wgpt_jax.prepare.storage import open_storage\n"
        "out = open_storage(sys.argv[1], True)\n"
        "list(beam.run_tasks(test_engines.announce_and_sleep, [sys.argv[1]] * 2, out, sys.argv[2:]))\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path, *options],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    yield parent, announced(tmp_path, 2 if options else 1)
    parent.kill()
    parent.wait()


@pytest.mark.parametrize("sleeping_beam", [[], PROCESSES], indirect=True, ids=["here", "processes"])
def test_ctrl_c_stops_beam_and_clears_its_files(sleeping_beam, tmp_path):
    parent, pids = sleeping_beam
    os.killpg(parent.pid, signal.SIGINT)
    parent.wait()
    assert parent.returncode == -signal.SIGINT
    wait_until(lambda: all(map(gone, pids)))
    assert {path.suffix for path in tmp_path.iterdir()} == {".pid"}


@pytest.mark.parametrize("sleeping_beam", [PROCESSES], indirect=True, ids=["processes"])
def test_beams_processes_end_with_a_launcher_that_is_killed(sleeping_beam):
    parent, pids = sleeping_beam
    parent.kill()
    parent.wait()
    wait_until(lambda: all(map(gone, pids)))


def test_the_command_line_of_this_process_is_not_beams(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["prepare", "--runner", "nonsense"])
    [outcome] = beam.run_tasks(math.sqrt, [9], open_storage(str(tmp_path), beam=True), [])
    assert outcome.result == 3


def test_the_direct_runner_starts_no_other(monkeypatch, tmp_path):
    from apache_beam.runners.portability import prism_runner

    def download(*_):
        raise AssertionError("Prism was started")

    monkeypatch.setattr(prism_runner.PrismRunner, "run_pipeline", download)
    for options in ([], ["--runner", "DirectRunner"], ["--runner=direct"]):
        [outcome] = beam.run_tasks(math.sqrt, [9], open_storage(str(tmp_path), beam=True), options)
        assert outcome.result == 3


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--runner", "MarathonRunner"], "MarathonRunner"),
        (["--runner", "no.such.Runner"], "no.such.Runner"),
        (["--direct_num_wokers", "3"], "--direct_num_wokers 3"),
        (["--nonsense=3", "stray"], "--nonsense=3 stray"),
        (["--direct_running_mode", "telepathy"], "telepathy"),
        (["--direct_num_workers", "many"], "many"),
        (["--runner", "DataflowRunner", "--region", "europe-west4"], "project"),
    ],
)
def test_options_that_beam_does_not_take_are_refused_by_name(options, named, capfd):
    with pytest.raises(RequestError, match=named):
        beam.check_options(options)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("runner", ["FlinkRunner", "SparkRunner", "PortableRunner"])
def test_options_for_a_job_server_pass(runner):
    beam.check_options(["--runner", runner, "--only_the_server_knows", "3"])


def test_beam_that_is_not_installed_is_asked_for(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RequestError) as caught:
        beam.check_options([])
    assert str(caught.value) == '--runner beam needs Apache Beam: pip install "wgpt_jax[beam]"'
