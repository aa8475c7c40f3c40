"""A proxy before a gateway that fails a share of all requests: an error of its own, or a connection that breaks off."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

_DROPPED = {"host", "connection", "content-length", "transfer-encoding"}


@dataclass
class FlakyProxy:
    """`share` of the requests fail, whatever they ask for; `failed` counts them by path."""

    upstream: str
    share: float
    dice: random.Random = field(default_factory=lambda: random.Random(7))  # noqa: S311 - faults that can be repeated
    failed: Counter[str] = field(default_factory=Counter)
    passed: int = 0
    url: str = ""

    async def handle(self, request: web.Request, http: aiohttp.ClientSession) -> web.StreamResponse:
        body = await request.read()
        if self.dice.random() < self.share:
            self.failed[request.path] += 1
            if self.dice.random() < 0.5 and request.transport is not None:
                request.transport.abort()
            return web.json_response({"error": {"message": "provoked"}}, status=503)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _DROPPED}
        async with http.request(request.method, self.upstream + request.path_qs, data=body, headers=headers) as answer:
            self.passed += 1
            return web.Response(
                status=answer.status,
                body=await answer.read(),
                headers={name: value for name, value in answer.headers.items() if name.lower() not in _DROPPED},
            )


@asynccontextmanager
async def flaky(upstream: str, share: float) -> AsyncIterator[FlakyProxy]:
    """Listens on loopback, in this event loop."""
    proxy = FlakyProxy(upstream, share)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False) as http:

        async def handle(request: web.Request) -> web.StreamResponse:
            return await proxy.handle(request, http)

        app = web.Application(client_max_size=16 << 20)
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield proxy
        finally:
            await runner.cleanup()
