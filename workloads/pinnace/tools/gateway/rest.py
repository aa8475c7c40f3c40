"""The REST front: `POST /call`, `GET /tools`, `POST /replay`."""

from __future__ import annotations

import math
from typing import Any

from aiohttp import web

from pinnace.tools.gateway import http, wire
from pinnace.tools.gateway.auth import Caller
from pinnace.tools.gateway.call import Calls
from pinnace.tools.gateway.entry import Entry
from pinnace.tools.gateway.http import Refused, Sink
from pinnace.tools.gateway.reply import Reply, refused
from pinnace.tools.gateway.state import State
from pinnace.tools.outcome import Outcome


class Rest:
    """For agents without MCP."""

    def __init__(self, state: State, calls: Calls, entry: Entry) -> None:
        self._state = state
        self._calls = calls
        self._entry = entry

    async def call(self, request: web.BaseRequest, caller: Caller) -> web.StreamResponse:
        """`{name, arguments, timeoutSeconds?}` → a `ToolResult`; with `Accept: text/event-stream` as a stream."""
        asked = await self.json(request)
        name, arguments, seconds = asked.get("name"), asked.get("arguments", {}), asked.get("timeoutSeconds")
        if not isinstance(name, str) or not name:
            raise Refused(400, '`name` is missing: send {"name": …, "arguments": {…}}')
        if not isinstance(seconds, int | float | None) or isinstance(seconds, bool):
            raise Refused(400, "`timeoutSeconds` is a number")
        if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
            raise Refused(400, "`timeoutSeconds` is above 0")
        sink = Sink(request)
        if request.headers.get("Accept", "").partition(",")[0].strip() != "text/event-stream":
            sink.accepts_stream = False
        if not isinstance(arguments, dict):
            reply = refused(Outcome.INVALID_ARGUMENTS, "$: `arguments` must be an object", path="$")
            return await self._end(sink, reply)
        call = self._entry.call(request, caller, name, arguments, seconds)
        call.params = {"name": name, "arguments": arguments, "_meta": wire.modern_meta()}
        if sink.accepts_stream:
            call.params["_meta"]["progressToken"] = call.request_id
        call.emit = sink.emit
        call.run = await self._entry.run(request, caller)
        try:
            reply = await self._calls.call(call)
            if (reply.value or {}).get("resultType") == "input_required":
                told = f"{name!r} asks its caller for input, which only MCP can carry: call it by /mcp"
                reply = refused(Outcome.TOOL_ERROR, told)
            return await self._end(sink, reply)
        finally:
            sink.close()

    async def _end(self, sink: Sink, reply: Reply) -> web.StreamResponse:
        result = reply.result()
        body = wire.dumps(result.to_json())
        if result.outcome is Outcome.OVERLOADED:
            wait = result.error.retry_after if result.error else None
            return await sink.end(body, 429, {"Retry-After": str(max(1, math.ceil(wait or 1)))})
        return await sink.end(body)

    async def tools(self, _request: web.BaseRequest, _caller: Caller) -> web.StreamResponse:
        """The list for ChatCompletions, and which of them need a lease."""
        catalog = self._state.catalog
        return http.json_response({"tools": catalog.openai(), "inSessions": catalog.in_sessions()})

    async def replay(self, request: web.BaseRequest, caller: Caller) -> web.StreamResponse:
        """`{mode, key}`."""
        asked = await self.json(request)
        run = await self._entry.set_run(caller, str(asked.get("mode", "")), str(asked.get("key", "")))
        return http.json_response({"mode": run.mode, "key": run.key.partition("/")[2]})

    async def json(self, request: web.BaseRequest) -> dict[str, Any]:
        """The body as an object. Raises `Refused` (400, 413)."""
        import json

        raw = await http.body(request, self._state.config.limits.request_bytes)
        try:
            value = json.loads(raw or b"{}")
        except (ValueError, RecursionError):
            raise Refused(400, "the body is not JSON") from None
        if not isinstance(value, dict):
            raise Refused(400, "the body must be a JSON object")
        return value
