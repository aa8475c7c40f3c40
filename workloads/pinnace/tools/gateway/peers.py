"""The other gateways of this ToolSandbox. Any of them may get what belongs to a call that another one has."""

from __future__ import annotations

import asyncio
import logging

import aiohttp
from aiohttp import web

from pinnace.tools.gateway.state import State

log = logging.getLogger(__name__)

RELAYED = "X-Pinnace-Relayed"
_KEPT = ("Authorization", "Content-Type", "Accept", "Mcp-Session-Id", "MCP-Protocol-Version")
_LIMIT = aiohttp.ClientTimeout(total=5, sock_connect=1)


class Peers:
    """Passes requests on, with the caller's own token. Lossy: a peer that does not answer has no call either, soon."""

    def __init__(self, state: State, http: aiohttp.ClientSession) -> None:
        self._state = state
        self._http = http

    async def tell(self, request: web.BaseRequest, body: bytes = b"") -> None:
        """`request` to all of them; one that was passed on already goes no further."""
        if RELAYED in request.headers:
            return
        headers = {name: request.headers[name] for name in _KEPT if name in request.headers} | {RELAYED: "1"}
        await asyncio.gather(*(self._send(url, request, headers, body) for url in self._state.peers))

    async def _send(self, url: str, request: web.BaseRequest, headers: dict[str, str], body: bytes) -> None:
        try:
            where = url + request.path
            async with self._http.request(request.method, where, data=body, headers=headers, timeout=_LIMIT) as answer:
                await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.info("the gateway at %s was not told: %s: %s", url, type(error).__name__, error)
