"""The shipper's Prometheus metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class ShipperMetrics(Collector):
    """`unshipped` measures the bytes that wait, when somebody looks."""

    def __init__(self, unshipped: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._unshipped = unshipped
        self.rows = self.bytes = self.batches = self.unplaced = 0
        self.seconds = 0.0

    def shipped(self, rows: int, size: int, seconds: float) -> None:
        self.rows += rows
        self.bytes += size
        self.batches += 1
        self.seconds += seconds

    def collect(self) -> Iterator[Metric]:
        for name, text, number in (
            ("rows", "Rows taken into inference tables", self.rows),
            ("bytes", "Bytes of spools taken", self.bytes),
            ("batches", "Transactions", self.batches),
            ("seconds", "Time spent in transactions", self.seconds),
            ("unplaced_rows", "Rows that no inference table takes; they are in unplaced_row", self.unplaced),
        ):
            yield CounterMetricFamily(f"mintmark_shipper_{name}", text, number)
        yield GaugeMetricFamily("mintmark_shipper_waiting_bytes", "Bytes in spools below the folder", self._unshipped())

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self._registry)
