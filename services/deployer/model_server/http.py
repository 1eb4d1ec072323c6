"""HTTP/1.1 for the model server: httptools below, a handler above, limits in between.

A body that is too large is refused when its length is declared, or when that many bytes have come, and the rest is
never kept. The handler may answer at once or with a coroutine; one connection's requests are answered in order.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Protocol, cast
from urllib.parse import unquote

import httptools
import orjson

log = logging.getLogger(__name__)

IDLE_S: Final = 75.0
"""A connection that says nothing for so long is closed, in the middle of a request or between two."""
LINGER_S: Final = 1.0
"""So long after a refusal do we read and throw away, lest a reset overtake the answer on its way."""
MAX_HEAD_BYTES: Final = 32 << 10


class HttpError(Exception):
    """Answered as `{"error": message}`, the shape of the Open Inference Protocol."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Sink(Protocol):
    """Where a large body streams to."""

    limit: int

    def write(self, chunk: bytes) -> None:
        """Raises HttpError to refuse the rest."""

    def abort(self) -> None:
        """The body will not be complete."""


@dataclass(slots=True)
class Request:
    method: str = ""
    path: str = ""
    authorization: str = ""
    content_length: int = 0
    expects_continue: bool = False
    keep_alive: bool = True
    limit: int = 0
    body: bytearray = field(default_factory=bytearray)
    sink: Sink | None = None


@dataclass(frozen=True, slots=True)
class Response:
    body: bytes
    status: int = 200
    content_type: bytes = b"application/json"


class App(Protocol):
    def begin(self, request: Request) -> int | Sink:
        """Head read: how many bytes of body may be kept in memory, or where to stream them. Raises HttpError."""

    def handle(self, request: Request) -> Response | Coroutine[Any, Any, Response]:
        """Body read: the answer. Raises HttpError."""


class Server:
    """The open connections of one App, and their end."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.connections: set[Connection] = set()
        self.draining = False

    async def sweep(self) -> None:
        """Close what has been idle for too long; runs for as long as the server does."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(5)
            for connection in [c for c in self.connections if not c.busy and loop.time() - c.heard_at > IDLE_S]:
                connection.close()

    async def drain(self, timeout_s: float) -> int:
        """Let requests in flight finish, then close; the number of those that did not make it in time."""
        self.draining = True
        deadline = asyncio.get_running_loop().time() + timeout_s
        while self.connections and asyncio.get_running_loop().time() < deadline:
            for connection in [c for c in self.connections if not c.busy and not c.reading]:
                connection.close()
            await asyncio.sleep(0.02)
        cut = len(self.connections)
        for connection in list(self.connections):
            connection.close()
        return cut


class Connection(asyncio.Protocol):
    def __init__(self, server: Server) -> None:
        self._server = server
        self._app = server.app
        self._loop = asyncio.get_running_loop()
        self._transport = cast(asyncio.Transport, None)
        self._parser = httptools.HttpRequestParser(self)
        self._request: Request | None = None
        self._url = b""
        self._head_bytes = 0
        self._waiting: deque[Request] = deque()
        self._refused = False
        self._writable: asyncio.Event | None = None
        self.busy = False
        self.heard_at = self._loop.time()

    @property
    def reading(self) -> bool:
        """In the middle of a request."""
        return self._request is not None

    def close(self) -> None:
        self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        for request in (self._request, *self._waiting):
            if request is not None and request.sink is not None:
                request.sink.abort()
        self._request = None
        self._waiting.clear()
        self._refused = True
        if self._writable is not None:
            self._writable.set()

    def pause_writing(self) -> None:
        """The client does not read its answers; so we read none of its requests."""
        self._writable = asyncio.Event()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set()
            self._writable = None
        if not self._waiting and not self._transport.is_closing():
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        if self._refused:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refused = True  # answered as plain HTTP/1.1, as RFC 9110 allows; nothing more is read
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if isinstance(cause, HttpError):
                self._refuse(cause)
            else:
                log.error("a request could not be read", exc_info=cause)
                self._refuse(HttpError(500, "the server failed to read the request; its log says why"))
        except httptools.HttpParserError as error:
            self._refuse(HttpError(400, f"this is not HTTP/1.1: {error}"))

    # httptools

    def on_message_begin(self) -> None:
        self._request = Request()
        self._url = b""
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        request = self._current()
        self._count_head(len(name) + len(value))
        match name.lower():
            case b"content-length":
                request.content_length = int(value)
            case b"authorization":
                request.authorization = value.decode("latin-1")
            case b"expect":
                request.expects_continue = value.lower() == b"100-continue"
            case b"content-encoding" if value.lower() != b"identity":
                raise HttpError(415, "send the body as it is, without a content-encoding")

    def on_headers_complete(self) -> None:
        request = self._current()
        request.method = self._parser.get_method().decode("ascii")
        request.keep_alive = self._parser.should_keep_alive() and not self._parser.should_upgrade()
        request.path = unquote(self._url.split(b"?", 1)[0].decode("latin-1"), errors="replace")
        taken = self._app.begin(request)
        if isinstance(taken, int):
            request.limit = taken
        else:
            request.sink, request.limit = taken, taken.limit
        if request.content_length > request.limit:
            raise _too_large(request)
        if request.expects_continue and not self.busy:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, chunk: bytes) -> None:
        request = self._current()
        request.limit -= len(chunk)
        if request.limit < 0:
            raise _too_large(request)
        if request.sink is None:
            request.body += chunk
        else:
            request.sink.write(chunk)

    def on_message_complete(self) -> None:
        request, self._request = self._current(), None
        if self.busy:
            self._waiting.append(request)
            self._transport.pause_reading()
        else:
            self._answer(request)

    def _current(self) -> Request:
        assert self._request is not None, "httptools calls on_message_begin first"
        return self._request

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            raise HttpError(431, f"the request's head is larger than {MAX_HEAD_BYTES} bytes")

    # answers

    def _answer(self, request: Request) -> None:
        try:
            answer = self._app.handle(request)
        except HttpError as error:
            answer = error_response(error)
        except Exception:
            answer = _failed(request)
        if isinstance(answer, Response):
            self._send(answer, request.keep_alive)
        else:
            self.busy = True
            self._loop.create_task(self._answer_later(request, answer))

    async def _answer_later(self, request: Request, answer: Coroutine[Any, Any, Response]) -> None:
        try:
            response = await answer
        except HttpError as error:
            response = error_response(error)
        except Exception:
            response = _failed(request)
        if self._writable is not None:  # the client does not read: keep no second answer for it
            await self._writable.wait()
        self.busy = False
        if self._transport.is_closing():
            return
        self._send(response, request.keep_alive)
        while self._waiting and not self.busy and not self._transport.is_closing():
            self._answer(self._waiting.popleft())
        if not self._waiting and self._writable is None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _send(self, response: Response, keep_alive: bool) -> None:
        keep_alive = keep_alive and not self._server.draining
        self._transport.write(
            b"HTTP/1.1 %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n%b\r\n%b"
            % (
                _STATUS_LINES[response.status],
                response.content_type,
                len(response.body),
                b"" if keep_alive else b"connection: close\r\n",
                response.body,
            )
        )
        if not keep_alive:
            self._transport.close()

    def _refuse(self, error: HttpError) -> None:
        """Answer before the request is complete, and read no more of it."""
        self._refused = True
        request, self._request = self._request, None
        if request is not None and request.sink is not None:
            request.sink.abort()
        if self.busy or self._waiting:  # an earlier request is still being answered; a second answer would overtake it
            self._transport.close()
            return
        response = error_response(error)
        self._transport.write(
            b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (_STATUS_LINES[response.status], len(response.body), response.body)
        )
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._loop.call_later(LINGER_S, self._transport.close)


_STATUS_LINES: Final = {s.value: b"%d %b" % (s.value, s.phrase.encode()) for s in HTTPStatus}


def error_response(error: HttpError) -> Response:
    return Response(orjson.dumps({"error": str(error)}), error.status)


def _failed(request: Request) -> Response:
    log.exception("%s %s failed", request.method, request.path)
    return error_response(HttpError(500, "the model server failed on this request; its log says why"))


def _too_large(request: Request) -> HttpError:
    return HttpError(413, "the body is larger than is taken here; send fewer rows a request")
