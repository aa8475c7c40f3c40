"""The gateway's control plane: keeps the state in step with configuration, addresses, servers and pods."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any

import aiohttp
from yarl import URL

from pinnace.tools.gateway.agent import KEY_HEADER
from pinnace.tools.gateway.catalog import SESSIONS
from pinnace.tools.gateway.config import parse
from pinnace.tools.gateway.errors import ConfigInvalid
from pinnace.tools.gateway.pool import Pool
from pinnace.tools.gateway.route import Group, Replica
from pinnace.tools.gateway.state import Endpoints, State
from pinnace.tools.gateway.upstream import Failed, Upstream

log = logging.getLogger(__name__)

_LIST_EVERY = 10.0  # seconds between two listings of a version's tools
_LIST_AGAIN = 0.25  # after one that failed, doubled up to _LIST_EVERY
_LIST_PATIENCE, _NEXT_AFTER = 10.0, 2.0  # seconds for an answer: of the last replica that can be asked, of the others
_MOST_ASKED = 8  # sandboxes for one listing
# A replica that leaves some probes unanswered is hung; one that has left the endpoints too is gone after the first.
_PROBE_EVERY, _PROBE_PATIENCE = 0.5, 1.0
_NO_HOST = {errno.EHOSTUNREACH, errno.ENETUNREACH}


class Control:
    """Runs the loops; each survives whatever its peer does."""

    def __init__(self, state: State, upstream: Upstream) -> None:
        self._state = state
        self._upstream = upstream
        self._tasks: list[asyncio.Task[None]] = []
        self._due: dict[tuple[str, str], tuple[float, float]] = {}
        self._missed: dict[Replica, int] = {}
        self._left = asyncio.Event()  # replicas have left the endpoints: they are probed at once
        self.configured = asyncio.Event()
        self.on_config: Callable[[], None] = lambda: None

    def start(self, documents: AsyncIterator[bytes], addresses: AsyncIterator[Endpoints] | None) -> None:
        """Begin; `addresses` only in a cluster."""
        self._run(self._configure(documents))
        if addresses is not None:
            self._run(self._place(addresses))
        self._run(self._list())
        self._run(self._probe())
        self._run(self._look_after_sessions())
        self._run(self._flush())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def died(self) -> BaseException | None:
        """Why a loop ended, if one did: the process must not go on."""
        ended = (task for task in self._tasks if task.done() and not task.cancelled())
        return next((task.exception() or RuntimeError("a loop of the control plane ended") for task in ended), None)

    async def _configure(self, documents: AsyncIterator[bytes]) -> None:
        async for document in documents:
            try:
                config = parse(document)
            except ConfigInvalid as error:
                self._state.metrics.config_errors.inc()
                log.error("%s; generation %d stays in force", error, self._state.config.generation)  # noqa: TRY400
                continue
            self._state.apply(config)
            self.on_config()
            self._due.clear()
            self._left.set()
            self.configured.set()
            log.info("generation %d is in force: %d servers", config.generation, len(config.servers))

    async def _place(self, addresses: AsyncIterator[Endpoints]) -> None:
        async for found in addresses:
            before = {replica for pool in self._state.all_pools() for replica in pool.replicas}
            self._state.place(found)
            fresh = [each for pool in self._state.all_pools() for each in pool.replicas if each not in before]
            for replica in fresh:
                self._due.pop((replica.server, replica.version), None)
            if any(replica.gone for replica in before):
                self._left.set()

    async def _list(self) -> None:
        """List the tools of each version that has a replica: when it is new, and every few seconds."""
        loop = asyncio.get_running_loop()
        asking: dict[tuple[str, str], asyncio.Task[None]] = {}
        while True:
            for pool in self._state.all_pools():
                for group in pool.groups:
                    key = (pool.server.name, group.version)
                    due, _ = self._due.get(key, (0.0, 0.0))
                    if group.replicas and loop.time() >= due and key not in asking:
                        asking[key] = asyncio.create_task(self._list_version(pool, group))
            key = (SESSIONS, "")
            if self._state.leases.pods and loop.time() >= self._due.get(key, (0.0, 0.0))[0] and key not in asking:
                asking[key] = asyncio.create_task(self._list_sessions())
            await asyncio.sleep(0.05)
            for key in [key for key, task in asking.items() if task.done()]:
                asking.pop(key).result()

    async def _list_version(self, pool: Pool, group: Group) -> None:
        replicas = sorted(group.replicas, key=lambda each: (each.hung, self._state.rng.random()))
        await self._ask((pool.server.name, group.version), replicas, {})

    async def _list_sessions(self) -> None:
        leases = self._state.leases
        alive = [pod.url for pod in leases.pods.values() if pod.state in {"free", "armed"}]
        if not alive:
            self._soon((SESSIONS, ""), _LIST_AGAIN, 0.0)
            return
        self._state.rng.shuffle(alive)
        replicas = [self._state.session_replica(url) for url in alive[:_MOST_ASKED]]
        await self._ask((SESSIONS, ""), replicas, {KEY_HEADER: leases.agents.key()})

    async def _ask(self, key: tuple[str, str], replicas: Sequence[Replica], headers: Mapping[str, str]) -> None:
        """Put the tools of the first replica that lists them into force: a broken one says nothing about the others."""
        problem: Exception | None = None
        for replica in replicas:
            within = _LIST_PATIENCE if replica is replicas[-1] else _NEXT_AFTER
            try:
                if not replica.era:
                    await self._state.hop.find_era(replica, headers=headers, within=within)
                tools = await self._state.hop.list_all(replica, "tools/list", "tools", headers=headers, within=within)
            except (Failed, TimeoutError) as failed:
                problem = failed
            else:
                if not replica.gone:
                    self._soon(key, _LIST_EVERY, 0.0)
                    self._state.listed(*key, tools)
                    return
        if problem is None:  # all have left meanwhile
            self._soon(key, _LIST_AGAIN, 0.0)
        else:
            self._failed(key, f"tools can't be listed: {problem}")

    def _failed(self, key: tuple[str, str], message: str) -> None:
        _, wait = self._due.get(key, (0.0, 0.0))
        self._state.failures[key] = message
        self._soon(key, wait or _LIST_AGAIN, min((wait or _LIST_AGAIN) * 2, _LIST_EVERY))

    def _soon(self, key: tuple[str, str], wait: float, following: float) -> None:
        self._due[key] = (asyncio.get_running_loop().time() + wait, following)

    async def _probe(self) -> None:
        """Ask replicas whether they live: any HTTP answer will do. Calls on hung ones move if they may."""
        running: dict[Replica, asyncio.Task[None]] = {}
        while True:
            # Those with calls, too, when they are gone: a pod may vanish without ending its connections.
            known = self._upstream.asked.union(*(pool.replicas for pool in self._state.all_pools()))
            for replica in known:
                if replica not in running:
                    running[replica] = asyncio.create_task(self._probe_one(replica))
            self._left.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._left.wait(), _PROBE_EVERY)
            for replica in [each for each, task in running.items() if task.done()]:
                running.pop(replica).result()
            self._missed = {each: count for each, count in self._missed.items() if each in known}

    async def _probe_one(self, replica: Replica) -> None:
        loop = asyncio.get_running_loop()
        url = URL(replica.url, encoded=True).with_path("/healthz")
        try:
            async with asyncio.timeout(_PROBE_PATIENCE), self._upstream.probes.get(url) as response:
                await response.read()
        except (aiohttp.ClientError, OSError) as error:  # a TimeoutError is an OSError
            if not isinstance(error, TimeoutError) and getattr(error, "errno", None) not in _NO_HOST:
                # Nothing listens or the connection broke: calls find that out by themselves, at once.
                self._missed.pop(replica, None)
                replica.hung = False
                return
            self._missed[replica] = self._missed.get(replica, 0) + 1
            if self._missed[replica] >= (1 if replica.gone else replica.probes) and not replica.hung:
                log.warning("replica %s of %s is hung: its calls move or end", replica.url, replica.server)
                replica.hung = True
                for scope in [each for each in replica.scopes if not each.expired()]:
                    scope.reschedule(loop.time())
        else:
            self._missed.pop(replica, None)
            replica.unreachable = False
            if replica.hung:
                replica.hung = False
                log.info("replica %s of %s answers again", replica.url, replica.server)
                self._state.pool(replica.server).wake()

    async def _look_after_sessions(self) -> None:
        while True:
            await self._state.leases.refresh()
            await asyncio.sleep(0.05)

    async def _flush(self) -> None:
        while True:
            self._state.audit.flush()
            await asyncio.sleep(0.5)
