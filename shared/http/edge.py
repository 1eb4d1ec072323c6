"""The ASGI layer around every service: body limits, trace, metrics, and Idempotency-Key on every POST."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute

from shared import faults, strict_json
from shared.db import queries
from shared.db.database import Database, Transaction, on_first_transaction
from shared.errors import Conflict, Invalid, MintmarkError, TooLarge, Unauthenticated
from shared.events import cause
from shared.http.problems import problem
from shared.identity.identity import Identity
from shared.identity.principal import Principal
from shared.ids import new_id
from shared.settings import PlatformSettings
from shared.telemetry import metrics, traces

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

QUERIES = queries.load("shared.http")
MAX_STORED_ANSWER = 1024 * 1024
MOST_READ_ON_LOOP = 256 * 1024  # 15 ms of the loop at the most; 10 MiB of many keys took 860 ms


class StrictRequest(Request):
    """A request whose JSON is read strictly."""

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            body = await self.body()
            large = len(body) > MOST_READ_ON_LOOP
            self._json = await asyncio.to_thread(strict_json.loads, body) if large else strict_json.loads(body)
        return self._json


class StrictRoute(APIRoute):
    """Routes of a service: `APIRouter(route_class=StrictRoute)`."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handle = super().get_route_handler()

        async def strict(request: Request) -> Any:
            return await handle(StrictRequest(request.scope, request.receive))

        return strict


class Replayed(MintmarkError):
    """The request was answered before; the same answer is given again."""

    code = "replayed"

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        super().__init__()
        self.answer = Response(body, status, {**headers, "idempotency-replayed": "true"})


async def answer_again(_: Request, replayed: Exception) -> Response:
    """The exception handler that gives a request its first answer again."""
    assert isinstance(replayed, Replayed)
    return replayed.answer


class OutcomeUnknown(Conflict):
    """A request with this Idempotency-Key took effect but its answer was lost; read the resource to see."""

    code = "outcome-unknown"


class Edge:
    """Wraps one service's app."""

    def __init__(
        self,
        app: App,
        service: str,
        database: Database,
        identity: Identity,
        platform: PlatformSettings,
        uploads: tuple[str, ...] = (),
    ) -> None:
        self._app = app
        self._service = service
        self._database = database
        self._identity = identity
        self._max_body = platform.max_body_bytes
        self._max_upload = platform.max_upload_bytes
        self._uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        began, status = time.perf_counter(), 500
        started = False

        async def sending(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                message.setdefault("headers", [])
                message["headers"] = [*message["headers"], (b"x-content-type-options", b"nosniff")]
            await send(message)

        with traces.span(
            f"{scope['method']} {scope['path']}", kind=traces.SpanKind.SERVER, parent=headers.get("traceparent")
        ):
            request_id = str(new_id())
            token = cause.current.set(cause.Cause(headers.get("x-correlation-id", request_id)[:200], request_id))
            try:
                await self._limited(scope, headers, receive, sending)
            except MintmarkError as error:
                if started:
                    raise
                answer = problem(error, scope["path"])
                if isinstance(error, TooLarge):
                    answer.headers["connection"] = "close"  # the rest of the body is not read
                await answer(scope, receive, sending)
            finally:
                cause.current.reset(token)
                route = getattr(scope.get("route"), "path", "unknown")
                metrics.http_seconds.labels(self._service, scope["method"], route, str(status)).observe(
                    time.perf_counter() - began
                )

    async def _limited(self, scope: Scope, headers: dict[str, str], receive: Receive, send: Send) -> None:
        if "\x00" in scope["path"] or b"%00" in scope["query_string"]:
            raise Invalid("the address holds a NUL character, which nothing here takes")
        streams = scope["method"] == "PUT" and scope["path"].startswith(self._uploads)
        limit = self._max_upload if self._uploads and streams else self._max_body
        declared = headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > limit:
            raise TooLarge(f"the body is larger than {limit} bytes")
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise TooLarge(f"the body is larger than {limit} bytes")
            return message

        key = headers.get("idempotency-key")
        if scope["method"] == "POST" and key is not None:
            await self._once(key, scope, headers, counted, send)
        else:
            await self._app(scope, counted, send)

    async def _once(self, key: str, scope: Scope, headers: dict[str, str], receive: Receive, send: Send) -> None:
        if not 1 <= len(key) <= 200 or not key.isprintable():
            raise Invalid("Idempotency-Key takes 1 to 200 printable characters")
        try:
            principal = await self._identity.authenticate(headers.get("authorization"))
        except Unauthenticated:
            await self._app(scope, receive, send)
            return
        body = await _read(receive)
        claim = _Claim(
            principal,
            key,
            hashlib.sha256(scope["path"].encode() + b"\0" + scope["query_string"] + b"\0" + body).hexdigest(),
        )
        answer = _Answer()
        token = on_first_transaction.set(claim)
        try:
            await self._app(scope, _again(body, receive), answer)
        finally:
            on_first_transaction.reset(token)
        faults.point("http.committed")
        if claim.made and answer.status < 500:
            await self._remember(claim, answer)
        await answer.pass_on(send)

    async def _remember(self, claim: _Claim, answer: _Answer) -> None:
        async with self._database.begin(claim.principal.workspace) as tx:
            await QUERIES.remember_answer(
                tx.connection,
                workspace=claim.principal.workspace,
                principal=claim.principal.id,
                key=claim.key,
                status=answer.status,
                headers=answer.stored_headers(),
                body=answer.body[:MAX_STORED_ANSWER],
            )


class _Claim:
    """Takes the key inside the first transaction of the request, or says what was answered before."""

    def __init__(self, principal: Principal, key: str, request: str) -> None:
        self.principal = principal
        self.key = key
        self.request = request
        self.made = False

    async def __call__(self, tx: Transaction) -> None:
        on_first_transaction.set(None)
        asked = {"workspace": self.principal.workspace, "principal": self.principal.id, "key": self.key}
        if await QUERIES.claim_key(tx.connection, **asked, request=self.request):
            self.made = True
            return
        before = await QUERIES.key_before(tx.connection, **asked)
        if before["request"] != self.request:
            raise Invalid("this Idempotency-Key was used for another request; take a new key")
        if before["status"] is None:
            raise OutcomeUnknown()
        raise Replayed(before["status"], before["headers"], before["body"])


class _Answer:
    """Holds an answer back until it is remembered."""

    def __init__(self) -> None:
        self.status = 500
        self.body = b""
        self._messages: list[Message] = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.body += message.get("body", b"")
        self._messages.append(message)

    def stored_headers(self) -> dict[str, str]:
        kept = (b"content-type", b"etag", b"location")
        return {
            name.decode(): value.decode("latin-1")
            for name, value in self._messages[0]["headers"]
            if name.lower() in kept
        }

    async def pass_on(self, send: Send) -> None:
        for message in self._messages:
            await send(message)


async def _read(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
