"""The table of routes, and the ASGI app that walks it. Plain ASGI: a framework would cost more than the answer does."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from services.registry.mlflow.asked import Asked, read
from services.registry.mlflow.errors import MlflowError, answer_of
from shared.errors import Forbidden, MintmarkError
from shared.http.edge import Message, Receive, Scope, Send
from shared.identity.authorizer import Action
from shared.identity.identity import Identity
from shared.identity.principal import Principal

log = logging.getLogger(__name__)

Handle = Callable[[Asked], Awaitable[Any]]
Stream = Callable[[Principal, str, Scope, Receive, Send], Awaitable[None]]

PREFIX = "/registry/"
ROOTS = ("api/2.0/mlflow/", "ajax-api/2.0/mlflow/", "api/3.0/mlflow/", "ajax-api/3.0/mlflow/")
WORKSPACE = b"x-mlflow-workspace"
JSON = [(b"content-type", b"application/json")]


@dataclass(frozen=True, slots=True)
class Route:
    """What is done, and what the caller must be allowed to do for it."""

    handle: Handle
    action: Action
    readers_tags: tuple[str, ...] = ()
    """Tags that clients write in passing; who may not is answered as if it had been done."""


@dataclass(slots=True)
class Routes:
    """By method and path. A path is one below `…/mlflow/`, or a beginning with `{id}` in it."""

    exact: dict[tuple[str, str], Route] = field(default_factory=dict)
    shaped: list[tuple[str, tuple[str, ...], Route]] = field(default_factory=list)
    streams: dict[tuple[str, str], tuple[Stream, Action]] = field(default_factory=dict)

    def get(self, path: str, action: Action) -> Callable[[Handle], Handle]:
        return self._add("GET", path, Route, action)

    def post(self, path: str, action: Action, readers_tags: tuple[str, ...] = ()) -> Callable[[Handle], Handle]:
        return self._add("POST", path, Route, action, readers_tags)

    def patch(self, path: str, action: Action) -> Callable[[Handle], Handle]:
        return self._add("PATCH", path, Route, action)

    def delete(self, path: str, action: Action) -> Callable[[Handle], Handle]:
        return self._add("DELETE", path, Route, action)

    def stream(self, method: str, beginning: str, action: Action, handle: Stream) -> None:
        """A route that reads or writes bytes by itself; `beginning` is below `/registry/`, the rest is its path."""
        self.streams[method, beginning] = (handle, action)

    def _add(self, method: str, path: str, *route: Any) -> Callable[[Handle], Handle]:
        def keep(handle: Handle) -> Handle:
            made = Route(handle, *route[1:])
            if "{" in path:
                self.shaped.append((method, tuple(path.split("/")), made))
            else:
                self.exact[method, path] = made
            return handle

        return keep

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """The route, and what stands in its path. Raises ENDPOINT_NOT_FOUND."""
        route = self.exact.get((method, path))
        if route is not None:
            return route, {}
        parts = path.split("/")
        for wanted, shape, route in self.shaped:
            if wanted == method and len(shape) == len(parts):
                named = {name[1:-1]: part for name, part in zip(shape, parts, strict=True) if name[0] == "{"}
                if all(name[0] == "{" or name == part for name, part in zip(shape, parts, strict=True)):
                    return route, named
        raise MlflowError("ENDPOINT_NOT_FOUND", f"there is no {method} {path[:200]} here")


class App:
    """Every request below /registry/api/ and /registry/ajax-api/; whatever goes wrong has MLflow's shape."""

    def __init__(self, routes: Routes, identity: Identity) -> None:
        self._routes = routes
        self._identity = identity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._answer(scope, receive, sending)
        except MintmarkError as error:
            if started:
                raise
            status, body = answer_of(error)
            await respond(send, status, body)
        except Exception as error:
            if started:
                raise
            log.error("unexpected error", extra={"path": scope["path"]}, exc_info=error)
            status, body = answer_of(MintmarkError("something failed here; the log says what"))
            await respond(send, status, body)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"].removeprefix(PREFIX)
        identity = self._identity
        caller = await self._caller(identity, scope)
        root = next((root for root in ROOTS if path.startswith(root)), None)
        if root is None:
            await self._stream(identity, caller, path, scope, receive, send)
            return
        scope["route"] = _Named(f"{PREFIX}{root}…")
        method = scope["method"]
        route, named = self._routes.find(method, path[len(root) :])
        body = b"" if method == "GET" else await _body(receive)
        asked = read(caller, method, scope["query_string"], body)
        if named:
            asked = Asked(caller, {**asked.fields, **named}, asked.queried)
        try:
            identity.authorizer.require(caller, route.action, "asset")
        except Forbidden:
            if asked.fields.get("key") not in route.readers_tags:
                raise
            identity.authorizer.require(caller, "read", "asset")
            await respond(send, 200, b"{}")
            return
        await respond(send, 200, orjson.dumps(await route.handle(asked)))

    async def _stream(
        self, identity: Identity, caller: Principal, path: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        for (method, beginning), (handle, action) in self._routes.streams.items():
            if method == scope["method"] and path.startswith(beginning):
                scope["route"] = _Named(f"{PREFIX}{beginning}…")
                identity.authorizer.require(caller, action, "asset")
                await handle(caller, path[len(beginning) :], scope, receive, send)
                return
        raise MlflowError("ENDPOINT_NOT_FOUND", f"there is no {scope['method']} {path[:200]} here")

    async def _caller(self, identity: Identity, scope: Scope) -> Principal:
        """Who calls; the workspace is the key's, and a header that names another one is refused."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        authorization = headers.get(b"authorization")
        caller = await identity.authenticate(authorization.decode("latin-1") if authorization else None)
        named = headers.get(WORKSPACE, b"").decode("latin-1").strip()
        if named and named != caller.workspace:
            raise MlflowError("RESOURCE_DOES_NOT_EXIST", f"Workspace '{named[:100]}' not found")
        return caller


@dataclass(frozen=True, slots=True)
class _Named:
    """What the edge's metrics call a request: few names, whatever clients ask for."""

    path: str


async def respond(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]] = JSON) -> None:
    """One answer, whole."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def _body(receive: Receive) -> bytes:
    message = await receive()
    if not message.get("more_body"):
        body: bytes = message.get("body", b"")
        return body
    parts = [message.get("body", b"")]
    while message.get("more_body"):
        message = await receive()
        parts.append(message.get("body", b""))
    return b"".join(parts)
