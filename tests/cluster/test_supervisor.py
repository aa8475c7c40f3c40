"""Components come back when they crash, outlive the supervisor, and cannot fill the disk with logs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.cluster import components, processes, supervisor
from e2e.cluster.components import Component
from e2e.cluster.paths import Run
from e2e.cluster.supervisor import Supervisor

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path)
    run.logs.mkdir()
    yield run
    processes.end([process.pid for process in processes.marked(run)], grace=0)


def supervise(run: Run, *wanted: Component) -> Supervisor:
    run.components.write_text(components.dump(list(wanted)))
    return Supervisor(run)


def turn(which: Supervisor, until: Callable[[], object]) -> None:
    """Run the loop until a condition holds."""
    deadline = time.monotonic() + 30

    def wait() -> None:
        original()
        which.stopping = bool(until()) or time.monotonic() > deadline

    original, which.stopping = which._wait, False
    which._wait = wait  # type: ignore[method-assign] # the loop's only place to look in from outside
    which.loop()
    which._wait = original  # type: ignore[method-assign]
    assert until()


def pid(run: Run, name: str) -> int:
    return int(json.loads(run.state.read_text())["components"][name]["pid"])


def test_a_crashed_component_is_started_again(run: Run) -> None:
    which = supervise(run, Component("sleeper", SLEEP, "unix:/nowhere"))
    turn(which, lambda: pid(run, "sleeper"))
    first = pid(run, "sleeper")
    os.kill(first, signal.SIGKILL)
    turn(which, lambda: pid(run, "sleeper") not in {0, first})
    record = json.loads(run.state.read_text())["components"]["sleeper"]
    assert (record["restarts"], record["last_exit"]) == (1, "signal SIGKILL")


def test_one_that_keeps_failing_is_started_ever_more_rarely(run: Run) -> None:
    which = supervise(run, Component("broken", ["/bin/false"], "unix:/nowhere"))
    child = which.children["broken"]
    turn(which, lambda: child.restarts >= 3)
    assert child.delay == supervisor.FIRST_DELAY * 2**3


def test_a_missing_program_is_not_the_end_of_the_others(run: Run) -> None:
    which = supervise(run, Component("gone", ["/nowhere/gone"], ""), Component("sleeper", SLEEP, ""))
    turn(which, lambda: pid(run, "sleeper") and which.children["gone"].restarts)
    assert "No such file" in which.children["gone"].last_exit


def test_a_component_waits_for_what_it_needs(run: Run) -> None:
    second = Component("second", SLEEP, "unix:/nowhere", after=["first"])
    which = supervise(run, Component("first", SLEEP, f"unix:{run.root}/first.sock"), second)
    turn(which, lambda: pid(run, "first"))
    assert json.loads(run.state.read_text())["components"]["second"]["waiting_for"] == ["first"]
    server = [
        sys.executable,
        "-c",
        f"import socket as s,time; x=s.socket(s.AF_UNIX); x.bind('{run.root}/first.sock'); x.listen(); time.sleep(600)",
    ]
    helper = subprocess.Popen(server)
    try:
        turn(which, lambda: pid(run, "second"))
    finally:
        helper.kill()
        helper.wait()


def test_a_new_supervisor_adopts_what_runs(run: Run) -> None:
    wanted = Component("sleeper", SLEEP, "unix:/nowhere")
    turn(supervise(run, wanted), lambda: pid(run, "sleeper"))
    first = pid(run, "sleeper")
    run.state.unlink()
    again = supervise(run, wanted)
    turn(again, run.state.exists)
    assert pid(run, "sleeper") == first
    os.kill(first, signal.SIGKILL)
    turn(again, lambda: pid(run, "sleeper") not in {0, first})


def test_logs_are_bounded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LOG_LIMIT", 1000)
    monkeypatch.setattr(supervisor, "LOG_KEPT", 100)
    log = run.logs / "sleeper.log"
    log.write_bytes(b"x" * 2000 + b"end")
    turn(supervise(run, Component("sleeper", SLEEP, "")), lambda: log.stat().st_size < 1000)
    assert log.with_suffix(".log.old").read_bytes() == b"x" * 97 + b"end"


def test_processes_of_another_run_are_not_ours(run: Run, tmp_path: Path) -> None:
    turn(supervise(run, Component("sleeper", SLEEP, "")), lambda: pid(run, "sleeper"))
    assert [process.component for process in processes.marked(run)] == ["sleeper"]
    assert processes.marked(Run(tmp_path / "other")) == []
