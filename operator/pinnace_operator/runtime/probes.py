"""/metrics, /healthz and /readyz over plain HTTP."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from pinnace_operator.runtime.metrics import Metrics
from pinnace_operator.runtime.watchdog import Watchdog


async def serve(metrics: Metrics, watchdog: Watchdog, host: str, port: int) -> web.AppRunner:
    """Listen until the runner's `cleanup`."""

    async def scrape(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def answer(problems: Callable[[], list[str]]) -> Callable[[web.Request], object]:
        async def handler(_: web.Request) -> web.Response:
            found = problems()
            return web.Response(text="\n".join(found) or "ok", status=503 if found else 200)

        return handler

    app = web.Application()
    app.router.add_get("/metrics", scrape)
    app.router.add_get("/healthz", answer(watchdog.dead))  # type: ignore[arg-type]  # a coroutine function
    app.router.add_get("/readyz", answer(watchdog.not_ready))  # type: ignore[arg-type]  # a coroutine function
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner
