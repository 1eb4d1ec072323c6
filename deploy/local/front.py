"""The front of `mintmark up --separate`: one address for six processes, so that a client knows only one.

`python -m deploy.local.front --port 8700 registry=127.0.0.1:8701 …`. In a cluster an ingress does this.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

# httpx brings its command line along where click and rich are installed, and does without where they are not: 0.2 s.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]

import httpx  # noqa: E402
import uvicorn  # noqa: E402

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# They speak of one connection, and this proxy has two (RFC 9110, 7.6.1).
HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
CONNECT_TIMEOUT_S = 5.0
OPENLINEAGE = "/api/v1/lineage"  # the client of that protocol joins its own address to the front's


class Front:
    """Passes a request to the service that the first part of its path names, both bodies streamed."""

    def __init__(self, services: dict[str, str]) -> None:
        self._services = services
        self._client = httpx.AsyncClient(timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT_S), trust_env=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        name = scope["path"].strip("/").partition("/")[0]
        if scope["path"].startswith(OPENLINEAGE):
            name = "registry"
        if name in self._services:
            await self._pass_on(self._services[name], scope, receive, send)
        elif scope["path"] in ("/livez", "/readyz"):
            await self._readiness(scope["path"], send)
        elif name == "schemas":  # the contracts are the same whomever one asks
            await self._pass_on(next(iter(self._services.values())), scope, receive, send)
        else:
            await _answer(send, 404, b'{"status": 404, "title": "Not found", "code": "not-found"}')

    async def _pass_on(self, address: str, scope: Scope, receive: Receive, send: Send) -> None:
        query = scope["query_string"]
        url = httpx.URL(f"http://{address}").copy_with(raw_path=scope["raw_path"] + (b"?" + query if query else b""))
        headers = [(name, value) for name, value in scope["headers"] if name not in HOP_BY_HOP]
        has_body = any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])
        request = self._client.build_request(
            scope["method"], url, headers=headers, content=_body(receive) if has_body else None
        )
        try:
            response = await self._client.send(request, stream=True)
        except httpx.HTTPError:
            await _answer(send, 503, b'{"status": 503, "title": "This service is not running", "code": "unavailable"}')
            return
        try:
            kept = [(name.lower(), value) for name, value in response.headers.raw if name.lower() not in HOP_BY_HOP]
            await send({"type": "http.response.start", "status": response.status_code, "headers": kept})
            async for chunk in response.aiter_raw():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            await response.aclose()

    async def _readiness(self, path: str, send: Send) -> None:
        """Ready when every service is."""
        answers = await asyncio.gather(
            *(self._client.get(f"http://{address}{path}", timeout=3) for address in self._services.values()),
            return_exceptions=True,
        )
        waiting = [
            name
            for name, answer in zip(self._services, answers, strict=True)
            if isinstance(answer, BaseException) or answer.status_code != httpx.codes.OK
        ]
        body = f'{{"status": "{"not ready" if waiting else "ready"}", "waiting for": "{", ".join(waiting)}"}}'
        await _answer(send, 503 if waiting else 200, body.encode())


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise httpx.ReadError("the client went away")
        yield message.get("body", b"")
        if not message.get("more_body"):
            return


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.local.front", description=__doc__)
    parser.add_argument("services", nargs="+", metavar="name=host:port")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8700)
    options = parser.parse_args()
    services = dict(service.split("=", 1) for service in options.services)
    uvicorn.run(
        Front(services),
        host=options.host,
        port=options.port,
        lifespan="off",
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=10,
    )


if __name__ == "__main__":
    main()
