"""One request to one replica, whatever its era; finding the era out; listing its tools."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from mcp.shared.inbound import encode_header_value

from pinnace.tools.gateway import older, wire
from pinnace.tools.gateway.older import Older
from pinnace.tools.gateway.retry import Reach
from pinnace.tools.gateway.route import Replica
from pinnace.tools.gateway.upstream import Emit, Failed, Message, Upstream, fail
from pinnace.tools.outcome import Outcome

_MAX_PAGES = 100
_encoded = lru_cache(maxsize=4096)(encode_header_value)


class Hop:
    """Requests to replicas."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._older = Older(upstream)

    async def call(  # noqa: PLR0913 - one request has these parts
        self,
        replica: Replica,
        method: str,
        params: Mapping[str, Any],
        *,
        headers: Mapping[str, str],
        within: float,
        raw: bytes | None = None,
        name: str = "",
        rpc_id: Any = 1,
        emit: Emit | None = None,
        movable: bool = False,
    ) -> Message:
        """Ask; `raw` is the request as bytes of 2026-07-28, if it can go out as it came.

        The message that comes back is one of 2026-07-28 with the request's id (`rpc_id`, if there is no `raw`),
        whatever the replica speaks. Raises `Failed`.
        """
        if replica.era and replica.era != wire.MODERN:
            return await self._older.request(
                replica, method, params, headers, rpc_id=rpc_id, within=within, emit=emit, movable=movable
            )
        sent = {
            "Accept": wire.JSON_AND_SSE,
            "Content-Type": "application/json",
            "MCP-Protocol-Version": wire.MODERN,
            "Mcp-Method": method,
            **headers,
        }
        if name:
            sent["Mcp-Name"] = _encoded(name)
        body = raw if raw is not None else wire.request(rpc_id, method, params)
        return await self._upstream.post(replica, body, sent, within=within, emit=emit, movable=movable)

    async def find_era(self, replica: Replica, *, headers: Mapping[str, str], within: float) -> dict[str, Any]:
        """Ask `server/discover`, else `initialize`; fills in `replica.era`, returns the result. Raises `Failed`."""
        if not replica.era:
            try:
                message = await self.call(
                    replica, "server/discover", {"_meta": wire.modern_meta()}, headers=headers, within=within
                )
            except Failed as failed:
                if failed.failure.outcome is Outcome.TIMEOUT or failed.failure.reach is Reach.NOT_SENT:
                    raise
                message = None
            if message is not None and message.result is not None:
                replica.era = wire.MODERN
                return message.result
        replica.era = replica.session = ""
        return await older.initialize(self._upstream, replica, within=within)

    async def list_all(
        self, replica: Replica, method: str, key: str, *, headers: Mapping[str, str], within: float
    ) -> list[dict[str, Any]]:
        """All pages of a list. Raises `Failed`."""
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        for _ in range(_MAX_PAGES):
            params: dict[str, Any] = {"_meta": wire.modern_meta()}
            if cursor is not None:
                params["cursor"] = cursor
            message = await self.call(replica, method, params, headers=headers, within=within)
            if message.result is None:
                raise fail(Outcome.UNAVAILABLE, Reach.REFUSED, f"{method}: {(message.error or {}).get('message')}")
            page, cursor = message.result.get(key), message.result.get("nextCursor")
            if not isinstance(page, list) or not isinstance(cursor, str | None):
                raise fail(Outcome.UNAVAILABLE, Reach.REFUSED, f"{method}: the result is no list of {key}")
            found += [each for each in page if isinstance(each, dict)]
            if not cursor:
                return found
        raise fail(Outcome.UNAVAILABLE, Reach.REFUSED, f"{method} has more than {_MAX_PAGES} pages")
