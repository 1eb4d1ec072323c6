"""How far a consumer has come: what readiness asks, and how one notices that its Kafka client stands still.

The client (aiokafka) reads in background tasks. An error that it does not expect ends such a task for good, with a line
in the log and nothing else: it stays in its group, answers heartbeats and hears nothing. What it says of itself does
not show that, since it learns of a partition's end by reading from it; so the ends are asked for apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener

STUCK_S = 60.0
STALLED_S = 15.0
"""Nothing in hand, records to read and none read: on two busy cores a healthy client took 2 s at the most."""
SILENT_S = 60.0
"""No partitions, or no answer about them. Longer than a group waits for a member that died (10 s) and a join (30 s)."""


@dataclass(slots=True)
class Progress:
    """Times are of the monotonic clock, in seconds; `lag` is in records."""

    assigned: bool = False
    moved_at: float = 0.0
    lag: int = 0
    _begun_at: float = 0.0
    _seen_at: float = 0.0
    _read_at: float = 0.0
    _positions: Mapping[TopicPartition, int] = field(default_factory=dict)

    def begin(self, now: float) -> None:
        """A new client, or a broker that was away: from now on it has its time to join and to read."""
        self._begun_at = self._read_at = self._seen_at = now

    def saw(self, positions: Mapping[TopicPartition, int], lag: int, now: float) -> None:
        """Where the client stands in each of its partitions, and how many records lie before it."""
        if lag == 0 or positions != self._positions:
            self._read_at = now
        if lag == 0:
            self.moved_at = now
        self._positions, self.lag, self._seen_at = positions, lag, now

    def complaint(self, now: float) -> str | None:
        """Why the consumer is not ready, or None."""
        if not self.assigned:
            return "no partition is assigned yet"
        if self.lag > 0 and now - self.moved_at > STUCK_S:
            return f"{self.lag} records behind and nothing handled for {now - self.moved_at:.0f} s"
        return None

    def stall(self, now: float) -> str | None:
        """Why the client should be replaced, or None. Only to be asked while no batch is in hand."""
        if now - self._seen_at > SILENT_S:
            return f"it could not tell for {now - self._seen_at:.0f} s where it stands"
        if not self.assigned:
            return f"no partition in {SILENT_S:.0f} s" if now - self._begun_at > SILENT_S else None
        if self.lag > 0 and now - self._read_at > STALLED_S:
            return f"{self.lag} records behind and nothing read for {now - self._read_at:.0f} s"
        return None


class Assignment(ConsumerRebalanceListener):  # type: ignore[misc]  # the client has no types
    """Tells the progress what the group decides."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self._progress.assigned = False

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        # With more consumers than partitions one gets none: that is an assignment too.
        self._progress.assigned = True


async def lags(consumer: AIOKafkaConsumer) -> dict[TopicPartition, tuple[int, int]]:
    """(position, records behind the end) of each assigned partition, as the broker says now."""
    assigned = list(consumer.assignment())
    ends = await consumer.end_offsets(assigned)
    found = {}
    for partition in assigned:
        position = await consumer.position(partition)
        found[partition] = (position, max(0, ends[partition] - position))
    return found
