"""Traces through HTTP and Kafka by W3C `traceparent`. Exported by OTLP when an endpoint is configured.

Without an endpoint no span is recorded, but trace ids still travel, so that the ledger can name one id for a road.
The messaging attribute names are still moving in OpenTelemetry; all of them are here.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from opentelemetry import context, trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

MESSAGE_ID = "messaging.message.id"
CONSUMER_GROUP = "messaging.consumer.group.name"
KAFKA_KEY = "messaging.kafka.message.key"

__all__ = ["SpanKind", "span", "start", "trace_id", "traceparent"]

_propagator = TraceContextTextMapPropagator()
_begin: Callable[..., AbstractContextManager[trace.Span]] = trace.get_tracer("mintmark").start_as_current_span
"""Makes a span current; of one that says nothing until this process is started."""
RANDOM_ID = 0x02
"""The flag of W3C Trace Context, level 2, that a trace id is random."""


def start(service: str) -> None:
    """Let this process make spans; OTEL_EXPORTER_OTLP_ENDPOINT switches recording on."""
    global _begin
    recording = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    _begin = _recorder(service).start_as_current_span if recording else _unrecorded


def _recorder(service: str) -> trace.Tracer:
    # The SDK, with what it asks of the machine, is a fifth of a second that most processes need not wait.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased

    provider = TracerProvider(
        sampler=ParentBased(ALWAYS_ON), resource=Resource.create({"service.name": f"mintmark-{service}"})
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider.get_tracer("mintmark")


@contextmanager
def _unrecorded(name: str, *, kind: SpanKind, attributes: dict[str, str] | None) -> Iterator[trace.Span]:
    """A span with its place in the trace and nothing else: what the SDK makes of one that is not sampled."""
    parent = trace.get_current_span().get_span_context()
    made = SpanContext(
        parent.trace_id if parent.is_valid else random.getrandbits(128),
        random.getrandbits(64),
        is_remote=False,
        trace_flags=TraceFlags(parent.trace_flags & RANDOM_ID if parent.is_valid else RANDOM_ID),
        trace_state=parent.trace_state if parent.is_valid else None,
    )
    with trace.use_span(NonRecordingSpan(made)) as current:
        yield current


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
        with _begin(name, kind=kind, attributes=attributes) as current:
            yield current
    finally:
        if token is not None:
            context.detach(token)
