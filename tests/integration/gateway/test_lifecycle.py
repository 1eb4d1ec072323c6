"""Postgres goes and comes back; the gateway drains."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
from pathlib import Path

import asyncpg
import httpx
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from deploy.local.ports import Ports
from services.router.domain import log_table
from shared.testing.installation import eventually

from .world import BODY, POLICY, Postgres, World, a_version


async def test_while_postgres_is_down_requests_are_503_and_nothing_answered_is_lost(
    world: World, name: str, postgres: Postgres
) -> None:
    await world.make_group(name, await world.deploy(a_version(5)))
    answered: list[str] = []
    refused: list[str] = []
    stop = asyncio.Event()

    async def ask() -> None:
        while not stop.is_set():
            response = await world.infer(name)
            if response.status_code == 200:
                answered.append(response.headers["x-mintmark-request-id"])
            else:
                refused.append(response.json()["code"])
                await asyncio.sleep(0.01)

    async def number_answered() -> int:
        return len(answered)

    askers = [asyncio.create_task(ask()) for _ in range(8)]
    await asyncio.sleep(0.3)
    await asyncio.to_thread(postgres.cluster.stop, "immediate")
    await asyncio.sleep(0.3)
    assert (await world.http.get("/readyz")).status_code == 503
    assert (await world.http.get("/livez")).status_code == 200
    await postgres.restart()
    before = len(answered)
    await eventually(number_answered, lambda number: number >= before + 100, within_s=15)
    stop.set()
    await asyncio.gather(*askers)
    assert set(refused) == {"rows-unavailable"}
    settings = {"search_path": "router", "mintmark.workspace": "*"}
    fresh = await asyncpg.connect(postgres.dsn, server_settings=settings)
    rows = {str(row["request_id"]) for row in await fresh.fetch(f"SELECT request_id FROM {log_table(name)}")}
    await fresh.close()
    assert set(answered) <= rows
    assert len(answered) == len(set(answered))


async def test_sigterm_answers_what_is_in_flight_and_then_the_process_ends(
    world: World, name: str, postgres: Postgres, tmp_path: Path, keys: dict[str, str]
) -> None:
    world.stub.delay_s = 0.5
    await world.make_group(name, await world.deploy(a_version(5), "slow"))
    raw = POLICY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    (tmp_path / "trust.json").write_text(json.dumps({"policy": base64.b64encode(raw).decode()}))
    port = Ports.free().gateway
    environment = {
        **os.environ,
        "MINTMARK_ROUTER_DSN": postgres.dsn,
        "MINTMARK_TRUST_FILE": str(tmp_path / "trust.json"),
        "MINTMARK_KEYS_FILE": str(tmp_path / "keys.json"),
        "MINTMARK_GATEWAY_PORT": str(port),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.router.gateway", env=environment, cwd=Path(__file__).parents[2]
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {keys['caller']}"}) as http:
            async with asyncio.timeout(20):
                while True:
                    try:
                        if (await http.get(f"{url}/readyz")).status_code == 200:
                            break
                    except httpx.TransportError:
                        await asyncio.sleep(0.05)
            asked = [asyncio.create_task(http.post(f"{url}/v2/models/{name}/infer", json=BODY)) for _ in range(5)]
            await asyncio.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            answers = await asyncio.gather(*asked)
        assert await asyncio.wait_for(process.wait(), 10) == 0
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.headers["connection"] for answer in answers} == {"close"}
        assert len(await world.rows(name)) == 5
    finally:
        if process.returncode is None:
            process.kill()
