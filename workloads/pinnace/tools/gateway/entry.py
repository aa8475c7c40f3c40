"""What all fronts do with a request before it is a call: who, how long, under which id, from which recording."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from aiohttp import web

from pinnace.tools.gateway.auth import Authenticator, Caller, Unauthorized
from pinnace.tools.gateway.http import Refused
from pinnace.tools.gateway.kube import KubeRefused
from pinnace.tools.gateway.replay import Run
from pinnace.tools.gateway.reply import Call
from pinnace.tools.gateway.state import State
from pinnace.tools.gateway.store import NoStore

_PARAM = "mcp-param-"
_prefix = secrets.token_hex(4)


class Entry:
    """Builds calls from requests."""

    def __init__(self, state: State, authenticator: Authenticator) -> None:
        self._state = state
        self.authenticator = authenticator
        self.draining = False
        self._count = 0
        self._runs: dict[str, Run] = {}

    async def caller(self, request: web.BaseRequest) -> Caller:
        """Raises `Refused` (401, 503)."""
        header = request.headers.get("Authorization")
        try:
            return await self.authenticator.caller(header)
        except Unauthorized as first:
            # A lease that another gateway gave a moment ago, or renewed: ask its pod, then decide.
            try:
                if header and await self._state.leases.ask(header.partition(" ")[2].strip()):
                    return await self.authenticator.caller(header)
            except Unauthorized:
                pass
            self._state.metrics.refused.labels("unauthorized").inc()
            self._state.audit.note("unauthorized", remote=str(request.remote))
            raise Refused(401, str(first)) from None
        except KubeRefused as error:
            raise Refused(503, f"the token can't be checked: {error}", retry_after=1) from None

    def call(
        self,
        request: web.BaseRequest,
        caller: Caller,
        tool: str,
        arguments: dict[str, Any],
        seconds: float | None = None,
    ) -> Call:
        """A call with its id, its deadline and what goes along."""
        headers = request.headers
        self._count += 1
        given = headers.get("X-Request-Id", "")
        found = self._state.catalog.find(tool)
        limit = (found.rule.timeout_seconds if found else None) or self._state.config.limits.default_timeout_seconds
        if seconds is not None:
            limit = min(limit, seconds)
        if (left := headers.get("X-Pinnace-Deadline-Ms", "")).isdecimal():
            limit = min(limit, int(left) / 1000)
        params = {}
        if _PARAM in " ".join(headers).lower():  # hardly ever
            params = {name: value for name, value in headers.items() if name.lower().startswith(_PARAM)}
        return Call(
            tool=tool,
            arguments=arguments,
            caller=caller,
            request_id=given if 0 < len(given) <= 128 and given.isprintable() else f"{_prefix}-{self._count:x}",
            deadline=asyncio.get_running_loop().time() + limit,
            trace=headers.get("traceparent", ""),
            headers=params,
        )

    async def run(self, request: web.BaseRequest, caller: Caller) -> Run | None:
        """The recording that the request names by headers, else its lease's. Raises `Refused` (400)."""
        mode = request.headers.get("X-Pinnace-Replay")
        lease = caller.lease.id if caller.lease else ""
        if mode is None:
            return self._runs.get(lease) if lease and self._runs else None
        if mode not in {"record", "replay"}:
            raise Refused(400, f"X-Pinnace-Replay is record or replay, not {mode!r}")
        key = request.headers.get("X-Pinnace-Replay-Key", "")
        at = f"{caller.tenant}/{lease}/{mode}/{key}"
        if at not in self._runs:
            self._runs[at] = await self._begin(mode, key, caller)
        return self._runs[at]

    async def set_run(self, caller: Caller, mode: str, key: str) -> Run:
        """`POST /replay`: for the caller's lease; without a lease, forget the passes over `key`. Raises `Refused`."""
        if mode not in {"off", "record", "replay"}:
            raise Refused(400, f"mode is off, record or replay, not {mode!r}")
        lease = caller.lease.id if caller.lease else ""
        for at in [at for at in self._runs if at.startswith(f"{caller.tenant}/{lease}/")]:
            del self._runs[at]
        await self._state.recordings.settle()
        run = await self._begin(mode, key, caller)
        if lease:
            self._runs[lease] = run
        if mode == "off":
            self._runs.pop(lease, None)
        return run

    async def _begin(self, mode: Any, key: str, caller: Caller) -> Run:
        if len(self._runs) > 4096:
            self._runs.pop(next(iter(self._runs)))
        try:
            return await self._state.recordings.begin(mode, key, caller.tenant)
        except (ValueError, NoStore) as error:
            raise Refused(400, str(error)) from None
