"""The HTTP side of MCP 2026-07-28: which requests are well formed, and how answers look. Pure."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MODERN = "2026-07-28"
LEGACY = "2025-06-18"  # what children are spoken to in
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL = -32700, -32600, -32601, -32602, -32603
HEADER_MISMATCH, UNSUPPORTED_VERSION = -32020, -32022
_STATUS = {METHOD_NOT_FOUND: 404} | dict.fromkeys(
    (PARSE_ERROR, INVALID_REQUEST, INVALID_PARAMS, HEADER_MISMATCH, UNSUPPORTED_VERSION), 400
)
_META = "io.modelcontextprotocol/"
_VERSION, _CAPABILITIES = _META + "protocolVersion", _META + "clientCapabilities"

Json = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """A well-formed request; `id` is None for a notification."""

    id: int | str | None
    method: str
    params: Json


@dataclass(frozen=True)
class Rejection(Exception):
    """A JSON-RPC error for the caller and the HTTP status that the transport gives it."""

    code: int
    message: str
    id: int | str | None = None
    data: Any = None

    @property
    def status(self) -> int:
        """400 or 404 by the specification's table, else 200."""
        return _STATUS.get(self.code, 200)

    def body(self) -> Json:
        """The JSON-RPC message."""
        error: Json = {"code": self.code, "message": self.message}
        if self.data is not None:
            error["data"] = self.data
        return {"jsonrpc": "2.0", "id": self.id, "error": error}


def parse(body: bytes, headers: Mapping[str, str]) -> Call:
    """Checks body against headers as the transport demands (specification, basic/transports: request headers).

    Raises:
        Rejection: The first thing that is wrong.
    """
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Rejection(PARSE_ERROR, f"the body is not JSON: {error}") from None
    if not isinstance(message, dict) or not isinstance(message.get("method"), str):
        raise Rejection(INVALID_REQUEST, "the body must be one JSON-RPC request or notification")
    params = message.get("params") or {}
    if not isinstance(params, dict):
        raise Rejection(INVALID_REQUEST, "params must be an object")
    if "id" not in message:
        return Call(None, message["method"], params)
    identity = message["id"]
    if not isinstance(identity, int | str) or isinstance(identity, bool):
        raise Rejection(INVALID_REQUEST, "id must be a string or an integer")
    if problem := _mismatch(message["method"], params, headers, identity):
        raise problem
    return Call(identity, message["method"], params)


def _mismatch(method: str, params: Json, headers: Mapping[str, str], identity: int | str) -> Rejection | None:
    version = headers.get("MCP-Protocol-Version")
    meta = params.get("_meta")
    if version != MODERN:
        return Rejection(
            *(
                UNSUPPORTED_VERSION,
                f"this server speaks MCP {MODERN}, not {version or 'a revision without that header'}",
            ),
            identity,
            {"supported": [MODERN], "requested": version or ""},
        )
    if not isinstance(meta, dict) or _VERSION not in meta or _CAPABILITIES not in meta:
        return Rejection(INVALID_PARAMS, f"params._meta must have {_VERSION} and {_CAPABILITIES}", identity)
    if meta[_VERSION] != version:
        return Rejection(HEADER_MISMATCH, f"MCP-Protocol-Version and params._meta[{_VERSION!r}] differ", identity)
    if headers.get("Mcp-Method") != method:
        return Rejection(HEADER_MISMATCH, "Mcp-Method and the body's method differ", identity)
    if method == "tools/call" and _decoded(headers.get("Mcp-Name")) != params.get("name"):
        return Rejection(HEADER_MISMATCH, "Mcp-Name and params.name differ", identity)
    return None


def _decoded(value: str | None) -> str | None:
    """A header's text; names that no header can carry come as =?base64?…?=."""
    if value is None or not (value.startswith("=?base64?") and value.endswith("?=")):
        return value
    try:
        return base64.b64decode(value[9:-2], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


def for_child(params: Json, progress_token: int | None) -> Json:
    """A call's parameters as a server of the handshake era expects them: our progress token, no modern envelope."""
    meta = {key: value for key, value in params.get("_meta", {}).items() if not key.startswith(_META)}
    meta.pop("progressToken", None)
    if progress_token is not None:
        meta["progressToken"] = progress_token
    rest = {key: value for key, value in params.items() if key != "_meta"}
    return rest | ({"_meta": meta} if meta else {})


def answer(identity: int | str | None, result: Json) -> bytes:
    """A JSON-RPC response; results of an older server get the type that every modern result has."""
    if "resultType" not in result:
        result = {"resultType": "complete", **result}
    return dump({"jsonrpc": "2.0", "id": identity, "result": result})


def dump(message: Json) -> bytes:
    """Compact UTF-8 JSON, always one line."""
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def event(data: bytes) -> bytes:
    """One server-sent event."""
    return b"event: message\r\ndata: " + data + b"\r\n\r\n"
