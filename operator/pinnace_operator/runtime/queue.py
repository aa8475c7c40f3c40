"""The work queue: de-duplicating, one worker a key, delayed adds, exponential back-off per key."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple


class Key(NamedTuple):
    """Names one custom resource. The UID is not part of it: a reconcile reads what lives under the name now."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"


class WorkQueue:
    """Keys that wait for a reconcile.

    A key is in the queue at most once. A key added while a worker has it becomes ready again when that worker is
    done, so no change is lost and two workers never have the same key. All methods belong to one event loop.

    Args:
        base, cap: first and longest back-off after a failure, in seconds; it doubles with each failure in a row.
        clock: monotonic seconds.
    """

    def __init__(self, *, base: float = 0.2, cap: float = 60, clock: Callable[[], float] = time.monotonic) -> None:
        self._base = base
        self._cap = cap
        self._clock = clock
        self._ready: OrderedDict[Key, float] = OrderedDict()  # key -> since when it is ready
        self._active: dict[Key, float] = {}  # key -> since when a worker has it
        self._again: dict[Key, float] = {}  # added while active -> when
        self._due: dict[Key, float] = {}  # delayed adds: the earliest one of a key counts
        self._heap: list[tuple[float, Key]] = []
        self._failures: dict[Key, int] = {}
        self._wake = asyncio.Event()

    def add(self, key: Key) -> None:
        """Make `key` ready now."""
        self._due.pop(key, None)
        if key in self._active:
            self._again.setdefault(key, self._clock())
        elif key not in self._ready:
            self._ready[key] = self._clock()
            self._wake.set()

    def add_after(self, key: Key, delay: float) -> None:
        """Make `key` ready in `delay` seconds, or earlier if something earlier is planned already."""
        if delay <= 0:
            self.add(key)
            return
        due = self._clock() + delay
        if key in self._ready or self._due.get(key, due + 1) <= due:
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, key))
        self._wake.set()

    def retry(self, key: Key, at_least: float = 0) -> float:
        """Plan `key` again after a failure; the delay in seconds grows with each failure in a row.

        `at_least` is what a server asked for (Retry-After).
        """
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = max(at_least, min(self._cap, self._base * 2.0 ** min(failures, 30)))
        self.add_after(key, delay)
        return delay

    def failures(self, key: Key) -> int:
        """Failures in a row."""
        return self._failures.get(key, 0)

    def succeeded(self, key: Key) -> None:
        """Forget the failures of `key`."""
        self._failures.pop(key, None)

    def forget(self, key: Key) -> None:
        """Drop everything known about a key whose resource is gone (an active worker still finishes)."""
        self._failures.pop(key, None)
        self._due.pop(key, None)
        self._ready.pop(key, None)
        self._again.pop(key, None)

    def clear(self) -> None:
        """Drop all keys that no worker has: a new leader starts from a list, not from what it once heard."""
        for pending in (self._ready, self._due, self._again, self._failures):
            pending.clear()
        self._heap.clear()

    def known(self) -> set[Key]:
        """Every key that the queue remembers anything about."""
        return {*self._ready, *self._due, *self._again, *self._failures, *self._active}

    async def get(self) -> Key:
        """The key that has waited longest; the caller must call `done`."""
        while True:
            self._promote()
            if self._ready:
                key, _ = self._ready.popitem(last=False)
                self._active[key] = self._clock()
                return key
            self._wake.clear()
            delay = self._heap[0][0] - self._clock() if self._heap else None
            try:
                await asyncio.wait_for(self._wake.wait(), delay)
            except TimeoutError:
                continue

    def done(self, key: Key) -> None:
        """Give `key` back. Call `retry` or `add_after` before it, when it has to come again."""
        del self._active[key]
        since = self._again.pop(key, None)
        if since is not None:
            self._due.pop(key, None)
            self._ready[key] = since
            self._wake.set()

    def depth(self) -> int:
        """Keys that are ready or being worked on."""
        return len(self._ready) + len(self._active)

    def oldest(self) -> float:
        """For how many seconds the oldest ready or active key has waited; 0 when there is none."""
        started = [*self._active.values()]
        if self._ready:
            started.append(min(self._ready.values()))
        return max(0.0, self._clock() - min(started)) if started else 0.0

    def _promote(self) -> None:
        now = self._clock()
        while self._heap and self._heap[0][0] <= now:
            due, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:  # else an earlier add or forget has overtaken this entry
                self.add(key)
