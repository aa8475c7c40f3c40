"""The coordinator's HTTP server: what trainer and samplers ask of the ledger."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web

from pinnace.rl.types import Trajectory, load_trajectory

from .exposition import Exposition
from .ledger import Ledger, OutOfStep
from .wire import POLL_SECONDS, dump_trajectories

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Coordinator:
    """Long polls: who asks for attempts or a batch waits up to `POLL_SECONDS` for news, then asks again."""

    def __init__(self, ledger: Ledger, *, key: str) -> None:
        self._ledger = ledger
        self._key = key
        self._news = asyncio.Condition()
        self._exposition = Exposition("coordinator", ledger.values)

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._guarded], client_max_size=2**30)
        app.cleanup_ctx.append(self._expiring)
        app.router.add_post("/v1/attempts/take", self.take)
        app.router.add_post("/v1/attempts/alive", self.alive)
        app.router.add_post("/v1/attempts/{id}/lost", self.lost)
        app.router.add_post("/v1/trajectories", self.deliver)
        app.router.add_post("/v1/trainer/begin", self.begin)
        app.router.add_post("/v1/trainer/batch", self.batch)
        app.router.add_post("/v1/trainer/stepped", self.stepped)
        app.router.add_post("/v1/trainer/served", self.served)
        app.router.add_post("/v1/trainer/ack", self.ack)
        app.router.add_get("/healthz", self.healthz)
        app.router.add_get("/metrics", self.metrics)
        return app

    async def take(self, request: web.Request) -> web.StreamResponse:
        given = await request.json()
        slots = await self._until(lambda: self._ledger.take(given["sampler"], given["limit"], now=_now()))
        attempts = [{"id": slot.id, "group": str(slot.group), "task": self._ledger.task(slot)} for slot in slots]
        return web.json_response({"attempts": attempts, "finished": self._ledger.finished})

    async def alive(self, request: web.Request) -> web.StreamResponse:
        given = await request.json()
        return web.json_response({"stop": self._ledger.alive(given["sampler"], given["playing"], now=_now())})

    async def lost(self, request: web.Request) -> web.StreamResponse:
        self._ledger.lost(request.match_info["id"])
        return await self._changed()

    async def deliver(self, request: web.Request) -> web.StreamResponse:
        self._ledger.deliver(load_trajectory(await request.read()))
        return await self._changed()

    async def begin(self, request: web.Request) -> web.StreamResponse:
        version = self._ledger.begin(**await request.json())
        return await self._changed({"version": version})

    async def batch(self, request: web.Request) -> web.StreamResponse:
        given = await request.json()
        made: list[Trajectory] = await self._until(lambda: self._ledger.batch(**given))
        return web.Response(body=dump_trajectories(made), content_type="application/json")

    async def stepped(self, request: web.Request) -> web.StreamResponse:
        self._ledger.stepped(**await request.json())
        return await self._changed({"reward": self._ledger.reward})

    async def served(self, request: web.Request) -> web.StreamResponse:
        self._ledger.served(**await request.json())
        return await self._changed()

    async def ack(self, request: web.Request) -> web.StreamResponse:
        self._ledger.ack(**await request.json())
        return await self._changed()

    async def healthz(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"version": self._ledger.version, "finished": self._ledger.finished})

    async def metrics(self, _: web.Request) -> web.StreamResponse:
        return web.Response(body=self._exposition.text(), content_type="text/plain")

    async def _changed(self, answer: dict[str, Any] | None = None) -> web.StreamResponse:
        async with self._news:
            self._news.notify_all()
        return web.json_response(answer or {})

    async def _until(self, ask: Callable[[], list[Any]]) -> list[Any]:
        """Asks at once and after every change, until there is an answer, the run ends, or the poll's time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS), self._news:
                while not (found := ask()) and not self._ledger.finished:
                    await self._news.wait()
                return found
        return []

    async def _expiring(self, _: web.Application) -> AsyncIterator[None]:
        async def expire() -> None:
            while True:
                await asyncio.sleep(1)
                self._ledger.expire(now=_now())
                await self._changed()

        task = asyncio.create_task(expire())
        yield
        task.cancel()

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith("/v1/") and request.headers.get("Authorization") != f"Bearer {self._key}":
            return web.json_response({"error": "this needs the run's key (PINNACE_RL_KEY)"}, status=401)
        try:
            return await handler(request)
        except OutOfStep as error:
            return web.json_response({"error": str(error)}, status=409)
        except (KeyError, TypeError, ValueError) as error:
            return web.json_response({"error": f"{type(error).__name__}: {error}"}, status=400)


def _now() -> float:
    return asyncio.get_running_loop().time()
