"""One request, one answer, one row: what passes through and what is kept."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from uuid import UUID

from .stub import GOOD
from .world import BODY, World, a_version


async def test_an_answer_passes_through_untouched_and_its_row_is_there_before_it(world: World, name: str) -> None:
    version = await world.deploy(a_version(5))
    await world.make_group(name, version)
    asked = time.perf_counter()
    response = await world.infer(name)
    took_ms = (time.perf_counter() - asked) * 1000
    (row,) = await world.rows(name)

    assert response.content == GOOD
    assert response.headers["x-mintmark-group"] == name
    assert response.headers["x-mintmark-version"] == str(version)
    assert UUID(response.headers["x-mintmark-request-id"]) == row["request_id"]
    assert row["request_id"].version == 7
    assert (row["workspace"], row["unit"], row["status"], row["error_code"]) == ("default", "person-1", 200, None)
    assert (row["asset"], row["version"], row["digest"]) == (version.urn, version.version, version.digest)
    assert json.loads(row["input"]) == BODY
    assert (row["score"], row["prediction"]) == (0.75, "1")
    assert [tensor["name"] for tensor in json.loads(row["output"])["outputs"]] == ["probability", "label"]
    assert json.loads(row["shap"]) == {"base": [0.5], "values": [[0.5, -0.25]], "features": ["AGEP", "MAR"]}
    assert 0 < row["upstream_ms"] <= row["latency_ms"] < took_ms
    assert abs((datetime.now(UTC) - row["received_at"]).total_seconds()) < 60


async def test_the_trace_goes_on_to_the_model_server_and_into_the_row(world: World, name: str) -> None:
    await world.make_group(name, await world.deploy(a_version(5), "good.traced"))
    trace = "0af7651916cd43dd8448eb211c80319c"
    sent = f"00-{trace}-b7ad6b7169203331-01"
    given = await world.infer(name, traceparent=sent)
    assert world.stub.heads["good.traced"][b"traceparent"].decode() == sent
    assert world.stub.heads["good.traced"][b"x-mintmark-request-id"].decode() == given.headers["x-mintmark-request-id"]
    own = await world.infer(name, traceparent="nonsense")
    by_id = {str(row["request_id"]): row["trace_id"] for row in await world.rows(name)}
    assert by_id[given.headers["x-mintmark-request-id"]] == trace
    assert by_id[own.headers["x-mintmark-request-id"]] == own.headers["x-mintmark-request-id"].replace("-", "")


async def test_the_unit_is_the_header_else_the_bodys_id_else_the_request_id(world: World, name: str) -> None:
    await world.make_group(name, await world.deploy(a_version(5)))
    await world.infer(name, x_mintmark_unit="household-9")
    await world.infer(name)
    last = await world.infer(name, {"inputs": []})
    units = [row["unit"] for row in await world.rows(name)]
    assert units == ["household-9", "person-1", last.headers["x-mintmark-request-id"]]


async def test_rows_that_arrive_together_share_a_flush_and_none_is_lost(world: World, name: str) -> None:
    await world.make_group(name, await world.deploy(a_version(5)))
    answers = await asyncio.gather(*(world.infer(name) for _ in range(100)))
    ids = {answer.headers["x-mintmark-request-id"] for answer in answers}
    assert {answer.status_code for answer in answers} == {200}
    assert {str(row["request_id"]) for row in await world.rows(name)} == ids and len(ids) == 100
    assert world.gateway.metrics.flushes < 100


async def test_metadata_and_readiness_are_the_champions_under_the_groups_name(world: World, name: str) -> None:
    version = await world.deploy(a_version(5))
    await world.make_group(name, version)
    metadata = (await world.http.get(f"/v2/models/{name}")).json()
    assert (metadata["name"], metadata["versions"], metadata["inputs"]) == (name, [str(version)], [])
    assert (await world.http.get(f"/v2/models/{name}/ready")).json() == {"name": name, "ready": True}
    await world.make_group(f"{name}-down", await world.deploy(a_version(6), "broken"))
    assert (await world.http.get(f"/v2/models/{name}-down/ready")).status_code == 503


async def test_health_paths_answer_without_a_key(world: World) -> None:
    for path in ("/livez", "/readyz", "/v2/health/live", "/v2/health/ready", "/metrics"):
        assert (await world.http.get(path, headers={"authorization": ""})).status_code == 200
    assert (await world.http.post("/livez")).status_code == 405
    assert (await world.http.get("/nothing")).status_code == 404
