"""Leases of session pods. The truth lives in the pods' agents: here is a copy, read from them at start.

Giving is memory first (a pod leaves the free list before its agent is asked), with rollback; ending is durable first
(the agent ends the lease, then it is forgotten here). Two gateways that take one pod are told apart by its agent: 409.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pinnace.tools.gateway.agent import Agents, LeaseInvalid, Taken
from pinnace.tools.gateway.auth import digest
from pinnace.tools.gateway.config import Sessions
from pinnace.tools.gateway.errors import AgentUnavailable, GatewayError
from pinnace.tools.gateway.lease import (
    TENANT,
    Lease,
    SessionPod,
    from_agent,
    mark,
    mark_in,
    new_id,
    new_token,
    rfc3339,
)

log = logging.getLogger(__name__)

_POLL_SETTLED, _POLL_MOVING = 5.0, 0.1  # seconds between two looks at a pod
_ASK_ALL = 0.25  # seconds between two rounds over all pods because too few are free
_MOST_FAILURES = 3  # pods that fail to arm until a lease is not given: it is what was asked for that is wrong
_GONE_AFTER = 3  # looks without an answer until a lease counts as lost


class PoolEmpty(GatewayError):
    """Not enough free sandboxes; `retry_after` in seconds."""

    retry_after = 2.0


class Leases:
    """All leases of this ToolSandbox, whoever gave them."""

    def __init__(self, agents: Agents) -> None:
        self.agents = agents
        self.settings = Sessions()
        self.pods: dict[str, SessionPod] = {}
        self._by_mark: dict[str, SessionPod] = {}
        self._by_digest: dict[str, Lease] = {}
        self._by_id: dict[str, Lease] = {}
        self._asked_all = -_ASK_ALL
        self.waiting = 0  # sandboxes that requests wait for
        self.wanted: Callable[[], None] = lambda: None  # told when one begins to wait
        self._changed = asyncio.Event()
        self._closing = False

    def configure(self, settings: Sessions | None, pods: Mapping[str, str]) -> None:
        """New settings, and the pods that are there: agent URL → pod name."""
        self.settings = settings or Sessions(max=0)
        for url, name in pods.items():
            self.pods.setdefault(url, SessionPod(url, name)).name = name
        for url in set(self.pods) - set(pods):
            if lease := self.pods.pop(url).lease:
                self._forget(lease)
        self._by_mark = {mark(url): pod for url, pod in self.pods.items()}
        self._changed.set()

    def counts(self) -> dict[str, int]:
        """Pods by state."""
        states = [pod.state for pod in self.pods.values()]
        return {state: states.count(state) for state in ("free", "armed", "taking", "resetting", "starting", "spent")}

    def by_digest(self, token_digest: str) -> Lease | None:
        lease = self._by_digest.get(token_digest)
        return None if lease is None or time.time() >= lease.expires_at else lease

    def of(self, tenant: str) -> list[Lease]:
        now = time.time()
        return [each for each in self._by_id.values() if each.tenant == tenant and now < each.expires_at]

    def by_id(self, lease_id: str, tenant: str) -> Lease | None:
        lease = self._by_id.get(lease_id)
        return lease if lease and lease.tenant == tenant and time.time() < lease.expires_at else None

    async def take(
        self,
        count: int,
        *,
        tenant: str,
        patience: float = 0,
        ttl_seconds: float | None = None,
        idle_seconds: float | None = None,
        env: Mapping[str, str] | None = None,
        limits: Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> list[tuple[Lease, str]]:
        """`count` armed leases with their tokens, or none at all.

        Args:
            patience: seconds to wait for sandboxes that the operator may add; there is no wait for `sessions.max`.

        Raises:
            PoolEmpty: fewer are free, or `sessions.max` would be exceeded.
            LeaseInvalid: an agent refuses `env`, `limits` or `labels`.
            AgentUnavailable: pods failed while they were armed, one after another; what was armed is given back.
        """
        until = asyncio.get_running_loop().time() + patience
        pods = await self._reserve(count, until)
        now = time.time()
        hard = min(ttl_seconds or self.settings.hard_seconds, self.settings.hard_seconds)
        order = {
            "env": dict(env or {}),
            "limits": dict(limits or {}),
            "expiresAt": rfc3339(now + hard),
            "idleSeconds": min(idle_seconds or self.settings.idle_seconds, self.settings.hard_seconds),
            "labels": {**(labels or {}), TENANT: tenant},
        }
        taking = [asyncio.create_task(self._arm(pod, order, until)) for pod in pods]
        try:
            results = await asyncio.gather(*taking, return_exceptions=True)
        except asyncio.CancelledError:
            await asyncio.shield(self._roll_back(await asyncio.gather(*taking, return_exceptions=True)))
            raise
        failed = [each for each in results if isinstance(each, BaseException)]
        if failed:
            await self._roll_back(results)
            raise failed[0]
        return [each for each in results if not isinstance(each, BaseException)]

    async def _reserve(self, count: int, until: float) -> list[SessionPod]:
        """Any `count` free pods: gateways that took them in the same order would meet at the same ones."""
        if self._shortage(count) and time.monotonic() - self._asked_all >= _ASK_ALL:
            self._asked_all = time.monotonic()
            await self.refresh(everything=True)  # another gateway may have given some back
        if self._shortage(count):
            await self._wait(count, until)
        if told := self._shortage(count):
            raise PoolEmpty(told)
        pods = random.sample(self._free(), count)
        for pod in pods:
            pod.state = "taking"
        return pods

    async def _wait(self, count: int, until: float) -> None:
        """While too few are free and more may come, at most until this time of the loop."""
        self.waiting += count
        self.wanted()
        try:
            async with asyncio.timeout_at(until):
                while self._shortage(count) and self._armed() + count <= self.settings.max and not self._closing:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return
        finally:
            self.waiting -= count

    def stop_waiting(self) -> None:
        """Requests that wait, and those that come, are refused at once where too few are free: this gateway ends."""
        self._closing = True
        self._changed.set()

    def _free(self) -> list[SessionPod]:
        return [pod for pod in self.pods.values() if pod.state == "free"]

    def _armed(self) -> int:
        return sum(pod.state in {"armed", "taking"} for pod in self.pods.values())

    def _shortage(self, count: int) -> str:
        """Why `count` leases can't be given; empty when they can."""
        armed, free, most = self._armed(), len(self._free()), self.settings.max
        if armed + count <= most and count <= free:
            return ""
        bound = "max" if armed + count > most else "warm"
        told = f"{free} sandboxes are free and {armed} of at most {most} are leased; {count} were asked for"
        return f"{told}: wait, or raise spec.sessions.{bound}"

    async def _arm(self, pod: SessionPod, order: Mapping[str, Any], until: float) -> tuple[Lease, str]:
        """Arm `pod`, or another free one when its agent says that it is taken, or fails; not for ever."""
        failures = 0
        while True:
            lease_id = new_id(pod.url)
            token = new_token(lease_id)
            wanted = {**order, "id": lease_id, "tokenSha256": digest(token)}
            try:
                await self.agents.arm(pod.url, wanted)
            except LeaseInvalid:
                pod.state = "free"
                raise
            except AgentUnavailable as error:
                pod.state, pod.asked = "unknown", -1e9
                if not isinstance(error, Taken):
                    # It may have armed all the same: end that lease. If this does not arrive, its idle time ends it.
                    self._in_background(self.agents.release(pod.url, wanted["id"], "Restart"))
                    failures += 1
                    if failures == _MOST_FAILURES:
                        raise
                (pod,) = await self._reserve(1, until)
                continue
            except asyncio.CancelledError:
                self._in_background(self.agents.release(pod.url, wanted["id"], "Restart"))
                pod.state, pod.asked = "unknown", -1e9
                raise
            lease = from_agent(pod, {**wanted, "state": "armed"}, time.time())
            if lease is None:
                raise LookupError("id and digest are set above")
            lease.last_used = time.time()
            self._remember(lease)
            return lease, token

    async def _roll_back(self, results: Iterable[tuple[Lease, str] | BaseException]) -> None:
        given = [each[0] for each in results if not isinstance(each, BaseException)]
        await asyncio.gather(*(self.release(lease) for lease in given), return_exceptions=True)

    async def release(self, lease: Lease) -> None:
        """End a lease: in the pod first, then here. Raises `AgentUnavailable`; the pod's own clock ends it then."""
        await self.agents.release(lease.pod.url, lease.id, self.settings.recycle)
        self._forget(lease)
        lease.pod.state = "unknown"
        await self.look(lease.pod)

    async def renew(self, lease: Lease, *, ttl_seconds: float | None = None) -> None:
        """A new hard limit, counted from now. Raises `AgentUnavailable`."""
        until = time.time() + min(ttl_seconds or self.settings.hard_seconds, self.settings.hard_seconds)
        await self.agents.renew(lease.pod.url, lease.id, {"expiresAt": rfc3339(until)})
        lease.expires_at = until
        lease.last_used = time.time()

    async def look(self, pod: SessionPod) -> None:
        """Read the state of one pod from its agent."""
        pod.asked = time.monotonic()
        try:
            answer = await self.agents.state(pod.url)
        except AgentUnavailable as error:
            pod.failures += 1
            if pod.failures >= _GONE_AFTER and pod.state != "taking":
                log.info("the sandbox at %s does not answer: %s", pod.url, error)
                if pod.lease:
                    self._forget(pod.lease)
                pod.state = "unknown"
            return
        pod.failures = 0
        try:
            self._seen(pod, answer)
        except (TypeError, ValueError) as error:
            log.warning("the agent at %s answers nonsense: %s", pod.url, error)
            pod.state = "unknown"

    def _seen(self, pod: SessionPod, answer: Mapping[str, Any]) -> None:
        if pod.state == "taking" or pod.url not in self.pods:
            return  # what it said may be older than what we are doing with it
        state, before = answer.get("state"), pod.state
        lease = from_agent(pod, answer, time.time())
        if pod.lease and (lease is None or lease.id != pod.lease.id):
            self._forget(pod.lease)
        if lease and pod.lease is None:
            self._remember(lease)
        elif lease and pod.lease:
            pod.lease.expires_at = lease.expires_at
            pod.lease.last_used = max(pod.lease.last_used, lease.last_used)
        pod.state = state if state in {"starting", "free", "armed", "resetting", "spent"} else "unknown"
        if pod.state != before:
            self._changed.set()

    async def refresh(self, *, everything: bool = False) -> None:
        """Look at the pods that may have changed: those on their way often, the settled ones every few seconds."""
        now = time.monotonic()
        due = [
            pod
            for pod in self.pods.values()
            if everything
            or now - pod.asked >= (_POLL_SETTLED if pod.state in {"free", "armed", "spent"} else _POLL_MOVING)
        ]
        await asyncio.gather(*(self.look(pod) for pod in due))
        for lease in [each for each in self._by_id.values() if each.expired(time.time())]:
            await self._expire(lease)

    async def _expire(self, lease: Lease) -> None:
        """End a lease that is over by what this gateway knows; another gateway may have used it a moment ago."""
        await self.look(lease.pod)
        if lease.pod.lease is lease and lease.expired(time.time()):
            try:
                await self.release(lease)
            except AgentUnavailable:
                self._forget(lease)  # its agent ends it by its own clock

    async def ask(self, id_or_token: str) -> bool:
        """Look at the pod that a lease's id or token names: another gateway may have given it a moment ago.

        False where it names none, as every token does that is no lease's.
        """
        pod = self._by_mark.get(mark_in(id_or_token))
        if pod is None:
            return False
        # What it says counts only once we know whether we have it ourselves: milliseconds.
        while pod.state == "taking":  # noqa: ASYNC110 - `_arm` changes it, and tells nobody
            await asyncio.sleep(0.01)
        await self.look(pod)
        return True

    def _remember(self, lease: Lease) -> None:
        lease.pod.state, lease.pod.lease = "armed", lease
        self._by_digest[lease.token_digest] = self._by_id[lease.id] = lease

    def _forget(self, lease: Lease) -> None:
        lease.pod.lease = None
        self._by_digest.pop(lease.token_digest, None)
        self._by_id.pop(lease.id, None)

    def _in_background(self, work: Any) -> None:
        async def run() -> None:
            try:
                await work
            except AgentUnavailable as error:
                log.info("a lease will end by its own clock: %s", error)

        task = asyncio.create_task(run())
        _background.add(task)
        task.add_done_callback(_background.discard)


_background: set[asyncio.Task[None]] = set()
