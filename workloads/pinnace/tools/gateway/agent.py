"""The gateway's side of a session pod's agent (docs/toolsandbox-contract.md §5)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp

from pinnace.tools.gateway.connection import CONNECT_SECONDS
from pinnace.tools.gateway.errors import AgentUnavailable, GatewayError

KEY_HEADER, SESSION_HEADER = "X-Pinnace-Key", "X-Pinnace-Session"


class Taken(AgentUnavailable):
    """409: the pod is not free, or not in the state that the request needs."""


class LeaseInvalid(GatewayError):
    """400: the agent refuses what was asked for, with the field's path."""


class Agents:
    """Requests to agents. `key` is read anew each time: the Secret may be renewed."""

    def __init__(self, http: aiohttp.ClientSession, key: Callable[[], str]) -> None:
        self._http = http
        self.key = key

    async def state(self, url: str, *, within: float = 2) -> dict[str, Any]:
        """`GET /lease`."""
        return await self._ask("GET", url, "/lease", within=within)

    async def arm(self, url: str, lease: Mapping[str, Any], *, within: float = 10) -> dict[str, Any]:
        """`POST /lease`: returns once it is armed. Raises `Taken` when the pod is not free, `LeaseInvalid`."""
        return await self._ask("POST", url, "/lease", json=lease, within=within)

    async def release(self, url: str, lease_id: str, recycle: str, *, within: float = 30) -> None:
        """`DELETE /lease`; a pod that has no lease (any more), or another's, is as good."""
        headers = {SESSION_HEADER: lease_id}
        try:
            await self._ask("DELETE", url, f"/lease?recycle={recycle}", within=within, headers=headers)
        except Taken:
            return

    async def reset(self, url: str, lease_id: str, *, within: float = 30) -> None:
        """`POST /lease/reset`: same lease, empty workspace, no process left."""
        await self._ask("POST", url, "/lease/reset", within=within, headers={SESSION_HEADER: lease_id})

    async def renew(self, url: str, lease_id: str, lease: Mapping[str, Any], *, within: float = 10) -> None:
        """`POST /lease/renew`."""
        await self._ask("POST", url, "/lease/renew", json=lease, within=within, headers={SESSION_HEADER: lease_id})

    async def workspace(self, url: str, lease_id: str) -> AsyncIterator[bytes]:
        """`GET /lease/workspace.tar`, in pieces."""
        headers = {KEY_HEADER: self.key(), SESSION_HEADER: lease_id}
        limit = aiohttp.ClientTimeout(total=600, sock_connect=CONNECT_SECONDS, sock_read=60)
        try:
            async with self._http.get(f"{url}/lease/workspace.tar", headers=headers, timeout=limit) as response:
                if response.status != 200:
                    raise AgentUnavailable(f"the workspace can't be read (HTTP {response.status})")
                async for chunk in response.content.iter_chunked(1 << 18):
                    yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise AgentUnavailable(f"the workspace can't be read: {type(error).__name__}") from None

    async def _ask(
        self,
        method: str,
        url: str,
        path: str,
        *,
        within: float,
        json: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        sent = {KEY_HEADER: self.key(), **(headers or {})}
        limit = aiohttp.ClientTimeout(total=within, sock_connect=CONNECT_SECONDS)
        try:
            async with self._http.request(method, url + path, json=json, headers=sent, timeout=limit) as response:
                answer = await response.json(content_type=None) if response.status != 204 else {}
                if response.status == 409:
                    raise Taken(f"the sandbox is not free: {(answer or {}).get('message', 'HTTP 409')}")
                if response.status == 400:
                    raise LeaseInvalid(str((answer or {}).get("message", "HTTP 400")))
                if response.status >= 400:
                    raise AgentUnavailable(f"{method} {path}: HTTP {response.status}: {answer}")
                return answer if isinstance(answer, dict) else {}
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise AgentUnavailable(f"{method} {path}: {type(error).__name__}: {error}") from None
