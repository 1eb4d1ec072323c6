"""Postgres goes and comes back; the gateway drains."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from deploy.local.ports import Ports
from services.router.domain import Group, configure, log_table, promote
from shared.testing.installation import eventually

from .stub import StubServer
from .world import BODY, POLICY, WITHIN_S, Postgres, World, a_version, a_world


async def test_while_postgres_is_down_everybody_is_answered_and_the_rows_come_later(
    world: World, name: str, postgres: Postgres
) -> None:
    await world.make_group(name, await world.deploy(a_version(5)))
    answered: list[str] = []
    stop = asyncio.Event()

    async def ask() -> None:
        while not stop.is_set():
            response = await world.infer(name)
            assert response.status_code == 200
            answered.append(response.headers["x-mintmark-request-id"])
            await asyncio.sleep(0.005)  # the loop, the stub and Postgres share two cores

    shipping = asyncio.create_task(world.shipper.run())
    askers = [asyncio.create_task(ask()) for _ in range(8)]

    async def more() -> None:
        """A few answers later."""
        until = len(answered) + 3 * len(askers)
        async with asyncio.timeout(WITHIN_S):
            while len(answered) < until:
                await asyncio.sleep(0.01)

    await more()
    await asyncio.to_thread(postgres.cluster.stop, "immediate")
    await more()
    assert (await world.http.get("/readyz")).status_code == 200
    await postgres.restart()
    await more()
    stop.set()
    await asyncio.gather(*askers)
    assert await rows_come(postgres, name, len(answered)) == sorted(answered)
    shipping.cancel()


async def rows_come(postgres: Postgres, group: str, number: int) -> list[str]:
    """The group's request ids in order, once that many are there."""
    settings = {"search_path": "router", "mintmark.workspace": "*"}
    fresh = await asyncpg.connect(postgres.dsn, server_settings=settings)

    async def ids() -> list[str]:
        rows = await fresh.fetch(f"SELECT request_id FROM {log_table(group)} ORDER BY request_id")
        return [str(row["request_id"]) for row in rows]

    try:
        return await eventually(ids, lambda found: len(found) >= number)
    finally:
        await fresh.close()


async def test_a_gateway_starts_and_serves_its_last_snapshot_while_postgres_is_down(
    postgres: Postgres, db: asyncpg.Connection, stub: StubServer, keys: dict[str, str], tmp_path: Path, name: str
) -> None:
    async with a_world(postgres, db, stub, keys, tmp_path) as first:
        await first.make_group(name, await first.deploy(a_version(5)))
        assert (await first.infer(name)).status_code == 200
    await asyncio.to_thread(postgres.cluster.stop, "fast")
    try:
        async with a_world(postgres, db, stub, keys, tmp_path) as world:
            answered = [(await world.infer(name)).status_code for _ in range(5)]
            assert answered == [200] * 5
            await postgres.restart()
            shipping = asyncio.create_task(world.shipper.run())
            assert len(await rows_come(postgres, name, 6)) == 6
            shipping.cancel()
    finally:
        await postgres.restart()


async def tell_of_a_newer_router(world: World, group: Group) -> Group:
    """What this gateway cannot read, put in force."""
    newer = configure(group, expected_revision=group.revision)
    async with world.db.transaction():
        await world.db.execute(
            "INSERT INTO group_setting (workspace, group_name, section, revision, value, who, why, at) "
            "VALUES ($1, $2, 'rows', $3, '{\"of_a_newer_router\": 1}', 'user:ada', 'test', now())",
            newer.workspace, group.name, newer.revision,
        )  # fmt: skip
        return await world.move(newer, "configured")


async def unread_of(world: World, name: str, count: int = 1) -> dict[str, Any]:
    """What the gateway says of a group that it cannot read, once it has seen it, with `count` of them."""

    async def look() -> list[dict[str, Any]]:
        return list((await world.http.get("/readyz")).json()["unread"])

    found = await eventually(look, lambda unread: len(unread) == count, what="the group to be told of as unread")
    return next((one for one in found if one["group"] == name), {})


async def test_a_group_that_cannot_be_read_goes_on_alone_and_the_others_get_the_news(
    world: World, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = await world.deploy(a_version(5)), await world.deploy(a_version(6))
    group = await world.make_group(name, first)
    other = await world.make_group(f"{name}-b", first)
    newer = await tell_of_a_newer_router(world, group)
    try:
        assert await unread_of(world, name) == {"group": name, "serving_revision": 1}
        complaints = [one for one in caplog.records if getattr(one, "group", None) == name]
        assert complaints and "of_a_newer_router" in getattr(complaints[0], "error", "")
        assert "mintmark_gateway_unread_groups 1.0" in (await world.http.get("/metrics")).text
        await world.until_served(await world.move(promote(other, second, expected_revision=1), "promoted"))
        assert (await world.infer(other.name)).headers["x-mintmark-version"] == str(second)
        assert (await world.infer(name)).headers["x-mintmark-version"] == str(first)
        assert [row["revision"] for row in await world.rows(name)] == [1]
    finally:  # the gateways of other tests read the same tables
        await world.configure(newer, "rows", {"retention_days": 30})
    assert (await world.infer(name)).status_code == 200
    await unread_of(world, name, 0)
    assert "mintmark_gateway_unread_groups 0.0" in (await world.http.get("/metrics")).text


async def test_a_group_that_cannot_be_read_outlives_no_approval(world: World, name: str) -> None:
    version = await world.deploy(a_version(5))
    newer = await tell_of_a_newer_router(world, await world.make_group(name, version))
    try:
        await unread_of(world, name)
        assert (await world.infer(name)).status_code == 200
        await world.db.execute(
            "UPDATE served_version SET withdrawn_at = now(), withdrawn_why = 'undeployed', "
            "changed_at = clock_timestamp() WHERE urn = $1",
            version.urn,
        )
        refused = await eventually(lambda: world.infer(name), lambda answer: answer.status_code == 503)
        assert refused.json()["code"] == "version-not-servable"
    finally:
        await world.configure(newer, "rows", {"retention_days": 30})


async def test_a_gateway_that_starts_goes_on_with_what_was_kept_of_a_group_that_cannot_be_read(
    postgres: Postgres, db: asyncpg.Connection, stub: StubServer, keys: dict[str, str], tmp_path: Path, name: str
) -> None:
    async with a_world(postgres, db, stub, keys, tmp_path) as first:
        newer = await tell_of_a_newer_router(first, await first.make_group(name, await first.deploy(a_version(5))))
        await unread_of(first, name)
    try:
        async with a_world(postgres, db, stub, keys, tmp_path) as again:
            assert await unread_of(again, name) == {"group": name, "serving_revision": 1}
            assert (await again.infer(name)).status_code == 200
        again.gateway.settings.snapshot_file.unlink()
        async with a_world(postgres, db, stub, keys, tmp_path) as fresh:
            assert await unread_of(fresh, name) == {"group": name, "serving_revision": None}
            refused = await fresh.infer(name)
            assert (refused.status_code, refused.json()["code"]) == (503, "group-unreadable")
            assert name in refused.json()["detail"]
            fresh.http.headers["authorization"] = f"Bearer {keys['neighbour']}"
            assert (await fresh.infer(name)).status_code == 404
    finally:
        async with a_world(postgres, db, stub, keys, tmp_path) as world:
            await world.configure(newer, "rows", {"retention_days": 30})


async def test_sigterm_answers_what_is_in_flight_and_then_the_process_ends(
    world: World, name: str, postgres: Postgres, tmp_path: Path, keys: dict[str, str]
) -> None:
    world.stub.delay_s = 1.5
    model = f"slow.{name}"
    await world.make_group(name, await world.deploy(a_version(5), model))
    raw = POLICY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    (tmp_path / "trust.json").write_text(json.dumps({"policy": base64.b64encode(raw).decode()}))
    port = Ports.free().gateway
    environment = {
        **os.environ,
        "MINTMARK_ROUTER_DSN": postgres.dsn,
        "MINTMARK_TRUST_FILE": str(tmp_path / "trust.json"),
        "MINTMARK_KEYS_FILE": str(tmp_path / "keys.json"),
        "MINTMARK_GATEWAY_PORT": str(port),
        "MINTMARK_GATEWAY_GRPC_PORT": "0",
        "MINTMARK_GATEWAY_FOLDER": str(tmp_path / "gateway"),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.router.gateway", env=environment, cwd=Path(__file__).parents[2]
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {keys['caller']}"}) as http:
            async with asyncio.timeout(60):
                while True:
                    try:
                        if (await http.get(f"{url}/readyz")).status_code == 200:
                            break
                    except httpx.TransportError:
                        await asyncio.sleep(0.05)
            asked = [asyncio.create_task(http.post(f"{url}/v2/models/{name}/infer", json=BODY)) for _ in range(5)]
            async with asyncio.timeout(10):
                while world.stub.seen[model] < len(asked):
                    await asyncio.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            answers = await asyncio.gather(*asked)
        assert await asyncio.wait_for(process.wait(), 10) == 0
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.headers["connection"] for answer in answers} == {"close"}
        assert len(await world.rows(name)) == 5
    finally:
        if process.returncode is None:
            process.kill()
