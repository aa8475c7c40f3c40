"""Everything that is in force at one moment: configuration, tools, replicas, leases."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from pinnace.tools.gateway import wire
from pinnace.tools.gateway.audit import Audit
from pinnace.tools.gateway.breaker import Breaker
from pinnace.tools.gateway.catalog import SESSIONS, Catalog, Listing, build
from pinnace.tools.gateway.config import GatewayConfig, Server, Version
from pinnace.tools.gateway.health import Health
from pinnace.tools.gateway.hop import Hop
from pinnace.tools.gateway.leases import Leases
from pinnace.tools.gateway.metrics import Metrics
from pinnace.tools.gateway.pool import Pool
from pinnace.tools.gateway.replay import Recordings
from pinnace.tools.gateway.retry import Budget
from pinnace.tools.gateway.route import Replica
from pinnace.tools.gateway.store import Store
from pinnace.tools.gateway.tracing import Tracing

log = logging.getLogger(__name__)

_YOUNG = 30.0  # seconds in which a gateway that lacks a server's tools expects them
Endpoints = Mapping[str, Mapping[str, str]]  # service → address (host) → pod name


@dataclass
class State:
    """Shared by all requests; changed only by `apply`, `place` and `listed`, each in one step."""

    hop: Hop
    leases: Leases
    rng: Random
    config: GatewayConfig = field(default_factory=lambda: GatewayConfig(version=1))
    catalog: Catalog = field(default_factory=lambda: Catalog({}))
    metrics: Metrics = field(default_factory=Metrics)
    tracing: Tracing = field(default_factory=lambda: Tracing({}))
    audit: Audit = field(default_factory=lambda: Audit(""))
    health: Health = field(default_factory=Health)
    store: Store = field(default_factory=Store)
    budget: Budget = field(default_factory=lambda: Budget(20))
    pools: dict[str, Pool] = field(default_factory=dict)
    listings: dict[str, Listing] = field(default_factory=dict)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    """Why a version's tools could not be listed, by (server, version)."""
    wanted: Callable[[], None] = lambda: None
    """Told when a call waits for a server that has no replica."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Replaced each time that the list of tools changes; the old one is set."""

    peers: list[str] = field(default_factory=list)
    """Base URLs of the other gateways."""

    configured: bool = False
    """Whether a document is in force."""

    pod: str = ""
    """This gateway's own."""
    port: int = 8080
    """That gateways listen on."""

    def __post_init__(self) -> None:
        self.recordings = Recordings(self.store)
        self._began = time.monotonic()
        self._endpoints: Endpoints = {}
        self._sessions: dict[str, Replica] = {}

    def unlisted(self) -> list[str]:
        """Servers that have a replica, but have neither listed their tools yet nor failed to; sandboxes likewise."""
        present = [
            (pool.server.name, group.version) for pool in self.all_pools() for group in pool.groups if group.replicas
        ]
        if self.leases.pods:
            present.append((SESSIONS, ""))
        return sorted(
            server
            for server, version in present
            if version not in self.listings.get(server, {}) and (server, version) not in self.failures
        )

    def may_appear(self) -> bool:
        """Whether a tool that is not known may be listed in a moment: this gateway has just started, or its server has.

        A server at zero is started to be asked; replicas that failed a gateway's first question may answer the next.
        """
        young = time.monotonic() < self._began + _YOUNG
        known = all(group.version in self.listings.get(pool.server.name, {})
                    for pool in self.all_pools() for group in pool.groups)  # fmt: skip
        return not self.configured or bool(self.unlisted()) or (young and not known)

    def _want(self) -> None:
        self.wanted()

    def pool(self, server: str) -> Pool:
        """The pool of a server; an empty one for a server that is gone."""
        return self.pools.get(server) or Pool(Server(name=server), rng=self.rng)

    def all_pools(self) -> Sequence[Pool]:
        return list(self.pools.values())

    def session_replica(self, url: str) -> Replica:
        """A session pod's agent as the target of a call."""
        if url not in self._sessions:
            self._sessions = {each: known for each, known in self._sessions.items() if each in self.leases.pods}
            # No other can take its calls: it gets more time to answer than a replica.
            self._sessions[url] = Replica(f"{url}/mcp", SESSIONS, "", Breaker(5, 10), era=wire.MODERN, probes=3)
        return self._sessions[url]

    def apply(self, config: GatewayConfig) -> None:
        """Put a document into force. Calls in flight end where they are."""
        self.configured = True
        self.config = config
        self.store.configure(config.results.uri)
        self.budget.percent = config.limits.retry_budget_percent
        shared = {each.name: each for each in config.servers if each.isolation == "Shared"}
        for name in set(self.pools) - set(shared):
            gone = self.pools.pop(name)
            gone.update(gone.server.model_copy(update={"versions": ()}), {})
            self.listings.pop(name, None)
        for name, server in shared.items():
            if name not in self.pools:
                self.pools[name] = Pool(server, rng=self.rng, wanted=self._want)
        self.metrics.config.set(config.generation)
        self.place(self._endpoints)

    def place(self, endpoints: Endpoints) -> None:
        """New addresses of the services."""
        self._endpoints = endpoints
        for server in self.config.servers:
            if server.name in self.pools:
                urls = {version.name: self._urls(version) for version in server.versions}
                self.pools[server.name].update(server, urls)
                kept = {name: tools for name, tools in self.listings.get(server.name, {}).items() if name in urls}
                # Until the new versions have been asked, the tools that the old ones had stay: calls wait, none fails.
                if kept or not self.listings.get(server.name):
                    self.listings[server.name] = kept
        others = {at: pod for at, pod in endpoints.get(self.config.name, {}).items() if pod != self.pod}
        self.peers = [*self.config.peers, *(f"http://{_host(address)}:{self.port}" for address in others)]
        sessions = self.config.sessions
        pods: dict[str, str] = {}
        if sessions is not None:
            pods = {url.rstrip("/"): "" for url in sessions.endpoints}
            found = endpoints.get(sessions.service, {})
            pods |= {f"http://{_host(address)}:{sessions.port}": name for address, name in found.items()}
        else:
            self.listings.pop(SESSIONS, None)
        self.leases.configure(sessions, pods)
        for url, replica in self._sessions.items():
            replica.gone = url not in pods
        self.rebuild()

    def _urls(self, version: Version) -> list[str]:
        local = [url.rstrip("/") + version.path for url in version.endpoints]
        found = self._endpoints.get(version.service, {}) if version.service else {}
        return local + [f"http://{_host(address)}:{version.port}{version.path}" for address in found]

    def listed(self, server: str, version: str, tools: Sequence[Mapping[str, Any]]) -> None:
        """A version's tools were listed."""
        known = dict(self.listings.get(server, {}))
        current = {each.version for each in self.pools[server].groups} if server in self.pools else {version}
        known = {name: kept for name, kept in known.items() if name in current}
        self.failures.pop((server, version), None)
        if known.get(version) == tools and known == self.listings.get(server):
            return
        self.listings[server] = {**known, version: tools}
        self.rebuild()

    def rebuild(self) -> None:
        """The catalogue anew; tell those who wait for a change."""
        before = self.catalog
        self.catalog = build(self.config, self.listings)
        for problem in set(self.catalog.problems) - set(before.problems):
            log.warning("%s", problem)
        self.metrics.problems.set(len(self.catalog.problems))
        if {name: each.definition for name, each in before.tools.items()} != {
            name: each.definition for name, each in self.catalog.tools.items()
        }:
            self.changed.set()
            self.changed = asyncio.Event()


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
