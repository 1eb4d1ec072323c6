"""Traces through HTTP and Kafka by W3C `traceparent`. Exported by OTLP when an endpoint is configured.

Without an endpoint no span is recorded, but trace ids still travel, so that the ledger can name one id for a road.
The messaging attribute names are still moving in OpenTelemetry; all of them are here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import context, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

SYSTEM = "messaging.system"
DESTINATION = "messaging.destination.name"
OPERATION = "messaging.operation.name"
MESSAGE_ID = "messaging.message.id"
CONSUMER_GROUP = "messaging.consumer.group.name"
KAFKA_KEY = "messaging.kafka.message.key"

__all__ = ["SpanKind", "span", "start", "trace_id", "traceparent"]

_propagator = TraceContextTextMapPropagator()
_tracer = trace.get_tracer("mintmark")


def start(service: str) -> None:
    """Install the tracer provider of this process; OTEL_EXPORTER_OTLP_ENDPOINT switches recording on."""
    global _tracer
    recording = bool(
        os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    )
    provider = TracerProvider(
        sampler=ParentBased(ALWAYS_ON) if recording else ALWAYS_OFF,
        resource=Resource.create({"service.name": f"mintmark-{service}"}),
    )
    if recording:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = provider.get_tracer("mintmark")


def traceparent() -> str | None:
    """The current span's `traceparent`, to be stored or sent; None outside of any."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get("traceparent")


def trace_id(parent: str | None) -> str | None:
    """The 32 hex digits of a `traceparent`."""
    parts = (parent or "").split("-")
    return parts[1] if len(parts) == 4 and len(parts[1]) == 32 else None


@contextmanager
def span(
    name: str,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    parent: str | None = None,
    attributes: dict[str, str] | None = None,
) -> Iterator[trace.Span]:
    """A span under `parent` (a traceparent) or, without one, under the current span."""
    token = None
    if parent is not None:
        token = context.attach(_propagator.extract({"traceparent": parent}, context.Context()))
    try:
        with _tracer.start_as_current_span(name, kind=kind, attributes=attributes) as current:
            yield current
    finally:
        if token is not None:
            context.detach(token)
