"""Reserve and settle: one request against all counters of its route."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from services.router.gateway.caps.allowances import Allowance, Allowances
from services.router.gateway.caps.compiled import Cap, CompiledCaps
from services.router.gateway.caps.errors import BudgetExceeded, CapsUnavailable, LimitReached, PriceUnknown
from services.router.gateway.caps.lessor import Lessor, UnreachableError
from shared.errors import MintmarkError
from shared.identity.principal import Principal


@dataclass(slots=True)
class Reservation:
    """What one request holds: each allowance with how much of it."""

    held: list[tuple[Allowance, int]]

    def settle(self, took: dict[str, int]) -> None:
        """By unit what it took; a unit that is not named took all that was reserved."""
        for allowance, amount in self.held:
            allowance.settle(amount, took.get(allowance.counter.unit, amount))
        self.held = []


class Reserver:
    """Of one gateway process. `clock` gives Unix seconds."""

    def __init__(self, allowances: Allowances, lessor: Lessor, clock: Callable[[], float]) -> None:
        self._allowances = allowances
        self._lessor = lessor
        self._clock = clock

    def at_once(
        self, workspace: str, group: str, caps: CompiledCaps, principal: Principal, needs: dict[str, int]
    ) -> Reservation | None:
        """The reservation from what this process has; None where a lease must be waited for.

        Raises PriceUnknown, LimitReached, BudgetExceeded: nothing is held then.
        """
        if caps.refuses_unpriced and "usd" not in needs:
            raise PriceUnknown()
        now = time.monotonic()
        held: list[tuple[Allowance, int]] = []
        for cap, one, need in self._found(workspace, group, caps, principal, needs):
            if one.reserve(need, now):
                held.append((one, need))
                if one.wants_more(now):
                    self._lessor.top_up(one)
                continue
            Reservation(held).settle(NOTHING)
            if one.is_denied(need - one.free, now):
                raise self._full(cap, one)
            return None
        return Reservation(held)

    async def waiting(
        self, workspace: str, group: str, caps: CompiledCaps, principal: Principal, needs: dict[str, int]
    ) -> Reservation:
        """The reservation, after leases. Raises LimitReached, BudgetExceeded, CapsUnavailable."""
        held: list[tuple[Allowance, int]] = []
        try:
            for cap, one, need in self._found(workspace, group, caps, principal, needs):
                while not one.reserve(need, time.monotonic()):
                    try:
                        if not await self._lessor.lease(one, need):
                            raise self._full(cap, one)
                    except UnreachableError:
                        if cap.when_unreachable == "refuse":
                            raise CapsUnavailable() from None
                        one.force(need, time.monotonic())
                        break
                held.append((one, need))
        except MintmarkError:
            Reservation(held).settle(NOTHING)
            raise
        return Reservation(held)

    def _found(
        self, workspace: str, group: str, caps: CompiledCaps, principal: Principal, needs: dict[str, int]
    ) -> list[tuple[Cap, Allowance, int]]:
        now_s = self._clock()
        return [
            (
                cap,
                self._allowances.of(workspace, cap.counter_of(principal), cap.unit, cap.length, cap.most, group, now_s),
                needs[cap.unit],
            )
            for cap in caps.caps
            if cap.unit in needs
        ]

    def _full(self, cap: Cap, one: Allowance) -> MintmarkError:
        wait_s = max(1, one.counter.ends - int(self._clock()))
        return BudgetExceeded(cap.what, wait_s) if cap.is_budget else LimitReached(cap.what, wait_s)


NOTHING = {"requests": 0, "tokens": 0, "usd": 0}
