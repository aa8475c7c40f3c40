"""Prometheus metrics of a bridge."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_BUCKETS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)


class Metrics:
    """One registry a bridge, so that several can live in one process (in tests)."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        made = self._registry
        self.calls = Counter("pinnace_serve_calls", "Calls by tool and outcome", ["tool", "outcome"], registry=made)
        self.seconds = Histogram(
            "pinnace_serve_call_seconds", "Time of a call", ["tool"], buckets=_BUCKETS, registry=made
        )
        self.in_flight = Gauge("pinnace_serve_in_flight", "Calls that a child has", registry=made)
        self.queued = Gauge("pinnace_serve_queued", "Calls that wait for a child", registry=made)
        self.ready = Gauge("pinnace_serve_children_ready", "Children that take calls", registry=made)
        self.restarts = Counter("pinnace_serve_restarts", "Children replaced", ["reason"], registry=made)
        self.skipped = Counter(
            "pinnace_serve_skipped_lines",
            "What children wrote on stdout that no one could use",
            ["kind"],
            registry=made,
        )

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)
