"""Inputs against the model's signature; answers that are streamed; bodies that never end."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import psutil
import pytest

from shared.testing.installation import eventually

from .world import WITHIN_S, World, a_version

TYPED = json.dumps(
    {
        "inputs": [
            {"name": "AGEP", "datatype": "FP64", "shape": [-1, 1]},
            {"name": "JOB", "datatype": "BYTES", "shape": [-1]},
            {"name": "GRID", "datatype": "FP32", "shape": [-1, 3]},
        ]
    }
)


def tensor(name: str, datatype: Any = "FP64", shape: Any = (1, 1), data: Any = (42.0,)) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


WRONG = {
    "datatype": tensor("AGEP", "BYTES", data=["x"]),
    "no datatype": tensor("AGEP", "FLOAT"),
    "shape": tensor("GRID", shape=[1, 4], data=[1, 2, 3, 4]),
    "rank": tensor("GRID", shape=[3], data=[1, 2, 3]),
    "count": tensor("GRID", shape=[2, 3], data=[1, 2, 3]),
    "negative": tensor("AGEP", shape=[-1, 1]),
    "text for a number": tensor("AGEP", data=["42"]),
    "number for a text": tensor("JOB", "BYTES", [1], [42]),
    "true is no number": tensor("AGEP", data=[True]),
    "ragged": tensor("GRID", shape=[2, 3], data=[[1, 2, 3], 4]),
    "no list": tensor("AGEP", data=42.0),
    "deep": tensor("AGEP", data=[[[["x"]]]]),
}
RIGHT = [
    tensor("AGEP"),
    tensor("AGEP", "INT64", [1], [42]),
    tensor("AGEP", "FP32", [2, 1], [[1.5], [None]]),
    tensor("JOB", "BYTES", [2], ["clerk", "nurse"]),
    tensor("GRID", "FP32", [2, 3], [1, 2, 3, 4, 5, 6]),
    tensor("of the challenger alone", "UINT8", [1], [1]),
]


async def deployed(world: World, name: str, model: str = "good") -> None:
    version = await world.deploy(a_version(5), model)
    await world.db.execute("UPDATE served_version SET signature = $2 WHERE urn = $1", version.urn, TYPED)
    await world.make_group(name, version)


async def test_an_input_that_does_not_fit_the_signature_is_a_422_that_names_it_and_a_row(
    world: World, name: str
) -> None:
    await deployed(world, name, f"good.{name}")
    for what, wrong in WRONG.items():
        answer = await world.infer(name, {"inputs": [tensor("AGEP"), wrong]})
        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["tensor"]) == (
            422, "signature-mismatch", wrong["name"]
        ), what  # fmt: skip
        assert wrong["name"] in problem["detail"], what
    for right in RIGHT:
        assert (await world.infer(name, {"inputs": [right]})).status_code == 200, right
    rows = await world.rows(name)
    assert [row["status"] for row in rows] == [422] * len(WRONG) + [200] * len(RIGHT)
    assert world.stub.seen[f"good.{name}"] == len(RIGHT)


@pytest.mark.parametrize("depth", [900, 10_000])
async def test_depth_is_bounded(world: World, name: str, depth: int) -> None:
    await deployed(world, name)
    body = b'{"inputs": [], "parameters": ' + b"[" * depth + b"]" * depth + b"}"
    assert (await world.infer(name, body)).status_code == (200 if depth < 1000 else 400)
    assert len(await world.rows(name)) == 1


async def test_a_chunked_body_without_end_is_a_413_and_memory_stays_flat(world: World, name: str) -> None:
    await deployed(world, name)
    process = psutil.Process(os.getpid())
    before = process.memory_info().rss
    reader, writer = await asyncio.open_connection("127.0.0.1", world.http.base_url.port)
    writer.write(f"POST /v2/models/{name}/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode())
    chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    sent = 0
    try:
        for _ in range(1024):  # 1 GiB
            writer.write(chunk)
            await asyncio.wait_for(writer.drain(), 0.5)
            sent += 1
    except (ConnectionError, TimeoutError):
        pass
    assert b" 413 " in await asyncio.wait_for(reader.readline(), 5)
    assert sent < 64  # the rest was not even read
    assert process.memory_info().rss - before < 64 << 20
    writer.close()


async def test_more_connections_than_are_taken_are_a_503(world: World) -> None:
    world.gateway._server.limits = type(world.gateway._server.limits)(64 << 10, 30, 75, connections=3)
    opened = [await asyncio.open_connection("127.0.0.1", world.http.base_url.port) for _ in range(6)]
    asked = [asyncio.create_task(reader.readline()) for reader, _ in opened]
    refused = 0
    async with asyncio.timeout(WITHIN_S):
        for answer in asyncio.as_completed(asked):
            assert b" 503 " in await answer
            if (refused := refused + 1) == 3:
                break
    for waiting in asked:
        waiting.cancel()
    for _, writer in opened:
        writer.close()


async def test_a_stream_is_passed_on_chunk_by_chunk_and_is_one_row(world: World, name: str) -> None:
    world.stub.delay_s = 0.05
    await deployed(world, name, "stream")
    pieces: list[bytes] = []
    request = world.http.stream("POST", f"/v2/models/{name}/generate_stream", json={"text_input": "hello", "id": "ada"})
    async with request as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.headers["x-mintmark-group"] == name
        async for piece in answer.aiter_raw():
            pieces.append(piece)
    assert len(pieces) >= 3
    assert b"".join(pieces) == b"".join(b'data: {"token": %d}\n\n' % number for number in range(5))
    (row,) = await world.rows(name)
    assert (row["status"], row["unit"], row["error_code"]) == (200, "ada", None)
    assert json.loads(row["output"]) == [{"token": number} for number in range(5)]
    assert 0 < row["ttft_ms"] < row["latency_ms"]


async def test_a_stream_that_breaks_off_ends_so_that_the_client_can_tell(world: World, name: str) -> None:
    await deployed(world, name, "stream-cut")
    reader, writer = await asyncio.open_connection("127.0.0.1", world.http.base_url.port)
    key = world.http.headers["authorization"]
    head = f"POST /v2/models/{name}/generate_stream HTTP/1.1\r\nhost: x\r\nauthorization: {key}\r\ncontent-length: 2"
    writer.write(head.encode() + b"\r\n\r\n{}")
    said = await asyncio.wait_for(reader.read(), 5)
    assert b"event: error" in said and not said.endswith(b"0\r\n\r\n")
    (row,) = await world.rows(name)
    assert (row["status"], row["error_code"]) == (502, "upstream-failed")
    writer.close()


async def test_a_client_that_goes_away_lets_the_upstream_go_and_is_a_row(world: World, name: str) -> None:
    world.stub.delay_s = 0.05
    await deployed(world, name, "stream-forever")
    request = world.http.stream("POST", f"/v2/models/{name}/generate_stream", json={})
    async with request as answer:
        async for _ in answer.aiter_raw():
            break
    (row,) = await eventually(lambda: world.rows(name), bool, what="the row")
    assert (row["status"], row["error_code"]) == (499, "client-gone")

    async def left() -> int:
        return len(world.stub.connections)

    await eventually(left, lambda number: number == 0, what="the upstream's connection closed")
