"""What a run's servers tell Prometheus. The trainer is none, and its image has no client."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from pinnace.rl.metrics import Values


class Exposition:
    """`/metrics` of one process: whatever the sources say at the moment, as gauges `pinnace_rl_<name>`.

    A source's key may carry one label: `share{of="batch"}` is written as the key `share.of.batch`.
    """

    def __init__(self, process: str, *sources: Callable[[], Values]) -> None:
        self._process, self._sources = process, sources
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def collect(self) -> Iterable[Metric]:
        families: dict[str, GaugeMetricFamily] = {}
        for source in self._sources:
            for key, value in source().items():
                name, _, labelled = key.partition(".")
                label, _, label_value = labelled.partition(".")
                labels = ["process", *([label] if label else [])]
                family = families.setdefault(name, GaugeMetricFamily(f"pinnace_rl_{name}", name, labels=labels))
                family.add_metric([self._process, *([label_value] if label else [])], value)
        return families.values()

    def text(self) -> bytes:
        return generate_latest(self._registry)
