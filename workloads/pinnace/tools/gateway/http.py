"""HTTP at the rim: bodies within limits, answers, event streams that begin only when there is an event."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from pinnace.tools.gateway import wire

HARD_LIMIT = 1 << 30  # of a body, whatever the configuration says
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_JSON = {"Content-Type": "application/json"}
_STREAM = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}
PING_SECONDS = 15.0


class Refused(Exception):
    """An answer that ends the request at the HTTP level."""

    def __init__(self, status: int, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after

    def response(self) -> web.Response:
        headers = {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        return json_response(
            {"error": {"message": str(self)}}, self.status, retry_after=self.retry_after, headers=headers
        )


def json_response(
    value: Any, status: int = 200, *, retry_after: float | None = None, headers: Mapping[str, str] | None = None
) -> web.Response:
    """`value` as JSON; bytes go out as they are."""
    body = value if isinstance(value, bytes) else wire.dumps(value)
    more = {**_JSON, **(headers or {})}
    if retry_after is not None:
        more["Retry-After"] = str(max(1, math.ceil(retry_after)))
    return web.Response(body=body, status=status, headers=more)


async def body(request: web.BaseRequest, limit: int) -> bytes:
    """The whole body. Raises `Refused` (413) above `limit` bytes, before it is read where its length is known."""
    told = f"a request has at most {limit} bytes: send less, or raise limits.requestBytes"
    if (request.content_length or 0) > limit:
        raise Refused(413, told)
    if request.content_length is not None:
        return await request.read()
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > limit:
            raise Refused(413, told)
        chunks.append(chunk)
    return b"".join(chunks)


def check_origin(request: web.BaseRequest, *, loopback: bool) -> None:
    """Against DNS rebinding: a page of another site can't make a browser call. Raises `Refused` (403)."""
    host = _name(f"//{request.headers.get('Host', '')}")
    if loopback and host not in _LOOPBACK:
        raise Refused(403, f"this gateway listens on loopback, not for {host!r}")
    origin = request.headers.get("Origin")
    if origin is not None and _name(origin) not in {host, *_LOOPBACK}:
        raise Refused(403, "requests from pages of other sites are refused")


@lru_cache(maxsize=1024)
def _name(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


class Sink:
    """The answer to one MCP request: JSON, or from the first notification on an event stream."""

    def __init__(self, request: web.BaseRequest, headers: Mapping[str, str] | None = None) -> None:
        self._request = request
        self._headers = dict(headers or {})
        self._stream: web.StreamResponse | None = None
        self._pings: asyncio.Task[None] | None = None
        self.accepts_stream = "text/event-stream" in request.headers.get("Accept", "*/*").replace(
            "*/*", "text/event-stream"
        )

    async def emit(self, message: bytes) -> None:
        """Send a notification (or a request to the client) now."""
        if self.accepts_stream:
            await (await self.open()).write(wire.event(message))

    async def open(self) -> web.StreamResponse:
        """The event stream, begun if it was not."""
        if self._stream is None:
            self._stream = web.StreamResponse(headers={**_STREAM, **self._headers})
            await self._stream.prepare(self._request)
            self._pings = asyncio.create_task(self._ping(self._stream))
        return self._stream

    async def _ping(self, stream: web.StreamResponse) -> None:
        while True:
            await asyncio.sleep(PING_SECONDS)
            try:
                await stream.write(b": ping\n\n")
            except ConnectionError:
                return

    async def end(
        self, message: bytes, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> web.StreamResponse:
        """Send the response."""
        if self._stream is None:
            return web.Response(body=message, status=status, headers={**_JSON, **self._headers, **(headers or {})})
        self.close()
        await self._stream.write(wire.event(message))
        await self._stream.write_eof()
        return self._stream

    def close(self) -> None:
        """No more pings."""
        if self._pings is not None:
            self._pings.cancel()
            self._pings = None
