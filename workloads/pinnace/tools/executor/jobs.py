"""Commands in the background: each a bash of its own, whose output waits until it is asked for."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from dataclasses import dataclass, field

from pinnace.tools.executor.capture import Capture
from pinnace.tools.executor.frames import Message
from pinnace.tools.executor.processes import kill_tree
from pinnace.tools.executor.spawn import Child

MOST = 16


@dataclass
class Job:
    """One background command."""

    name: str
    command: str
    child: Child
    out: Capture
    err: Capture
    status: int | None = None
    why: str | None = None
    """What ended it, if we did."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def watch(self) -> None:
        """Reads what it writes from now on."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self.child.stdout, self._read, self.child.stdout, self.out)
        loop.add_reader(self.child.stderr, self._read, self.child.stderr, self.err)

    def _read(self, descriptor: int, capture: Capture) -> bool:
        data = b""
        with suppress(OSError):
            try:
                data = os.read(descriptor, 1 << 16)
            except BlockingIOError:
                return False
        if not data:
            asyncio.get_running_loop().remove_reader(descriptor)
            return False
        capture.feed(data)
        self.changed.set()
        return True

    def exited(self, status: int) -> None:
        """It was reaped; what it started in its turn ends with it only at the next reset or `end`."""
        for descriptor, capture in ((self.child.stdout, self.out), (self.child.stderr, self.err)):
            for _ in range(64):
                if not self._read(descriptor, capture):
                    break
        self.status = status
        self.changed.set()

    def end(self, why: str) -> bool:
        """SIGKILL to its tree. False where the tree outgrows the killing."""
        if self.status is not None:
            return True
        self.why = self.why or why
        return kill_tree(self.child.pid)

    def close(self) -> None:
        """Lets go of its pipes."""
        loop = asyncio.get_running_loop()
        for descriptor in (self.child.stdout, self.child.stderr):
            loop.remove_reader(descriptor)
        self.child.close()

    async def output(self, wait: float) -> Message:
        """What it wrote since the last time; waits up to `wait` seconds for something new or its end."""
        if self.status is None and not self.out.total and not self.err.total:
            self.changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self.changed.wait()
        (stdout, out_left), (stderr, err_left) = self.out.take(), self.err.take()
        return {
            "job": self.name,
            "running": self.status is None,
            "exitCode": self.status,
            "why": self.why,
            "stdout": stdout,
            "stderr": stderr,
            "leftOut": out_left + err_left,
        }
