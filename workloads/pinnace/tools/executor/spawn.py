"""Starts one interpreter: own session, three pipes, a control socket as descriptor 3, and nothing else of ours."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from pinnace.tools.executor import linux

CONTROL = 3
"""Descriptor of the control socket in a child."""


@dataclass
class Child:
    """A started process and our ends of its pipes, none of which block."""

    pid: int
    control: socket.socket
    stdout: int
    stderr: int

    def close(self) -> None:
        """Lets go of the pipes."""
        self.control.close()
        os.close(self.stdout)
        os.close(self.stderr)


def spawn(command: Sequence[str], *, environment: dict[str, str], folder: str) -> Child:
    """Starts `command`. A program that can't be started ends with exit code 127 and says why on stderr."""
    ours, theirs = socket.socketpair()
    out, out_write = os.pipe()
    err, err_write = os.pipe()
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(command, environment, folder, parent=parent, files=[null, out_write, err_write, theirs.fileno()])
    for descriptor in (null, out_write, err_write):
        os.close(descriptor)
    theirs.close()
    ours.setblocking(False)
    os.set_blocking(out, False)
    os.set_blocking(err, False)
    return Child(pid, ours, out, err)


def _become(command: Sequence[str], environment: dict[str, str], folder: str, *, parent: int, files: list[int]) -> None:
    """In the child, from fork to exec. Never returns."""
    try:
        os.setsid()
        linux.die_with_parent()
        if os.getppid() != parent:  # it ended before we asked to die with it
            os._exit(1)
        # Out of the way of 0…3 first: one of them may be a target of another.
        high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 16) for descriptor in files]
        for target, descriptor in enumerate(high):
            os.dup2(descriptor, target, inheritable=True)
        os.closerange(CONTROL + 1, os.sysconf("SC_OPEN_MAX"))
        for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGXFSZ):  # Python ignores two of them
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.chdir(folder)
        os.execve(command[0], [*command], environment)  # noqa: S606 - what a child is forked for
    except BaseException as error:  # noqa: BLE001 - this is a copy of the supervisor: it must end here
        os.write(2, f"{command[0]}: {error}\n".encode())
        os._exit(127)
