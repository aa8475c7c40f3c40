"""The hop to a replica that knows only revisions before 2026-07-28: one session each, messages translated."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Mapping
from typing import Any

import aiohttp
from yarl import URL

from pinnace.tools.gateway import wire
from pinnace.tools.gateway.retry import Reach
from pinnace.tools.gateway.route import Replica
from pinnace.tools.gateway.upstream import Emit, Failed, Message, Upstream, fail
from pinnace.tools.outcome import Outcome

_HEADERS = {"Accept": wire.JSON_AND_SSE, "Content-Type": "application/json"}
_ids = itertools.count(1)


class Older:
    """Speaks 2025-06-18 with sessions. One session a replica serves all calls: tools of such servers are shared too."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._opening: dict[int, asyncio.Lock] = {}

    async def request(
        self,
        replica: Replica,
        method: str,
        params: Mapping[str, Any],
        headers: Mapping[str, str],
        *,
        rpc_id: Any,
        within: float,
        emit: Emit | None = None,
        movable: bool = False,
    ) -> Message:
        """As `Upstream.post`, with method and parameters. A lost session is opened again, once."""
        for last in (False, True):
            await self._open(replica, within)
            number = next(_ids)
            token = (params.get("_meta") or {}).get("progressToken")
            older = {key: value for key, value in params.items() if key != "_meta"}
            if token is not None:
                older["_meta"] = {"progressToken": token}
            sent = {**headers, **_HEADERS, "Mcp-Session-Id": replica.session, "MCP-Protocol-Version": replica.era}
            if not replica.session:
                del sent["Mcp-Session-Id"]
            try:
                message = await self._upstream.post(
                    replica, wire.request(number, method, older), sent, within=within, emit=emit, movable=movable
                )
            except Failed as failed:
                if failed.failure.reach is not Reach.REFUSED or last or "HTTP 404" not in failed.failure.message:
                    raise
            except asyncio.CancelledError:
                self._cancel(replica, number)
                raise
            else:
                if message.error is None or last or "ession" not in str(message.error.get("message")):
                    return _translated(message, rpc_id)
            replica.session = ""
            replica.era = ""
        raise AssertionError("the second round returns or raises")

    async def _open(self, replica: Replica, within: float) -> None:
        if replica.era:
            return
        lock = self._opening.setdefault(id(replica), asyncio.Lock())
        async with lock:
            if not replica.era:
                await initialize(self._upstream, replica, within=within)
        self._opening.pop(id(replica), None)

    def _cancel(self, replica: Replica, number: int) -> None:
        """In these revisions a closed connection is no cancellation: say it."""
        note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}}
        task = asyncio.ensure_future(_notify(self._upstream, replica, note))
        _background.add(task)
        task.add_done_callback(_background.discard)


def _translated(message: Message, rpc_id: Any) -> Message:
    """As the caller would have it from a server of 2026-07-28."""
    if message.result is None:
        return Message(wire.dumps({"jsonrpc": "2.0", "id": rpc_id, "error": message.error}), None, message.error)
    result = {"resultType": "complete", **message.result}
    return Message(wire.result(rpc_id, result), result, None)


_background: set[asyncio.Future[None]] = set()


async def initialize(upstream: Upstream, replica: Replica, *, within: float) -> dict[str, Any]:
    """The handshake; fills in `replica.era` and `.session` and returns the server's result. Raises `Failed`."""
    hello = {"protocolVersion": wire.LEGACY, "capabilities": {}, "clientInfo": wire.GATEWAY}
    body = wire.request(0, "initialize", hello)
    try:
        async with (
            asyncio.timeout(within),
            upstream.http.post(URL(replica.url, encoded=True), data=body, headers=_HEADERS) as response,
        ):
            text = await response.content.read() if response.status != 200 else await _first_message(response)
            session = response.headers.get("Mcp-Session-Id", "")
            status = response.status
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise fail(Outcome.UNAVAILABLE, Reach.NOT_SENT, f"no handshake: {error.__class__.__name__}") from None
    result = _result(text)
    if result is None or "protocolVersion" not in result:
        raise fail(Outcome.UNAVAILABLE, Reach.NOT_SENT, f"no MCP server: HTTP {status} to initialize")
    replica.session, replica.era = session, str(result["protocolVersion"])
    await _notify(upstream, replica, {"jsonrpc": "2.0", "method": "notifications/initialized"})
    return result


async def _first_message(response: aiohttp.ClientResponse) -> bytes:
    if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
        return await response.read()
    events = wire.Events()
    async for chunk in response.content.iter_any():
        for data in events.feed(chunk):
            if _result(data) is not None:
                return data
    return b""


def _result(text: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    found = value.get("result") if isinstance(value, dict) else None
    return found if isinstance(found, dict) else None


async def _notify(upstream: Upstream, replica: Replica, note: Mapping[str, Any]) -> None:
    headers = {**_HEADERS, "MCP-Protocol-Version": replica.era}
    if replica.session:
        headers["Mcp-Session-Id"] = replica.session
    try:
        async with (
            asyncio.timeout(5),
            upstream.http.post(URL(replica.url, encoded=True), data=wire.dumps(note), headers=headers) as response,
        ):
            await response.read()
    except (aiohttp.ClientError, OSError):
        return  # lossy by nature: the server learns it from the closed connection, or not at all
