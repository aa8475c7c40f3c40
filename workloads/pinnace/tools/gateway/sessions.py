"""The front of leases: `/sessions`."""

from __future__ import annotations

import math
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from aiohttp import web

from pinnace.tools.gateway import http
from pinnace.tools.gateway.agent import LeaseInvalid
from pinnace.tools.gateway.auth import Caller
from pinnace.tools.gateway.errors import AgentUnavailable
from pinnace.tools.gateway.http import Refused
from pinnace.tools.gateway.lease import Lease, rfc3339
from pinnace.tools.gateway.leases import PoolEmpty
from pinnace.tools.gateway.rest import Rest
from pinnace.tools.gateway.state import State
from pinnace.tools.gateway.store import NoStore

_MOST = 1000  # leases in one request
_FIELDS = {"count", "template", "ttlSeconds", "idleSeconds", "env", "limits", "labels"}


class SessionsFront:
    """Gives, shows, renews, resets, snapshots and ends leases. A lease's own token works for its own lease only."""

    def __init__(self, state: State, rest: Rest) -> None:
        self._state = state
        self._rest = rest

    async def handle(self, request: web.BaseRequest, caller: Caller) -> web.StreamResponse:
        """Everything below `/sessions`."""
        parts = request.path.strip("/").split("/")
        try:
            match request.method, parts:
                case "POST", ["sessions"]:
                    return await self._give(request, caller)
                case "GET", ["sessions"]:
                    return await self._list(caller)
                case "GET", ["sessions", found]:
                    return http.json_response((await self._lease(found, caller)).to_json())
                case "DELETE", ["sessions", found]:
                    return await self._end(await self._lease(found, caller))
                case "POST", ["sessions", found, "renew" | "reset" | "snapshot" as what]:
                    return await self._change(request, await self._lease(found, caller), what)
        except LeaseInvalid as error:
            raise Refused(400, str(error)) from None
        except AgentUnavailable as error:
            raise Refused(503, f"the sandbox does not do it: {error}", retry_after=1) from None
        raise Refused(404, f"there is no {request.method} {request.path}")

    async def _list(self, caller: Caller) -> web.Response:
        """All of the caller's, those that other gateways gave as well."""
        leases = self._state.leases
        if caller.lease is None:
            await leases.refresh(everything=True)
        mine = [caller.lease] if caller.lease else leases.of(caller.tenant)
        return http.json_response({"sessions": [each.to_json() for each in mine]})

    async def _lease(self, lease_id: str, caller: Caller) -> Lease:
        leases = self._state.leases
        lease = leases.by_id(lease_id, caller.tenant)
        if lease is None and await leases.ask(lease_id):
            lease = leases.by_id(lease_id, caller.tenant)
        if lease is None or (caller.lease is not None and caller.lease is not lease):
            raise Refused(404, f"there is no session {lease_id!r} (any more): POST /sessions gives a new one")
        return lease

    async def _give(self, request: web.BaseRequest, caller: Caller) -> web.Response:
        asked = await self._rest.json(request)
        if unknown := set(asked) - _FIELDS:
            raise Refused(400, f"unknown fields: {', '.join(sorted(unknown))}; known are {', '.join(sorted(_FIELDS))}")
        if caller.lease is not None:
            raise Refused(403, "a lease's token can't get more leases: use the tenant's")
        if self._state.config.sessions is None:
            raise Refused(404, "this ToolSandbox has no sessions: set spec.sessions")
        if asked.get("template") not in (None, "", "default"):
            raise Refused(400, f"there is no template {asked['template']!r}: leave it out")
        count = asked.get("count", 1)
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= _MOST:
            raise Refused(400, f"`count` is a whole number from 1 to {_MOST}")
        try:
            given = await self._state.leases.take(
                count,
                tenant=caller.tenant,
                patience=self._state.config.limits.max_queue_seconds,
                ttl_seconds=_seconds(asked, "ttlSeconds"),
                idle_seconds=_seconds(asked, "idleSeconds"),
                env=_texts(asked, "env"),
                limits=asked.get("limits") if isinstance(asked.get("limits"), dict) else None,
                labels=_texts(asked, "labels"),
            )
        except PoolEmpty as error:
            raise Refused(429, str(error), retry_after=error.retry_after) from None
        for lease, _ in given:
            self._state.audit.note("lease", session=lease.id, tenant=lease.tenant)
        listed = [{"id": each.id, "token": token, "expiresAt": rfc3339(each.expires_at)} for each, token in given]
        return http.json_response({"sessions": listed}, 201)

    async def _end(self, lease: Lease) -> web.Response:
        await self._state.leases.release(lease)
        self._state.audit.note("lease-ended", session=lease.id, tenant=lease.tenant)
        return web.Response(status=204)

    async def _change(self, request: web.BaseRequest, lease: Lease, what: str) -> web.Response:
        leases = self._state.leases
        asked = await self._rest.json(request)
        if what == "renew":
            await leases.renew(lease, ttl_seconds=_seconds(asked, "ttlSeconds"))
        elif what == "reset":
            await leases.agents.reset(lease.pod.url, lease.id)
        else:
            return http.json_response({"uri": await self._snapshot(lease)})
        return http.json_response(lease.to_json())

    async def _snapshot(self, lease: Lease) -> str:
        """The workspace as a tar file in S3."""
        import time

        with tempfile.TemporaryDirectory(prefix="pinnace-snapshot-") as folder:
            file = Path(folder) / "workspace.tar"
            with file.open("wb") as to:
                async for chunk in self._state.leases.agents.workspace(lease.pod.url, lease.id):
                    to.write(chunk)
            if not tarfile.is_tarfile(file):
                raise AgentUnavailable("what the sandbox sent is no tar file")
            try:
                return await self._state.store.write_file(f"snapshots/{lease.id}/{time.time_ns()}.tar", file)
            except NoStore as error:
                raise Refused(503, f"the snapshot can't be stored: {error}") from None


def _seconds(asked: dict[str, Any], name: str) -> float | None:
    value = asked.get(name)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value <= 0:
        raise Refused(400, f"`{name}` is a number above 0")
    return float(value)


def _texts(asked: dict[str, Any], name: str) -> dict[str, str]:
    value = asked.get(name) or {}
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise Refused(400, f"`{name}` is an object of strings")
    return value
