"""MCP of revision 2026-07-28, stateless, JSON answers: the little of it that a server of tools needs."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from pinnace.tools.outcome import ToolResult

VERSION = "2026-07-28"
_PARSE, _INVALID_REQUEST, _METHOD_NOT_FOUND, _INVALID_PARAMS = -32700, -32600, -32601, -32602
_HEADER_MISMATCH, _UNSUPPORTED_VERSION = -32020, -32022
_SERVER = "io.modelcontextprotocol/serverInfo"
_PROTOCOL = "io.modelcontextprotocol/protocolVersion"

Call = Callable[[str, Mapping[str, Any]], Awaitable[ToolResult]]


@dataclass(frozen=True)
class Answer:
    """HTTP status and body; no body for a notification."""

    status: int
    body: dict[str, Any] | None


async def answer(  # noqa: C901, PLR0911 - a case each
    body: bytes, headers: Mapping[str, str], *, tools: list[dict[str, Any]], call: Call
) -> Answer:
    """One request. Errors of the protocol are JSON-RPC errors; what a tool did is a result, always with HTTP 200."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return _error(None, 400, _PARSE, "the body is no JSON")
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0" or not isinstance(message.get("method"), str):
        return _error(None, 400, _INVALID_REQUEST, "the body is no JSON-RPC 2.0 request")
    number, method, params = message.get("id"), message["method"], message.get("params") or {}
    if number is None:
        return Answer(202, None)
    if not isinstance(params, dict):
        return _error(number, 400, _INVALID_PARAMS, "params must be an object")
    if mismatch := _mismatch(headers, method, params):
        return mismatch(number)
    meta = {_SERVER: {"name": "pinnace-session", "version": version("pinnace")}}
    match method:
        case "server/discover":
            found = {"supportedVersions": [VERSION], "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private"}
            return _result(number, found | {"resultType": "complete", "_meta": meta})
        case "tools/list":
            listed = {"tools": tools, "ttlMs": 3_600_000, "cacheScope": "private", "resultType": "complete"}
            return _result(number, listed)
        case "ping":
            return _result(number, {"resultType": "complete"})
        case "tools/call":
            arguments = params.get("arguments") or {}
            if not isinstance(params.get("name"), str) or not isinstance(arguments, dict):
                return _error(number, 400, _INVALID_PARAMS, "tools/call needs a name, and arguments as an object")
            return _result(number, (await call(params["name"], arguments)).to_mcp())
        case _:
            return _error(number, 404, _METHOD_NOT_FOUND, f"{method} is not served here")


def _mismatch(headers: Mapping[str, str], method: str, params: Mapping[str, Any]) -> Callable[[Any], Answer] | None:
    """The routing headers must say what the body says (basic/transports of the revision)."""
    meta = params.get("_meta") or {}
    said = headers.get("Mcp-Protocol-Version") or meta.get(_PROTOCOL) or VERSION
    if said != VERSION:
        data = {"supported": [VERSION], "requested": said}
        return lambda number: _error(number, 400, _UNSUPPORTED_VERSION, f"protocol {said} is not served here", data)
    for header, value in (("Mcp-Method", method), ("Mcp-Name", params.get("name"))):
        if header in headers and value is not None and headers[header] != value:
            return lambda number, header=header: _error(  # type: ignore[misc]  # a lambda with a default
                number, 400, _HEADER_MISMATCH, f"header {header} differs from the body"
            )
    return None


def _result(number: Any, result: dict[str, Any]) -> Answer:
    return Answer(200, {"jsonrpc": "2.0", "id": number, "result": result})


def _error(number: Any, status: int, code: int, message: str, data: Any = None) -> Answer:
    error: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return Answer(status, {"jsonrpc": "2.0", "id": number, "error": error})
