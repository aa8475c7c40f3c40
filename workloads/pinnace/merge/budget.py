"""Memory in bytes, handed out in the order of asking."""

from __future__ import annotations

import resource
import threading
from collections import deque
from pathlib import Path

from .errors import OutOfBudget


class Budget:
    """A number of bytes that several threads share. First come, first served: big askers are not overtaken for ever."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.most = 0
        self._used = 0
        self._queue: deque[object] = deque()
        self._news = threading.Condition()
        self._closed: BaseException | None = None

    def acquire(self, amount: int) -> None:
        """Waits for that many bytes. Raises `OutOfBudget` if there never can be, or what `close` was told."""
        if amount > self.total:
            raise OutOfBudget(f"{amount} bytes are needed at once, the limit leaves {self.total}")
        ticket = object()
        with self._news:
            self._queue.append(ticket)
            self._news.wait_for(
                lambda: self._closed or (self._queue[0] is ticket and self._used + amount <= self.total)
            )
            self._queue.remove(ticket)
            self._news.notify_all()
            if self._closed:
                raise self._closed
            self._used += amount
            self.most = max(self.most, self._used)

    def release(self, amount: int) -> None:
        """Gives bytes back."""
        with self._news:
            self._used -= amount
            self._news.notify_all()

    def close(self, error: BaseException) -> None:
        """Whoever waits, or asks from now on, gets `error`."""
        with self._news:
            self._closed = error
            self._news.notify_all()


def resident_bytes() -> int:
    """What this process has in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak_bytes() -> int:
    """The most that this process had in memory, by the kernel's account.

    VmHWM, not `ru_maxrss`: that one starts with what the parent had when it forked.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
