"""One bridge from start to exit."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import Self

from aiohttp import web

from pinnace.tools.catalogue import Entry, Granted
from pinnace.tools.serve.front import Front
from pinnace.tools.serve.metrics import Metrics
from pinnace.tools.serve.pool import Pool
from pinnace.tools.serve.server import Server
from pinnace.tools.serve.settings import Launch, Limits

log = logging.getLogger(__name__)


class Bridge:
    """A pool, its server and its HTTP front. `async with` starts it and ends it at once; `drain` ends it gently."""

    def __init__(
        self,
        launch: Launch,
        limits: Limits,
        *,
        host: str,
        port: int,
        entry: Entry | None = None,
        granted: Granted | None = None,
    ) -> None:
        metrics = Metrics()
        self._limits = limits
        self._host, self._port = host, port
        self.pool = Pool(launch, limits, metrics)
        self.server = Server(launch.name, self.pool, limits, entry, granted or Granted())
        self.front = Front(self.server, metrics)
        # A connection that is closed cancels its call.
        self._runner = web.AppRunner(self.front.app(), handler_cancellation=True, access_log=None, shutdown_timeout=1)
        self._learning: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        self.pool.start()
        self._learning = asyncio.create_task(self.server.learn())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._learning:
            self._learning.cancel()
            await asyncio.gather(self._learning, return_exceptions=True)
        await self._runner.cleanup()
        await self.pool.stop()

    @property
    def url(self) -> str:
        """Where it listens (port 0 picks one)."""
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def drain(self) -> None:
        """Fails `/readyz`, waits until no new calls can come, then for those in flight."""
        self.front.draining = True
        if self._learning:
            self._learning.cancel()
        await asyncio.sleep(self._limits.drain_delay)
        if not await self.pool.drain(seconds=self._limits.drain_seconds):
            log.warning("calls were still in flight after %.3g seconds; they are cut", self._limits.drain_seconds)


async def serve_until_signalled(bridge: Bridge) -> None:
    """Serves until SIGTERM or SIGINT, then drains; a second signal ends it at once."""
    stop, now = asyncio.Event(), asyncio.Event()

    def signalled() -> None:
        (now if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    async with bridge:
        log.info("%s is served at %s/mcp", bridge.server.name, bridge.url)
        await stop.wait()
        draining, hurry = asyncio.create_task(bridge.drain()), asyncio.create_task(now.wait())
        await asyncio.wait((draining, hurry), return_when=asyncio.FIRST_COMPLETED)
        for task in (draining, hurry):
            task.cancel()
