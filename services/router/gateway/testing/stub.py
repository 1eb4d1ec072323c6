"""A stub of every provider that streams, stalls, cuts and lies, as the path it is asked at says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson

from services.router.gateway.testing.recorded import STREAM_TYPES, answers

STALL_S = 0.8  # generous to a busy machine: whoever does not stall answers in milliseconds
CHUNK = 23
PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
TENSORS = {"model_name": "census", "outputs": [{"name": "label", "shape": [1], "datatype": "INT64", "data": [1]}]}

Handle = Callable[["Exchange"], Awaitable[None]]


class Exchange:
    """One request on a connection of its own, and the writer of its answer."""

    def __init__(self, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        line, *lines = head.split(b"\r\n")
        self.method, target, _ = line.decode().split(" ")
        self.path, _, self.query = target.partition("?")
        self.headers = {
            name.lower(): value.strip() for name, _, value in (found.partition(b":") for found in lines if found)
        }
        self.body = body
        self._writer = writer

    async def answer(self, status: int, body: bytes, content_type: bytes = b"application/json", **more: str) -> None:
        headers = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in more.items()).encode()
        await self.begin(status, content_type, b"content-length: %d\r\n%b" % (len(body), headers))
        await self.write(body)

    async def begin(self, status: int, content_type: bytes, more: bytes = b"") -> None:
        head = b"HTTP/1.1 %d Whatever\r\nconnection: close\r\ncontent-type: %b\r\n%b\r\n" % (status, content_type, more)
        await self.write(head)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()


@contextlib.asynccontextmanager
async def served(handle: Handle) -> AsyncIterator[int]:
    """Serve on loopback; the port."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            exchange = Exchange(head, b"", writer)
            exchange.body = await reader.readexactly(int(exchange.headers.get(b"content-length", b"0")))
            await handle(exchange)
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


class Stub:
    """A path's first two steps say which provider this is and how it behaves: `/anthropic/cut-late/v1/messages`."""

    def __init__(self) -> None:
        self.seen: list[Exchange] = []

    async def __call__(self, exchange: Exchange) -> None:
        self.seen.append(exchange)
        _, kind, behaviour, *rest = exchange.path.split("/")
        if kind == "oip":
            await self._infer(exchange)
            return
        if rest[-1].endswith(("batchEmbedContents", "embeddings")):
            await self._embed(exchange, kind)
            return
        path = PATHS["responses"] if rest[-1] == "responses" else PATHS["chat"]
        whole, stream = answers(kind, path)["call" if behaviour == "call" else "greeting"]
        asked = orjson.loads(exchange.body)
        wants_stream = bool(asked.get("stream")) or rest[-1].endswith(("-stream", ":streamGenerateContent"))
        if behaviour.startswith("status-"):
            await self._refuse(exchange, int(behaviour.removeprefix("status-")))
        elif behaviour == "lies" or (behaviour == "no-stream" and wants_stream):
            body = b"<html>welcome to the captive portal" if behaviour == "lies" else orjson.dumps(whole)
            await exchange.answer(200, body, b"text/html" if behaviour == "lies" else b"application/json")
        elif wants_stream:
            await exchange.begin(200, STREAM_TYPES.get(kind, "text/event-stream").encode())
            await self._stream(exchange, behaviour, stream)
        elif behaviour == "stall-early":
            await asyncio.sleep(STALL_S * 4)
        else:
            await exchange.answer(200, orjson.dumps(whole))

    async def _stream(self, exchange: Exchange, behaviour: str, stream: bytes) -> None:
        late = stream.rfind(b"from the") + 60
        end = {"cut-early": 40, "stall-early": 40, "cut-late": late, "stall-late": late, "lies-late": late}
        for begin in range(0, end.get(behaviour, len(stream)), CHUNK):
            await exchange.write(stream[begin : min(begin + CHUNK, end.get(behaviour, len(stream)))])
            await asyncio.sleep(0)
        if behaviour.startswith("stall"):
            await asyncio.sleep(STALL_S * 4)
        if behaviour == "lies-late":
            await exchange.write(b"\n\ndata: {not json}\n\n" * 2)

    async def _refuse(self, exchange: Exchange, status: int) -> None:
        key = next((exchange.headers[name] for name in (b"authorization", b"x-api-key", b"x-goog-api-key")
                    if name in exchange.headers), b"").decode()  # fmt: skip
        error = {"type": "error", "error": {"type": "invalid_request_error", "message": f"no: {key}", "param": "x"}}
        await exchange.answer(status, orjson.dumps(error), location="http://169.254.169.254/")

    async def _embed(self, exchange: Exchange, kind: str) -> None:
        asked = orjson.loads(exchange.body)
        if kind == "gemini":
            value: Any = {"embeddings": [{"values": [0.5, -1.25, index]} for index in range(len(asked["requests"]))]}
        else:
            data = [{"object": "embedding", "index": 0, "embedding": [0.5, -1.25, 0.0]}]
            value = {"object": "list", "data": data, "model": "e", "usage": {"prompt_tokens": 3, "total_tokens": 3}}
        await exchange.answer(200, orjson.dumps(value))

    async def _infer(self, exchange: Exchange) -> None:
        size = exchange.headers.get(b"inference-header-content-length")
        assert orjson.loads(exchange.body if size is None else exchange.body[: int(size)])["inputs"]
        await exchange.answer(200, orjson.dumps(TENSORS))
