"""W3C trace context on every hop; spans go out only if OTEL_EXPORTER_OTLP_ENDPOINT is set."""

from __future__ import annotations

import logging
import os
import random
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

log = logging.getLogger(__name__)

_random = random.Random()  # noqa: S311 - ids must differ, nobody has to be kept from guessing them
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def traceparent(given: str | None) -> str:
    """The caller's, if it is valid, else a new one (not sampled)."""
    if given and _TRACEPARENT.fullmatch(given):
        return given
    new = _random.randbytes(24).hex()
    return f"00-{new[:32]}-{new[32:]}-00"


class Tracing:
    """Makes one span a call, where an exporter is configured; else only passes the context on."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._tracer: Tracer | None = None
        self._provider: Any = None
        endpoint = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        if endpoint:
            self._tracer = self._start()

    def _start(self) -> Tracer | None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            log.warning("no traces: %s; install opentelemetry-sdk and opentelemetry-exporter-otlp-proto-http", error)
            return None
        self._provider = TracerProvider(resource=Resource.create({"service.name": "pinnace-tools-gateway"}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        tracer: Tracer = self._provider.get_tracer("pinnace.tools.gateway")
        return tracer

    def begin(self, given: str | None, tool: str) -> tuple[str, Any]:
        """The `traceparent` for the next hop, and a span to hand to `end` (or None)."""
        if self._tracer is None:
            return traceparent(given), None
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        propagator = TraceContextTextMapPropagator()
        span = self._tracer.start_span(f"tools/call {tool}", context=propagator.extract({"traceparent": given or ""}))
        span.set_attribute("gen_ai.tool.name", tool)
        context = span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}", span

    def end(self, span: Any, **facts: str | float) -> None:
        if span is not None:
            for key, value in facts.items():
                span.set_attribute(f"pinnace.{key}", value)
            span.end()

    def close(self) -> None:
        """Sends what is left."""
        if self._provider is not None:
            self._provider.shutdown()
