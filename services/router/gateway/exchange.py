"""One request, from its last byte to the last byte of its answer, as a row of stages that call each other.

    begin: read -> admit -> choose -> look into the cache -> ask, or pursue -> answered | began, chunk…, ended | failed
        -> judge -> record the row -> recorded -> answer -> settle: keep in the cache, send to shadows

A group without the section `routing` asks its one target itself. One that has it leaves that to a pursuit (pursuit/),
which makes attempts until one is to be told of, and hands that over by `won`.

Every path of a request to a known group ends in `_record`, and only `_recorded` lets the last byte go to the client: no
answer, good or bad, is complete before its row is in the spool. What is refused before the group is known (401, 403,
404) has no table to be a row of, and is counted only.

What a body means is the translator's business (`translator.py`); nothing here looks into one.
"""

from __future__ import annotations

import logging
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson
import uuid_utils

from services.router.errors import ClientGone, RowsUnavailable, StreamCut, VersionNotServable
from services.router.gateway import rows
from services.router.gateway.arms import Arm, Served
from services.router.gateway.caps.prices import cost_of
from services.router.gateway.choosing import Asking, Way
from services.router.gateway.http_server import Request
from services.router.gateway.minimisation import CONSENT_ALONE, CONSENT_HEADER, Record
from services.router.gateway.pursuit.attempt import Attempt
from services.router.gateway.pursuit.plan import Candidate
from services.router.gateway.pursuit.pursuit import Pursuit
from services.router.gateway.snapshot import Route
from services.router.gateway.tracing import traced
from services.router.gateway.translator import Answer, Headers, Translator
from services.router.gateway.upstream import Call
from services.router.group_settings import Routing
from shared.errors import MintmarkError
from shared.identity import Principal

if TYPE_CHECKING:
    from services.router.gateway.app import Gateway

log = logging.getLogger(__name__)

MAX_CLIENT_ID = 256


class Exchange:
    """The state of one inference request."""

    __slots__ = (
        "_answer", "_arm", "_asked", "_call", "_error_code", "_features", "_gateway", "_heads", "_id", "_over",
        "_principal", "_raw_id", "_request", "_route", "_shadow_of", "_streaming", "_trace_id", "_traceparent",
        "_translator", "_ttft_ms", "_unit", "_upstream_ms", "_way", "tags",
    )  # fmt: skip

    def __init__(
        self, gateway: Gateway, request: Request, route: Route, translator: Translator, principal: Principal
    ) -> None:
        self._gateway = gateway
        self._request = request
        self._route = route
        self._translator = translator
        self._principal = principal
        identity = uuid_utils.uuid7()
        self._raw_id: bytes = identity.bytes
        self._id = str(identity)
        self._trace_id = ""
        self._traceparent = b""
        self._unit = self._id
        self._arm: Arm | None = None
        self._call: Call | None = None
        self._answer = Answer(500)
        self._error_code: str | None = None
        self._features: bytes | None = None
        self._asked = 0.0
        self._upstream_ms: float | None = None
        self._ttft_ms: float | None = None
        self._heads = b""
        self._streaming = False
        self._over = False
        self._shadow_of: bytes | None = None
        self._way: Way | None = None
        self.tags: dict[str, Any] = {}
        """What the row says of how it came to be: for people, and for `why`."""

    # -- stage 1: what is asked, and of whom

    def begin(self) -> None:
        """Choose the version and ask it. Never raises; every failure becomes an answer."""
        request, gateway, rule = self._request, self._gateway, self._route.group.unit_rule
        self._traceparent, self._trace_id = traced(request.headers.get(b"traceparent"), self._raw_id)
        if not gateway.rows.is_accepting and not self._route.drops_rows:  # asking would be in vain
            self._refused(RowsUnavailable())
            return
        named = request.headers.get(self._route.unit_header)
        unit = named.decode("utf-8", "replace").replace("\x00", "") if named else None
        self._unit = (unit or self._id)[: rows.MAX_UNIT_CHARACTERS]
        translator = self._translator
        try:
            if b"x-mintmark-tags" in request.headers:
                self.tags["client"] = rows.tags_of(request.headers[b"x-mintmark-tags"])
            translator.read()
            self._unit = rule.unit_of(unit, translator.unit, self._id)[: rows.MAX_UNIT_CHARACTERS]
        except MintmarkError as error:
            self.failed(error)
            return
        except Exception:  # a defect must not leave the client without an answer
            log.exception("unexpected error", extra={"request_id": self._id})
            self.failed(MintmarkError())
            return
        self._admitted()

    def _admitted(self) -> None:
        """What is asked may be asked: choose who answers, and ask. Never raises."""
        route = self._route
        try:
            if route.routing is not None:
                self._find_way(route.routing)
                return
            arm = self._arm = route.arm_of(self._unit)
            if arm.target is None:
                raise VersionNotServable(arm.objection)
            self._features = self._translator.features(arm.target)
            self._ask(arm.target)
        except MintmarkError as error:
            self.failed(error)
        except Exception:
            log.exception("unexpected error", extra={"request_id": self._id})
            self.failed(MintmarkError())

    def _find_way(self, routing: Routing) -> None:
        """The same for a group with routing settings. Raises MintmarkError."""
        route, translator, gateway = self._route, self._translator, self._gateway
        way = self._way = Way(gateway.memories.of(route.group.name, routing))
        place = way.place_of(route, Asking(self._request, translator, self._unit))
        arm = self._arm = route.arms[place]
        known = way.known(arm, translator)
        if known is not None:
            self._features = translator.features(arm.target) if arm.target is not None else None
            self._answer = known
            self._judged()
            return
        candidates = route.candidates(place, self._raw_id)
        if not candidates:
            raise VersionNotServable(arm.objection)
        Pursuit(self, way.memory, gateway.pools, candidates, way.story).start()

    def _ask(self, target: Served) -> None:
        payload = self._payload(self._translator, target)
        self._asked = time.perf_counter()
        self._call = self._gateway.pools.of(target.endpoint).send(payload, self, self._timeout_s(target))

    def _payload(self, translator: Translator, target: Served) -> bytes:
        head, body = translator.ask(target, self._id)
        return b"%bx-mintmark-request-id: %b\r\ntraceparent: %b\r\ncontent-length: %d\r\n\r\n%b" % (
            head,
            self._id.encode(),
            self._traceparent,
            len(body),
            body,
        )

    def _timeout_s(self, target: Served) -> float:
        settings = self._gateway.settings
        return settings.provider_timeout_s if target.endpoint.is_foreign else settings.upstream_timeout_s

    # -- what a pursuit asks and says (pursuit.Owner); what it made of a stream goes on as of any other

    @property
    def streams(self) -> bool:
        return self._translator.streams

    def prepared(self, candidate: Candidate) -> tuple[Translator, bytes, bytes | None]:
        translator = self._translator.fork()
        return translator, self._payload(translator, candidate.target), translator.features(candidate.target)

    def default_timeout_s(self, candidate: Candidate) -> float:
        return self._timeout_s(candidate.target)

    def won(self, attempt: Attempt) -> None:
        if self._way is not None and self._arm is not None and self._arm.version != attempt.candidate.arm.version:
            self._way.story.failed_over, self._way.story.chosen = True, self._arm.version
        self._arm, self._translator, self._features = attempt.candidate.arm, attempt.translator, attempt.features
        self._asked, self._call = attempt.asked, attempt.call

    def flows(self, status: int, heads: bytes, data: bytes, last: Answer | None) -> None:
        self._answer.status = status
        self._heads = heads
        if last is None:
            self._passed(data)
        else:
            self._finished(data, last)

    # -- stage 2: what came back, whole

    def answered(self, status: int, headers: Headers, body: bytes) -> None:
        """The upstream's whole answer, of whatever status."""
        self._call = None  # it knows this exchange, and a circle waits for the garbage collector
        try:
            answer = self._translator.answer(status, headers, body)
        except MintmarkError as error:
            self.failed(error)
            return
        except Exception:
            log.exception("unexpected error", extra={"request_id": self._id})
            self.failed(MintmarkError())
            return
        self.whole(status, answer)

    def whole(self, status: int, answer: Answer) -> None:
        self._call = None
        self._upstream_ms = (time.perf_counter() - self._asked) * 1000
        self._answer = answer
        if status >= 400:
            self._error_code = f"upstream-{status}"
        self._judged()

    def _judged(self) -> None:
        """The answer may go out as it is."""
        self._record()

    def failed(self, error: MintmarkError) -> None:
        """There is no answer, or no more of it; the failure is a row like any other."""
        if self._over:
            return
        self._call = None
        if self._asked and self._upstream_ms is None:
            self._upstream_ms = (time.perf_counter() - self._asked) * 1000
        if self._streaming:
            self._cut(error)
            return
        self._error_code = error.code
        self._answer = self._translator.refused(error, self._id).instead_of(self._answer)
        self._record()

    # -- stage 2: what came back, chunk by chunk

    def began(self, status: int, headers: Headers) -> None:
        """The upstream streams its answer; what comes is passed on as it comes.

        Nothing goes to the client before there is something for it: what fails until then is an answer with a status.
        """
        try:
            self._heads = self._translator.begin(status, headers)
        except MintmarkError as error:
            self._let_go(error)
            return
        self._answer.status = status

    def chunk(self, data: bytes) -> None:
        if self._over:
            return
        try:
            passed = self._translator.chunk(data)
        except MintmarkError as error:
            self._let_go(error)
            return
        except Exception:
            log.exception("unexpected error", extra={"request_id": self._id})
            self._let_go(MintmarkError())
            return
        self._passed(passed)

    def _passed(self, passed: bytes) -> None:
        translator = self._translator
        if self._ttft_ms is None and translator.has_token:
            self._ttft_ms = (time.perf_counter() - self._request.arrived) * 1000
        if passed:
            self._send(passed)
        if translator.is_complete:
            self.ended()

    def ended(self) -> None:
        if self._over:
            return
        self._call = None
        try:
            last, answer = self._translator.end()
        except MintmarkError as error:
            self.failed(error)
            return
        self._finished(last, answer)

    def _finished(self, last: bytes, answer: Answer) -> None:
        self._upstream_ms = (time.perf_counter() - self._asked) * 1000
        status = answer.status = self._answer.status
        self._answer = answer
        if self._ttft_ms is None and last and self._translator.has_token:
            self._ttft_ms = (time.perf_counter() - self._request.arrived) * 1000
        self._send(last)
        if status >= 400:
            self._error_code = f"upstream-{status}"
        self._record()

    def _send(self, data: bytes) -> None:
        connection = self._request.connection
        if not self._streaming:
            self._streaming = True
            connection.begin_stream(self._request, self._answer.status, self._heads + self._own_headers(), self)
        if data:
            connection.send(data)

    def _let_go(self, error: MintmarkError) -> None:
        """The upstream's stream is not worth reading on."""
        if self._call is not None:
            self._call.abandon()
        self.failed(error)

    def _cut(self, error: MintmarkError) -> None:
        """The stream broke off: the client sees an event that says so, and a body that does not end."""
        self._answer = self._translator.so_far()
        self._answer.status = StreamCut.status
        self._error_code = error.code
        self._request.connection.send(self._translator.cut(error, self._id))
        self._record()

    # -- what the client's connection says of a stream

    def client_gone(self) -> None:
        """Nobody listens any more: the upstream is let go, and the row says so."""
        if self._over:
            return
        if self._call is not None:
            self._call.abandon()
            self._call = None
        self._upstream_ms = (time.perf_counter() - self._asked) * 1000
        self._answer = self._translator.so_far()
        self._answer.status = ClientGone.status
        self._error_code = ClientGone.code
        self._record()

    def pause(self, paused: bool) -> None:
        """The client reads slower than the upstream writes, or has caught up."""
        if self._call is not None:
            self._call.pause(paused)

    # -- stage 3: the row

    def _record(self) -> None:
        self._over = True
        if self._arm is not None and self._arm.rates is not None and self._asked:
            self._answer.cost_usd = cost_of(self._arm.rates, self._answer, self._upstream_ms)
        if self._way is not None and (in_vain := self._way.story.cost_in_vain_usd):
            self._answer.cost_usd = (self._answer.cost_usd or Decimal()) + in_vain
        try:
            payload = self._row()
        except Exception:  # a defect must not leave the client without an answer
            log.exception("a row cannot be rendered", extra={"request_id": self._id})
            self._refused(RowsUnavailable())
            return
        self._gateway.rows.submit(payload, self._route.drops_rows, self._recorded)

    def _row(self) -> bytes:
        """The row as its spool takes it."""
        answer, arm, route, gateway = self._answer, self._arm, self._route, self._gateway
        tags = self.tags if self._way is None else {**self.tags, **self._way.story.tags()}
        latency_s = time.perf_counter() - self._request.arrived
        received_s = gateway.clock().timestamp() - latency_s
        client_id = self._request.headers.get(b"x-request-id")
        client = client_id.decode("latin-1")[:MAX_CLIENT_ID] if client_id else None
        unit, trace_id = self._unit, self._trace_id
        requester: str | None = self._principal.id
        features, input = self._features, self._translator.input
        minimiser = route.minimiser
        if minimiser is None and CONSENT_HEADER in self._request.headers:
            minimiser = CONSENT_ALONE
        if minimiser is not None:
            kept = Record.of(self._id, unit, trace_id, requester, client, features, input, tags, answer)
            lost = minimiser.apply(kept, self._request.headers)
            gateway.metrics.fields_lost(route.group.name, lost)
            unit, trace_id, requester, client = kept.unit, kept.trace_id, kept.requester, kept.client_request_id
            features, input, tags, answer = kept.features, kept.input, kept.tags, kept.answer(answer)
        return b"".join(
            (
                route.address,
                rows.head(self._raw_id, received_s, answer.status, latency_s * 1000, route.group.revision),
                route.workspace_column,
                arm.columns if arm is not None else rows.NOBODY,
                rows.rest(
                    unit,
                    trace_id,
                    gateway.asked_by(requester, self._translator.protocol),
                    answer,
                    error_code=self._error_code,
                    upstream_ms=self._upstream_ms,
                    ttft_ms=self._ttft_ms,
                    attempts=self._attempts,
                    client_request_id=client,
                    features=features,
                    input=input,
                    shadow_of=self._shadow_of,
                    tags=orjson.dumps(tags) if tags else None,
                ),
            )
        )

    @property
    def _attempts(self) -> int:
        return len(self._way.story.attempts) if self._way is not None else int(self._asked > 0)

    # -- stage 4: the answer

    def _refused(self, error: RowsUnavailable) -> None:
        """No row, no answer."""
        self._error_code = error.code
        self._answer = self._translator.refused(error, self._id)
        self._answer.headers += b"retry-after: 1\r\n"
        self._recorded(None)

    def _recorded(self, error: RowsUnavailable | None) -> None:
        request = self._request
        if self._streaming:
            # A stream that broke off, or whose row has no room, ends without the end of its body.
            request.connection.end_stream(request, whole=error is None and self._error_code is None)
        elif error is not None:
            self._refused(error)
            return
        else:
            answer = self._answer
            request.connection.answer(request, answer.status, answer.headers + self._own_headers(), answer.body)
        self._gateway.metrics.answered(
            self._route.group.name,
            self._arm.name if self._arm is not None else "none",
            self._answer.status,
            time.perf_counter() - request.arrived,
        )
        self._settled()

    def _settled(self) -> None:
        """The caller has the answer; what follows costs nobody's time."""
        arm, way = self._arm, self._way
        if way is not None and arm is not None and not self._streaming and self._error_code is None:
            way.keep(arm, self._translator, self._answer)
        if self._route.group.shadows and arm is not None and self._attempts:
            identity = (self._raw_id, self._id, self._unit, self._principal)
            self._gateway.shadows.send(self._request, self._route, arm, self._translator, identity)

    def _own_headers(self) -> bytes:
        lines = self._arm.header_lines if self._arm is not None else self._route.header_lines
        return b"%bx-mintmark-request-id: %b\r\n" % (lines, self._id.encode())
