"""An exchange of a protected group: a ward stands before the model is asked and before its answer leaves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from services.router.gateway.exchange import Exchange
from services.router.gateway.guardrails.errors import GuardFailed, GuardrailTripped
from services.router.gateway.guardrails.stream import GuardedStream
from services.router.gateway.http_server import Request
from services.router.gateway.protection import NONE
from services.router.gateway.rows import Answer
from services.router.gateway.snapshot import Route
from services.router.gateway.translator import Headers, Translator
from services.router.gateway.ward import Ward
from shared.errors import MintmarkError
from shared.identity import Principal

if TYPE_CHECKING:
    from services.router.gateway.app import Gateway

CLIENT_IS_SLOW, GUARDS_ARE_SLOW = 1, 2
BY_GUARDS = {GuardrailTripped.code: GuardrailTripped.status, GuardFailed.code: GuardFailed.status}


def exchange_of(
    gateway: Gateway, request: Request, route: Route, translator: Translator, principal: Principal
) -> Exchange:
    """Plain where the group is protected by nothing, so that it pays for nothing."""
    made = Exchange if route.protection is NONE else WardedExchange
    return made(gateway, request, route, translator, principal)


class WardedExchange(Exchange):
    """A judgement is what a guard asks of another group: no further judge is asked about it, and no cap of a caller."""

    __slots__ = ("_drained", "_guarded", "_paused", "_ward")

    def __init__(
        self, gateway: Gateway, request: Request, route: Route, translator: Translator, principal: Principal,
        *, is_judgement: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(gateway, request, route, translator, principal)
        self._ward = Ward(gateway, route, principal, is_judgement)
        self._guarded: GuardedStream | None = None
        self._drained = False
        """The upstream has ended; what it said may still be held."""
        self._paused = 0

    # -- before the model is asked

    def _admitted(self) -> None:
        self._ward.admit(self._translator, self.tags, super()._admitted, self.failed)

    # -- before an answer leaves

    def _judged(self) -> None:
        if self._ward.guards_output:
            self._ward.judge(self._translator, self._answer, self.tags, self._record, self.failed)
        else:
            self._record()

    def failed(self, error: MintmarkError) -> None:
        if not self._drained:
            super().failed(error)

    def began(self, status: int, headers: Headers) -> None:
        super().began(status, headers)
        self._guard_stream()

    def flows(self, status: int, heads: bytes, data: bytes, last: Answer | None) -> None:
        self._guard_stream()
        super().flows(status, heads, data, last)

    def _guard_stream(self) -> None:
        if self._guarded is None and not self._over:
            self._guarded = self._ward.stream(send=super()._send, stop=self._stopped, pause=self._hold)

    def chunk(self, data: bytes) -> None:
        if not self._drained:
            super().chunk(data)

    def ended(self) -> None:
        if not self._drained:
            super().ended()

    def _send(self, data: bytes) -> None:
        if self._guarded is None:
            super()._send(data)
        else:
            self._guarded.feed(data)

    def _finished(self, last: bytes, answer: Answer) -> None:
        self._drained = self._guarded is not None
        super()._finished(last, answer)

    def _record(self) -> None:
        guarded = self._guarded
        if guarded is not None:
            if self._drained and not guarded.is_over:
                guarded.finish(self._left)
                return
            if not guarded.has_left:  # nothing that guards have not let pass is kept
                guarded.abandon()
                self._answer.output = None
                self._answer.status = BY_GUARDS.get(self._error_code or "", self._answer.status)
            if guarded.notes:
                self.tags["guards"] = [*self.tags.get("guards", ()), *guarded.notes]
        super()._record()

    def _left(self) -> None:
        """All of a guarded stream has left; its row keeps what the guards let pass of it."""
        super()._send(b"")
        self._ward.judge_row(self._answer, self._record)

    def _stopped(self, error: MintmarkError) -> None:
        """A guard ends the stream."""
        self._drained = False
        self._let_go(error)

    def _own_headers(self) -> bytes:
        notes = self.tags.get("guards", ())
        if (
            self._guarded is not None and not self._over
        ):  # the head of a stream: what its first windows were found to be
            notes = (*notes, *self._guarded.notes)  # the head of a stream tells of its first windows
        return super()._own_headers() + guards_header(notes)

    # -- what the client's connection says of a stream

    def client_gone(self) -> None:
        if self._guarded is not None:
            self._guarded.abandon()
        super().client_gone()

    def pause(self, paused: bool) -> None:
        self._pause(CLIENT_IS_SLOW, paused)

    def _hold(self, paused: bool) -> None:
        self._pause(GUARDS_ARE_SLOW, paused)

    def _pause(self, who: int, paused: bool) -> None:
        self._paused = self._paused & ~who | (who if paused else 0)
        super().pause(bool(self._paused))

    # -- after it

    def _settled(self) -> None:
        super()._settled()
        self._ward.settle(self._answer, bool(self._attempts), self._error_code)
        suspicion = self._route.protection.suspicion
        if suspicion is not None and self._error_code is None:
            self._gateway.suspicions.look(
                self._route, suspicion, self._id, self._principal, self._features, self._translator.input,
                self._answer.score,
            )  # fmt: skip


def guards_header(notes: Iterable[Mapping[str, Any]]) -> bytes:
    """`x-mintmark-guards`, a list of RFC 9651: each guard that looked, at what, what came of it, its milliseconds.

    No reason and no score: who probes a guard learns no more from it than from being refused.
    """
    said = ", ".join(f"{one['name']};on={one['on']};outcome={one['outcome']};ms={one['ms']:.3f}" for one in notes)
    return f"x-mintmark-guards: {said}\r\n".encode() if said else b""
