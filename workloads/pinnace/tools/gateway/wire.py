"""JSON-RPC and MCP on the wire: the envelopes of both eras, and events of a stream. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mcp_types import CLIENT_CAPABILITIES_META_KEY, CLIENT_INFO_META_KEY, LOG_LEVEL_META_KEY, PROTOCOL_VERSION_META_KEY
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, LATEST_MODERN_VERSION

MODERN = LATEST_MODERN_VERSION
LEGACY = "2025-06-18"  # what the gateway speaks to a server that does not know 2026-07-28
LEGACY_VERSIONS = HANDSHAKE_PROTOCOL_VERSIONS
GATEWAY = {"name": "pinnace-gateway", "version": "0.1"}
JSON_AND_SSE = "application/json, text/event-stream"

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32601, -32602, -32603


_encoder = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


def dumps(value: Any) -> bytes:
    """Compact JSON."""
    return _encoder.encode(value).encode("utf-8", "surrogatepass")


def loads(text: bytes) -> Any:
    """JSON in UTF-8, the only encoding that it has on a wire. Raises `ValueError`, `RecursionError`."""
    return json.loads(text.decode("utf-8", "surrogatepass"))


def result(request_id: Any, value: Mapping[str, Any]) -> bytes:
    return dumps({"jsonrpc": "2.0", "id": request_id, "result": value})


def error(request_id: Any, code: int, message: str, data: Any = None) -> bytes:
    fault: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        fault["data"] = data
    return dumps({"jsonrpc": "2.0", "id": request_id, "error": fault})


def event(message: bytes) -> bytes:
    """One event of a text/event-stream."""
    return b"event: message\ndata: " + message + b"\n\n"


def modern_meta(
    *, capabilities: Mapping[str, Any] | None = None, info: Mapping[str, Any] | None = None, log_level: str = ""
) -> dict[str, Any]:
    """The `_meta` that every request of 2026-07-28 carries."""
    meta = {
        PROTOCOL_VERSION_META_KEY: MODERN,
        CLIENT_INFO_META_KEY: dict(info or GATEWAY),
        CLIENT_CAPABILITIES_META_KEY: dict(capabilities or {}),
    }
    if log_level:
        meta[LOG_LEVEL_META_KEY] = log_level
    return meta


def request(request_id: Any, method: str, params: Mapping[str, Any]) -> bytes:
    return dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})


def to_legacy(value: Mapping[str, Any]) -> dict[str, Any]:
    """A result of 2026-07-28 as older clients know it."""
    kept = {key: part for key, part in value.items() if key not in {"resultType", "ttlMs", "cacheScope"}}
    if "structuredContent" in kept and not isinstance(kept["structuredContent"], dict):
        del kept["structuredContent"]  # only objects were allowed; the text block has it too
    return kept


class Events:
    """Cuts a text/event-stream into the data of its events, whatever the borders of its chunks."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The data of each event that `chunk` ends."""
        lines = (self._rest + chunk).replace(b"\r\n", b"\n").split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                data, self._data = b"\n".join(self._data), []
                if data:
                    yield data

    @property
    def size(self) -> int:
        """Bytes that wait for the rest of their event."""
        return len(self._rest) + sum(map(len, self._data))
