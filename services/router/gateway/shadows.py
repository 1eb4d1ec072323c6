"""Shadows: versions that are sent requests beside the one that answers, after its answer is out.

A shadow's request is an exchange without a caller: its row has an id of its own, the arm `shadow` and the id of the
request that it is a shadow of. It waits for nobody's guardrails or caps, and nobody waits for it. Beyond a number under
way it is not sent at all, and counted.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from services.router.domain import shadows_of
from services.router.errors import Draining, RowsUnavailable, StreamCut
from services.router.gateway.arms import Arm
from services.router.gateway.exchange import Exchange
from services.router.gateway.http_server import Request
from services.router.gateway.snapshot import Route
from services.router.gateway.tracing import traced
from services.router.gateway.translator import Answer, Translator
from services.router.group_settings.routing import ShadowLimits
from shared.errors import MintmarkError
from shared.identity import Principal

if TYPE_CHECKING:
    from services.router.gateway.app import Gateway

log = logging.getLogger(__name__)

DEFAULT = ShadowLimits()
POLL_S = 0.02


class Shadows:
    """All that one gateway process has under way."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._under_way: set[ShadowExchange] = set()
        self._by_group: Counter[str] = Counter()
        self.draining = False

    def __len__(self) -> int:
        return len(self._under_way)

    def send(
        self,
        request: Request,
        route: Route,
        served: Arm,
        translator: Translator,
        identity: tuple[bytes, str, str, Principal],
    ) -> None:
        """Send what `served` was asked to the group's shadows that are due; `identity` is that of the exchange."""
        raw_id, request_id, unit, principal = identity
        for version in shadows_of(route.group, served.version, request_id):
            arm = route.shadows.get(version)
            name = route.group.name
            limits = route.routing.shadows if route.routing is not None else DEFAULT
            if arm is None or self.draining or self._by_group[name] >= limits.in_flight:
                self._gateway.metrics.shadow_dropped(name)
                continue
            shadow = ShadowExchange(self._gateway, request, route, translator.fork(), principal, arm, raw_id, unit)
            self._under_way.add(shadow)
            self._by_group[name] += 1
            # The server writes answers at the end of this turn of the loop; what is done before would delay them.
            asyncio.get_running_loop().call_soon(shadow.begin)

    def ended(self, shadow: ShadowExchange, group: str) -> None:
        if shadow in self._under_way:
            self._under_way.remove(shadow)
            self._by_group[group] -= 1

    async def drain(self, within_s: float) -> None:
        """Send no more, and let those under way end; what has not by then is a row that says so."""
        self.draining = True
        until = time.monotonic() + within_s
        while self._under_way and time.monotonic() < until:
            await asyncio.sleep(POLL_S)
        for shadow in tuple(self._under_way):
            shadow.give_up(Draining())


class ShadowExchange(Exchange):
    """One request to one shadow."""

    __slots__ = ("_shadowing",)

    def __init__(
        self, gateway: Gateway, request: Request, route: Route, translator: Translator, principal: Principal, arm: Arm,
        shadow_of: bytes, unit: str,
    ) -> None:  # fmt: skip
        super().__init__(gateway, replace(request, arrived=time.perf_counter()), route, translator, principal)
        self._shadow_of = shadow_of
        self._shadowing = arm
        self._unit = unit

    def begin(self) -> None:
        self._traceparent, self._trace_id = traced(self._request.headers.get(b"traceparent"), self._raw_id)
        arm = self._arm = self._shadowing
        try:
            assert arm.target is not None, "only those that may be served are shadows of a route"
            self._features = self._translator.features(arm.target)
            self._ask(arm.target)
        except MintmarkError as error:
            self.failed(error)
        except Exception:
            log.exception("unexpected error", extra={"request_id": self._id})
            self.failed(MintmarkError())

    def give_up(self, error: MintmarkError) -> None:
        """It took too long for somebody whom nobody waits for."""
        if self._call is not None:
            self._call.abandon()
        self.failed(error)

    # -- where an exchange speaks to its caller, a shadow speaks to nobody

    def _judged(self) -> None:
        self._record()

    def _send(self, data: bytes) -> None:
        self._streaming = True

    def _cut(self, error: MintmarkError) -> None:
        self._answer = self._translator.so_far()
        self._answer.status = StreamCut.status
        self._error_code = error.code
        self._record()

    def _refused(self, error: RowsUnavailable) -> None:
        self._error_code = error.code
        self._answer = Answer(error.status)
        self._recorded(None)

    def _recorded(self, error: RowsUnavailable | None) -> None:
        name = self._route.group.name
        self._gateway.shadows.ended(self, name)
        status = RowsUnavailable.status if error is not None else self._answer.status
        self._gateway.metrics.shadowed(name, self._shadowing.name, status)
