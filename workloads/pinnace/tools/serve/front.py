"""The HTTP side of a bridge: stateless MCP 2026-07-28, health and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping

from aiohttp import web

from pinnace.tools.outcome import META_OUTCOME, CallError, Outcome, ToolResult
from pinnace.tools.serve.errors import CrashLoop, Deadline, Draining, QueueFull
from pinnace.tools.serve.metrics import Metrics
from pinnace.tools.serve.server import Server
from pinnace.tools.serve.settings import Limits
from pinnace.tools.serve.wire import (
    METHOD_NOT_FOUND,
    MODERN,
    PARSE_ERROR,
    Call,
    Json,
    Rejection,
    answer,
    dump,
    event,
    parse,
)

_PING_SECONDS = 15.0  # of a silent event stream: proxies close connections on which nothing comes
_LIST_TTL_MS = 5_000
_MOST_EVENTS = 256  # progress notifications that may wait for a slow reader
_OVERLOADED = -32000  # implementation-defined range of JSON-RPC
_SSE = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}


class Front:
    """The routes over one server. `draining` makes `/readyz` fail while calls are still taken."""

    def __init__(self, server: Server, metrics: Metrics) -> None:
        self._server = server
        self._metrics = metrics
        self._running: dict[tuple[str | None, str, int | str], asyncio.Task[Json]] = {}
        self.draining = False

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=self._server.limits.request_bytes)
        app.router.add_post("/mcp", self._mcp)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics_text)
        return app

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def _readyz(self, _: web.Request) -> web.Response:
        problem = "draining" if self.draining else self._server.pool.trouble() or self._server.problem
        tools = len(self._server.tools)
        children = len(self._server.pool.children())
        status = {"ready": not problem, "message": problem, "tools": tools, "processes": children}
        return web.json_response(status, status=503 if problem else 200)

    async def _metrics_text(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _mcp(self, request: web.Request) -> web.StreamResponse:
        call: Call | None = None
        try:
            call = parse(await request.read(), request.headers)
            if call.id is None:
                return self._notified(call, request)
            return await self._answered(request, call, call.id)
        except web.HTTPRequestEntityTooLarge:
            size = self._server.limits.request_bytes
            return _json(Rejection(PARSE_ERROR, f"the body has more than {size} bytes").body(), status=413)
        except Rejection as rejection:
            body = rejection.body() | {"id": call.id if call else rejection.id}
            return _json(body, status=rejection.status)
        except QueueFull as error:
            return _busy(call, str(error), retry_after=error.retry_after)
        except Draining as error:
            return _busy(call, str(error), retry_after=1.0, close=True)

    def _notified(self, call: Call, request: web.Request) -> web.Response:
        """Cancels on `notifications/cancelled` a call of the same client and session: nobody cancels another's."""
        if call.method == "notifications/cancelled":
            running = self._running.get(_key(request, call.params.get("requestId", "")))
            if running:
                running.cancel()
        return web.Response(status=202)

    async def _answered(self, request: web.Request, call: Call, identity: int | str) -> web.StreamResponse:
        match call.method:
            case "tools/call":
                return await self._call(request, call, identity)
            case "tools/list":
                return _body(answer(identity, self._listed()))
            case "server/discover":
                return _body(answer(identity, self._discovered()))
            case "ping":
                return _body(answer(identity, {}))
        raise Rejection(METHOD_NOT_FOUND, f"{call.method} is not offered: this server has tools only")

    def _listed(self) -> Json:
        tools = list(self._server.tools.values())
        return {"tools": tools, "ttlMs": _LIST_TTL_MS if tools else 0, "cacheScope": "public"}

    def _discovered(self) -> Json:
        info = {"name": self._server.name, "version": self._server.entry.version if self._server.entry else "0"}
        return {
            "supportedVersions": [MODERN],
            "capabilities": {"tools": {}},
            "ttlMs": 0,
            "cacheScope": "public",
            "_meta": {"io.modelcontextprotocol/serverInfo": info},
        }

    async def _call(self, request: web.Request, call: Call, identity: int | str) -> web.StreamResponse:
        name = str(call.params.get("name"))
        label = name if name in self._server.tools else "unknown"
        started = time.perf_counter()
        outcome = "rejected"
        wanted = call.params.get("_meta", {}).get("progressToken")
        events: asyncio.Queue[bytes] | None = None
        if wanted is not None and "text/event-stream" in request.headers.get("Accept", ""):
            events = asyncio.Queue(_MOST_EVENTS)
        key = _key(request, identity)
        task = asyncio.ensure_future(self._result(call, _seconds(request.headers, self._server.limits), events))
        self._running[key] = task
        try:
            if events is None:
                result = await task
                response: web.StreamResponse = _body(answer(identity, result))
            else:
                response, result = await self._streamed(request, identity, task, events)
            outcome = _outcome(result)
            return response
        except (QueueFull, Draining) as error:
            outcome = str(error.outcome)
            raise
        except asyncio.CancelledError:
            # Either the caller went away, and nobody reads an answer; or it cancelled by notification and still waits.
            outcome = "cancelled"
            if not task.cancelled() or (current := asyncio.current_task()) is None or current.cancelling():
                task.cancel()
                raise
            raise Rejection(_OVERLOADED - 1, "cancelled") from None
        finally:
            task.cancel()  # of no effect if it is done; else the caller's connection broke
            if self._running.get(key) is task:
                del self._running[key]
            self._metrics.calls.labels(label, outcome).inc()
            self._metrics.seconds.labels(label).observe(time.perf_counter() - started)

    async def _result(self, call: Call, seconds: float, events: asyncio.Queue[bytes] | None) -> Json:
        try:
            if events is None:
                return await self._server.call(call.params, seconds=seconds)
            token = call.params["_meta"]["progressToken"]

            def progress(params: Json) -> None:
                message = {
                    "jsonrpc": "2.0",
                    "method": "notifications/progress",
                    "params": params | {"progressToken": token},
                }
                # Progress is a courtesy: a caller that does not read it misses some, and the bridge keeps its memory.
                with contextlib.suppress(asyncio.QueueFull):
                    events.put_nowait(event(dump(message)))

            return await self._server.call(call.params, seconds=seconds, progress=progress)
        except (Deadline, CrashLoop) as error:
            return ToolResult(error.outcome, error=CallError(str(error))).to_mcp()

    async def _streamed(
        self, request: web.Request, identity: int | str, task: asyncio.Task[Json], events: asyncio.Queue[bytes]
    ) -> tuple[web.StreamResponse, Json]:
        """An event stream from the first notification on, plain JSON if none comes."""
        stream: web.StreamResponse | None = None
        while True:
            get = asyncio.ensure_future(events.get())
            try:
                await asyncio.wait((task, get), timeout=_PING_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            finally:
                pending = get.result() if get.done() and not get.cancelled() else None
                get.cancel()
            if pending is None and task.done() and stream is None:
                result = await task
                return _body(answer(identity, result)), result
            if stream is None:
                stream = web.StreamResponse(headers=_SSE)
                await stream.prepare(request)
            if pending is not None:
                await stream.write(pending)
            elif task.done():
                return await self._ended(stream, identity, task)
            else:
                await stream.write(b": ping\r\n\r\n")

    async def _ended(
        self, stream: web.StreamResponse, identity: int | str, task: asyncio.Task[Json]
    ) -> tuple[web.StreamResponse, Json]:
        """The last event; a JSON-RPC error too is an event, for the status has been sent."""
        try:
            result = await task
            await stream.write(event(answer(identity, result)))
        except Rejection as rejection:
            result = {"isError": True}
            await stream.write(event(dump(rejection.body() | {"id": identity})))
        with contextlib.suppress(ConnectionError):
            await stream.write_eof()
        return stream, result


def _key(request: web.Request, identity: int | str) -> tuple[str | None, str, int | str]:
    """Whose call it is: ids are unique only within one client."""
    return request.remote, request.headers.get("X-Pinnace-Session", ""), identity


def _seconds(headers: Mapping[str, str], limits: Limits) -> float:
    """The caller's deadline within the longest that we give; ours where it says none, or no number."""
    try:
        asked = int(headers.get("X-Pinnace-Deadline-Ms", "")) / 1000
    except ValueError:
        return limits.call_seconds
    return max(0.001, min(asked, limits.longest_seconds))


def _outcome(result: Json) -> str:
    noted = (result.get("_meta") or {}).get(META_OUTCOME)
    return str(noted or (Outcome.TOOL_ERROR if result.get("isError") else Outcome.OK))


def _body(data: bytes) -> web.Response:
    return web.Response(body=data, content_type="application/json")


def _json(message: Json, *, status: int) -> web.Response:
    return web.Response(body=dump(message), status=status, content_type="application/json")


def _busy(call: Call | None, message: str, *, retry_after: float, close: bool = False) -> web.Response:
    """503: nothing was started, so any call may be repeated elsewhere."""
    data = {"outcome": str(Outcome.OVERLOADED), "retryAfterSeconds": retry_after}
    response = _json(Rejection(_OVERLOADED, message, call.id if call else None, data).body(), status=503)
    response.headers["Retry-After"] = str(max(1, round(retry_after)))
    if close:
        response.force_close()
    return response
