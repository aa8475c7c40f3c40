"""Every request comes in here: routes, who calls, which era."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from pinnace.tools.gateway import http, wire
from pinnace.tools.gateway.auth import Caller
from pinnace.tools.gateway.entry import Entry
from pinnace.tools.gateway.http import Refused
from pinnace.tools.gateway.legacy import Legacy
from pinnace.tools.gateway.modern import Modern
from pinnace.tools.gateway.rest import Rest
from pinnace.tools.gateway.sessions import SessionsFront
from pinnace.tools.gateway.state import State

log = logging.getLogger(__name__)

Handler = Callable[[web.BaseRequest, Caller], Awaitable[web.StreamResponse]]


class Front:
    """Routes by method and path."""

    def __init__(
        self, state: State, entry: Entry, modern: Modern, legacy: Legacy, rest: Rest, sessions: SessionsFront
    ) -> None:
        self.ready: Callable[[], str] = lambda: ""
        self.loopback = True
        self._state = state
        self._entry = entry
        self._modern = modern
        self._legacy = legacy
        self._sessions = sessions
        self._routes: dict[tuple[str, str], Handler] = {
            ("POST", "/mcp"): self._mcp,
            ("GET", "/mcp"): self._mcp,
            ("DELETE", "/mcp"): self._mcp,
            ("POST", "/call"): rest.call,
            ("GET", "/tools"): rest.tools,
            ("POST", "/replay"): rest.replay,
        }

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        try:
            if path in {"/healthz", "/readyz", "/metrics"}:
                return self._about(path)
            http.check_origin(request, loopback=self.loopback)
            caller = await self._entry.caller(request)
            handler = self._routes.get((request.method, path))
            if handler is None and path.startswith("/sessions"):
                handler = self._sessions.handle
            response = await (handler or self._no_route)(request, caller)
        except Refused as refused:
            return refused.response()
        except web.HTTPException as error:  # aiohttp's own word about a malformed request
            return Refused(error.status, error.reason).response()
        except ConnectionError:
            raise  # the caller went away while we wrote to it
        if self._entry.draining and not response.prepared:
            response.force_close()
        return response

    async def _mcp(self, request: web.BaseRequest, caller: Caller) -> web.StreamResponse:
        version = request.headers.get("MCP-Protocol-Version")
        if version is None or version in wire.LEGACY_VERSIONS:
            if request.method == "POST":
                return await self._legacy.post(request, caller)
            if request.method == "GET":
                return await self._legacy.get(request, caller)
            return await self._legacy.delete(request, caller)
        if request.method != "POST":
            return web.Response(status=405, headers={"Allow": "POST"})
        return await self._modern.post(request, caller)

    def _about(self, path: str) -> web.Response:
        if path == "/healthz":
            return web.Response(text="ok\n")
        if path == "/readyz":
            why = self.ready()
            return web.Response(text=f"{why or 'ok'}\n", status=503 if why else 200)
        self._state.metrics.mcp_sessions.set(len(self._legacy.sessions))
        for state, count in self._state.leases.counts().items():
            self._state.metrics.sessions.labels(state).set(count)
        body = self._state.metrics.render()
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _no_route(self, request: web.BaseRequest, _caller: Caller) -> web.StreamResponse:
        path = request.path
        known = sorted({each for _, each in self._routes} | {"/sessions"})
        if path in known:
            raise Refused(405, f"{request.method} {path} does not exist")
        raise Refused(404, f"there is no {path}: the gateway serves {', '.join(known)}")
