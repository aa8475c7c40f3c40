"""Prometheus metrics of one operator process."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """All metrics, in a registry of their own (two operators in one test process do not mix)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._conditions: dict[str, set[str]] = {}
        ProcessCollector(registry=self.registry)
        self.reconcile_seconds = Histogram(
            "pinnace_reconcile_seconds", "Time of one reconcile, reads and writes included",
            ["kind"], buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.errors = Counter(
            "pinnace_reconcile_errors", "Reconciles that failed and were planned again", ["kind", "error"],
            registry=self.registry,
        )  # fmt: skip
        self.api_writes = Counter(
            "pinnace_api_writes", "Writes sent to the API server", ["verb", "kind"], registry=self.registry
        )
        self.resources = Gauge(
            "pinnace_resources", "Resources by the type of their true condition, at the last resync",
            ["kind", "condition"], registry=self.registry,
        )  # fmt: skip
        self.progress = Counter(
            "pinnace_progress_reports", "Progress reports from pods by HTTP status", ["status"], registry=self.registry
        )
        self.loads = Counter(
            "pinnace_load_reports", "Reports of load from gateways by HTTP status", ["status"], registry=self.registry
        )
        self.tool_servers = Gauge(
            "pinnace_tool_servers", "Versions of tool servers by state, at the last resync", ["state"],
            registry=self.registry,
        )  # fmt: skip
        self.source_restarts = Counter(
            "pinnace_event_source_restarts", "How often the event source ended and was started again",
            registry=self.registry,
        )  # fmt: skip
        self.ghosts = Counter(
            "pinnace_ghosts_pruned", "Leftovers of resources that are gone, removed by a resync", ["what"],
            registry=self.registry,
        )  # fmt: skip

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A gauge that is read when Prometheus asks."""
        Gauge(name, text, registry=self.registry).set_function(read)

    def set_conditions(self, kind: str, conditions: Mapping[str, int]) -> None:
        """Replace the numbers of one kind."""
        for condition in self._conditions.get(kind, set()) - conditions.keys():
            self.resources.remove(kind, condition)
        for condition, number in conditions.items():
            self.resources.labels(kind, condition).set(number)
        self._conditions[kind] = set(conditions)

    def set_tool_servers(self, states: Mapping[str, int]) -> None:
        """Replace the numbers of tool servers by state."""
        self.tool_servers.clear()
        for state, number in states.items():
            self.tool_servers.labels(state).set(number)

    def count_report(self, what: str, status: int) -> None:
        """A report came in: `progress` or `load`."""
        (self.loads if what == "load" else self.progress).labels(str(status)).inc()

    def count_write(self, verb: str, kind: str) -> None:
        self.api_writes.labels(verb, kind).inc()
