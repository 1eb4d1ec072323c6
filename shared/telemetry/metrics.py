"""Prometheus metrics of the kernel; services add their own to the same registry."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

handled = Counter(
    "mintmark_events_handled_total",
    "Events by consumer, topic and outcome",
    ["consumer", "topic", "outcome"],
    registry=REGISTRY,
)
handler_seconds = Histogram(
    "mintmark_handler_seconds",
    "Time of one handler with its transaction",
    ["consumer", "topic"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
published = Counter(
    "mintmark_events_published_total", "Events that the relay published", ["service"], registry=REGISTRY
)
publish_failures = Counter(
    "mintmark_publish_failures_total",
    "Publishing rounds that failed and were tried again",
    ["service"],
    registry=REGISTRY,
)
outbox_depth = Gauge("mintmark_outbox_depth", "Events that wait in the outbox", ["service"], registry=REGISTRY)
outbox_age_seconds = Gauge(
    "mintmark_outbox_age_seconds", "Age of the oldest event in the outbox", ["service"], registry=REGISTRY
)
parked_depth = Gauge("mintmark_parked_depth", "Events that wait to be tried again", ["consumer"], registry=REGISTRY)
dead_letters = Counter(
    "mintmark_dead_letters_total", "Events that went to the dead letters", ["consumer", "code"], registry=REGISTRY
)
dlq_depth = Gauge("mintmark_dlq_depth", "Events that are dead and were not replayed", ["consumer"], registry=REGISTRY)
consumer_lag = Gauge(
    "mintmark_consumer_lag",
    "Records behind the end of the topic",
    ["consumer", "topic", "partition"],
    registry=REGISTRY,
)
consumer_restarts = Counter(
    "mintmark_consumer_restarts_total",
    "Kafka clients that stood still and were replaced",
    ["consumer"],
    registry=REGISTRY,
)
http_seconds = Histogram(
    "mintmark_http_seconds",
    "Time to answer a request",
    ["service", "method", "route", "status"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
