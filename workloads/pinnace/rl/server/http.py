"""Requests to one model server, and what can go wrong with them, typed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp

from pinnace.rl.rollout import EngineUnavailable, EngineUnsuitable

CONNECT_SECONDS = 10
PASSING = {502, 503, 504}  # still starting, or a router without it


class RequestRefused(EngineUnsuitable):
    """The server answered, but not with 2xx; `status` says with what."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Http:
    """One server's address. `close` it."""

    def __init__(self, url: str, *, api_key: str | None, request_seconds: float) -> None:
        """`request_seconds`: the longest that a request may take, time held during updates included."""
        self.url = url.rstrip("/")
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=request_seconds, sock_connect=CONNECT_SECONDS),
            # How much runs at once is the scheduler's business. A connection a request: both servers close idle ones
            # after five seconds, and a request that is sent just then is lost.
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            headers={"Authorization": f"Bearer {api_key}"} if api_key else None,
        )

    async def close(self) -> None:
        await self._session.close()

    async def get(self, path: str) -> Any:
        """The JSON answer. Raises `EngineUnavailable`, `RequestRefused`."""
        return await self._ask("GET", path, None)

    async def find(self, path: str) -> Any:
        """As `get`, but None where there is no such route."""
        try:
            return await self.get(path)
        except RequestRefused as refused:
            if refused.status != 404:
                raise
            return None

    async def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON answer, None where there is none. Raises `EngineUnavailable`, `RequestRefused`."""
        return await self._ask("POST", path, body or {})

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        where = f"{method} {self.url}{path}"
        try:
            async with self._session.request(method, self.url + path, json=body) as reply:
                if reply.status in PASSING:
                    raise EngineUnavailable(f"{where}: {reply.status}")
                if reply.status >= 400:
                    raise RequestRefused(reply.status, f"{where}: {reply.status} {(await reply.text())[:2000]}")
                return await reply.json() if reply.content_type == "application/json" else None
        except (TimeoutError, aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
            raise EngineUnavailable(f"{where}: {error or type(error).__name__}") from error
