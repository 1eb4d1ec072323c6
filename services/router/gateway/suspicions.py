"""From an answered request to guardrail.tripped: what the watch finds suspicious goes into the spool as an event."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from services.router.errors import RowsUnavailable
from services.router.gateway.guardrails.texts import Texts
from services.router.gateway.rows import said
from services.router.gateway.snapshot import Route
from services.router.gateway.spool.writer import SpoolWriter
from services.router.group_settings.guardrails import Suspicion
from shared.events.router import GuardrailTripped
from shared.identity import Principal

if TYPE_CHECKING:
    from services.router.gateway.suspicion.watch import Watch

log = logging.getLogger(__name__)


class Suspicions:
    """Of one gateway process; numpy is loaded when the first group that watches has an answer."""

    def __init__(self, spool: SpoolWriter) -> None:
        self._spool = spool
        self._watch: Watch | None = None

    def look(
        self, route: Route, limits: Suspicion, request_id: str, principal: Principal,
        features: bytes | None, input: bytes | None, score: float | None,
    ) -> None:  # fmt: skip
        """After the answer. Never raises."""
        try:
            if self._watch is None:
                from services.router.gateway.suspicion.watch import Watch  # and with it numpy

                self._watch = Watch()
            caller = principal.key_id or principal.id
            found = self._watch.observe(
                route.group.name, caller, limits, features=features,
                text=None if features is not None else _text(input), score=score, now=time.monotonic(),
            )  # fmt: skip
        except Exception:  # nobody is to lose an answer over it
            log.exception("unexpected error", extra={"request_id": request_id})
            return
        for one in found:
            log.warning("suspicious use", extra={"group": route.group.name, "kind": one.kind, "caller": principal.id})
            event = GuardrailTripped(
                group=route.group.name,
                request_id=UUID(request_id),
                guardrail=one.kind,
                action="flagged",
                reason=one.reason,
            )
            self._spool.submit(said(route.address, event), True, _kept)


def _text(input: bytes | None) -> str:
    """What somebody else than the application said last."""
    value: Any = orjson.loads(input or b"null")
    texts = Texts(value)
    return texts.all[texts.foreign[-1]] if texts.foreign else ""


def _kept(error: RowsUnavailable | None) -> None:
    if error is not None:
        log.error("a suspicion could not be kept", extra={"error": error.message})
