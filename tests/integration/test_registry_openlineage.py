"""Our lineage told to an OpenLineage server: all of it, in order, at least once, whatever becomes of either side."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest
from registry_story import ROWS, Registry, a_dataset, a_model, model_bytes, registry
from test_registry_lineage import the_road

from services.registry.openlineage import worker
from shared.events.upstream import DatasetVersion, Training
from shared.testing.installation import Installation, eventually
from tests.faults.world import Process

pytestmark = pytest.mark.timeout(120)


@dataclass
class Marquez:
    """A server that OpenLineage events are posted to; it answers as it is told to."""

    url: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    authorization: set[str | None] = field(default_factory=set)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                headers = {
                    name.lower(): value
                    for name, _, value in (line.partition(": ") for line in head.decode().split("\r\n")[1:])
                }
                event = json.loads(await reader.readexactly(int(headers["content-length"])))
                self.authorization.add(headers.get("authorization"))
                status = self.answers.pop(0) if self.answers else 201
                if status < 300:
                    self.events.append(event)
                writer.write(b"HTTP/1.1 %d x\r\ncontent-length: 0\r\n\r\n" % status)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def jobs(self) -> list[str]:
        return [event["job"]["name"] for event in self.events]


@asynccontextmanager
async def marquez(*answers: int) -> AsyncIterator[Marquez]:
    found = Marquez(answers=list(answers))
    server = await asyncio.start_server(found.answer, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api/v1/lineage"
    try:
        yield found
    finally:
        server.close()


async def a_trained_model(it: Registry, name: str = "credit-pd", number: int = 0) -> Any:
    await it.upload(ROWS, model_bytes(number))
    census = await it.register(a_dataset())
    training = Training(dataset=DatasetVersion(urn=census.urn, version=1), base=("mm:model/older",))
    return census, await it.register(a_model(name, model_bytes(number), training=training))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOK_S", "LONGEST_WAIT_S"):
        monkeypatch.setattr(f"services.registry.openlineage.worker.{name}", 0.05)


async def test_the_road_is_told_in_order_to_a_server_that_fails_now_and_then(installation: Installation) -> None:
    async with (
        marquez(503, 201, 500, 429) as server,
        registry(installation, openlineage_url=server.url, openlineage_api_key="theirs") as it,
    ):
        census, asset = await a_trained_model(it)
        made = await the_road(it, asset, census)
        wanted = {
            "registration/credit-pd", "run/x", "evaluation/credit-pd", "gate/credit-pd", "approval/credit-pd",
            "approval/census", "deployment/credit-pd", "group/live", "waiver/credit-pd",
        }  # fmt: skip

        async def look() -> list[str]:
            return server.jobs()

        await eventually(look, lambda found: wanted <= set(found), what="every job")
        by_job = {event["job"]["name"]: event for event in server.events}
        registration = by_job["registration/credit-pd"]
        assert server.jobs()[0] == "registration/credit-pd", "what came first is told first"
        assert [one["name"] for one in registration["inputs"]] == ["mm:dataset/census@1", "mm:model/older"]
        (output,) = registration["outputs"]
        assert output["namespace"] == "mintmark://default" and output["name"] == str(asset)
        assert output["facets"]["datasetType"]["datasetType"] == "MODEL"
        assert output["facets"]["mintmark"]["urn"] == asset.urn
        gate = by_job["gate/credit-pd"]
        assert {one["name"] for one in gate["inputs"]} == {str(asset), made["evaluation"]}
        assert str(UUID(gate["run"]["runId"])) == made["gate"].removeprefix("gate:")
        assert gate["run"]["facets"]["mintmark"]["label"] == "gate: pass"
        failed = [event for event in server.events if event["eventType"] == "FAIL"]
        assert [event["run"]["facets"]["mintmark"]["details"]["code"] for event in failed] == ["timeout"]
        assert server.authorization == {"Bearer theirs"} and server.answers == []

        # The same for whoever asks; a stranger gets nothing of it.
        pulled = (await it.client.get("/registry/v1/lineage/openlineage")).json()
        assert {event["job"]["name"] for event in pulled["events"]} >= wanted
        again = await it.client.get("/registry/v1/lineage/openlineage", params={"since": pulled["since"]})
        assert again.json() == {"events": [], "since": pulled["since"]}
        for bad in ("x", pulled["since"][:-3]):
            assert (await it.client.get("/registry/v1/lineage/openlineage", params={"since": bad})).status_code == 422


async def test_an_event_that_is_always_refused_does_not_hold_up_the_rest(installation: Installation) -> None:
    async with marquez(*[400] * 5) as server, registry(installation, openlineage_url=server.url) as it:
        await a_trained_model(it)
        await a_trained_model(it, "second", 1)

        async def look() -> list[str]:
            return server.jobs()

        await eventually(look, lambda found: found == ["registration/second"], what="the second one")


async def test_a_server_that_was_away_long_loses_no_event_at_its_first_refusal(installation: Installation) -> None:
    async with marquez(*[503] * 6, 422) as server, registry(installation, openlineage_url=server.url) as it:
        await a_trained_model(it)
        await eventually(lambda: asyncio.sleep(0, server.jobs()), bool, what="the event")
        assert server.jobs() == ["registration/credit-pd"] and server.answers == []


@pytest.mark.parametrize("status", [301, 401, 403, 404])
async def test_a_key_that_ended_and_a_wrong_address_lose_no_event(installation: Installation, status: int) -> None:
    async with (
        marquez(*[status] * (worker.MOST_REFUSALS + 1)) as server,
        registry(installation, openlineage_url=server.url) as it,
    ):
        await a_trained_model(it)
        await eventually(lambda: asyncio.sleep(0, server.jobs()), bool, what="the event")
        assert server.jobs() == ["registration/credit-pd"] and server.answers == []


def test_the_wait_for_a_server_ends_growing() -> None:
    assert worker.wait_s(1_000_000) == worker.LONGEST_WAIT_S


async def test_the_order_is_that_of_commits_in_pages_of_any_size(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transaction 10 comes after 9, and no page ends in the middle of an event."""
    monkeypatch.setattr("services.registry.openlineage.handlers.PAGE", 3)
    async with registry(installation) as it:
        db = await asyncpg.connect(
            installation.dsn("registry"), server_settings={"search_path": "registry", "mintmark.workspace": "default"}
        )
        for xid in (10, 9, 100, 11):
            await db.execute(
                "INSERT INTO edge (workspace, source, association, destination, since, event_id, xid) "
                "SELECT 'default', 'mm:dataset/d-' || n || '@1', 'ContributedTo', 'run:' || $1, now(), 'e' || $1, "
                "$1::text::xid8 FROM generate_series(1, 2) n",
                str(xid),
            )
        await db.close()
        told: list[dict[str, Any]] = []
        since: dict[str, str] = {}
        while True:
            page = (await it.client.get("/registry/v1/lineage/openlineage", params=since)).json()
            if not page["events"]:
                break
            told, since = told + page["events"], {"since": page["since"]}
        words = [event["run"]["facets"]["mintmark"]["node"] for event in told]
        assert words == ["run:9", "run:10", "run:11", "run:100"]
        assert all(len(event["inputs"]) == 2 for event in told)


async def test_killed_between_telling_and_remembering_it_tells_again(installation: Installation) -> None:
    async with marquez() as server:
        key = installation.key("user:ada", "owner")
        await installation.make_topics()
        environment = {**installation.environment(), "MINTMARK_REGISTRY_OPENLINEAGE_URL": server.url}
        process = Process(("registry",), environment, installation.folder / "logs")
        await process.start("worker.between")
        await process.ready()
        async with httpx.AsyncClient(base_url=process.url, headers={"authorization": f"Bearer {key}"}) as client:
            client.headers["content-type"] = "application/json"
            await a_trained_model(Registry(installation, key, client))
        assert await process.ended(30), process.log
        assert server.jobs() == ["registration/credit-pd"]
        # The lease of the dead one runs out: nobody waits for it here.
        db = await asyncpg.connect(installation.dsn("registry"), server_settings={"search_path": "registry"})
        await db.execute("SELECT set_config('mintmark.workspace', '*', false)")
        await db.execute("UPDATE openlineage_cursor SET due_at = now()")
        try:
            async with registry(installation, openlineage_url=server.url):  # nobody kills this one

                async def look() -> list[str]:
                    return server.jobs()

                await eventually(look, lambda found: found == ["registration/credit-pd"] * 2, what="the same again")
                told = await eventually(
                    lambda: db.fetchval("SELECT told FROM openlineage_cursor"),
                    lambda found: found == 1,
                    what="the cursor",
                )
                assert told == 1 and len({event["run"]["runId"] for event in server.events}) == 1
        finally:
            await db.close()
