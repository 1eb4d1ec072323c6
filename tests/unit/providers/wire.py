"""A stub of every provider that streams, stalls, cuts and lies, and a relay that serves its clients by our modules.

The relay is as little of a gateway as the modules need to be used as the gateway uses them: no rows, no pools.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import orjson

from services.router.errors import UnknownGroup, UpstreamCut, UpstreamError, UpstreamTimeoutError
from services.router.gateway.addresses import Permitted, Resolver
from services.router.gateway.conversation import Answer
from services.router.gateway.protocols import OIP, credentials, protocol_of, status_of
from services.router.gateway.protocols.models import GroupListing, models_page
from services.router.gateway.providers import Attempt, Upstream, plan
from services.router.gateway.sealing import Secret
from shared.errors import MintmarkError, Unauthenticated

from .asking import AWS_KEY, KEY, NOW
from .recorded import STREAM_TYPES, answers

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


class Relay:
    """Groups by name, each with its upstreams in the order in which they are tried."""

    def __init__(self, groups: dict[str, list[Upstream]]) -> None:
        self.groups = groups
        self.answers: list[Answer | None] = []
        self._resolver = Resolver(Permitted.of(["127.0.0.1"]))

    async def __call__(self, exchange: Exchange) -> None:
        if (exchange.method, exchange.path) == ("GET", "/v1/models"):
            listing = [GroupListing(name, datetime(2026, 1, 2, tzinfo=UTC)) for name in sorted(self.groups)]
            await exchange.answer(200, models_page(listing, exchange.headers, exchange.query.encode()))
            return
        protocol = protocol_of(exchange.path)
        assert protocol is not None
        try:
            if credentials(exchange.headers) != b"Bearer caller-key":
                raise Unauthenticated()
            size = exchange.headers.get(b"inference-header-content-length")
            if protocol is OIP:
                asked = OIP.opened(exchange.body, exchange.path, None if size is None else int(size))
            else:
                asked = protocol.open(exchange.body, exchange.path)
            asked.api_version = exchange.headers.get(b"anthropic-version", b"").decode()
            upstreams = self.groups.get(asked.model)
            if upstreams is None:
                raise UnknownGroup(asked.model, tuple(self.groups)[:1])
            await self._try(exchange, asked, upstreams)
        except MintmarkError as error:
            await exchange.answer(status_of(error), protocol.error(error, "req-1"), x_mintmark_request_id="req-1")

    async def _try(self, exchange: Exchange, asked: Any, upstreams: list[Upstream]) -> None:
        for position, upstream in enumerate(upstreams):
            key = Secret(AWS_KEY if upstream.kind in ("bedrock", "sagemaker") else KEY)
            attempt = plan(asked, upstream, key, created=NOW, request_id="req-1")
            try:
                await self._ask(exchange, attempt)
                return
            except (UpstreamError, UpstreamTimeoutError):
                if position == len(upstreams) - 1:
                    raise

    async def _ask(self, exchange: Exchange, attempt: Attempt) -> None:
        base = attempt.request.base
        address = (await self._resolver.resolve(base.host, base.port))[0]
        reader, writer = await asyncio.open_connection(str(address), base.port)
        try:
            more = b""
            if (size := exchange.headers.get(b"inference-header-content-length")) is not None:
                more = b"inference-header-content-length: %b\r\n" % size
            writer.write(attempt.request.payload(more))
            head = await self._in_time(reader.readuntil(b"\r\n\r\n"))
            line, *lines = head.split(b"\r\n")
            status = int(line.split(b" ")[1])
            headers = [(name.lower(), value.strip()) for name, _, value in (found.partition(b":") for found in lines)]
            if attempt.asked.stream and status == 200:
                await self._stream(exchange, attempt, status, headers, reader)
                return
            answered = attempt.answer(status, headers, await self._in_time(reader.read()))
            self.answers.append(answered.answer)
            await exchange.answer(answered.status, answered.body, answered.content_type)
        except asyncio.IncompleteReadError:
            raise UpstreamCut() from None
        finally:
            writer.close()

    async def _stream(
        self, exchange: Exchange, attempt: Attempt, status: int, headers: Any, reader: asyncio.StreamReader
    ) -> None:
        streaming = attempt.stream(status, headers)
        begun = False
        try:
            while not streaming.is_complete:
                chunk = await self._in_time(reader.read(4096))
                out = streaming.feed(chunk) if chunk else streaming.end()
                if out and not begun:
                    begun = True
                    await exchange.begin(200, streaming.content_type)
                await exchange.write(out)
        except (UpstreamError, UpstreamTimeoutError) as error:
            if not streaming.has_begun:
                raise
            await exchange.write(streaming.fail(error))
        self.answers.append(streaming.answer)

    async def _in_time(self, awaited: Awaitable[bytes]) -> bytes:
        try:
            return await asyncio.wait_for(awaited, STALL_S)
        except TimeoutError:
            raise UpstreamTimeoutError() from None
