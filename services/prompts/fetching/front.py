"""The two addresses that applications fetch from, answered in front of edge and framework: raw ASGI, from memory.

`GET /prompts/v1/prompts/{name}` and `GET /prompts/api/public/v2/prompts/{name}`. Whatever is unusual (another
parameter, no such prompt, a caller who may not) goes on to the routes behind, which answer the same way and know every
refusal. A fetch is counted among the requests and has no span: the edge's costs twice what the rest of it does.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

import orjson

from services.prompts.api.parts import VersionView
from services.prompts.domain.content import LATEST
from services.prompts.fetching.counting import Counting
from services.prompts.fetching.memory import Body, Entry, Memory
from services.prompts.handlers.reading import Found
from services.prompts.langfuse.shapes import shown
from services.prompts.store import Fetcher
from shared.errors import MintmarkError
from shared.identity.identity import Identity
from shared.identity.principal import Principal
from shared.ids import sha256
from shared.telemetry import metrics

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]

OURS = b"/prompts/v1/prompts/"
THEIRS = b"/prompts/api/public/v2/prompts/"
LABEL = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?")
NUMBER = re.compile(r"[1-9][0-9]{0,8}")
SECONDS = re.compile(r"[0-9]{1,2}")
PARAMETERS = frozenset(("version", "label", "unit", "wait_s"))
LONGEST_WAIT_S = 30.0
MOST_WAITING = 5_000
MOST_NAMED = 200


@dataclass(frozen=True, slots=True)
class Asked:
    """A fetch that can be answered from memory."""

    shape: str
    given: str
    version: int | None
    label: str
    unit: str | None
    wait_s: float


ROUTES = {"ours": "/prompts/v1/prompts/{name}", "theirs": "/prompts/api/public/v2/prompts/{name:path}"}
"""What metrics call a fetch."""
ALWAYS = [(b"cache-control", b"private, no-cache"), (b"x-content-type-options", b"nosniff")]


class FetchFront:
    """Stands around the service's edge."""

    def __init__(self, app: App, memory: Memory, counting: Counting, identity: Identity) -> None:
        self._app = app
        self._memory = memory
        self._counting = counting
        self._identity = identity
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        began = time.perf_counter()
        asked = parsed(scope) if scope["type"] == "http" and scope["method"] == "GET" else None
        headers = dict(scope["headers"]) if asked else {}
        caller = await self._caller(headers) if asked else None
        answer = await self._answer(caller, asked, headers) if asked and caller else None
        if asked is None or caller is None or answer is None:
            is_change = scope["type"] == "http" and scope["method"] not in ("GET", "HEAD")
            await self._app(scope, receive, self._after_notices(send) if is_change else send)
            return
        body, label, entry = answer
        application, group = named(headers, b"x-mintmark-application"), named(headers, b"x-mintmark-group")
        self._counting.count(
            caller.workspace, Fetcher(entry.prompt.name, body.version, application or caller.id, group)
        )
        unchanged = body.etag in headers.get(b"if-none-match", b"")
        sent = [*ALWAYS, (b"etag", body.etag), (b"x-mintmark-label", label.encode())]
        if not unchanged:
            sent += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body.data))]
        await send({"type": "http.response.start", "status": 304 if unchanged else 200, "headers": sent})
        await send({"type": "http.response.body", "body": b"" if unchanged else body.data})
        status = "304" if unchanged else "200"
        metrics.http_seconds.labels("prompts", "GET", ROUTES[asked.shape], status).observe(time.perf_counter() - began)

    def _after_notices(self, send: Any) -> Any:
        """Who changed something finds it changed with the next fetch from this process."""

        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                await self._memory.caught_up()
            await send(message)

        return sending

    async def _caller(self, headers: dict[bytes, bytes]) -> Principal | None:
        try:
            principal = await self._identity.authenticate(headers.get(b"authorization", b"").decode("latin-1"))
            self._identity.authorizer.require(principal, "read", "prompt")
            return principal
        except MintmarkError:
            return None

    async def _answer(
        self, caller: Principal, asked: Asked, headers: dict[bytes, bytes]
    ) -> tuple[Body, str, Entry] | None:
        try:
            return await self._now_or_later(caller, asked, headers)
        except MintmarkError:
            return None  # the routes behind meet it too, and have a way to say so

    async def _now_or_later(
        self, caller: Principal, asked: Asked, headers: dict[bytes, bytes]
    ) -> tuple[Body, str, Entry] | None:
        answer = await self._now(caller, asked)
        if answer is None or not asked.wait_s or answer[0].etag not in headers.get(b"if-none-match", b""):
            return answer
        if self._waiting >= MOST_WAITING or not self._memory.is_live:
            return answer
        self._waiting += 1
        try:
            # Between the look and the wait nothing else runs, so no change is missed.
            await self._memory.changed(caller.workspace, answer[2].prompt.name, asked.wait_s)
        finally:
            self._waiting -= 1
        return await self._now(caller, asked)

    async def _now(self, caller: Principal, asked: Asked) -> tuple[Body, str, Entry] | None:
        entry = self._memory.known(caller.workspace, asked.given)
        if entry is None:
            entry = await self._memory.load(caller.workspace, asked.given)
        number, label = entry.number(asked.version, asked.label, asked.unit) if entry else (None, "")
        if entry is None or number is None:
            return None
        body = entry.bodies.get((asked.shape, number))
        if body is None:
            found = await self._memory.found(caller.workspace, entry, number)
            if found is None:
                return None
            body = encoded(asked.shape, found, caller.workspace)
            self._memory.encoded(caller.workspace, asked.given, entry, asked.shape, body)
        return body, label, entry


def named(headers: dict[bytes, bytes], name: bytes) -> str:
    """What a caller calls itself or its group; nothing where that is no text."""
    text = headers.get(name, b"").decode("latin-1")[:MOST_NAMED]
    return text if text.isprintable() else ""


def encoded(shape: str, found: Found, workspace: str) -> Body:
    """The answer in our shape or in theirs."""
    if shape == "ours":
        data = VersionView.of(found).model_dump_json().encode()
    else:
        data = orjson.dumps(shown(found, workspace, newest=found.newest or 0))
    return Body(data, f'"{sha256(data)[7:39]}"'.encode(), found.version.version)


def parsed(scope: Scope) -> Asked | None:
    """What is asked for, where it is a plain fetch."""
    raw = scope.get("raw_path") or b""
    if raw.startswith(OURS):
        shape, part = "ours", raw[len(OURS) :]
        if b"/" in part:
            return None
    elif raw.startswith(THEIRS):
        shape, part = "theirs", raw[len(THEIRS) :]
    else:
        return None
    try:
        given = unquote(part.decode("ascii"), errors="strict")
    except UnicodeDecodeError:
        return None
    query = scope["query_string"]
    parameters = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)) if query else {}
    if not 1 <= len(given) <= 500 or "\x00" in given or b"%00" in query or not parameters.keys() <= PARAMETERS:
        return None
    version, label = parameters.get("version"), parameters.get("label")
    wait_s = parameters.get("wait_s", "0")
    fits = (version is None or NUMBER.fullmatch(version)) and (label is None or LABEL.fullmatch(label))
    if not fits or not SECONDS.fullmatch(wait_s) or (shape == "theirs" and version and label):
        return None
    default = LATEST if shape == "ours" else "production"
    return Asked(
        shape,
        given,
        int(version) if version else None,
        label or default,
        parameters.get("unit"),
        min(float(wait_s), LONGEST_WAIT_S),
    )
