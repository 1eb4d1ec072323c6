"""One inference, from a whole request to the last byte of its answer, as a row of stages that call each other.

    begin -> ask the model server -> answered | failed -> record the row -> recorded -> answer

Every path of a request to a known group ends in `_record`, and only `_recorded` writes to the client: no answer, good
or bad, leaves before its row is durable. What is refused before the group is known (401, 403, 404) has no table to
be a row of, and is counted only.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import orjson
import uuid_utils

from services.router.domain import Version
from services.router.errors import RowsUnavailable, UnsupportedMedia, UpstreamGarbageError, VersionNotServable
from services.router.gateway.http_server import PROBLEM_HEADER, Request, problem
from services.router.gateway.rows import MAX_UNIT_CHARACTERS, Reading
from services.router.gateway.snapshot import Route
from services.router.gateway.upstream import Headers
from shared.errors import Invalid, Malformed, MintmarkError

if TYPE_CHECKING:
    from services.router.gateway.app import Gateway

log = logging.getLogger(__name__)

# Of one connection and not of the answer (RFC 9110, 7.6.1), or written anew for the client.
HOP_BY_HOP = frozenset(
    b"connection keep-alive transfer-encoding content-length te trailer upgrade proxy-connection".split()
)
OURS = b"x-mintmark-"
TRACEPARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Exchange:
    """The state of one inference request."""

    __slots__ = (
        "_answer_body",
        "_answer_headers",
        "_asked",
        "_error_code",
        "_features",
        "_gateway",
        "_id",
        "_input",
        "_reading",
        "_request",
        "_route",
        "_status",
        "_trace_id",
        "_unit",
        "_upstream_ms",
        "_version",
    )

    def __init__(self, gateway: Gateway, request: Request, route: Route) -> None:
        self._gateway = gateway
        self._request = request
        self._route = route
        self._id = str(uuid_utils.uuid7())
        self._trace_id = ""
        self._unit = self._id
        self._version: Version | None = None
        self._input: str | None = None
        self._reading: Reading | None = None
        self._status = 500
        self._error_code: str | None = None
        self._features: tuple[str, ...] = ()
        self._asked = 0.0
        self._upstream_ms: float | None = None
        self._answer_headers = b""
        self._answer_body = b""

    # -- stage 1: what is asked, and of whom

    def begin(self) -> None:
        """Choose the version and ask its model server. Never raises; every failure becomes an answer."""
        request = self._request
        traceparent = self._trace(request.headers.get(b"traceparent"))
        if not self._gateway.rows.is_accepting:  # asking would be in vain: the answer could not leave
            self._recorded(RowsUnavailable())
            return
        header_value = request.headers.get(self._route.group.unit_rule.header.encode())
        unit = header_value.decode("utf-8", "replace").replace("\x00", "") if header_value else None
        self._unit = (unit or self._id)[:MAX_UNIT_CHARACTERS]
        try:
            body_id = self._read_body()
            self._unit = self._route.group.unit_rule.unit_of(unit, body_id, self._id)[:MAX_UNIT_CHARACTERS]
            self._version, target = self._route.target_of(self._unit)
            if target is None:
                raise VersionNotServable(self._route.why_not(self._version))
        except MintmarkError as error:
            self.failed(error)
            return
        payload = b"%bx-mintmark-request-id: %b\r\ntraceparent: %b\r\ncontent-length: %d\r\n\r\n%b" % (
            target.infer_head,
            self._id.encode(),
            traceparent,
            len(request.body),
            request.body,
        )
        self._features = target.features
        self._asked = time.perf_counter()
        self._gateway.pools.of(target.endpoint).send(payload, self, self._gateway.settings.upstream_timeout_s)

    def _read_body(self) -> str | None:
        """Keep the input for the row; returns the body's `id`. Raises Malformed, Invalid, UnsupportedMedia."""
        request = self._request
        if b"inference-header-content-length" in request.headers:
            raise UnsupportedMedia()
        if b"\\u0000" in request.body:
            raise Malformed("The body holds a NUL character, which no inference table can keep.")
        try:
            asked: Any = orjson.loads(request.body)
        except orjson.JSONDecodeError as error:
            raise Malformed(f"The body is not JSON: {error}.") from None
        if not isinstance(asked, dict) or not isinstance(asked.get("inputs"), list):
            raise Invalid("The body is no Open Inference Protocol request: send an object with a list `inputs`.")
        # Rendered anew and not taken as it came: what orjson renders, jsonb takes; not every number as sent.
        self._input = orjson.dumps(asked).decode()
        body_id = asked.get("id")
        return body_id if isinstance(body_id, str) else None

    def _trace(self, traceparent: bytes | None) -> bytes:
        """The traceparent to pass on: the caller's own, or a new one whose trace id is the request's id."""
        if traceparent is not None and TRACEPARENT.fullmatch(traceparent):
            self._trace_id = traceparent[3:35].decode()
            return traceparent
        self._trace_id = self._id.replace("-", "")
        return f"00-{self._trace_id}-{secrets.token_hex(8)}-01".encode()

    # -- stage 2: what came back

    def answered(self, status: int, headers: Headers, body: bytes) -> None:
        """The model server's whole answer, of whatever status, passes through."""
        self._upstream_ms = (time.perf_counter() - self._asked) * 1000
        try:
            self._pass_through(status, headers, body)
        except Exception:  # a defect here must not leave the client without an answer
            log.exception("unexpected error", extra={"request_id": self._id})
            self.failed(MintmarkError())

    def _pass_through(self, status: int, headers: Headers, body: bytes) -> None:
        try:
            answer = None if b"\\u0000" in body else orjson.loads(body)
        except orjson.JSONDecodeError:
            answer = None
        if isinstance(answer, dict):
            self._reading = Reading(answer, self._features)
        elif status < 400:
            self.failed(UpstreamGarbageError())
            return
        self._status = status
        self._error_code = f"upstream-{status}" if status >= 400 else None
        self._answer_headers = b"".join(
            b"%b: %b\r\n" % (name, value)
            for name, value in headers
            if name not in HOP_BY_HOP and not name.startswith(OURS)
        )
        self._answer_body = body
        self._record()

    def failed(self, error: MintmarkError) -> None:
        """The request cannot be answered with a prediction; the failure is a row like any other."""
        if self._asked and self._upstream_ms is None:
            self._upstream_ms = (time.perf_counter() - self._asked) * 1000
        self._status = error.status
        self._error_code = error.code
        self._answer_headers = PROBLEM_HEADER
        self._answer_body = problem(error, request_id=self._id)
        self._record()

    # -- stage 3: the row

    def _record(self) -> None:
        reading, version, group = self._reading, self._version, self._route.group
        latency_s = time.perf_counter() - self._request.arrived
        row = (
            self._id,
            group.workspace,
            self._gateway.clock() - timedelta(seconds=latency_s),
            self._unit,
            version.urn if version else None,
            version.version if version else None,
            version.digest if version else None,
            self._status,
            self._error_code,
            self._input,
            reading.output if reading else None,
            reading.shap if reading else None,
            reading.score if reading else None,
            reading.prediction if reading else None,
            latency_s * 1000,
            self._upstream_ms,
            self._trace_id,
            group.revision,
        )
        size = len(self._request.body) + len(self._answer_body)
        self._gateway.rows.submit(self._route.log_table, row, size, self._recorded)

    # -- stage 4: the answer

    def _recorded(self, error: RowsUnavailable | None) -> None:
        if error is not None:
            self._status = error.status
            self._answer_headers = PROBLEM_HEADER + b"retry-after: 1\r\n"
            self._answer_body = problem(error, request_id=self._id)
        group, request = self._route.group, self._request
        version = str(self._version) if self._version else "none"
        headers = b"%bx-mintmark-group: %b\r\nx-mintmark-version: %b\r\nx-mintmark-request-id: %b\r\n" % (
            self._answer_headers,
            group.name.encode(),
            version.encode(),
            self._id.encode(),
        )
        request.connection.answer(request, self._status, headers, self._answer_body)
        self._gateway.metrics.answered(group.name, version, self._status, time.perf_counter() - request.arrived)
