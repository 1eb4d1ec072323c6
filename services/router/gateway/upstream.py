"""Pooled raw HTTP/1.1 connections to model servers: one request at a time on each, no tasks per call.

An answer comes whole, unless it is of a type that is streamed: that one is passed on chunk by chunk.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Iterable
from typing import Protocol, cast

import httptools

from services.router.errors import (
    AddressRefused,
    ProviderAddressRefused,
    UpstreamError,
    UpstreamGarbageError,
    UpstreamSaturated,
    UpstreamTimeoutError,
)
from services.router.gateway.addresses import BaseUrl, Resolver
from services.router.gateway.arms import Endpoint
from shared.errors import MintmarkError

Headers = list[tuple[bytes, bytes]]
STREAMED = (b"text/event-stream", b"application/x-ndjson", b"application/vnd.amazon.eventstream")
CONNECT_TIMEOUT_S = 5.0  # a connection in the making holds one of the pool's places


class Caller(Protocol):
    """Whoever asked: hears either the whole answer, or that a stream began, its chunks and its end; or a failure."""

    def answered(self, status: int, headers: Headers, body: bytes) -> None: ...

    def began(self, status: int, headers: Headers) -> None: ...

    def chunk(self, data: bytes) -> None: ...

    def ended(self) -> None: ...

    def failed(self, error: MintmarkError) -> None: ...


class Call:
    """One request on its way: its bytes, its deadline, and whether it may still be sent a second time."""

    __slots__ = ("caller", "connection", "done", "may_retry", "payload", "pool", "timeout_s", "timer")

    def __init__(self, pool: Pool, payload: bytes, caller: Caller, timeout_s: float) -> None:
        self.pool = pool
        self.payload = payload
        self.caller = caller
        self.may_retry = True
        self.done = False
        self.connection: UpstreamConnection | None = None
        self.timeout_s = timeout_s
        self.timer = pool.loop.call_later(timeout_s, self._expire)

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        if not self.done:
            self.done = True
            self.timer.cancel()
            self.caller.answered(status, headers, body)

    def fail(self, error: MintmarkError) -> None:
        if not self.done:
            self.done = True
            self.timer.cancel()
            self.caller.failed(error)

    def end(self) -> None:
        if not self.done:
            self.done = True
            self.timer.cancel()
            self.caller.ended()

    def abandon(self) -> None:
        """The caller wants to hear no more."""
        if not self.done:
            self.done = True
            self.timer.cancel()
            if self.connection is not None:
                self.connection.discard()

    def pause(self, paused: bool) -> None:
        """The caller can take no more just now, or can again. While it cannot, the upstream is not late."""
        if self.connection is not None and not self.done:
            self.connection.pause(paused)

    def _expire(self) -> None:
        connection = self.connection
        if connection is not None and (left := connection.silent_until(self.timeout_s) - self.pool.loop.time()) > 0:
            self.timer = self.pool.loop.call_later(left, self._expire)  # a stream that goes on
            return
        waited_in_vain = connection is None and self.pool.is_full
        self.fail(UpstreamSaturated() if waited_in_vain else UpstreamTimeoutError())
        if connection is not None:
            connection.discard()  # a late answer must not become the next request's


class Pool:
    """The connections to one model server. The most recently used idle one is taken first, so that others can age."""

    def __init__(self, endpoint: Endpoint, max_connections: int, response_bytes: int, resolver: Resolver) -> None:
        self.endpoint = endpoint
        self._resolver = resolver
        self.loop = asyncio.get_running_loop()
        self.response_bytes = response_bytes
        self.retired = False
        self._tls = ssl.create_default_context() if endpoint.tls else None
        self._max_connections = max_connections
        self._idle: list[UpstreamConnection] = []
        self._waiting: deque[Call] = deque()
        self._open = 0
        self._connecting: set[asyncio.Task[None]] = set()

    @property
    def is_full(self) -> bool:
        return self._open >= self._max_connections

    def send(self, payload: bytes, caller: Caller, timeout_s: float) -> Call:
        """Ask; `caller` hears the answer or the failure, within the timeout whatever happens.

        A stream may last as long as it likes, while it is not silent for that time.
        """
        call = Call(self, payload, caller, timeout_s)
        self._place(call)
        return call

    def retire(self) -> None:
        """No new traffic comes: idle connections close now, busy ones when their answer is in."""
        self.retired = True
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def _place(self, call: Call) -> None:
        if self._idle:
            self._idle.pop().carry(call)
        elif self.is_full:
            self._waiting.append(call)
        else:
            self._connect(call)

    def _connect(self, call: Call) -> None:
        self._open += 1
        task = self.loop.create_task(self._open_connection(call))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _open_connection(self, call: Call) -> None:
        to = self.endpoint
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                if to.is_foreign:
                    base = BaseUrl(to.host, to.port, to.tls)
                    _, connection = await self._resolver.connect(lambda: UpstreamConnection(self), base, self._tls)
                else:
                    _, connection = await self.loop.create_connection(
                        lambda: UpstreamConnection(self), to.host, to.port, ssl=self._tls
                    )
        except OSError as error:  # TimeoutError is one
            self.lost_one()
            reason = str(error) or "it does not answer"
            call.fail(UpstreamError(f"The model server at {to.host}:{to.port} cannot be reached: {reason}."))
            return
        except AddressRefused as error:
            self.lost_one()
            call.fail(ProviderAddressRefused(error.message))
            return
        except UpstreamError as error:
            self.lost_one()
            call.fail(error)
            return
        if call.done:
            self.returned(connection)
        else:
            connection.carry(call)

    # -- what connections report

    def returned(self, connection: UpstreamConnection) -> None:
        """The connection is free."""
        while self._waiting:
            call = self._waiting.popleft()
            if not call.done:
                connection.carry(call)
                return
        if self.retired:
            connection.close()
        else:
            self._idle.append(connection)

    def lost(self, connection: UpstreamConnection) -> None:
        """The connection is closed, by whichever side."""
        if connection in self._idle:
            self._idle.remove(connection)
        self.lost_one()

    def lost_one(self) -> None:
        self._open -= 1
        while self._waiting and not self.is_full:
            call = self._waiting.popleft()
            if not call.done:
                self._connect(call)

    def again(self, call: Call) -> None:
        """A kept-alive connection was closed under the request before any answer: once more, on a fresh connection.

        That race is of the keep-alive protocol itself (RFC 9112, 9.3.1), and an inference may be asked twice.
        """
        call.may_retry = False
        call.connection = None
        self._connect(call)


class UpstreamConnection(asyncio.Protocol):
    """One connection: carries a call, collects its whole answer, goes back to the pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._call: Call | None = None
        self._used = False
        self._transport: asyncio.Transport | None = None
        self._reset()

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._heard = False
        self._headers: Headers = []
        self._body: list[bytes] = []
        self._size = 0
        self._framed = False
        self._headed = False
        self._streamed = False
        self._streaming = False
        self._paused = False
        self._spoke_at = 0.0

    def carry(self, call: Call) -> None:
        self._call = call
        call.connection = self
        self._heard = False
        assert self._transport is not None
        self._transport.write(call.payload)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def discard(self) -> None:
        """Close without waiting for anything, after the call failed."""
        self._call = None
        if self._transport is not None:
            self._transport.abort()

    def pause(self, paused: bool) -> None:
        if self._transport is None or paused == self._paused:
            return
        self._paused = paused
        if paused:
            self._transport.pause_reading()
        else:
            self._spoke_at = self._pool.loop.time()
            self._transport.resume_reading()

    def silent_until(self, timeout_s: float) -> float:
        """When a stream has been silent for too long; long past for what is no stream."""
        if not self._streaming:
            return 0.0
        return (self._pool.loop.time() if self._paused else self._spoke_at) + timeout_s

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop\'s are not its subclasses

    def data_received(self, data: bytes) -> None:
        if self._call is None:  # nothing was asked: an answer sent twice, or a server's parting words
            self.discard()
            return
        self._heard = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._garbage(f"The model server's answer is not HTTP: {error}.")

    def connection_lost(self, exc: Exception | None) -> None:
        call, self._call = self._call, None
        self._transport = None
        self._pool.lost(self)
        if call is None or call.done:
            return
        if self._headed and not self._framed:  # a body that ends with its connection
            if self._streaming:
                call.end()
                return
            call.answer(self._parser.get_status_code(), self._headers, b"".join(self._body))
        elif self._used and not self._heard and call.may_retry:
            self._pool.again(call)
        else:
            call.fail(UpstreamError())

    # -- httptools callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self._framed = True
        elif name == b"content-type" and value.startswith(STREAMED):
            self._streamed = True
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        self._headed = status >= 200
        call = self._call
        if self._streamed and self._headed and call is not None and not call.done:
            self._streaming = True
            self._spoke_at = self._pool.loop.time()
            call.caller.began(status, self._headers)

    def on_body(self, body: bytes) -> None:
        if self._streaming:
            self._spoke_at = self._pool.loop.time()
            if self._call is not None and not self._call.done:
                self._call.caller.chunk(body)
            return
        self._size += len(body)
        if self._size > self._pool.response_bytes:
            self._garbage(f"The model server's answer is larger than {self._pool.response_bytes} bytes.")
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        call = self._call
        if call is None:
            self.discard()
            return
        status = self._parser.get_status_code()
        if status < 200:  # 100 Continue, 103 Early Hints: the answer follows
            self._headers = []
            self._framed = False
            return
        headers, body = self._headers, self._body[0] if len(self._body) == 1 else b"".join(self._body)
        streaming = self._streaming
        self._headers, self._body, self._size = [], [], 0
        self._framed = self._headed = self._streamed = self._streaming = False
        self.pause(False)
        self._call = None
        self._used = True
        call.connection = None
        if self._parser.should_keep_alive():
            self._pool.returned(self)
        else:
            self.close()
        if streaming:
            call.end()
        else:
            call.answer(status, headers, body)

    def _garbage(self, sentence: str) -> None:
        call = self._call
        self.discard()
        if call is not None:
            call.fail(UpstreamGarbageError(sentence))


class Pools:
    """One pool an endpoint, made when first asked."""

    def __init__(
        self, max_connections: int, provider_connections: int, response_bytes: int, resolver: Resolver
    ) -> None:
        self._resolver = resolver
        self._max_connections = {False: max_connections, True: provider_connections}
        self._response_bytes = response_bytes
        self._pools: dict[Endpoint, Pool] = {}

    def of(self, endpoint: Endpoint) -> Pool:
        pool = self._pools.get(endpoint)
        if pool is None:
            most = self._max_connections[endpoint.is_foreign]
            pool = self._pools[endpoint] = Pool(endpoint, most, self._response_bytes, self._resolver)
        return pool

    def keep_only(self, endpoints: Iterable[Endpoint]) -> None:
        """Retire the pools of endpoints that no group uses any more; what is in flight there ends in peace."""
        for endpoint in set(self._pools) - set(endpoints):
            self._pools.pop(endpoint).retire()
