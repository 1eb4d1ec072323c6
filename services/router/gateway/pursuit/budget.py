"""The budget of attempts beside the first: a share of recent requests, so that retries cannot multiply an outage.

Pure: time is given in. The window is counted in ten slices, so that a request costs an addition and no list.
"""

from __future__ import annotations

from services.router.group_settings.routing import Retries

SLICES = 10


class Budget:
    """All requests of a group in one gateway process."""

    __slots__ = ("_asked", "_extra", "_settings", "_slice", "_slice_s", "refused")

    def __init__(self, settings: Retries) -> None:
        self._settings = settings
        self._slice_s = settings.window_s / SLICES
        self._slice = 0
        self._asked = [0] * SLICES
        self._extra = [0] * SLICES
        self.refused = 0
        """How many further attempts it did not allow."""

    def asked(self, now: float) -> None:
        """A request came; its first attempt is free."""
        self._move(now)
        self._asked[self._slice % SLICES] += 1

    def spend(self, now: float) -> bool:
        """One further attempt; False where it is too much."""
        self._move(now)
        settings = self._settings
        spent = sum(self._extra)
        if spent >= settings.least and spent + 1 > sum(self._asked) * settings.budget_percent / 100:
            self.refused += 1
            return False
        self._extra[self._slice % SLICES] += 1
        return True

    def _move(self, now: float) -> None:
        """Forget the slices that are over."""
        current = int(now / self._slice_s)
        if current <= self._slice:
            return
        for number in range(max(self._slice + 1, current - SLICES + 1), current + 1):
            self._asked[number % SLICES] = self._extra[number % SLICES] = 0
        self._slice = current
