"""Find and end a cluster's processes by the mark in their environment, which no killed supervisor takes away."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.paths import COMPONENT_MARK, RUN_MARK, Run

PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    pid: int
    component: str
    command: tuple[str, ...]
    rss_bytes: int


def marked(run: Run) -> list[Process]:
    """Every process started for `run`, shims of containers and short-lived children included."""
    found = []
    mark, component_mark = f"{RUN_MARK}={run.root}".encode(), f"{COMPONENT_MARK}=".encode()
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
            if mark not in variables:
                continue
            command = (entry / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
            pages = int((entry / "statm").read_text().split()[1])
        except OSError:  # it ended while we looked
            continue
        name = next((v.removeprefix(component_mark).decode() for v in variables if v.startswith(component_mark)), "")
        found.append(Process(int(entry.name), name, tuple(command), pages * os.sysconf("SC_PAGE_SIZE")))
    return found


def mains(run: Run, commands: dict[str, list[str]]) -> dict[str, Process]:
    """The main process of each component that runs, by name; `commands` tells it from its children."""
    return {p.component: p for p in marked(run) if list(p.command) == commands.get(p.component)}


def end(pids: Iterable[int], grace: float) -> None:
    """SIGTERM, up to `grace` seconds to end, then SIGKILL. Returns when all are gone."""
    fds = {}
    for pid in set(pids):
        with suppress(ProcessLookupError):
            fds[os.pidfd_open(pid)] = pid
    try:
        for sig, wait in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
            if sig == signal.SIGTERM and not grace:
                continue
            for fd in fds:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(fd, sig)
            _wait(fds, wait)
    finally:
        for fd in fds:
            os.close(fd)


def _wait(fds: dict[int, int], seconds: float) -> None:
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    left, deadline = len(fds), time.monotonic() + seconds
    while left and (rest := deadline - time.monotonic()) > 0:
        for fd, _ in poll.poll(rest * 1000):
            poll.unregister(fd)
            left -= 1


def in_cgroup(directory: Path) -> list[int]:
    """Processes of a cgroup and of all below it."""
    pids: list[int] = []
    # os.walk passes over folders that vanish meanwhile, as those of ending pods do; rglob would raise.
    for file in (Path(folder, "cgroup.procs") for folder, _, _ in os.walk(directory)):
        with suppress(OSError):
            pids += [int(line) for line in file.read_text().split()]
    return pids
