"""HTTP/1.1 to replicas: POST only, over connections that are kept alive, one request at a time on each.

aiohttp's client makes a session's request, a response and their contexts for each call, half of what a call cost. Here
stands only what the hop needs, around aiohttp's protocol and parser (llhttp) of a connection.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TypeVar

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import RawResponseMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EofStream, StreamReader
from yarl import URL

T = TypeVar("T")

# A kernel answers at once however busy its processes are: what does not within this is not there (any more).
CONNECT_SECONDS = 0.5
# uvicorn and Node close idle connections after 5 s: ours go first, so that no request meets a closing socket.
KEEPALIVE_SECONDS = 4.0
_BROKEN = (aiohttp.ClientError, HttpProcessingError, EofStream, OSError, ValueError)


class Unreachable(Exception):
    """There is no connection, so nothing was sent."""


class Broken(Exception):
    """The request was sent, at least in part; what came back is no whole HTTP response."""


@dataclass(slots=True)
class Response:
    """Status and headers, and the body as it comes."""

    message: RawResponseMessage
    payload: StreamReader

    @property
    def status(self) -> int:
        return self.message.code

    def header(self, name: str, default: str = "") -> str:
        found: str = self.message.headers.get(name, default)
        return found

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body in pieces of any size. Raises `Broken` where its end is missing."""
        try:
            while not self.payload.at_eof():
                yield await self.payload.readany()
        except _BROKEN as error:
            raise Broken(type(error).__name__) from None


class _Connection(ResponseHandler):
    """`asked`: a request is on its way. `since`: when its last response ended."""

    asked = False
    since = 0.0

    def data_received(self, data: bytes) -> None:
        if self.asked:
            super().data_received(data)
        else:
            self.abort()  # an answer to no question: the next question's answer could not be told from it

    def ask(self, request: bytes) -> None:
        """Send it. Raises `Unreachable`: the other side has closed the connection meanwhile."""
        if self.transport is None:
            raise Unreachable("ConnectionResetError")
        self.asked = True
        self.transport.write(request)

    async def response(self) -> Response:
        """The next one that is not informational. Raises `Broken`."""
        try:
            while True:
                message, payload = await self.read()
                if message.code >= 200 or message.code == 101:
                    return Response(message, payload)
        except _BROKEN as error:
            raise Broken(type(error).__name__) from None

    def ended(self) -> bool:
        """Whether no begin of another response has come with the last one."""
        try:
            return self._parser is not None and self._parser.feed_eof() is None
        except Exception:  # noqa: BLE001 - whatever it is, it is no clean end
            return False

    def reusable(self) -> bool:
        """Whether the response was read to its end, and both sides go on."""
        transport = self.transport
        return transport is not None and not (
            self.should_close or transport.is_closing() or transport.get_write_buffer_size()
        )


@dataclass(frozen=True, slots=True)
class _Target:
    origin: tuple[str, int, bool]
    head: str


@lru_cache(maxsize=4096)
def _target(url: str) -> _Target:
    parts = URL(url, encoded=True)
    head = f"POST {parts.raw_path_qs} HTTP/1.1\r\nHost: {parts.host_port_subcomponent}\r\n"
    if parts.user is not None:
        head += f"Authorization: {aiohttp.BasicAuth(parts.user, parts.password or '').encode()}\r\n"
    return _Target((str(parts.raw_host), int(parts.port or 80), parts.scheme == "https"), head)


def _head(target: _Target, headers: Mapping[str, str], length: int) -> bytes:
    """Raises `ValueError` for a value that would end its line."""
    fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if not fields.count("\n") == fields.count("\r") == len(headers) or "\0" in fields:
        raise ValueError("a header's value has a line break")
    text = f"{target.head}{fields}Content-Length: {length}\r\n\r\n"
    return text.encode("utf-8", "surrogateescape")


class Connections:
    """To all replicas; no limit of their own (the pools have limits), no proxy, no cookies, no redirects."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, int, bool], list[_Connection]] = {}
        self._sweep: asyncio.TimerHandle | None = None

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], read: Callable[[Response], Awaitable[T]]
    ) -> T:
        """What `read` makes of the response. A response that it leaves unread, or a cancellation, ends the connection.

        Raises:
            Unreachable: no connection within half a second.
            Broken: the connection ended, or what came is not HTTP.
            ValueError: a header can't be sent; nothing was.
        """
        target = _target(url)
        head = _head(target, headers, len(body))
        connection = self._known(target.origin)
        if connection is None:  # not `or`: one without a message is false
            connection = await self._connect(target.origin)
        try:
            connection.ask(head + body)
            found = await read(await connection.response())
        except BaseException:
            connection.abort()
            raise
        self._keep(target.origin, connection)
        return found

    def _known(self, origin: tuple[str, int, bool]) -> _Connection | None:
        """One that is open and was used a moment ago."""
        idle = self._idle.get(origin)
        now = asyncio.get_running_loop().time()
        while idle:
            connection = idle.pop()
            if connection.reusable() and now - connection.since < KEEPALIVE_SECONDS:
                return connection
            connection.abort()
        return None

    async def _connect(self, origin: tuple[str, int, bool]) -> _Connection:
        host, port, secure = origin
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await loop.create_connection(
                    lambda: _Connection(loop), host, port, ssl=self._tls if secure else None
                )
        except OSError as error:  # a TimeoutError is one
            raise Unreachable(type(error).__name__) from None
        connection.set_response_params(read_until_eof=True)
        return connection

    def _keep(self, origin: tuple[str, int, bool], connection: _Connection) -> None:
        if not (connection.reusable() and connection.ended()):
            connection.abort()
            return
        loop = asyncio.get_running_loop()
        connection.asked, connection.since = False, loop.time()
        self._idle.setdefault(origin, []).append(connection)
        if self._sweep is None:
            self._sweep = loop.call_later(KEEPALIVE_SECONDS, self._end_idle, loop)

    def _end_idle(self, loop: asyncio.AbstractEventLoop) -> None:
        """End those that nobody used for a while; the longest unused stand first."""
        until = loop.time() - KEEPALIVE_SECONDS
        for origin, idle in list(self._idle.items()):
            while idle and idle[0].since <= until:
                idle.pop(0).abort()
            if not idle:
                del self._idle[origin]
        self._sweep = loop.call_later(KEEPALIVE_SECONDS / 4, self._end_idle, loop) if self._idle else None

    def close(self) -> None:
        """End the idle ones; those in use end with their requests."""
        if self._sweep is not None:
            self._sweep.cancel()
        for idle in self._idle.values():
            for connection in idle:
                connection.abort()
        self._idle.clear()
