"""A relay that serves the stub's clients by our modules, as little of a gateway as they need: no rows, no pools."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any

from services.router.errors import UnknownGroup, UpstreamCut, UpstreamError, UpstreamTimeoutError
from services.router.gateway.addresses import Permitted, Resolver
from services.router.gateway.conversation import Answer
from services.router.gateway.protocols import OIP, credentials, protocol_of, status_of
from services.router.gateway.protocols.models import GroupListing, models_page
from services.router.gateway.providers import Attempt, Upstream, plan
from services.router.gateway.sealing import Secret
from services.router.gateway.testing.stub import STALL_S, Exchange
from shared.errors import MintmarkError, Unauthenticated

from .asking import AWS_KEY, KEY, NOW


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
