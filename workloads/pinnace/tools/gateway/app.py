"""The gateway put together: parts, server, life from start to drain."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from aiohttp import web

from pinnace.tools.gateway import http, source
from pinnace.tools.gateway.agent import Agents
from pinnace.tools.gateway.audit import Audit
from pinnace.tools.gateway.auth import TOKENS, Authenticator, Tokens
from pinnace.tools.gateway.call import Calls
from pinnace.tools.gateway.control import Control
from pinnace.tools.gateway.entry import Entry
from pinnace.tools.gateway.errors import GatewayError
from pinnace.tools.gateway.front import Front
from pinnace.tools.gateway.hop import Hop
from pinnace.tools.gateway.kube import Kube
from pinnace.tools.gateway.leases import Leases
from pinnace.tools.gateway.legacy import Legacy
from pinnace.tools.gateway.load import LoadReports
from pinnace.tools.gateway.mcpsession import McpSessions
from pinnace.tools.gateway.modern import Modern
from pinnace.tools.gateway.peers import Peers
from pinnace.tools.gateway.rest import Rest
from pinnace.tools.gateway.sessions import SessionsFront
from pinnace.tools.gateway.state import State
from pinnace.tools.gateway.tracing import Tracing
from pinnace.tools.gateway.upstream import Upstream

log = logging.getLogger(__name__)

KEY = Path("/var/run/secrets/pinnace-tools/key")
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_FIRST_LISTING = 10.0  # seconds after which the gateway is ready even if a server has not answered yet


@dataclass(frozen=True)
class Options:
    """How the process was started. Exactly one of `config` (a file) and `configmap` (a name) is set."""

    config: Path | None = None
    configmap: str = ""
    host: str = "0.0.0.0"  # noqa: S104 - it is a service; `auth: None` is refused but on loopback
    port: int = 8080
    tokens: Path = TOKENS
    key: Path = KEY
    audit: str = ""
    drain_seconds: float = 30.0


class Gateway:
    """One gateway. `async with` runs its parts; `serve` runs it until SIGTERM and drains it."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.kube = Kube.in_cluster() if options.configmap else None
        self.upstream = Upstream()
        self.leases = Leases(Agents(self.upstream.http, self._key))
        self.state = State(hop=Hop(self.upstream), leases=self.leases, rng=Random())  # noqa: S311 - balancing only
        self.state.pod, self.state.port = os.environ.get("PINNACE_POD", ""), options.port
        self.state.audit, self.state.tracing = Audit(options.audit), Tracing()
        self.calls = Calls(self.state, self.state.rng)
        self.state.metrics.in_flight.set_function(lambda: self.calls.in_flight)
        self.state.metrics.waiting.set_function(lambda: self.leases.waiting)
        tokens = Tokens(options.tokens)
        self.authenticator = Authenticator(tokens=tokens, kube=self.kube, lease=self.leases.by_digest)
        self.entry = Entry(self.state, self.authenticator)
        self.mcp_sessions = McpSessions(self._key().encode() or os.urandom(32))
        self.front = self._front()
        self.control = Control(self.state, self.upstream)
        self.control.on_config = self._on_config
        self.load = LoadReports(self.state)
        self.state.wanted = self.leases.wanted = self.load.poke
        self.state.metrics.watch(self.state.pools.values())
        self.port = options.port
        self.on_listening: Callable[[], None] = lambda: None
        self._runner: web.ServerRunner | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._began = 0.0

    def _front(self) -> Front:
        modern = Modern(self.state, self.calls, self.entry)
        peers = Peers(self.state, self.upstream.http)
        legacy = Legacy(self.state, self.calls, self.entry, self.mcp_sessions, peers)
        rest = Rest(self.state, self.calls, self.entry)
        front = Front(self.state, self.entry, modern, legacy, rest, SessionsFront(self.state, rest))
        front.ready, front.loopback = self._why_not_ready, self.options.host in LOOPBACK
        return front

    def _key(self) -> str:
        try:
            return self.options.key.read_text().strip()
        except OSError:
            return ""  # without sessions there need not be one; agents refuse an empty key

    def _on_config(self) -> None:
        mode = self.state.config.auth.mode
        if mode == "None" and not self.front.loopback:
            log.error("auth mode None is for loopback only: tokens are asked for as in mode Token")
            mode = "Token"
        self.authenticator.mode = mode

    def _why_not_ready(self) -> str:
        if self.entry.draining:
            return "draining"
        if not self.control.configured.is_set():
            return "no configuration yet"
        if asyncio.get_running_loop().time() - self._began < _FIRST_LISTING:
            waiting = self.state.unlisted()
            if waiting:
                return f"tools of {', '.join(waiting)} are not listed yet"
        return ""

    async def start(self) -> None:
        """Listen, and begin to keep the state in step."""
        self._began = asyncio.get_running_loop().time()
        self.control.start(self._documents(), source.endpoints(self.kube) if self.kube else None)
        self._tasks = [asyncio.create_task(self.load.run(self.control.configured)), asyncio.create_task(self._reap())]
        server = web.Server(self.front, request_factory=_request, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.options.host, self.options.port, backlog=1024).start()
        self.port = int(self._runner.addresses[0][1])

    def _documents(self) -> AsyncIterator[bytes]:
        if self.kube is not None:
            return source.from_configmap(self.kube, self.options.configmap)
        if self.options.config is None:
            raise GatewayError("name a configuration: --config FILE, or --configmap NAME in a cluster")
        return source.from_file(self.options.config)

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(5)
            self.mcp_sessions.reap()

    async def serve(self) -> None:
        """Until SIGTERM or SIGINT; then unready, calls in flight end, and so does it."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sign, stop.set)
        await self.start()
        # What was loaded by now stays: a full collection that walks it stops all calls for some 60 ms.
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000)
        self.on_listening()
        log.info("the gateway listens on %s:%d", self.options.host, self.port)
        try:
            while not stop.is_set():
                if error := self.control.died():
                    raise error
                try:
                    async with asyncio.timeout(1):
                        await stop.wait()
                except TimeoutError:
                    continue
            await self.drain()
        finally:
            await self.close()

    async def drain(self) -> None:
        """Answer what comes, but close connections and fail readiness; return when nothing is in flight."""
        self.entry.draining = True
        self.leases.stop_waiting()
        loop = asyncio.get_running_loop()
        began = loop.time()
        # Those who route to us must see the failed readiness first: a request that comes meanwhile is served.
        while loop.time() - began < self.options.drain_seconds:
            if self.calls.in_flight == 0 and loop.time() - began >= min(1.0, self.options.drain_seconds / 2):
                break
            await asyncio.sleep(0.05)
        log.info("drained in %.1f s, %d calls left", loop.time() - began, self.calls.in_flight)

    async def close(self) -> None:
        """End everything."""
        await self.control.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.state.recordings.settle()
        if self._runner is not None:
            await self._runner.cleanup()
        await self.upstream.close()
        if self.kube is not None:
            await self.kube.close()
        self.state.audit.flush()
        self.state.tracing.close()


def _request(message: object, payload: object, protocol: object, writer: object, task: object) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(
        message, payload, protocol, writer, task, loop, client_max_size=http.HARD_LIMIT  # type: ignore[arg-type]  # aiohttp's own types are private
    )  # fmt: skip
