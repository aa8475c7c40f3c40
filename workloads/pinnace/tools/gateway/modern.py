"""The MCP front of revision 2026-07-28: stateless, one request a POST, routed by headers."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web
from mcp.shared.inbound import (
    ERROR_CODE_HTTP_STATUS,
    InboundLadderRejection,
    classify_inbound_request,
    unsupported_protocol_version_rejection,
)
from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY
from mcp_types import SERVER_INFO_META_KEY

from pinnace.tools.gateway import http, wire
from pinnace.tools.gateway.auth import Caller
from pinnace.tools.gateway.call import Calls
from pinnace.tools.gateway.entry import Entry
from pinnace.tools.gateway.http import Refused, Sink
from pinnace.tools.gateway.reply import Reply
from pinnace.tools.gateway.state import State

_ROUTING = ("MCP-Protocol-Version", "Mcp-Method", "Mcp-Name")
_TTL_MS = 5_000
_LISTEN_SECONDS = 3600.0


class Modern:
    """Answers requests that name 2026-07-28 (or a revision that nobody knows) in their header."""

    def __init__(self, state: State, calls: Calls, entry: Entry) -> None:
        self._state = state
        self._calls = calls
        self._entry = entry

    async def post(  # noqa: PLR0911 - a ladder of refusals
        self, request: web.BaseRequest, caller: Caller
    ) -> web.StreamResponse:
        """One JSON-RPC message."""
        raw = await http.body(request, self._state.config.limits.request_bytes)
        try:
            message = wire.loads(raw)
        except (ValueError, RecursionError):
            return _error(None, wire.PARSE_ERROR, "Parse error: the body is not JSON")
        if not isinstance(message, dict) or not isinstance(message.get("method"), str):
            return _error(None, wire.INVALID_REQUEST, "the body must be one JSON-RPC request or notification")
        if "id" not in message:
            # Nothing to do: in this revision a call is cancelled by closing its connection.
            version = request.headers.get("MCP-Protocol-Version", "")
            refusal = unsupported_protocol_version_rejection(version)
            return web.Response(status=202) if refusal is None else _rejected(None, refusal)
        rpc_id = message["id"]
        if message.get("jsonrpc") != "2.0" or isinstance(rpc_id, bool) or not isinstance(rpc_id, str | int):
            return _error(None, wire.INVALID_REQUEST, "a JSON-RPC 2.0 request has an id (a string or an integer)")
        for name in _ROUTING:
            if len(request.headers.getall(name, ())) > 1:
                return _error(rpc_id, -32020, f"header {name.lower()} stands there more than once")
        verdict = classify_inbound_request(message, headers=request.headers)
        if isinstance(verdict, InboundLadderRejection):
            return _rejected(rpc_id, verdict)
        return await self._dispatch(request, caller, message, raw)

    async def _dispatch(
        self, request: web.BaseRequest, caller: Caller, message: dict[str, Any], raw: bytes
    ) -> web.StreamResponse:
        rpc_id, method, params = message["id"], message["method"], message["params"]
        if method == "tools/call":
            return await self._call(request, caller, rpc_id, params, raw)
        if method == "tools/list":
            return http.json_response(wire.result(rpc_id, self._state.catalog.list_result(legacy=False)))
        if method == "server/discover":
            return http.json_response(wire.result(rpc_id, discover()))
        if method == "subscriptions/listen":
            return await self._listen(request, rpc_id, params)
        return _error(rpc_id, wire.METHOD_NOT_FOUND, f"the gateway does not serve {method}")

    async def _call(
        self, request: web.BaseRequest, caller: Caller, rpc_id: Any, params: dict[str, Any], raw: bytes
    ) -> web.StreamResponse:
        name, arguments = params.get("name"), params.get("arguments")
        if not isinstance(name, str) or not isinstance(arguments, dict | None):
            return _error(rpc_id, wire.INVALID_PARAMS, "params.name must be a string and params.arguments an object")
        sink = Sink(request)
        call = self._entry.call(request, caller, name, arguments or {})
        call.params, call.raw, call.rpc_id, call.emit = params, raw, rpc_id, sink.emit
        call.run = await self._entry.run(request, caller)
        try:
            reply = await self._calls.call(call)
            return await finish(sink, reply, rpc_id)
        finally:
            sink.close()

    async def _listen(self, request: web.BaseRequest, rpc_id: Any, params: dict[str, Any]) -> web.StreamResponse:
        """Tells when the list of tools changes."""
        sink = Sink(request)
        if not sink.accepts_stream:
            raise Refused(406, "subscriptions/listen answers with text/event-stream: accept it")
        wanted = bool((params.get("notifications") or {}).get("toolsListChanged"))
        meta = {SUBSCRIPTION_ID_META_KEY: rpc_id}
        granted = {"toolsListChanged": True} if wanted else {}
        await sink.emit(_note("notifications/subscriptions/acknowledged", {"notifications": granted, "_meta": meta}))
        loop = asyncio.get_running_loop()
        end = loop.time() + _LISTEN_SECONDS
        changed = self._state.changed
        try:
            while (left := end - loop.time()) > 0 and not self._entry.draining:
                try:
                    async with asyncio.timeout(min(left, 1.0)):
                        await changed.wait()
                except TimeoutError:
                    continue
                changed = self._state.changed
                if wanted:
                    await sink.emit(_note("notifications/tools/list_changed", {"_meta": meta}))
            return await sink.end(wire.result(rpc_id, {"resultType": "complete", "_meta": meta}))
        finally:
            sink.close()


def discover() -> dict[str, Any]:
    """The result of `server/discover`."""
    return {
        "resultType": "complete",
        "supportedVersions": [wire.MODERN],
        "capabilities": {"tools": {"listChanged": True}},
        "ttlMs": _TTL_MS,
        "cacheScope": "public",
        "_meta": {SERVER_INFO_META_KEY: wire.GATEWAY},
    }


async def finish(sink: Sink, reply: Reply, rpc_id: Any) -> web.StreamResponse:
    """A reply as the response to an MCP request of 2026-07-28."""
    if reply.error is not None:
        code = int(reply.error.get("code") or wire.INTERNAL_ERROR)
        body = reply.message or wire.dumps({"jsonrpc": "2.0", "id": rpc_id, "error": reply.error})
        return await sink.end(body, ERROR_CODE_HTTP_STATUS.get(code, 200))
    headers = {}
    if reply.problem is not None and reply.problem.retry_after is not None:
        headers["Retry-After"] = str(max(1, round(reply.problem.retry_after)))
    return await sink.end(reply.message or wire.result(rpc_id, reply.mcp()), headers=headers)


def _note(method: str, params: dict[str, Any]) -> bytes:
    return wire.dumps({"jsonrpc": "2.0", "method": method, "params": params})


def _error(rpc_id: Any, code: int, message: str, data: Any = None) -> web.Response:
    return http.json_response(wire.error(rpc_id, code, message, data), ERROR_CODE_HTTP_STATUS.get(code, 400))


def _rejected(rpc_id: Any, rejection: InboundLadderRejection) -> web.Response:
    return _error(rpc_id, rejection.code, rejection.message, rejection.data)
