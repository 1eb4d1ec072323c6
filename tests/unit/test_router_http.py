"""The gateway's HTTP server and clients that do not take what they asked for."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from services.router.gateway.http_server import HttpServer, Limits, Request

WITHIN_S = 20.0
LIMITS = Limits(request_bytes=1024, read_timeout_s=1000, idle_timeout_s=1000, stalled_timeout_s=100)
CHUNK = bytes(1 << 20)


class Upstream:
    """Streams as long as the client takes it, and hears when nobody does any more."""

    def __init__(self) -> None:
        self.paused = asyncio.Event()
        self.gone = asyncio.Event()

    def handle(self, request: Request) -> None:
        request.connection.begin_stream(request, 200, b"", self)
        while not self.paused.is_set():
            request.connection.send(CHUNK)
        request.connection.send(CHUNK * 32)  # more than any socket takes at once

    def pause(self, paused: bool) -> None:
        if paused:
            self.paused.set()

    def client_gone(self) -> None:
        self.gone.set()


@asynccontextmanager
async def a_stream(upstream: Upstream, limits: Limits = LIMITS) -> AsyncIterator[tuple[HttpServer, socket.socket]]:
    """A server, and a client that asked and reads nothing; the server can send no more."""
    server = HttpServer(upstream.handle, limits)
    port = await server.start("127.0.0.1", 0)
    client = socket.create_connection(("127.0.0.1", port))
    try:
        client.setblocking(False)
        client.sendall(b"GET / HTTP/1.1\r\nhost: gateway\r\n\r\n")
        await asyncio.wait_for(upstream.paused.wait(), WITHIN_S)
        yield server, client
    finally:
        client.close()
        await server.drain(0)


async def test_a_client_that_takes_nothing_of_its_stream_is_cut_off() -> None:
    upstream = Upstream()
    async with a_stream(upstream) as (server, _):
        (connection,) = server.connections
        now = time.perf_counter()
        connection.end_if_late(now + 50)
        assert server.connections == {connection}
        connection.end_if_late(now + 200)
        await asyncio.wait_for(upstream.gone.wait(), WITHIN_S)
        assert server.connections == set()


async def test_a_client_that_reads_slowly_is_not() -> None:
    upstream = Upstream()
    async with a_stream(upstream) as (server, client):
        (connection,) = server.connections
        now = time.perf_counter()
        connection.end_if_late(now)
        assert connection._transport is not None
        before = connection._transport.get_write_buffer_size()
        while connection._transport.get_write_buffer_size() == before:
            with suppress(BlockingIOError):
                client.recv(1 << 16)
            await asyncio.sleep(0)
        connection.end_if_late(now + 200)
        connection.end_if_late(now + 290)
        assert server.connections == {connection} and not upstream.gone.is_set()
        connection.end_if_late(now + 310)
        await asyncio.wait_for(upstream.gone.wait(), WITHIN_S)


async def test_the_servers_own_clock_looks_for_such_clients() -> None:
    upstream = Upstream()
    async with a_stream(upstream, Limits(1024, 1000, 1000, stalled_timeout_s=0.01)):
        await asyncio.wait_for(upstream.gone.wait(), WITHIN_S)
