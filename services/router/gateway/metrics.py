"""The gateway's Prometheus metrics; label children are kept, because looking one up costs more than counting."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """One registry a gateway, so that two of them in one process do not share figures."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "mintmark_gateway_requests_total",
            "Answered inference requests",
            ["group", "version", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "mintmark_gateway_seconds",
            "From a request's last byte to its answer, row included",
            ["group"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._rows = Counter("mintmark_gateway_rows_total", "Rows made durable", registry=self._registry)
        self._refused_rows = Counter(
            "mintmark_gateway_rows_refused_total",
            "Rows that could not be written; answered 503",
            registry=self._registry,
        )
        self._flush_seconds = Histogram(
            "mintmark_gateway_flush_seconds", "Time of one group commit", buckets=_SECONDS, registry=self._registry
        )
        self._refused_versions = Gauge(
            "mintmark_gateway_refused_versions",
            "Deployed versions left out because their approval did not verify",
            registry=self._registry,
        )
        self._groups = Gauge("mintmark_gateway_groups", "Groups in the snapshot", registry=self._registry)
        self._answers: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def answered(self, group: str, version: str, status: int, seconds: float) -> None:
        key = (group, version, status)
        children = self._answers.get(key)
        if children is None:
            children = self._answers[key] = (
                self._requests.labels(group, version, str(status)),
                self._seconds.labels(group),
            )
        children[0].inc()
        children[1].observe(seconds)

    def flushed(self, rows: int, seconds: float) -> None:
        self._rows.inc(rows)
        self._flush_seconds.observe(seconds)

    def rows_refused(self, rows: int) -> None:
        self._refused_rows.inc(rows)

    def snapshot_taken(self, groups: int, refused_versions: int) -> None:
        self._groups.set(groups)
        self._refused_versions.set(refused_versions)

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self._registry)
