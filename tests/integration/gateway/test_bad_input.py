"""Requests that are refused: bodies, framing, slowness, callers, unknown groups."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import asyncpg
import orjson
import pytest

from .stub import StubServer
from .world import BODY, Postgres, World, a_version, a_world

BAD_BODIES = {
    b"": (400, "malformed"),
    b"{": (400, "malformed"),
    b'{"inputs": [NaN]}': (400, "malformed"),
    b"[" * 10_000: (400, "malformed"),
    b'{"inputs": [], "id": "\\u0000"}': (400, "malformed"),
    b"\xff\xfe": (400, "malformed"),
    b"[]": (422, "invalid"),
    b'{"inputs": {}}': (422, "invalid"),
}


async def test_a_bad_body_is_refused_with_a_code_and_is_a_row(world: World, name: str) -> None:
    await world.make_group(name, await world.deploy(a_version(5), f"good.{name}"))
    for body, expected in BAD_BODIES.items():
        response = await world.infer(name, body)
        assert (response.status_code, response.json()["code"]) == expected
    rows = await world.rows(name)
    assert [(row["status"], row["error_code"]) for row in rows] == list(BAD_BODIES.values())
    assert {row["input"] for row in rows} == {None}
    assert world.stub.seen[f"good.{name}"] == 0


async def test_numbers_that_jsonb_would_not_take_do_not_refuse_the_neighbours(world: World, name: str) -> None:
    await world.make_group(name, await world.deploy(a_version(5)))
    odd = b'{"inputs": [], "parameters": {"odd": [1e-400000, 123456789012345678901234567890]}}'
    answers = await asyncio.gather(*(world.infer(name, odd if i % 2 else BODY) for i in range(10)))
    assert [answer.status_code for answer in answers] == [200] * 10
    assert len(await world.rows(name)) == 10


async def test_a_body_over_the_limit_is_a_413_without_reading_the_rest(world: World, name: str) -> None:
    await world.make_group(name, await world.deploy(a_version(5)))

    declared = await world.infer(name, b"x" * (65 << 10))
    assert (declared.status_code, declared.json()["code"]) == (413, "too-large")
    port = world.http.base_url.port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v2/models/{name}/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    writer.write(head.encode() + b"10000\r\n" + b"x" * 65_536 + b"\r\n" + b"10000\r\nx")
    assert b" 413 " in await reader.readline()
    writer.close()


SMUGGLED = [
    b"POST /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
    b"POST /livez HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n",
    b"GET /livez HTTP/1.1\nhost: x\n\n",
    b"GET /livez HTTP/1.1\r\nhost: x\r\n folded: y\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nhost: x\r\nbad header: y\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"GET /livez HTTP/1.1\r\nx: " + b"y" * 70_000 + b"\r\n\r\n",
]


@pytest.mark.parametrize("sent", SMUGGLED)
async def test_ambiguous_http_is_refused_and_ends_the_connection(world: World, sent: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.http.base_url.port)
    writer.write(sent)
    answered = await asyncio.wait_for(reader.read(), 5)
    assert answered.split(b" ")[1] in (b"400", b"431")
    assert len(re.findall(rb"HTTP/1.1 \d", answered)) == 1
    writer.close()


async def test_pipelined_requests_are_answered_in_their_order(world: World, name: str, keys: dict[str, str]) -> None:
    await world.make_group(name, await world.deploy(a_version(5)))
    reader, writer = await asyncio.open_connection("127.0.0.1", world.http.base_url.port)
    body = orjson.dumps(BODY)
    head = (
        f"POST /v2/models/{name}/infer HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {keys['caller']}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    writer.write((head.encode() + body + b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n") * 50)
    writer.write(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    answered = await asyncio.wait_for(reader.read(), 10)
    assert answered.count(b"HTTP/1.1 200 OK") == 101
    kinds = [b"outputs" in part for part in answered.split(b"HTTP/1.1 200 OK")[1:]]
    assert kinds == [True, False] * 50 + [False]
    writer.close()


async def test_a_slow_request_is_a_408(
    postgres: Postgres, db: asyncpg.Connection, stub: StubServer, keys: dict[str, str], tmp_path: Path
) -> None:
    async with a_world(postgres, db, stub, keys, tmp_path, read_timeout_s=0.2) as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.http.base_url.port)
        writer.write(b"POST /v2/models/x/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n12")
        assert b" 408 " in await asyncio.wait_for(reader.readline(), 5)
        writer.close()


async def test_only_a_proven_caller_with_the_right_role_in_the_groups_workspace_may_ask(
    world: World, name: str, keys: dict[str, str]
) -> None:
    await world.make_group(name, await world.deploy(a_version(5)))
    outcomes = {
        "nobody": "",
        "forged": "Bearer " + keys["caller"][:-1] + ("1" if keys["caller"].endswith("0") else "0"),
        "viewer": f"Bearer {keys['viewer']}",
        "neighbour": f"Bearer {keys['neighbour']}",
        "caller": f"Bearer {keys['caller']}",
    }
    got = {who: (await world.infer(name, authorization=value)).status_code for who, value in outcomes.items()}
    assert got == {"nobody": 401, "forged": 401, "viewer": 403, "neighbour": 404, "caller": 200}
    assert len(await world.rows(name)) == 1


async def test_an_unknown_group_is_a_404_that_names_near_ones(world: World, name: str) -> None:
    await world.make_group(name, await world.deploy(a_version(5)))
    response = await world.infer(name[:-1] + "x")
    assert response.status_code == 404 and name in response.json()["detail"]
    assert (await world.infer("A'; drop table x; --")).status_code == 404
