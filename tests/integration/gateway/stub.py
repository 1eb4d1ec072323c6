"""A tiny Open Inference Protocol server that behaves, stalls, cuts and lies as its model's name says.

`python tests/integration/gateway/stub.py [port]` serves until it is ended and prints its port first.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections import Counter
from typing import cast

import httptools

GOOD = json.dumps(
    {
        "model_name": "stub",
        "outputs": [
            {"name": "probability", "datatype": "FP64", "shape": [1, 1], "data": [0.75]},
            {"name": "label", "datatype": "INT64", "shape": [1, 1], "data": [1]},
            {"name": "shap_values", "datatype": "FP64", "shape": [1, 2], "data": [0.5, -0.25]},
            {"name": "shap_base", "datatype": "FP64", "shape": [1], "data": [0.5]},
        ],
    },
    indent=1,
).encode()  # fmt: skip


def answer(status: str, body: bytes, headers: bytes = b"content-type: application/json\r\n") -> bytes:
    return b"HTTP/1.1 %b\r\n%bcontent-length: %d\r\n\r\n%b" % (status.encode(), headers, len(body), body)


ANSWERS = {
    "garbage": b"I am not HTTP at all\r\n\r\n",
    "not-json": answer("200 OK", b"<html>"),
    "teapot": answer("418 I'm a teapot", b'{"error": "short and stout"}'),
    "broken": answer("500 Internal Server Error", b"not json either"),
    "chunked": b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    + b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (10, GOOD[:10], len(GOOD) - 10, GOOD[10:]),
    "until-close": b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n" + GOOD,
    "early-hints": b"HTTP/1.1 103 Early Hints\r\n\r\n" + answer("200 OK", GOOD),
    "twice": answer("200 OK", GOOD) + answer("200 OK", b'{"outputs": ["of somebody else"]}'),
    "cut": answer("200 OK", GOOD)[:-20],
    "busy": answer("503 Service Unavailable", b'{"error": "busy"}'),
    "limited": answer("429 Too Many Requests", b'{"error": "slowly"}'),
    "impostor": answer(
        "200 OK", GOOD, b"content-type: application/json\r\nx-mintmark-version: other\r\nx-own: kept\r\n"
    ),
}
GOOD_ANSWER = answer("200 OK", GOOD)
CLOSES = {"until-close", "cut", "garbage"}


class Stub(asyncio.Protocol):
    """One connection. `seen` counts requests by model, `heads` keeps the last request's headers by model."""

    seen: Counter[str]
    heads: dict[str, dict[bytes, bytes]]
    delay_s: float

    def __init__(self, server: StubServer) -> None:
        self.server = server
        self.parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop\'s are not its subclasses
        self.server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.body = b""

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_url(self, url: bytes) -> None:
        # /v2/models/{model}/versions/{version}[/infer|/ready]
        self.model, _, rest = url.decode().removeprefix("/v2/models/").partition("/versions/")
        self.action = rest.partition("/")[2]

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_message_complete(self) -> None:
        if self.action in ("ready", ""):
            self.server.probed[self.model] += 1
        else:
            self.server.seen[self.model] += 1
        self.server.heads[self.model] = self.headers
        behaviour = self.server.behaviours.get(self.model) or self.model.partition(".")[0]
        if self.action == "":
            self.transport.write(answer("200 OK", b'{"name": "stub", "inputs": [], "outputs": []}'))
        elif self.action == "ready":
            is_ready = behaviour != "broken" and self.model not in self.server.unready
            self.transport.write(answer("200 OK" if is_ready else "503 Not Ready", b"{}"))
        elif behaviour == "echo":  # outputs are the inputs, each under its own name
            asked = json.loads(self.body)
            said = {"model_name": "echo", "id": asked.get("id", ""), "outputs": asked["inputs"]}
            self.transport.write(answer("200 OK", json.dumps(said).encode()))
        elif behaviour == "stall":
            return
        elif behaviour.startswith("stream"):
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            self.transport.write(head)
            self.stream(behaviour, 0)
        elif behaviour == "slow":
            asyncio.get_running_loop().call_later(self.server.delay_s, self.transport.write, GOOD_ANSWER)
        elif behaviour == "close-idle":  # answers, then closes the kept-alive connection under the next request
            if self.server.seen[self.model] % 2 == 0:
                self.transport.close()
            else:
                self.transport.write(GOOD_ANSWER)
        elif behaviour == "close-always":
            self.transport.close()
        else:
            self.transport.write(ANSWERS.get(behaviour, GOOD_ANSWER))
            if behaviour in CLOSES:
                self.transport.close()

    def stream(self, behaviour: str, number: int) -> None:
        """Five events, one each `delay_s`; "-cut" breaks off after two, "-forever" never ends."""
        if self.transport.is_closing():
            return
        if (behaviour == "stream-cut" and number == 2) or (behaviour == "stream-none" and number == 0):
            self.transport.close()
        elif behaviour != "stream-forever" and number == 5:
            self.transport.write(b"0\r\n\r\n")
        else:
            event = b'data: {"token": %d}\n\n' % number
            self.transport.write(b"%x\r\n%b\r\n" % (len(event), event))
            asyncio.get_running_loop().call_later(self.server.delay_s, self.stream, behaviour, number + 1)


class StubServer:
    """Listens on 127.0.0.1; `async with StubServer() as stub`."""

    def __init__(self, port: int = 0, delay_s: float = 0.3) -> None:
        self.port = port
        self.delay_s = delay_s
        self.seen: Counter[str] = Counter()
        self.heads: dict[str, dict[bytes, bytes]] = {}
        self.connections: set[Stub] = set()
        self.behaviours: dict[str, str] = {}
        """How models behave that changed since they were named."""
        self.unready: set[str] = set()
        self.probed: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> StubServer:
        self._server = await asyncio.get_running_loop().create_server(lambda: Stub(self), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for connection in tuple(self.connections):
            connection.transport.abort()


async def main(port: int) -> None:
    async with StubServer(port) as stub:
        print(stub.port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    import uvloop

    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
