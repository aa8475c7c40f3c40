"""What Prometheus sees of the gateway."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pinnace.tools.gateway.pool import Pool
from pinnace.tools.outcome import Outcome

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_STATES = {"closed": 0, "half-open": 1, "open": 2}


class ToolMetrics:
    """The series of one tool, looked up once."""

    def __init__(self, metrics: Metrics, tool: str) -> None:
        self._calls = {outcome: metrics.calls.labels(tool, str(outcome)) for outcome in Outcome}
        self._seconds = metrics.seconds.labels(tool)
        self.retries = metrics.retries.labels(tool)
        self.failovers = metrics.failovers.labels(tool)
        self.cache_hits = metrics.cache_hits.labels(tool)

    def ended(self, outcome: Outcome, seconds: float) -> None:
        self._calls[outcome].inc()
        self._seconds.observe(seconds)


class Metrics:
    """All series; replicas and queues are read from the pools when Prometheus asks."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        name = "pinnace_tools"
        self.calls = Counter(f"{name}_calls", "Calls by how they ended.", ("tool", "outcome"), registry=self.registry)
        self.seconds = Histogram(
            f"{name}_call_seconds", "Time in the gateway.", ("tool",), buckets=_SECONDS, registry=self.registry
        )
        self.retries = Counter(f"{name}_retries", "Second and third attempts.", ("tool",), registry=self.registry)
        self.failovers = Counter(f"{name}_failovers", "Calls that a backup took.", ("tool",), registry=self.registry)
        self.cache_hits = Counter(f"{name}_cache_hits", "Results from the cache.", ("tool",), registry=self.registry)
        self.refused = Counter(
            f"{name}_refused", "Requests refused before any tool.", ("reason",), registry=self.registry
        )
        self.in_flight = Gauge(f"{name}_in_flight", "Calls in the gateway now.", registry=self.registry)
        self.sessions = Gauge(f"{name}_sessions", "Session pods by state.", ("state",), registry=self.registry)
        self.waiting = Gauge(f"{name}_leases_waiting", "Leases that wait for a sandbox.", registry=self.registry)
        self.mcp_sessions = Gauge(f"{name}_mcp_sessions", "MCP sessions before 2026-07-28.", registry=self.registry)
        self.config = Gauge(f"{name}_config_generation", "Generation in force.", registry=self.registry)
        self.config_errors = Counter(f"{name}_config_errors", "Documents refused.", registry=self.registry)
        self.problems = Gauge(f"{name}_problems", "Problems of the catalogue.", registry=self.registry)
        self._tools: dict[str, ToolMetrics] = {}

    def tool(self, name: str) -> ToolMetrics:
        """The series of a tool that exists: names that callers make up must not become series."""
        if name not in self._tools:
            self._tools[name] = ToolMetrics(self, name)
        return self._tools[name]

    def watch(self, pools: Iterable[Pool]) -> None:
        """Read these pools from now on."""
        self.registry.register(_Pools(pools))

    def render(self) -> bytes:
        return generate_latest(self.registry)


class _Pools(Collector):
    def __init__(self, pools: Iterable[Pool]) -> None:
        self._pools = pools

    def collect(self) -> Iterable[Metric]:
        import asyncio

        now = asyncio.get_running_loop().time()
        labels = ["server", "version", "replica"]
        busy = GaugeMetricFamily("pinnace_tools_replica_in_flight", "Calls on a replica.", labels=labels)
        picks = GaugeMetricFamily("pinnace_tools_replica_picks", "Times that a replica was picked.", labels=labels)
        state = GaugeMetricFamily("pinnace_tools_breaker", "0 closed, 1 half-open, 2 open.", labels=labels)
        queue = GaugeMetricFamily("pinnace_tools_queue", "Calls that wait for a server.", labels=["server"])
        for pool in self._pools:
            queue.add_metric([pool.server.name], pool.waiting)
            for replica in pool.replicas:
                where = [replica.server, replica.version, replica.url]
                busy.add_metric(where, replica.in_flight)
                picks.add_metric(where, replica.picks)
                state.add_metric(where, 2 if replica.hung else _STATES[replica.breaker.state(now)])
        return [busy, picks, state, queue]

    def describe(self) -> Iterable[Metric]:
        return []
