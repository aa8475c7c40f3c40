"""The agent's HTTP side (docs/toolsandbox-contract.md §5)."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from pinnace.tools.outcome import CallError, Outcome, ToolResult
from pinnace.tools.sandbox import mcp, toolset
from pinnace.tools.sandbox.calls import Calls
from pinnace.tools.sandbox.lease import Lease, NotFree, NotHeld, Recycle, Renewal, State
from pinnace.tools.sandbox.link import ExecutorLost
from pinnace.tools.sandbox.pod import NotArmed, Pod

log = logging.getLogger(__name__)

KEY, SESSION, DEADLINE = "X-Pinnace-Key", "X-Pinnace-Session", "X-Pinnace-Deadline-Ms"
_OPEN = frozenset({"/healthz", "/readyz"})
_BODY = 16 * 1024 * 1024
_NO_DEADLINE = 3600.0
_TAR_SECONDS = 300.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Key:
    """The gateway's key, read again when the file changes, so that a new Secret needs no restart."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[float, bytes] = (0.0, b"")

    def fits(self, given: str) -> bool:
        """Compares in constant time. Without a readable key nothing fits."""
        with suppress(OSError):
            changed = self._path.stat().st_mtime
            if changed != self._read[0]:
                self._read = (changed, self._path.read_bytes().strip())
        return bool(self._read[1]) and hmac.compare_digest(given.encode(), self._read[1])


def build(pod: Pod, key: Key, *, groups: frozenset[str], workspace_bytes: int) -> web.Application:
    """All routes, behind the key."""
    side = _Http(pod, Calls(pod, groups, workspace_bytes=workspace_bytes), toolset.describe(groups), workspace_bytes)

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in _OPEN and not key.fits(request.headers.get(KEY, "")):
            return _problem(401, f"header {KEY} does not hold the key of this ToolSandbox")
        try:
            return await handler(request)
        except (NotFree, NotHeld) as error:
            return _problem(409, str(error))
        except (NotArmed, ExecutorLost) as error:
            return _problem(503, str(error))

    app = web.Application(middlewares=[guarded], client_max_size=_BODY)
    app.add_routes(
        [
            web.get("/healthz", side.healthz),
            web.get("/readyz", side.readyz),
            web.get("/lease", side.show),
            web.post("/lease", side.arm),
            web.delete("/lease", side.release),
            web.post("/lease/reset", side.reset),
            web.post("/lease/renew", side.renew),
            web.get("/lease/workspace.tar", side.tar),
            web.post("/mcp", side.mcp),
        ]
    )

    async def background(_: web.Application) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(pod.link.serve()), asyncio.create_task(pod.keep_time())]
        for task in tasks:
            task.add_done_callback(_stop_when_broken)
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    app.cleanup_ctx.append(background)
    return app


def _stop_when_broken(task: asyncio.Task[None]) -> None:
    """An agent that can't hear its executor or keep time must not look alive."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("the agent can't go on", exc_info=error)
        asyncio.get_running_loop().call_soon(_raise_exit)


def _raise_exit() -> None:
    raise web.GracefulExit


class _Http:
    def __init__(self, pod: Pod, calls: Calls, tools: list[dict[str, Any]], workspace_bytes: int) -> None:
        self._pod, self._calls, self._tools, self._workspace_bytes = pod, calls, tools, workspace_bytes

    async def healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(self, _: web.Request) -> web.Response:
        """A lease in the pod leaves it ready: gateways must still find it."""
        state = self._pod.slot.state
        ready = state in {State.FREE, State.ARMED, State.RESETTING}
        return web.Response(status=200 if ready else 503, text=f"{state}\n")

    async def show(self, _: web.Request) -> web.Response:
        hello = self._pod.link.hello
        described = self._pod.slot.describe() | {"isolation": str(hello.get("isolation", "unknown"))}
        return web.json_response(described)

    async def arm(self, request: web.Request) -> web.Response:
        try:
            lease = Lease.model_validate_json(await request.read())
        except ValidationError as error:
            return _problem(400, _where(error))
        await self._pod.arm(lease)
        return await self.show(request)

    async def release(self, request: web.Request) -> web.Response:
        asked = request.query.get("recycle")
        if asked is not None and asked not in set(Recycle):
            return _problem(400, f"recycle is one of {', '.join(Recycle)}")
        lease = self._pod.slot.lease
        if lease is not None and request.headers.get(SESSION, lease.id) != lease.id:
            raise NotHeld(f"the pod has lease {lease.id}")
        await self._pod.release(Recycle(asked) if asked else None)
        return await self.show(request)

    async def reset(self, request: web.Request) -> web.Response:
        await self._pod.reset(request.headers.get(SESSION))
        return await self.show(request)

    async def renew(self, request: web.Request) -> web.Response:
        try:
            renewal = Renewal.model_validate_json(await request.read())
        except ValidationError as error:
            return _problem(400, _where(error))
        self._pod.renew(request.headers.get(SESSION), renewal.expires_at.timestamp())
        return await self.show(request)

    async def tar(self, request: web.Request) -> web.StreamResponse:
        """Streams; what goes wrong after the first byte shows as a body that ends early."""
        self._pod.slot.hold(request.headers.get(SESSION))
        response: web.StreamResponse | None = None
        async for part in self._pod.tar(_TAR_SECONDS, self._workspace_bytes):
            if isinstance(part, bytes):
                if response is None:
                    response = web.StreamResponse(headers={"Content-Type": "application/x-tar"})
                    await response.prepare(request)
                await response.write(part)
            elif "data" not in part or response is None:
                if response is None:
                    return _problem(503, str(part.get("message", "the workspace can't be read")))
                if request.transport is not None:
                    request.transport.abort()
        if response is None:
            return _problem(503, "the workspace can't be read")
        await response.write_eof()
        return response

    async def mcp(self, request: web.Request) -> web.Response:
        answered = await mcp.answer(
            await request.read(),
            request.headers,
            tools=[*self._tools, *self._pod.hosted.tools],
            call=lambda name, arguments: self._call(request, name, arguments),
        )
        if answered.body is None:
            return web.Response(status=answered.status)
        return web.json_response(answered.body, status=answered.status)

    async def _call(self, request: web.Request, name: str, arguments: Any) -> ToolResult:
        session = request.headers.get(SESSION, "")
        try:
            lease = self._pod.slot.hold(session)
        except NotHeld as error:
            return ToolResult(Outcome.DENIED, error=CallError(str(error)))
        try:
            deadline = float(request.headers.get(DEADLINE, _NO_DEADLINE * 1000)) / 1000
        except ValueError:
            return ToolResult(Outcome.INVALID_ARGUMENTS, error=CallError(f"header {DEADLINE} is no number"))
        return await self._calls.call(name, arguments, limits=lease.limits, deadline=deadline)


def _where(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def _problem(status: int, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status)
