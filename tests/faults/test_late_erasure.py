"""A router that dies of kill -9 while it erases: what was to go goes, also what comes late out of a gateway's spool."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from services.router.domain import log_table
from shared.db.database import EVERY_WORKSPACE, Database
from shared.testing.installation import Installation, eventually
from tests.faults.world import Process
from tests.integration.router_story import SHIPPER, asset, deploy, named, traffic

pytestmark = pytest.mark.timeout(120)
BODY = {"subject": "ada", "reason": "ticket 7"}


async def test_an_erasure_outlives_its_router_and_catches_what_is_in_a_spool_still(
    installation: Installation, tmp_path: Path
) -> None:
    owner = installation.key("user:rita", "owner")
    headers = {"authorization": f"Bearer {owner}"}
    await installation.make_topics()

    async def a_router(crash_at: str | None = None) -> Process:
        made = Process(("router",), installation.environment(), tmp_path)
        started.append(made)
        return await (await made.start(crash_at)).ready()

    started: list[Process] = []
    database = Database(installation.dsn("router"), "router", pool_size=2)
    await database.open()
    try:
        async with traffic(installation, owner, ships=False) as live:
            router = await a_router()
            async with httpx.AsyncClient(base_url=router.url, headers=headers, timeout=20) as client:
                await deploy(installation, client, live.load(asset(1), 3), endpoint=live.server.url)
                made = await client.post("/router/v1/groups", json={"name": "live", "champion": named(asset(1))})
                assert made.status_code == 201, made.text
                await live.until_group("live")
                for row, unit in enumerate(("ada", "bo", "ada", "ada", "bo")):
                    assert (await live.ask("live", row, unit)).status_code == 200

            router.kill()  # the rows are in the gateway's spool, and nowhere else
            router = await a_router("http.committed")
            once = {**headers, "idempotency-key": "ticket-7"}
            async with httpx.AsyncClient(base_url=router.url, headers=once, timeout=20) as client:
                with pytest.raises(httpx.TransportError):
                    await client.post("/router/v1/erasures", json=BODY)
            assert await router.ended(within_s=20) and router.exit_code == -9

            router = await a_router()
            async with httpx.AsyncClient(base_url=router.url, headers=once, timeout=20) as client:
                again = await client.post("/router/v1/erasures", json=BODY)
                assert (again.status_code, again.json()["code"]) == (409, "outcome-unknown"), "it took effect"
                router.kill()
            live.start(SHIPPER)

            async def units() -> list[str]:
                async with database.begin(EVERY_WORKSPACE) as tx:
                    found = await tx.connection.fetch(f"SELECT unit FROM {log_table('live')} ORDER BY received_at")
                return [row["unit"] for row in found]

            await eventually(units, lambda found: found == ["bo", "bo"], what="the others' rows alone")
            async with database.begin(EVERY_WORKSPACE) as tx:
                (kept,) = await tx.connection.fetch("SELECT late_rows, receipt, reason FROM erasure")
            assert (kept["late_rows"], kept["reason"]) == (3, "ticket 7")
            assert kept["receipt"]["envelope"]["signatures"][0]["keyid"] == "router"
    finally:
        await database.close()
        for one in started:
            one.kill()
