"""The gateway's Prometheus metrics: plain numbers on the hot path, rendered as metrics only when somebody looks."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from services.router.gateway.pursuit.memory import Memories

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Seconds:
    """One histogram of times."""

    __slots__ = ("buckets", "sum")

    def __init__(self) -> None:
        self.buckets = [0] * (len(_SECONDS) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        self.buckets[bisect_left(_SECONDS, seconds)] += 1
        self.sum += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        found, total = [], 0
        for bound, count in zip((*_SECONDS, "+Inf"), self.buckets, strict=True):
            total += count
            found.append((str(bound), float(total)))
        return found


class Metrics(Collector):
    """One registry a gateway, so that two of them in one process do not share figures."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._answers: defaultdict[tuple[str, str, int], int] = defaultdict(int)
        self._seconds: defaultdict[str, Seconds] = defaultdict(Seconds)
        self._fields_lost: defaultdict[str, int] = defaultdict(int)
        self._shadows: defaultdict[tuple[str, str, int], int] = defaultdict(int)
        self._shadows_dropped: defaultdict[str, int] = defaultdict(int)
        self.memories: Memories | None = None
        self.rows = self.flushes = self.flushed_bytes = self.rows_refused = self.rows_dropped = 0
        self._guards: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self._guard_seconds: defaultdict[tuple[str, str], Seconds] = defaultdict(Seconds)
        self._spool_bytes = self._groups = self._refused_versions = self._unread_groups = 0

    def answered(self, group: str, version: str, status: int, seconds: float) -> None:
        self._answers[group, version, status] += 1
        self._seconds[group].add(seconds)

    def guarded(self, group: str, guard: str, outcome: str, seconds: float) -> None:
        self._guards[group, guard, outcome] += 1
        self._guard_seconds[group, guard].add(seconds)

    def fields_lost(self, group: str, count: int) -> None:
        if count:
            self._fields_lost[group] += count

    def shadowed(self, group: str, version: str, status: int) -> None:
        self._shadows[group, version, status] += 1

    def shadow_dropped(self, group: str) -> None:
        self._shadows_dropped[group] += 1

    def flushed(self, rows: int, size: int) -> None:
        self.rows += rows
        self.flushes += 1
        self.flushed_bytes += size

    def turned_away(self, dropped: bool) -> None:
        if dropped:
            self.rows_dropped += 1
        else:
            self.rows_refused += 1

    def spooled(self, size: int) -> None:
        self._spool_bytes = size

    def snapshot_taken(self, groups: int, refused_versions: int, unread_groups: int) -> None:
        self._groups = groups
        self._refused_versions = refused_versions
        self._unread_groups = unread_groups

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "mintmark_gateway_requests", "Answered inference requests", labels=["group", "version", "status"]
        )
        for (group, version, status), count in self._answers.items():
            requests.add_metric([group, version, str(status)], count)
        yield requests
        seconds = HistogramMetricFamily(
            "mintmark_gateway_seconds", "From a request's last byte to its answer, row included", labels=["group"]
        )
        for group, histogram in self._seconds.items():
            seconds.add_metric([group], histogram.cumulative(), histogram.sum)
        yield seconds
        lost = CounterMetricFamily(
            "mintmark_gateway_fields_lost", "Fields dropped since their rule could not be applied", labels=["group"]
        )
        for group, count in self._fields_lost.items():
            lost.add_metric([group], count)
        yield lost
        shadows = CounterMetricFamily(
            "mintmark_gateway_shadows", "Requests to shadows", labels=["group", "version", "status"]
        )
        for (group, version, status), count in self._shadows.items():
            shadows.add_metric([group, version, str(status)], count)
        yield shadows
        dropped = CounterMetricFamily(
            "mintmark_gateway_shadows_dropped", "Requests to shadows that were not sent", labels=["group"]
        )
        for group, count in self._shadows_dropped.items():
            dropped.add_metric([group], count)
        yield dropped
        yield from self._of_memories()
        yield from self._of_guards()
        for name, text, number in (
            ("rows", "Rows put into the spool", self.rows),
            ("flushes", "Group commits of rows to the spool", self.flushes),
            ("spooled_bytes", "Bytes of rows put into the spool", self.flushed_bytes),
            ("rows_refused", "Requests answered 503 because the spool was full", self.rows_refused),
            ("rows_dropped", "Requests answered without a row because the spool was full", self.rows_dropped),
        ):
            yield CounterMetricFamily(f"mintmark_gateway_{name}", text, number)
        yield GaugeMetricFamily(
            "mintmark_gateway_spool_bytes", "Bytes in the spool that are not shipped yet", self._spool_bytes
        )
        yield GaugeMetricFamily(
            "mintmark_gateway_refused_versions",
            "Deployed versions left out because their approval did not verify",
            self._refused_versions,
        )
        yield GaugeMetricFamily(
            "mintmark_gateway_unread_groups",
            "Groups that cannot be read as they are told now, and go on as they were or not at all",
            self._unread_groups,
        )
        yield GaugeMetricFamily("mintmark_gateway_groups", "Groups in the snapshot", self._groups)

    def _of_memories(self) -> Iterator[Metric]:
        """What is known of the targets of groups that have routing settings."""
        state = GaugeMetricFamily(
            "mintmark_gateway_breaker_open", "1 while a target is left alone or tried", labels=["group", "target"]
        )
        opened = CounterMetricFamily(
            "mintmark_gateway_breaker_opened", "Times that a target's breaker opened", labels=["group", "target"]
        )
        unready = GaugeMetricFamily(
            "mintmark_gateway_target_unready", "1 while a target's health probes fail", labels=["group", "target"]
        )
        refused = CounterMetricFamily(
            "mintmark_gateway_retries_refused", "Further attempts that the budget did not allow", labels=["group"]
        )
        cache = CounterMetricFamily("mintmark_gateway_cache", "Looks into the cache", labels=["group", "found"])
        size = GaugeMetricFamily("mintmark_gateway_cache_bytes", "Answers kept in the cache", labels=["group"])
        for group, memory in self.memories.items() if self.memories is not None else ():
            for key, breaker in memory.breakers().items():
                state.add_metric([group, key], float(breaker.state != "closed"))
                opened.add_metric([group, key], breaker.opened)
            for key in memory.unready:
                unready.add_metric([group, key], 1)
            refused.add_metric([group], memory.budget.refused)
            if memory.cache is not None:
                cache.add_metric([group, "hit"], memory.cache.hits)
                cache.add_metric([group, "miss"], memory.cache.misses)
                size.add_metric([group], memory.cache.size)
        yield from (state, opened, unready, refused, cache, size)

    def _of_guards(self) -> Iterator[Metric]:
        looks = CounterMetricFamily(
            "mintmark_gateway_guard_looks", "What guards said", labels=["group", "guard", "outcome"]
        )
        for labels, count in self._guards.items():
            looks.add_metric(list(labels), count)
        yield looks
        took = HistogramMetricFamily(
            "mintmark_gateway_guard_seconds", "What a guard's look took", labels=["group", "guard"]
        )
        for names, histogram in self._guard_seconds.items():
            took.add_metric(list(names), histogram.cumulative(), histogram.sum)
        yield took

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self._registry)
