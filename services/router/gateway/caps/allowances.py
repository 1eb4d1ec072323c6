"""This process' share of each cap: reserved and settled without asking anybody. Pure.

    leased = free + reserved + spent

A request's need is reserved at its upper bound and settled by what it took. An answer that took more than was reserved
(its length was not bounded) makes `free` negative, which the next lease makes good before anything else.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from services.router.gateway.caps.windows import Period, window_of

SLICES = 20
"""A lease is a twentieth of its cap at most, so that one process' idle share keeps little from the others."""
DENIED_S = 1.0
"""For how long a need that found no room is refused without asking again."""


@dataclass(frozen=True, slots=True)
class Counter:
    """What is counted in one window. `scope` is `group/live`, `key/live/user:ada`, `class/high` or `asset/<urn>`."""

    workspace: str
    scope: str
    unit: str
    """`usd` (pico-dollars), `requests` or `tokens`."""
    starts: int
    ends: int


@dataclass(slots=True)
class Allowance:
    """What this process has of one counter."""

    counter: Counter
    cap: int
    group: str
    """Which group's request made it, for the event."""
    free: int = 0
    reserved: int = 0
    used_at: float = 0.0
    denied_need: int | None = None
    denied_at: float = -DENIED_S
    leasing: bool = field(default=False, repr=False)

    @property
    def slice(self) -> int:
        return max(1, self.cap // SLICES)

    def wants_more(self, now: float) -> bool:
        """Whether to lease ahead of need: little is left, and there was room when somebody last asked."""
        return self.free * 2 < self.slice and not self.leasing and now - self.denied_at >= DENIED_S

    def is_denied(self, need: int, now: float) -> bool:
        return self.denied_need is not None and need >= self.denied_need and now - self.denied_at < DENIED_S

    def reserve(self, need: int, now: float) -> bool:
        if self.free < need:
            return False
        self.free -= need
        self.reserved += need
        self.used_at = now
        return True

    def force(self, need: int, now: float) -> None:
        """Reserve although there is no room; the next lease makes it good."""
        self.free -= need
        self.reserved += need
        self.used_at = now

    def settle(self, reserved: int, took: int) -> None:
        self.reserved -= reserved
        self.free += reserved - took

    def granted(self, amount: int) -> None:
        self.free += amount
        if amount:
            self.denied_need = None

    def denied(self, need: int, now: float) -> None:
        self.denied_need, self.denied_at = need, now


class Allowances:
    """All counters that this process has a share of, current windows and those that have just ended."""

    def __init__(self) -> None:
        self._found: dict[Counter, Allowance] = {}

    def of(
        self, workspace: str, scope: str, unit: str, length: int | Period, cap: int, group: str, now_s: float
    ) -> Allowance:
        starts, ends = window_of(now_s, length)
        counter = Counter(workspace, scope, unit, starts, ends)
        found = self._found.get(counter)
        if found is None:
            found = self._found[counter] = Allowance(counter, cap, group)
        found.cap = cap
        return found

    def to_return(self, now_s: float, now: float, idle_s: float) -> list[tuple[Allowance, int]]:
        """What nobody needs: all that is free of windows that are over, and of those that were idle. Taken out here.

        A deficit is returned as well, as a negative amount. Windows that are over and settled are forgotten.
        """
        found: list[tuple[Allowance, int]] = []
        for counter, one in list(self._found.items()):
            is_over = counter.ends <= now_s
            if one.leasing or (one.free > 0 and not is_over and now - one.used_at < idle_s):
                continue
            if one.free:
                found.append((one, one.free))
                one.free = 0
            if is_over and not one.reserved:
                del self._found[counter]
        return found

    def all_free(self) -> list[tuple[Allowance, int]]:
        """Everything that is free, at the end of the process. Taken out here."""
        found = [(one, one.free) for one in self._found.values() if one.free]
        for one, _ in found:
            one.free = 0
        return found
