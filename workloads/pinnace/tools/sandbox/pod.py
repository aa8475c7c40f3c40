"""The agent's core: the slot and the executor together. Arms, resets, recycles, and ends what no gateway ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

from pinnace.tools.executor.frames import Message
from pinnace.tools.sandbox.hosted import Hosted, NotListed
from pinnace.tools.sandbox.lease import Lease, NotFree, Recycle, Slot, State
from pinnace.tools.sandbox.link import ExecutorLost, Link

log = logging.getLogger(__name__)

_ARM_SECONDS = 15.0
_CLEAN_SECONDS = 40.0
_TICK_SECONDS = 0.25
_LIST_AGAIN = 5.0


class NotArmed(Exception):
    """The lease could not be put in force; the pod is not given away."""


class Pod:
    """What the HTTP side calls."""

    def __init__(self, link: Link, slot: Slot, *, recycle: Recycle, hosted: Hosted | None = None) -> None:
        self.link, self.slot = link, slot
        self.hosted = hosted or Hosted({}, internet=False)
        self._recycle = recycle
        self._changing = asyncio.Lock()
        self._learning: asyncio.Task[None] | None = None

    def executor_changed(self, connected: bool) -> None:
        """The link tells of a new executor, or that it lost one."""
        if not connected:
            log.warning("the executor is gone")
            self.slot.executor_lost("the sandbox container ended (out of memory, or its supervisor failed)")
        else:
            self._learning = asyncio.get_running_loop().create_task(self._learn())

    async def _learn(self) -> None:
        """The tools of the catalogue's servers, before any code runs that could forge them; then it takes leases."""
        while not self.hosted.listed:
            try:
                await self.hosted.learn(self.link)
            except ExecutorLost:
                return  # the next one is asked
            except NotListed as error:
                log.error("%s; it is tried again", error)  # noqa: TRY400 - no traceback to tell
                await asyncio.sleep(_LIST_AGAIN)
        if self.link.connected and self.slot.state is State.STARTING and self.slot.lease is None:
            self.slot.freed()

    async def arm(self, lease: Lease) -> None:
        """Returns once environment, limits and interpreters of `lease` are in force. Raises `NotFree` or `NotArmed`."""
        self.slot.reserve(lease)
        try:
            reply = await self.link.call(
                "arm", _ARM_SECONDS, environment=lease.env, limits=lease.limits.model_dump(mode="json")
            )
        except (ExecutorLost, asyncio.CancelledError) as error:
            await asyncio.shield(self._give_up())
            raise NotArmed(str(error) or "the caller went away") from error
        if problem := reply.get("message", reply.get("ended")):
            await self._give_up()
            raise NotArmed(str(problem))
        if self.slot.lease is not lease:
            raise NotArmed("the lease was released before it was armed")
        self.slot.state = State.ARMED
        log.info("lease %s armed", lease.id)

    async def _give_up(self) -> None:
        if self.slot.lease is not None:
            await self._clean()

    async def reset(self, lease_id: str | None) -> None:
        """The lease as it was when armed: no process, no file. Raises `NotHeld` or `NotArmed`."""
        lease = self.slot.hold(lease_id)
        async with self._changing:
            self.slot.state = State.RESETTING
            if not await self._cleaned():
                raise NotArmed("the sandbox container had to be started again; take a new session")
            self.slot.freed()
            expires_at = self.slot.expires_at
            await self.arm(lease)
            self.slot.expires_at = expires_at

    async def release(self, recycle: Recycle | None = None) -> State:
        """Ends the lease; without one nothing happens. The state afterwards."""
        if self.slot.lease is None:
            return self.slot.state
        async with self._changing:
            if self.slot.lease is None:
                return self.slot.state
            log.info("lease %s released", self.slot.lease.id)
            match recycle or self._recycle:
                case Recycle.DELETE:
                    self.slot.freed(State.SPENT)
                case Recycle.NOOP if self.slot.lost is None:
                    self.slot.freed()
                case _:
                    await self._clean()
            return self.slot.state

    async def _clean(self) -> None:
        """Every process and file away, then free; where that fails, the executor is cut off and comes back clean."""
        self.slot.state = State.RESETTING
        if await self._cleaned():
            self.slot.freed()

    async def _cleaned(self) -> bool:
        try:
            reply = await self.link.call("clean", _CLEAN_SECONDS)
        except ExecutorLost as error:
            log.warning("cleaning: %s", error)
            self._start_over()
            return False
        if "message" in reply or "ended" in reply or "problem" in reply:
            log.error("cleaning failed (%s): the sandbox container is started again", reply)
            self.link.cut()
            self._start_over()
            return False
        return True

    def _start_over(self) -> None:
        self.slot.freed(State.FREE if self.link.connected else State.STARTING)

    def renew(self, lease_id: str | None, expires_at: float) -> None:
        """Later, or earlier. Raises `NotHeld`."""
        self.slot.hold(lease_id)
        self.slot.expires_at = expires_at

    async def call(self, op: str, seconds: float, /, **fields: Any) -> Message:
        """One piece of work for the armed lease. Raises `ExecutorLost`."""
        if self.slot.lost is not None:
            raise ExecutorLost(f"{self.slot.lost}; reset the session, or take a new one")
        self.slot.in_flight += 1
        try:
            return await self.link.call(op, seconds, **fields)
        finally:
            self.slot.in_flight -= 1
            self.slot.last_used = time.time()

    async def tar(self, seconds: float, most: int) -> AsyncIterator[bytes | Message]:
        """See `Link.tar`; the lease is in use meanwhile."""
        self.slot.in_flight += 1
        try:
            async for chunk in self.link.tar(seconds, most):
                yield chunk
        finally:
            self.slot.in_flight -= 1
            self.slot.last_used = time.time()

    async def keep_time(self) -> None:
        """Ends leases that are over, for ever."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            if why := self.slot.due(time.time()):
                log.info("lease ends: %s", why)
                await self.release()


__all__ = ["NotArmed", "NotFree", "Pod"]
