"""Keep the components of a cluster running: `python -m e2e.cluster.supervisor RUN_DIRECTORY`.

It adopts components that already run, so after it was killed `up` starts another and the cluster never notices.
It ends on SIGTERM and leaves them running: stopping them in order is the business of `down`.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from e2e.cluster import components, health, processes
from e2e.cluster.components import Component
from e2e.cluster.paths import OWNER_FILE, Run

TICK = 0.2
FIRST_DELAY, LONGEST_DELAY = 0.2, 10.0
#: Having run this long, a component starts again with the shortest delay.
SETTLED = 60.0
LOG_LIMIT, LOG_KEPT, LOG_CHECK = 32 * 2**20, 4 * 2**20, 10.0


@dataclass
class Child:
    """One component and what became of it."""

    component: Component
    pid: int = 0
    pidfd: int = -1
    started: float = 0.0
    restarts: int = 0
    delay: float = FIRST_DELAY
    not_before: float = 0.0
    last_exit: str = ""


@dataclass
class Record:
    """What `status` reads, by component."""

    pid: int = 0
    restarts: int = 0
    last_exit: str = ""
    waiting_for: list[str] = field(default_factory=list)


class Supervisor:
    def __init__(self, run: Run) -> None:
        self.run = run
        self.children = {c.name: Child(c) for c in components.load(run)}
        self.written = ""
        self.stopping = False

    def loop(self) -> None:
        """Until SIGTERM: start what should run, notice what ended, bound the logs."""
        self._adopt()
        log_check = 0.0
        while not self.stopping:
            blocked = self._start_missing()
            self._record(blocked)
            if time.monotonic() > log_check:
                self._bound_logs()
                log_check = time.monotonic() + LOG_CHECK
            self._wait()

    def _adopt(self) -> None:
        running = processes.mains(self.run, {n: c.component.command for n, c in self.children.items()})
        for name, process in running.items():
            self._watch(self.children[name], process.pid)

    def _watch(self, child: Child, pid: int) -> None:
        try:
            child.pid, child.pidfd, child.started = pid, os.pidfd_open(pid), time.monotonic()
        except ProcessLookupError:
            child.pid = 0

    def _start_missing(self) -> dict[str, list[str]]:
        """Start every component that is due; returns what the others wait for."""
        blocked: dict[str, list[str]] = {}
        healthy: dict[str, bool] = {}
        for name, child in self.children.items():
            if child.pid or time.monotonic() < child.not_before:
                continue
            for need in child.component.after:
                if need not in healthy:
                    healthy[need] = health.problem(self.children[need].component.health, self.run) is None
            missing = [need for need in child.component.after if not healthy[need]]
            if missing:
                blocked[name] = missing
            else:
                self._start(child)
        return blocked

    def _start(self, child: Child) -> None:
        try:
            process = child.component.start(self.run)
        except OSError as error:
            self._ended(child, str(error))
            return
        self._watch(child, process.pid)

    def _wait(self) -> None:
        poll = select.poll()
        by_fd = {child.pidfd: child for child in self.children.values() if child.pid}
        for fd in by_fd:
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(TICK * 1000):
            child = by_fd[fd]
            os.close(fd)
            self._ended(child, _reap(child.pid))

    def _ended(self, child: Child, how: str) -> None:
        now = time.monotonic()
        if now - child.started > SETTLED:
            child.delay = FIRST_DELAY
        print(
            f"{child.component.name} (pid {child.pid}) ended: {how}; starting it again in {child.delay:.1f} s",
            flush=True,
        )
        child.pid, child.pidfd, child.last_exit = 0, -1, how
        child.restarts += 1
        child.not_before, child.delay = now + child.delay, min(LONGEST_DELAY, child.delay * 2)

    def _record(self, blocked: dict[str, list[str]]) -> None:
        records = {
            n: asdict(Record(c.pid, c.restarts, c.last_exit, blocked.get(n, []))) for n, c in self.children.items()
        }
        text = json.dumps({"pid": os.getpid(), "components": records}, indent=1)
        if text != self.written:
            new = self.run.state.with_suffix(".new")
            new.write_text(text)
            new.replace(self.run.state)
            self.written = text

    def _bound_logs(self) -> None:
        for log in self.run.logs.glob("*.log"):
            if log.stat().st_size > LOG_LIMIT:
                # Writers append to the same open file, so it is emptied and not renamed.
                with log.open("rb+") as file:
                    file.seek(-LOG_KEPT, os.SEEK_END)
                    log.with_suffix(".log.old").write_bytes(file.read())
                    file.truncate(0)


def _reap(pid: int) -> str:
    """How a process ended; an adopted one is not our child, so nobody tells us."""
    try:
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:
        return "unknown exit (adopted)"
    code = os.waitstatus_to_exitcode(status)
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit {code}"


def main() -> int:
    run = Run(Path(sys.argv[1]))
    # Held for as long as we live: that is how others know that the cluster is not a leftover.
    lock = os.open(OWNER_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"another supervisor holds {OWNER_FILE}", flush=True)
        return 1
    supervisor = Supervisor(run)

    def stop(*_: object) -> None:
        supervisor.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    supervisor.loop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
