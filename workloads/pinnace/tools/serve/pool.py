"""Keeps children alive and gives each call to the least busy one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pinnace.tools.serve.child import Child
from pinnace.tools.serve.errors import CrashLoop, Deadline, Draining, QueueFull, StartFailed
from pinnace.tools.serve.metrics import Metrics
from pinnace.tools.serve.settings import Launch, Limits

log = logging.getLogger(__name__)
_STOP_GRACE = 2.0


@dataclass
class Slot:
    """A place for one child. `deaths` counts crashes in a row, `trouble` says the last one."""

    number: int
    child: Child | None = None
    deaths: int = 0
    trouble: str = ""
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class Pool:
    """`limits.processes` children of one server. Start it with `start`, end it with `drain` and `stop`."""

    def __init__(self, launch: Launch, limits: Limits, metrics: Metrics) -> None:
        self._launch = launch
        self._limits = limits
        self._metrics = metrics
        self._slots = [Slot(i) for i in range(limits.processes)]
        self._queue: deque[asyncio.Future[None]] = deque()
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.on_tools_changed: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Begins to keep children alive; returns at once."""
        self._tasks = [asyncio.create_task(self._supervise(slot)) for slot in self._slots]
        self._tasks.append(asyncio.create_task(self._watch_memory()))

    def children(self) -> list[Child]:
        """Those that take calls."""
        alive = (slot.child for slot in self._slots if slot.child and not slot.child.ended.is_set())
        return [child for child in alive if not child.draining and not child.suspect]

    def trouble(self) -> str | None:
        """Why no child takes calls, if each one that is started dies; None while there is hope."""
        crashed = [slot for slot in self._slots if slot.deaths >= self._limits.crash_loop]
        if self.children() or len(crashed) < len(self._slots):
            return None
        return f"crash loop, {max(slot.deaths for slot in crashed)} deaths in a row: {crashed[0].trouble}"

    @asynccontextmanager
    async def child(self, *, seconds: float) -> AsyncIterator[Child]:
        """A child for one call, waited for at most so long.

        Raises:
            QueueFull, Deadline, Draining, CrashLoop: As they say.
        """
        child = self._free() if not self._queue else None
        if child is None:
            child = await self._wait(seconds)
        child.in_flight += 1
        child.calls += 1
        self._in_flight += 1
        self._idle.clear()
        self._metrics.in_flight.set(self._in_flight)
        try:
            yield child
        finally:
            child.in_flight -= 1
            self._in_flight -= 1
            self._metrics.in_flight.set(self._in_flight)
            if not self._in_flight:
                self._idle.set()
            if 0 < self._limits.recycle_calls <= child.calls:
                self._retire(child, "calls")
            if child.draining and not child.in_flight:
                self._wake_slot(child)
            self._next_in_queue()

    def _free(self) -> Child | None:
        if self._closed:
            raise Draining(f"{self._launch.name} is about to exit")
        free = [child for child in self.children() if child.in_flight < self._limits.concurrency]
        return min(free, key=lambda child: child.in_flight, default=None)

    async def _wait(self, seconds: float) -> Child:
        end = time.monotonic() + seconds
        if len(self._queue) >= self._limits.queue:
            raise QueueFull(f"{len(self._queue)} calls wait for {self._launch.name} already", retry_after=1.0)
        while True:
            if trouble := self.trouble():
                raise CrashLoop(trouble)
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._queue.append(turn)
            self._metrics.queued.set(len(self._queue))
            try:
                async with asyncio.timeout(end - time.monotonic()):
                    await turn
            except TimeoutError:
                raise Deadline(f"no process of {self._launch.name} was free in {seconds:.3g} seconds") from None
            finally:
                if turn in self._queue:
                    self._queue.remove(turn)
                self._metrics.queued.set(len(self._queue))
            child = self._free()
            if child is not None:
                # There may be room for the next one as well.
                asyncio.get_running_loop().call_soon(self._next_in_queue)
                return child

    def _next_in_queue(self) -> None:
        """Wakes the first that waits if there is a child for it, or if there never will be one."""
        hopeless = self._closed or self.trouble() is not None
        while self._queue and (hopeless or any(c.in_flight < self._limits.concurrency for c in self.children())):
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                if not hopeless:
                    return

    def _retire(self, child: Child, reason: str) -> None:
        """Gives a child no more calls; it goes when it has none."""
        if not child.draining:
            child.draining = True
            child.killed_because = reason
            if not child.in_flight:
                self._wake_slot(child)

    def _wake_slot(self, child: Child) -> None:
        for slot in self._slots:
            if slot.child is child:
                slot.wake.set()

    async def _supervise(self, slot: Slot) -> None:
        while not self._closed:
            slot.wake.clear()
            child = Child(self._launch, self._limits.line_bytes, tools_changed=self.on_tools_changed)
            try:
                await child.start()
            except StartFailed as error:
                await self._died(slot, str(error), since=None)
                continue
            slot.child = child
            self._changed()
            await self._until_done(slot, child)
            since = time.monotonic() - child.started
            retired = child.draining and not child.ended.is_set()
            await child.stop(grace=_STOP_GRACE if retired else 0)
            slot.child = None
            self._count(child)
            if self._closed:
                return
            if retired:
                self._metrics.restarts.labels(child.killed_because or "retired").inc()
                slot.deaths = 0
                self._changed()
            else:
                await self._died(slot, child.obituary() + child.last_words(), since=since)

    async def _until_done(self, slot: Slot, child: Child) -> None:
        waits = [asyncio.create_task(child.ended.wait()), asyncio.create_task(slot.wake.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _died(self, slot: Slot, why: str, *, since: float | None) -> None:
        """Counts a death and waits before the next start, longer after each."""
        stable = since is not None and since >= self._limits.stable_seconds
        slot.deaths = 1 if stable else slot.deaths + 1
        slot.trouble = why
        self._metrics.restarts.labels("crash").inc()
        self._changed()
        wait = min(self._limits.backoff_cap, self._limits.backoff_first * 2 ** min(slot.deaths - 1, 20))
        wait *= random.uniform(0.75, 1)  # noqa: S311 - jitter, not a secret
        log.warning("%s: %s; next start in %.2g seconds", self._launch.name, why, wait)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await slot.wake.wait()

    def _changed(self) -> None:
        self._metrics.ready.set(len(self.children()))
        self._next_in_queue()

    def _count(self, child: Child) -> None:
        self._metrics.skipped.labels("garbage").inc(child.counts.garbage)
        self._metrics.skipped.labels("oversized").inc(child.counts.oversized)
        child.counts.garbage = child.counts.oversized = 0

    async def _watch_memory(self) -> None:
        while True:
            await asyncio.sleep(self._limits.check_seconds)
            for child in self.children():
                self._count(child)
                if 0 < self._limits.memory_bytes < child.resident_bytes():
                    self._retire(child, "memory")

    async def missed_deadline(self, child: Child) -> None:
        """After a timeout: a child gets no calls until it answers a ping; one that does not is hung, and is killed."""
        if child.suspect:
            return
        child.suspect = True
        try:
            await child.request("ping", {}, seconds=self._limits.ping_seconds)
        except Deadline:
            child.kill(f"hung: no answer to a ping in {self._limits.ping_seconds:.3g} seconds")
            self._metrics.restarts.labels("hung").inc()
        except Exception as error:  # noqa: BLE001 - it answered with an error, or died: either way it does not hang
            log.debug("%s: ping after a missed deadline: %s", self._launch.name, error)
        child.suspect = child.killed_because.startswith("hung")
        self._changed()

    async def drain(self, *, seconds: float) -> bool:
        """Takes no new calls and waits for those in flight; False if some were left after so many seconds."""
        self._closed = True
        self._next_in_queue()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        return not self._in_flight

    async def stop(self) -> None:
        """Ends all children."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(slot.child.stop(grace=_STOP_GRACE) for slot in self._slots if slot.child))
