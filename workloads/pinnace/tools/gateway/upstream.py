"""The hop from the gateway to a replica: one POST, in the replica's era, told as a message or a `Failure`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp

from pinnace.tools.gateway import wire
from pinnace.tools.gateway.connection import (
    CONNECT_SECONDS,
    KEEPALIVE_SECONDS,
    Broken,
    Connections,
    Response,
    Unreachable,
)
from pinnace.tools.gateway.retry import Failure, Reach
from pinnace.tools.gateway.route import Replica
from pinnace.tools.outcome import Outcome

Emit = Callable[[bytes], Awaitable[None]]  # takes a notification (a JSON-RPC message) on its way to the caller

MAX_MESSAGE = 64 << 20  # bytes; what is longer is not read


class Failed(Exception):
    """The attempt failed for a reason which is not the tool's."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@dataclass(frozen=True)
class Message:
    """A JSON-RPC response: its bytes, and what they say (one of `result` and `error` is set)."""

    raw: bytes
    result: dict[str, Any] | None
    error: dict[str, Any] | None


def fail(outcome: Outcome, reach: Reach, message: str, retry_after: float | None = None) -> Failed:
    return Failed(Failure(outcome, reach, message, retry_after))


class Upstream:
    """Calls go over lean connections of our own (`post`); what is rare, over aiohttp's client (`http`)."""

    def __init__(self) -> None:
        self._connections = Connections()
        self.http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS, ttl_dns_cache=10),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            skip_auto_headers=("User-Agent", "Accept-Encoding", "Content-Type"),
            trust_env=False,
        )
        # A connection for each probe: one that is open says nothing about a host that has vanished.
        self.probes = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            trust_env=False,
        )
        self.asked: set[Replica] = set()
        """Replicas with calls in flight that may move, also those that are gone."""

    async def close(self) -> None:
        self._connections.close()
        await self.http.close()
        await self.probes.close()

    async def post(
        self,
        replica: Replica,
        body: bytes,
        headers: Mapping[str, str],
        *,
        within: float,
        emit: Emit | None,
        movable: bool = False,
    ) -> Message:
        """One request and its response. Raises `Failed`; lets the caller's cancellation through (it closes the stream).

        Args:
            replica: whom to ask.
            body: a JSON-RPC request.
            headers: of the request.
            within: seconds for the whole exchange.
            emit: takes notifications that come before the response; without it they are dropped.
            movable: fail at once when health probes find the replica hung, instead of waiting on.
        """
        scope = asyncio.timeout(within)
        if movable:
            replica.scopes.add(scope)
            self.asked.add(replica)
        try:
            async with scope:
                return await self._connections.post(replica.url, body, headers, partial(_answer, emit))
        except Unreachable as error:
            raise fail(Outcome.UNAVAILABLE, Reach.NOT_SENT, f"can't connect: {error}") from None
        except TimeoutError:
            if movable and replica.hung:
                raise fail(Outcome.UNAVAILABLE, Reach.UNKNOWN, "the replica does not answer health probes") from None
            raise fail(Outcome.TIMEOUT, Reach.UNKNOWN, f"no answer within {within:.1f} s") from None
        except (Broken, ValueError) as error:
            raise fail(Outcome.UNAVAILABLE, Reach.UNKNOWN, f"the connection broke: {error}") from None
        finally:
            replica.scopes.discard(scope)
            if not replica.scopes:
                self.asked.discard(replica)


async def _answer(emit: Emit | None, response: Response) -> Message:
    kind = response.header("Content-Type")
    if kind.startswith("text/event-stream") and response.status == 200:
        return await _stream(response, emit)
    body = await _bounded(response)
    if kind.startswith("application/json"):
        message = _message(body)
        if message is not None and not _is_refusal(response.status):
            return message
    raise _http_failure(response, body)


async def _bounded(response: Response) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.chunks():
        size += len(chunk)
        if size > MAX_MESSAGE:
            raise fail(Outcome.UNAVAILABLE, Reach.UNKNOWN, f"the answer has more than {MAX_MESSAGE >> 20} MiB")
        chunks.append(chunk)
    return b"".join(chunks)


async def _stream(response: Response, emit: Emit | None) -> Message:
    events = wire.Events()
    async for chunk in response.chunks():
        for data in events.feed(chunk):
            message = _message(data)
            if message is not None:
                return message
            if emit is not None and _is_notification(data):
                await emit(data)
        if events.size > MAX_MESSAGE:
            raise fail(Outcome.UNAVAILABLE, Reach.UNKNOWN, f"an event has more than {MAX_MESSAGE >> 20} MiB")
    raise fail(Outcome.UNAVAILABLE, Reach.UNKNOWN, "the stream ended without a result")


def _message(body: bytes) -> Message | None:
    """None: not a JSON-RPC response."""
    try:
        value = wire.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        return None
    result, error = value.get("result"), value.get("error")
    if isinstance(result, dict):
        return Message(body, result, None)
    return Message(body, None, error) if isinstance(error, dict) else None


def _is_notification(data: bytes) -> bool:
    try:
        value = wire.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and "method" in value and "id" not in value


def _is_refusal(status: int) -> bool:
    return status in {401, 403, 429} or status >= 500


def _http_failure(response: Response, body: bytes) -> Failed:
    status = response.status
    if status in {429, 503}:
        wait = _seconds(response.header("Retry-After"))
        return fail(Outcome.OVERLOADED, Reach.REFUSED, "the tool server is over its queue", wait)
    if status in {401, 403}:
        return fail(Outcome.UNAVAILABLE, Reach.REFUSED, f"the tool server refused the gateway (HTTP {status})")
    if 400 <= status < 500:
        return fail(Outcome.UNAVAILABLE, Reach.REFUSED, f"the tool server did not take the request (HTTP {status})")
    what = f"HTTP {status}, {response.header('Content-Type', 'no type')}, {len(body)} bytes"
    return fail(Outcome.UNAVAILABLE, Reach.UNKNOWN, f"the answer is no MCP message ({what})")


def _seconds(text: str | None) -> float | None:
    try:
        return max(0.0, float(text)) if text else None
    except ValueError:
        return None
