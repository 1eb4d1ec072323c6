"""Titles in addresses: `team%2Fsummarise` is one part of a path, which servers hand on as two."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]


class WholeParts:
    """Routes see the path with `/` and `%` inside of a part still encoded; `decoded` gives the part as it was meant."""

    def __init__(self, app: App, prefix: str) -> None:
        self._app = app
        self._prefix = prefix.encode()

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        raw = scope.get("raw_path", b"")
        if scope["type"] == "http" and b"%" in raw and raw.startswith(self._prefix):
            parts = [unquote(part).replace("%", "%25").replace("/", "%2F") for part in raw.decode("ascii").split("/")]
            scope = {**scope, "path": "/".join(parts)}
        await self._app(scope, receive, send)


def decoded(part: str) -> str:
    """A part of a path as its sender meant it."""
    return part.replace("%2F", "/").replace("%25", "%")
