"""One attempt at one target: hears its upstream, and translates until something is fit for the client."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from services.router.errors import UpstreamRefused, UpstreamTimeoutError
from services.router.gateway.pursuit.breaker import Breaker
from services.router.gateway.pursuit.judging import RETRIED
from services.router.gateway.pursuit.plan import Candidate
from services.router.gateway.pursuit.story import Attempted
from services.router.gateway.rows import Answer
from services.router.gateway.translator import Headers, Translator
from services.router.gateway.upstream import Call
from shared.errors import MintmarkError

log = logging.getLogger(__name__)


class Hearer(Protocol):
    """Whoever made the attempt."""

    def whole(self, attempt: Attempt, status: int, answer: Answer, final: bool) -> None:
        """A whole answer; `final` unless its status asks for another attempt."""

    def flows(self, attempt: Attempt, data: bytes) -> None:
        """A stream has its first bytes for the client, or is over before there were any."""

    def more(self, attempt: Attempt, data: bytes) -> None: ...

    def over(self, attempt: Attempt) -> None:
        """The stream that flows has ended."""

    def lost(self, attempt: Attempt, error: MintmarkError) -> None:
        """Nothing comes of it, or nothing more."""


class Attempt:
    """Hears its call; what went to the client before it flows is nothing, so that until then it may be replaced."""

    __slots__ = (
        "_deadline", "_hearer", "_timeout_s", "asked", "breaker", "call", "candidate", "features", "flowing", "heads",
        "last", "permit", "status", "told", "translator",
    )  # fmt: skip

    def __init__(
        self, hearer: Hearer, candidate: Candidate, translator: Translator, features: bytes | None, told: Attempted
    ) -> None:
        self._hearer = hearer
        self._deadline: asyncio.TimerHandle | None = None
        self._timeout_s = 0.0
        self.candidate = candidate
        self.translator = translator
        self.features = features
        self.told = told
        self.asked = 0.0
        self.breaker: Breaker | None = None
        self.permit = 0
        self.call: Call | None = None
        self.status = 0
        self.heads = b""
        self.flowing = False
        self.last: Answer | None = None
        """Of a stream that ended before it flowed."""

    def limit(self, timeout_s: float) -> None:
        """A stream has its first token within this time too, however busily it says nothing."""
        self._timeout_s = timeout_s

    def drop(self) -> None:
        """Hear no more of it."""
        self._forget_deadline()
        if self.call is not None:
            self.call.abandon()
            self.call = None

    # -- what the upstream says

    def answered(self, status: int, headers: Headers, body: bytes) -> None:
        self.call = None
        try:
            answer = self.translator.answer(status, headers, body)
        except Exception as error:
            self._hearer.lost(self, _known(error))
            return
        self._hearer.whole(self, status, answer, status not in RETRIED)

    def began(self, status: int, headers: Headers) -> None:
        self.status = status
        if status in RETRIED:
            self._let_go(UpstreamRefused(status, f"The model server answered {status}, as a stream."))
            return
        try:
            self.heads = self.translator.begin(status, headers)
        except Exception as error:
            self._let_go(_known(error))
            return
        if self._timeout_s:
            self._deadline = asyncio.get_running_loop().call_later(self._timeout_s, self._late)

    def chunk(self, data: bytes) -> None:
        if self.flowing:
            self._hearer.more(self, data)
            return
        try:
            passed = self.translator.chunk(data)
        except Exception as error:
            self._let_go(_known(error))
            return
        if passed or self.translator.is_complete:
            self._forget_deadline()
            self.flowing = True
            self._hearer.flows(self, passed)

    def ended(self) -> None:
        self.call = None
        self._forget_deadline()
        if self.flowing:
            self._hearer.over(self)
            return
        try:
            passed, self.last = self.translator.end()
        except Exception as error:
            self._hearer.lost(self, _known(error))
            return
        self._hearer.flows(self, passed)

    def failed(self, error: MintmarkError) -> None:
        self.call = None
        self._forget_deadline()
        self._hearer.lost(self, error)

    def _late(self) -> None:
        self._let_go(UpstreamTimeoutError("The model's stream began, and had no first token in time."))

    def _let_go(self, error: MintmarkError) -> None:
        self.drop()
        self._hearer.lost(self, error)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _known(error: Exception) -> MintmarkError:
    """A defect must not leave the client without an answer."""
    if isinstance(error, MintmarkError):
        return error
    log.error("unexpected error", exc_info=error)
    return MintmarkError()
