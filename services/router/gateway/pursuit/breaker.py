"""A breaker: leaves a target that fails alone for a while, then tries it with a few requests.

    closed --failures--> open --open_s--> half-open --a success--> closed
                           ^------------------| a failure

Pure: time is given in, in seconds of any clock that only goes forward. Every permission is given back exactly once, by
`succeeded`, `failed` or `dropped` (whoever asked went away), so that no trial can be lost and keep it half-open. What
was asked before the breaker last changed says nothing about now, and is not listened to.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

from services.router.group_settings.routing import Breaker as Settings

MOST_OUTCOMES = 10_000
"""Of the window, the latest so many: at 10,000 requests a second a share is known well enough from one second."""
REFUSED = 0
"""No permission."""


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """Of one target of one group, in one gateway process."""

    __slots__ = ("_epoch", "_failed", "_in_a_row", "_opened_at", "_outcomes", "_settings", "_trials", "opened", "state")

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.state = State.CLOSED
        self.opened = 0
        """How many times it opened."""
        self._epoch = 1
        self._in_a_row = 0
        self._opened_at = 0.0
        self._trials = 0
        self._outcomes: deque[tuple[float, bool]] = deque()
        self._failed = 0

    def permits(self, now: float) -> bool:
        """Whether the target may be asked, without taking the permission."""
        if self.state is State.CLOSED:
            return True
        if self.state is State.OPEN:
            return now - self._opened_at >= self._settings.open_s
        return self._trials < self._settings.probes

    def enter(self, now: float) -> int:
        """Take a permission to ask, to be given back with what came of it; REFUSED where there is none."""
        if not self.permits(now):
            return REFUSED
        if self.state is not State.CLOSED:
            self.state = State.HALF_OPEN
            self._trials += 1
        return self._epoch

    def retry_after_s(self, now: float) -> float:
        """When the target is tried again; 0 when it is at once. While it is being tried, that is soon known."""
        if self.permits(now):
            return 0.0
        if self.state is State.HALF_OPEN:
            return 1.0
        return max(0.0, self._opened_at + self._settings.open_s - now)

    def succeeded(self, permit: int, now: float) -> None:
        if permit != self._epoch:
            return
        if self.state is State.CLOSED:
            self._in_a_row = 0
            self._count(now, False)
        else:
            self._change(State.CLOSED)

    def failed(self, permit: int, now: float) -> None:
        if permit != self._epoch:
            return
        self._in_a_row += 1
        self._count(now, True)
        if self.state is not State.CLOSED or self._is_enough():
            self._opened_at = now
            self.opened += 1
            self._change(State.OPEN)

    def dropped(self, permit: int) -> None:
        """The attempt ended without a word about the target."""
        if permit == self._epoch and self.state is State.HALF_OPEN:
            self._trials -= 1

    def _is_enough(self) -> bool:
        settings, asked = self._settings, len(self._outcomes)
        if self._in_a_row >= settings.consecutive_failures:
            return True
        share = settings.failure_share
        return share is not None and asked >= settings.least_requests and self._failed >= share * asked

    def _count(self, now: float, failed: bool) -> None:
        if self._settings.failure_share is None:
            return
        outcomes = self._outcomes
        outcomes.append((now, failed))
        self._failed += failed
        horizon = now - self._settings.window_s
        while outcomes[0][0] <= horizon or len(outcomes) > MOST_OUTCOMES:
            self._failed -= outcomes.popleft()[1]

    def _change(self, state: State) -> None:
        self.state = state
        self._epoch += 1
        self._trials = self._in_a_row = self._failed = 0
        self._outcomes.clear()
