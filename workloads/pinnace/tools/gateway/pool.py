"""The replicas of one server as seen by calls: a bounded queue before them, and the wait for the first replica."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from random import Random

from pinnace.tools.gateway import route
from pinnace.tools.gateway.breaker import Breaker
from pinnace.tools.gateway.config import Server
from pinnace.tools.gateway.retry import Reach
from pinnace.tools.gateway.route import Group, Replica
from pinnace.tools.gateway.upstream import fail
from pinnace.tools.outcome import Outcome


class Pool:
    """Hands out replicas of one server, and takes them back."""

    def __init__(self, server: Server, *, rng: Random, wanted: Callable[[], None] = lambda: None) -> None:
        self.server = server
        self.groups: list[Group] = []
        self.waiting = 0  # calls in the queue, also those that wait for the first replica
        self._rng = rng
        self._wanted = wanted  # told when a call waits and there is no replica
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def replicas(self) -> list[Replica]:
        return [each for group in self.groups for each in group.replicas]

    @property
    def in_flight(self) -> int:
        return sum(each.in_flight for each in self.replicas)

    def update(self, server: Server, endpoints: Mapping[str, Sequence[str]]) -> None:
        """New settings and addresses (version → MCP URLs). Replicas that stay keep their state."""
        known = {(each.version, each.url): each for each in self.replicas}
        self.server = server
        self.groups = []
        for version in server.versions:
            group = Group(version.name, version.weight)
            for url in dict.fromkeys(endpoints.get(version.name, ())):
                replica = known.pop((version.name, url), None) or self._replica(url, version.name)
                replica.breaker.threshold, replica.breaker.seconds = server.failure_threshold, server.ejection_seconds
                group.replicas.append(replica)
            self.groups.append(group)
        for gone in known.values():
            gone.gone = True
        self.wake()

    def _replica(self, url: str, version: str) -> Replica:
        breaker = Breaker(self.server.failure_threshold, self.server.ejection_seconds)
        return Replica(url, self.server.name, version, breaker)

    async def acquire(
        self, versions: Collection[str], *, avoid: Collection[Replica], patience: float, cold_patience: float
    ) -> Replica:
        """A replica with room; it counts as in flight until `release`.

        Args:
            versions: those that have the tool; all, if none of them is there any more.
            avoid: replicas that were tried.
            patience: seconds to wait in the queue for room.
            cold_patience: seconds to wait when there is no replica at all.

        Raises:
            Failed: `overloaded` (queue full, or waited too long), or `unavailable` (no replica came).
        """
        replica = None if self._queue and self.replicas else self._pick(versions, avoid)
        return replica or await self._wait(versions, avoid, patience, cold_patience)

    async def _wait(
        self, versions: Collection[str], avoid: Collection[Replica], patience: float, cold_patience: float
    ) -> Replica:
        if self.waiting >= max(self.server.queue, 1):
            raise fail(Outcome.OVERLOADED, Reach.NOT_SENT, "the queue before the tool is full", _retry_after(self))
        loop = asyncio.get_running_loop()
        began = loop.time()
        self.waiting += 1
        turn: asyncio.Future[None] | None = None
        try:
            while True:
                cold = not self.replicas
                if cold:
                    self._wanted()
                left = began + (cold_patience if cold else patience) - loop.time()
                if left <= 0:
                    raise self._too_late(cold=cold)
                turn = loop.create_future()
                self._queue.append(turn)
                try:
                    async with asyncio.timeout(left):
                        await turn
                except TimeoutError:
                    continue
                finally:
                    if turn in self._queue:
                        self._queue.remove(turn)
                if replica := self._pick(versions, avoid):
                    return replica
        except asyncio.CancelledError:
            if turn is not None and turn.done():
                self.wake(1)  # the room that this call was woken for is another's
            raise
        finally:
            self.waiting -= 1

    def _too_late(self, *, cold: bool) -> Exception:
        if cold:
            return fail(Outcome.UNAVAILABLE, Reach.NOT_SENT, "no replica of the tool's server is ready", 1.0)
        return fail(Outcome.OVERLOADED, Reach.NOT_SENT, "all replicas of the tool are busy", _retry_after(self))

    def _pick(self, versions: Collection[str], avoid: Collection[Replica]) -> Replica | None:
        groups = [group for group in self.groups if group.version in versions]
        now = asyncio.get_running_loop().time()
        limit = self.server.max_in_flight_per_replica
        usable = groups if any(group.replicas for group in groups) else self.groups
        replica = route.pick(usable, now=now, rng=self._rng, limit=limit, avoid=avoid)
        if replica is not None:
            replica.in_flight += 1
            replica.picks += 1
            replica.breaker.began(now)
        return replica

    def release(self, replica: Replica) -> None:
        """The call on `replica` has ended: the next one in the queue gets its room."""
        replica.in_flight -= 1
        if self._queue:
            self.wake(1)

    def wake(self, count: int | None = None) -> None:
        """Let calls in the queue look again."""
        for _ in range(len(self._queue) if count is None else min(count, len(self._queue))):
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)


def _retry_after(pool: Pool) -> float:
    """Seconds after which the queue has probably moved: a guess from its length, between 1 and 10."""
    room = max(1, len(pool.replicas) * pool.server.max_in_flight_per_replica)
    return float(min(10, 1 + pool.waiting // room))
