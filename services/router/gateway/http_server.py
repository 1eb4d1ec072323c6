"""HTTP/1.1 as the gateway serves it: one request at a time on a connection, bounded in bytes and in time.

Requests that are pipelined wait their turn. Whatever is not unambiguous HTTP (Content-Length beside Transfer-Encoding,
bare line feeds, obsolete folding) is refused by llhttp's strict mode and ends the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol, cast

import httptools
import orjson

from services.router.errors import HeadersTooLarge, SlowRequest, TooManyConnections
from shared.errors import Malformed, MintmarkError, TooLarge

HEADER_BYTES = 64 << 10
LINGER_S = 1.0  # closing with unread bytes resets the connection, and the answer may be lost with it
SWEEP_S = 1.0

STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
JSON_HEADER = b"content-type: application/json\r\n"
PROBLEM_HEADER = b"content-type: application/problem+json\r\n"


@dataclass(slots=True)
class Request:
    """One whole request. Header names are lower-case; of a repeated header the last counts."""

    method: bytes
    path: bytes
    headers: dict[bytes, bytes]
    body: bytes
    connection: Connection
    keep_alive: bool
    arrived: float
    """`time.perf_counter()` when its last byte was parsed."""


class Streamer(Protocol):
    """Whoever writes a stream to a client hears when the client cannot take more, or is gone."""

    def pause(self, paused: bool) -> None: ...

    def client_gone(self) -> None: ...


class Connection(Protocol):
    """Where an answer goes: a client's connection, or a call of another protocol that was made into a request."""

    def answer(self, request: Request, status: int, headers: bytes, body: bytes) -> None: ...

    def begin_stream(self, request: Request, status: int, headers: bytes, streamer: Streamer) -> None: ...

    def send(self, data: bytes) -> None: ...

    def end_stream(self, request: Request, *, whole: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class Limits:
    request_bytes: int
    read_timeout_s: float
    idle_timeout_s: float
    connections: int = 10_000
    stalled_timeout_s: float = 60.0
    """A client that takes nothing of what waits for it for so long is cut off: it holds an upstream's connection."""


class HttpServer:
    """The connections of one gateway, and the clock that ends slow and idle ones."""

    def __init__(self, handle: Callable[[Request], None], limits: Limits) -> None:
        self.handle = handle
        self.limits = limits
        self.draining = False
        self.connections: set[ClientConnection] = set()
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._emptied = asyncio.Event()

    def forget(self, connection: ClientConnection) -> None:
        self.connections.discard(connection)
        if self.draining and not self.connections:
            self._emptied.set()

    async def start(self, host: str, port: int, *, reuse_port: bool = False) -> int:
        """Listen; returns the port, which matters when 0 was asked for."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: ClientConnection(self), host, port, reuse_port=reuse_port or None, backlog=2048
        )
        self._sweeper = loop.create_task(self._sweep())
        return int(self._server.sockets[0].getsockname()[1])

    async def drain(self, timeout_s: float) -> bool:
        """Accept nothing more, let every request in flight have its answer; False when some had not by then."""
        self.draining = True
        if self._server is not None:
            self._server.close()
        for connection in tuple(self.connections):
            connection.close_if_idle()
        if self.connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), timeout_s)
        if self._sweeper is not None:
            self._sweeper.cancel()
        drained = not self.connections
        for connection in tuple(self.connections):
            connection.abort()
        return drained

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            now = time.perf_counter()
            for connection in tuple(self.connections):
                connection.end_if_late(now)


class ClientConnection(asyncio.Protocol):
    """One client: parses requests, hands them over one by one, writes answers in their order."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[Request] = deque()
        self._busy = False
        self._closing = False
        self._receiving = False
        self._streamer: Streamer | None = None
        self._chunked = True
        self._stalled_at: float | None = None
        self._unsent_bytes = 0
        self._deadline = time.perf_counter() + server.limits.idle_timeout_s
        self._begin()

    def _begin(self) -> None:
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._header_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not its subclasses
        self._server.connections.add(self)
        if len(self._server.connections) > self._server.limits.connections:
            self._refuse(TooManyConnections())

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._waiting.clear()
        self._server.forget(self)
        streamer, self._streamer = self._streamer, None
        if streamer is not None:
            streamer.client_gone()

    def pause_writing(self) -> None:
        assert self._transport is not None
        self._stalled_at, self._unsent_bytes = time.perf_counter(), self._transport.get_write_buffer_size()
        if self._streamer is not None:
            self._streamer.pause(True)

    def resume_writing(self) -> None:
        self._stalled_at = None
        if self._streamer is not None:
            self._streamer.pause(False)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, MintmarkError) else Malformed("The request cannot be read."))
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._refuse(Malformed(f"This is not HTTP/1.1 as it is served here: {error}."))

    def eof_received(self) -> bool:
        """A client that sent its request and closed its side still gets its answer."""
        self._closing = True
        return self._busy or bool(self._waiting)

    # -- httptools callbacks

    def on_message_begin(self) -> None:
        self._begin()
        self._receiving = True
        if not self._busy:
            self._deadline = time.perf_counter() + self._server.limits.read_timeout_s

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count_header(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value
        self._count_header(len(name) + len(value))

    def on_headers_complete(self) -> None:
        length = self._headers.get(b"content-length")
        if length is not None and int(length) > self._server.limits.request_bytes:
            raise TooLarge(self._too_large())
        if self._headers.get(b"expect", b"").lower() == b"100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self._server.limits.request_bytes:
            raise TooLarge(self._too_large())
        self._body.append(body)

    def on_message_complete(self) -> None:
        self._receiving = False
        if self._closing:
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        request = Request(
            self._parser.get_method(),
            self._url,
            self._headers,
            body,
            self,
            self._parser.should_keep_alive(),
            time.perf_counter(),
        )
        if self._busy:
            self._waiting.append(request)
            if self._transport is not None:
                self._transport.pause_reading()
        else:
            self._busy = True
            self._server.handle(request)

    # -- answers

    def answer(self, request: Request, status: int, headers: bytes, body: bytes) -> None:
        """Write the answer to the request that was handed over last. `headers` are whole lines, content-type included.

        A client that is gone is no error: what was asked has been done and recorded.
        """
        transport = self._transport
        if transport is None:
            self._busy = False
            return
        keep = request.keep_alive and not self._closing and not self._server.draining
        transport.write(
            b"%b%bcontent-length: %d\r\n%b\r\n%b"
            % (status_line(status), headers, len(body), b"" if keep else b"connection: close\r\n", body)
        )
        self._answered(request, keep)

    def begin_stream(self, request: Request, status: int, headers: bytes, streamer: Streamer) -> None:
        """Begin an answer that comes in pieces, by `send`, until `end_stream`.

        A client of HTTP/1.0 gets it bare, until the connection closes.
        """
        transport = self._transport
        if transport is None:
            asyncio.get_running_loop().call_soon(streamer.client_gone)
            return
        self._streamer = streamer
        self._chunked = self._parser.get_http_version() != "1.0"
        transport.write(
            b"%b%b%b\r\n"
            % (
                status_line(status),
                headers,
                b"transfer-encoding: chunked\r\n" if self._chunked else b"connection: close\r\n",
            )
        )

    def send(self, data: bytes) -> None:
        if self._transport is not None and data:
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def end_stream(self, request: Request, *, whole: bool) -> None:
        """Let the last byte go; or, of a stream that is not whole, close without it, so that the client can tell."""
        transport, self._streamer = self._transport, None
        if transport is None:
            self._busy = False
            return
        if whole and self._chunked:
            transport.write(b"0\r\n\r\n")
        keep = whole and self._chunked and request.keep_alive and not self._closing and not self._server.draining
        self._answered(request, keep, drop_waiting=not whole)

    def _answered(self, request: Request, keep: bool, *, drop_waiting: bool = False) -> None:
        self._busy = False
        if self._waiting and request.keep_alive and not drop_waiting:
            self._next()
        elif not keep:
            assert self._transport is not None
            self._transport.close()
        elif not self._receiving:
            self._deadline = time.perf_counter() + self._server.limits.idle_timeout_s

    def _next(self) -> None:
        self._busy = True
        request = self._waiting.popleft()
        if not self._waiting and self._transport is not None and not self._closing:
            self._transport.resume_reading()
        # Not from within answer(): a thousand pipelined requests would nest a thousand calls.
        asyncio.get_running_loop().call_soon(self._server.handle, request)

    # -- ends

    def close_if_idle(self) -> None:
        if not self._busy and not self._receiving and self._transport is not None:
            self._transport.close()

    def end_if_late(self, now: float) -> None:
        if self._is_stalled(now):
            self.abort()
            return
        if self._busy or self._closing or now < self._deadline:
            return
        if self._receiving:
            self._refuse(SlowRequest())
        elif self._transport is not None:
            self._transport.close()

    def _is_stalled(self, now: float) -> bool:
        """A client that reads slowly is not; whatever it takes begins its time anew."""
        if self._stalled_at is None or self._transport is None:
            return False
        unsent_bytes = self._transport.get_write_buffer_size()
        if unsent_bytes < self._unsent_bytes:
            self._stalled_at = now
        self._unsent_bytes = unsent_bytes
        return now - self._stalled_at > self._server.limits.stalled_timeout_s

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _refuse(self, error: MintmarkError) -> None:
        """Say what is wrong with what is being received, and end the connection without reading the rest."""
        self._closing = True
        transport = self._transport
        if transport is None:
            return
        transport.pause_reading()
        if self._busy:  # an answer is owed to an earlier request; it goes out and closes
            return
        body = problem(error)
        transport.write(
            b"%b%bcontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (status_line(error.status), PROBLEM_HEADER, len(body), body)
        )
        asyncio.get_running_loop().call_later(LINGER_S, transport.close)

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > HEADER_BYTES:
            raise HeadersTooLarge()

    def _too_large(self) -> str:
        return f"The body is larger than {self._server.limits.request_bytes} bytes; send fewer rows a request."


def status_line(status: int) -> bytes:
    return STATUS_LINES.get(status) or f"HTTP/1.1 {status} Unknown\r\n".encode()


def refuse(request: Request, error: MintmarkError) -> None:
    """Answer a request with a problem."""
    headers = PROBLEM_HEADER
    if error.status == 401:
        headers += b'www-authenticate: Bearer realm="mintmark"\r\n'
    elif error.status == 503:
        headers += b"retry-after: 1\r\n"
    request.connection.answer(request, error.status, headers, problem(error))


def problem(error: MintmarkError, **more: object) -> bytes:
    """RFC 9457, with the `error` member that Open Inference Protocol clients read."""
    return orjson.dumps(
        {
            "type": f"urn:mintmark:problem:{error.code}",
            "title": (type(error).__doc__ or "").strip().splitlines()[0],
            "status": error.status,
            "code": error.code,
            "detail": error.message,
            "error": error.message,
            **error.extra,
            **more,
        }
    )
