"""The proxy's process: capture for agents, the fleet behind it, and news of weights."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web

from pinnace.rl.capture.capture import Capture
from pinnace.rl.capture.proxy import Proxy
from pinnace.rl.fleet import Fleet
from pinnace.rl.metrics import labelled

from .exposition import Exposition

_SWEEP_SECONDS = 10


class Front:
    """`Proxy`'s routes, and `/rl/weights`, `/metrics`."""

    def __init__(self, capture: Capture, fleet: Fleet, *, key: str, session_seconds: float) -> None:
        self._capture, self._fleet, self._key = capture, fleet, key
        self._session_seconds = session_seconds
        self._exposition = Exposition("proxy", fleet.values, self._values)

    def app(self) -> web.Application:
        app = Proxy(self._capture, model="policy", control_key=self._key).app()
        app.router.add_post("/rl/weights", self.weights)
        app.router.add_get("/metrics", self.metrics)
        app.cleanup_ctx.append(self._beside)
        return app

    async def weights(self, request: web.Request) -> web.StreamResponse:
        """`{"version": n}`: brings the servers to the newest weights; 503 while none has n or newer."""
        if request.headers.get("Authorization") != f"Bearer {self._key}":
            return web.json_response({"error": "this needs the run's key (PINNACE_RL_KEY)"}, status=401)
        wanted = (await request.json())["version"]
        servers = await self._fleet.update()
        served = max((version for version in servers.values() if isinstance(version, int)), default=-1)
        return web.json_response({"served": served, "servers": servers}, status=200 if served >= wanted else 503)

    async def metrics(self, _: web.Request) -> web.StreamResponse:
        return web.Response(body=self._exposition.text(), content_type="text/plain")

    def _values(self) -> dict[str, float]:
        return {"requests_in_flight": self._capture.in_flight, **labelled("capture", "kind", self._capture.counts)}

    async def _beside(self, _: web.Application) -> AsyncIterator[None]:
        async def sweep() -> None:
            while True:
                await asyncio.sleep(_SWEEP_SECONDS)
                self._capture.counts["expired_sessions"] += self._capture.sessions.expire(self._session_seconds)

        tasks = [asyncio.create_task(self._fleet.keep_up()), asyncio.create_task(sweep())]
        yield
        for task in tasks:
            task.cancel()
