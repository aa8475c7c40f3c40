"""HTTP around a `Decoder`: everybody who waits is answered in one batch; `pause` cuts the batch short."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from pathlib import Path

from aiohttp import web
from safetensors import SafetensorError

from pinnace.rl.control.exposition import Exposition
from pinnace.rl.metrics import Clock, labelled
from pinnace.rl.rollout import SamplingParameters

from .decoder import Decoder, Drawn

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_GATHER_SECONDS = 0.003  # so that requests of one moment share a batch


class Server:
    """Routes: `/generate`, `/load_weights`, `/pause`, `/resume`, `/version`, `/metrics`."""

    def __init__(self, decoder: Decoder, *, batch: int = 64) -> None:
        self._decoder, self._batch = decoder, batch
        self._waiting: list[tuple[tuple[list[int], SamplingParameters], asyncio.Future[Drawn]]] = []
        self._arrived = asyncio.Event()
        self._open = asyncio.Event()
        self._open.set()
        self._model = asyncio.Lock()
        self._clock = Clock()
        self._exposition = Exposition("server", lambda: labelled("share", "of", self._clock.shares()))

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 2**20)
        app.cleanup_ctx.append(self._working)
        app.router.add_post("/generate", self.generate)
        app.router.add_post("/load_weights", self.load_weights)
        app.router.add_post("/pause", self.pause)
        app.router.add_post("/resume", self.resume)
        app.router.add_get("/version", self.version)
        app.router.add_get("/metrics", self.metrics)
        return app

    async def generate(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        parameters = SamplingParameters(
            temperature=asked["temperature"], max_tokens=asked["max_tokens"], stop_ids=tuple(asked["stop_ids"])
        )
        answer: asyncio.Future[Drawn] = asyncio.get_running_loop().create_future()
        self._waiting.append(((asked["ids"], parameters), answer))
        self._arrived.set()
        return web.json_response(asdict(await answer))

    async def load_weights(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        async with self._model:
            try:
                await asyncio.to_thread(self._decoder.load, asked["version"], Path(asked["path"]))
            except (OSError, SafetensorError, RuntimeError) as error:
                return web.json_response({"error": f"{asked['path']}: {error}"}, status=500)
        return web.json_response({"version": self._decoder.version})

    async def pause(self, _: web.Request) -> web.StreamResponse:
        self._open.clear()
        self._decoder.stop.set()
        async with self._model:  # the batch has ended
            return web.json_response({})

    async def resume(self, _: web.Request) -> web.StreamResponse:
        self._decoder.stop.clear()
        self._open.set()
        return web.json_response({})

    async def version(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"version": self._decoder.version})

    async def metrics(self, _: web.Request) -> web.StreamResponse:
        return web.Response(body=self._exposition.text(), content_type="text/plain")

    async def _working(self, _: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(self._work())
        yield
        task.cancel()

    async def _work(self) -> None:
        while True:
            with self._clock.waiting("requests"):
                await self._arrived.wait()
                await asyncio.sleep(_GATHER_SECONDS)
            with self._clock.waiting("weights"):
                await self._open.wait()
            async with self._model:
                if not self._open.is_set():
                    continue
                batch, self._waiting = self._waiting[: self._batch], self._waiting[self._batch :]
                if not self._waiting:
                    self._arrived.clear()
                await self._answer(batch)

    async def _answer(self, batch: list[tuple[tuple[list[int], SamplingParameters], asyncio.Future[Drawn]]]) -> None:
        live = [(asked, answer) for asked, answer in batch if not answer.done()]  # done: the client has gone
        if not live:
            return
        try:
            made = await asyncio.to_thread(self._decoder.sample, [asked for asked, _ in live])
        except RuntimeError as error:  # torch's word for everything, memory too
            for _, answer in live:
                if not answer.done():
                    answer.set_exception(web.HTTPInternalServerError(text=str(error)))
            return
        for (_, answer), drawn in zip(live, made, strict=True):
            if not answer.done():
                answer.set_result(drawn)
