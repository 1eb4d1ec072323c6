"""How long a target's answers take of late, so that a hedge is sent when one is unusually late."""

from __future__ import annotations

from math import ceil

KEPT = 256
RESORT_AFTER = 16


class Latencies:
    """The last 256 of one target, in seconds. A percentile is at most 16 answers old."""

    __slots__ = ("_fresh", "_next", "_percentile", "_seen", "_value")

    def __init__(self, percentile: float) -> None:
        self._percentile = percentile
        self._seen: list[float] = []
        self._next = 0
        self._fresh = RESORT_AFTER
        self._value = 0.0

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, seconds: float) -> None:
        if len(self._seen) < KEPT:
            self._seen.append(seconds)
        else:
            self._seen[self._next] = seconds
            self._next = (self._next + 1) % KEPT
        self._fresh += 1

    def percentile(self) -> float:
        """The nearest rank of what is kept; there must be an answer."""
        if self._fresh >= RESORT_AFTER:
            self._fresh = 0
            ordered = sorted(self._seen)
            self._value = ordered[max(0, ceil(self._percentile / 100 * len(ordered)) - 1)]
        return self._value
