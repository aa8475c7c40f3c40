"""Who runs below the supervisor, from /proc, and the end of whole trees."""

from __future__ import annotations

import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Process:
    """One line of /proc."""

    pid: int
    parent: int
    state: str
    resident: int
    """Bytes."""
    threads: int
    started: int
    """Clock ticks since boot."""


def processes() -> dict[int, Process]:
    """Everything in this pid namespace. A process that ends while we look is left out."""
    found = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib makes an object a line, ten times a second
        if name.isdigit() and (process := read(int(name))):
            found[process.pid] = process
    return found


def read(pid: int) -> Process | None:
    """One process; None where it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (OSError, UnicodeDecodeError):
        return None
    # The name may hold anything, spaces and brackets too: the last bracket ends it.
    rest = text[text.rfind(")") + 2 :].split()
    return Process(pid, int(rest[1]), rest[0], int(rest[21]) * _PAGE, int(rest[17]), int(rest[19]))


def below(root: int, table: Mapping[int, Process] | None = None) -> list[Process]:
    """The descendants of `root`, without itself."""
    table = processes() if table is None else table
    children: dict[int, list[Process]] = defaultdict(list)
    for process in table.values():
        children[process.parent].append(process)
    found, queue = [], [root]
    while queue:
        for child in children.get(queue.pop(), []):
            found.append(child)
            queue.append(child.pid)
    return found


def ticks() -> int:
    """The clock of `Process.started`."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


def alive(found: Iterable[Process]) -> Iterator[Process]:
    """Without zombies, which hold a pid and nothing else."""
    return (process for process in found if process.state not in {"Z", "X"})


def kill_tree(root: int) -> bool:
    """SIGKILL to `root` and all below it, until a look finds nobody new. False where they multiply faster than we kill.

    `root` goes last: while it lives, as a subreaper, orphans stay below it. A large process that is dying is no reason
    to wait: nobody survives SIGKILL.
    """
    killed: set[int] = set()
    for _ in range(50):
        victims = [process.pid for process in alive(below(root)) if process.pid not in killed]
        killed.update(victims)
        if not victims:
            kill(root)
            return True
        for pid in victims:  # stopped first: what is stopped does not fork
            kill(pid, signal.SIGSTOP)
        for pid in victims:
            kill(pid)
    kill(root)
    return False


def kill_all_others() -> None:
    """SIGKILL to everything in our pid namespace but us: one call, that no fork bomb outruns. Only for its PID 1."""
    if os.getpid() != 1:
        raise RuntimeError("only PID 1 of a container may end everything around it")
    with suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Sends a signal; nothing where it has ended already, or may not be signalled."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
