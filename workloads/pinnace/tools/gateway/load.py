"""Tells the operator the load (docs/toolsandbox-contract.md §6): every second, or when something waits."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from pinnace.tools.gateway.catalog import SESSIONS
from pinnace.tools.gateway.pool import Pool
from pinnace.tools.gateway.route import Group
from pinnace.tools.gateway.state import State

log = logging.getLogger(__name__)

TOKEN = Path("/var/run/secrets/pinnace/token")
_EVERY, _AT_MOST_EVERY = 1.0, 0.1  # seconds
_MOST_SPENT = 256


class LoadReports:
    """Posts reports. Lossy by design: the next one replaces it. Without an address nothing is sent."""

    def __init__(self, state: State, environ: Mapping[str, str] = os.environ) -> None:
        self._state = state
        self._url = environ.get("PINNACE_PROGRESS_URL", "").rstrip("/")
        self._ca = environ.get("PINNACE_PROGRESS_CA") or None
        self._pod = environ.get("PINNACE_POD") or environ.get("HOSTNAME") or "gateway"
        self._token = Path(environ.get("PINNACE_PROGRESS_TOKEN") or TOKEN)
        self._now = asyncio.Event()

    def poke(self) -> None:
        """A call waits for a server that has no replica, or a lease for a sandbox: report at once."""
        self._now.set()

    async def run(self, configured: asyncio.Event) -> None:
        """For ever, once it is known whose load it is."""
        if not self._url:
            return
        await configured.wait()
        context = ssl.create_default_context(cadata=self._ca) if self._url.startswith("https") else None
        options: dict[str, Any] = {"ssl": context} if context else {}
        async with aiohttp.ClientSession(trust_env=False, timeout=aiohttp.ClientTimeout(total=5)) as http:
            while True:
                await self._post(http, options)
                await asyncio.sleep(_AT_MOST_EVERY)
                try:
                    async with asyncio.timeout(_EVERY - _AT_MOST_EVERY):
                        await self._now.wait()
                except TimeoutError:
                    continue
                finally:
                    self._now.clear()

    async def _post(self, http: aiohttp.ClientSession, options: Mapping[str, Any]) -> None:
        try:
            headers = {"Authorization": f"Bearer {self._token.read_text().strip()}"}
            async with http.post(f"{self._url}/v1/load", json=self.report(), headers=headers, **options) as response:
                if response.status >= 400:
                    log.info("the load was refused (%d): %.200s", response.status, await response.text())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.info("the load was not delivered: %s: %s", type(error).__name__, error)

    def report(self) -> dict[str, Any]:
        """What is sent."""
        state = self._state
        now = asyncio.get_running_loop().time()
        servers = [self._version(pool, group, now) for pool in state.all_pools() for group in pool.groups]
        content: dict[str, Any] = {
            "kind": "ToolSandbox",
            "namespace": state.config.namespace,
            "name": state.config.name,
            "uid": state.config.uid,
            "pod": self._pod,
            "generation": state.config.generation,
            "servers": servers,
            "tools": len(state.catalog.tools),
            "unhealthyTools": state.health.unhealthy(),
        }
        if state.config.sessions is not None:
            counts = state.leases.counts()
            spent = [pod.name for pod in state.leases.pods.values() if pod.state == "spent" and pod.name]
            content["sessions"] = {
                "free": counts["free"],
                "armed": counts["armed"] + counts["taking"],
                "max": state.config.sessions.max,
                # One is needed to learn its tools.
                "wanted": state.leases.waiting or int(SESSIONS not in state.listings),
                "spent": spent[:_MOST_SPENT],
            }
        return content

    def _version(self, pool: Pool, group: Group, now: float) -> dict[str, Any]:
        able = sum(not each.hung and each.breaker.state(now) != "open" for each in group.replicas)
        message = self._state.failures.get((pool.server.name, group.version), "")
        listing = self._state.listings.get(pool.server.name, {}).get(group.version)
        kind = "absent"
        if group.replicas:
            kind = "failing" if message or not able else "ready" if listing is not None else "starting"
        found: dict[str, Any] = {
            "name": pool.server.name,
            "version": group.version,
            "ready": able if kind == "ready" else 0,
            "inFlight": sum(each.in_flight for each in group.replicas),
            # The queue is the server's: it is told once, with its first version.
            "queued": pool.waiting if group is pool.groups[0] else 0,
            "state": kind,
            "message": message[:512],
        }
        if listing is not None:
            found["tools"] = len(listing)
        return found
