"""The fetch path: from memory, never older than the last change, sticky where a label is split, counted in batches."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import httpx
import pytest
from prompts_story import World, at, world

from services.prompts.app import build
from services.prompts.fetching.memory import Memory
from shared.db.database import Database
from shared.testing.installation import eventually

__all__ = ["world"]
pytestmark = [pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]


async def fetch(client: httpx.AsyncClient, title: str, label: str = "production", **query: Any) -> httpx.Response:
    return await client.get(at(title), params={"label": label, **query})


def memory_of(world: World) -> Memory:
    return next(worker for worker in world.installation.services["prompts"].workers if isinstance(worker, Memory))


async def live(world: World) -> Memory:
    memory = memory_of(world)

    async def is_live() -> bool:
        return memory.is_live

    await eventually(is_live, bool, what="the memory to be live")
    return memory


async def test_an_unchanged_prompt_is_304_and_comes_from_memory(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.publish("still", labels=["production"])
    memory = await live(world)
    await eventually(lambda: fetch(world.ada, "still"), lambda _: memory.known("default", "still") is not None)
    first = await fetch(world.ada, "still")
    assert first.status_code == 200 and first.json()["labels"] == ["production"]

    async def nothing_is_known(*_: object, **__: object) -> None:
        raise AssertionError("the database was asked")

    monkeypatch.setattr(Database, "begin_with", nothing_is_known)
    again = await fetch(world.ada, "still")
    assert (again.status_code, again.content) == (200, first.content)
    for sent in (first.headers["etag"], f"W/{first.headers['etag']}", f'"other", {first.headers["etag"]}'):
        unchanged = await world.ada.get(at("still"), params={"label": "production"}, headers={"if-none-match": sent})
        assert (unchanged.status_code, unchanged.content) == (304, b"")


async def test_every_change_is_seen_at_once(world: World) -> None:
    """A move's answer may be overtaken by its notice, by milliseconds; another service's change as well."""
    await world.publish("moving", "one", labels=["production"])
    await live(world)
    for number in range(2, 12):
        await world.publish("moving", f"version {number}")
        await world.label("moving", "production", number)

        async def text() -> Any:
            return (await fetch(world.ada, "moving")).json()["content"]["text"]

        await eventually(text, lambda found, number=number: found == f"version {number}")
    await world.publish("moving", "tagged", tags=["new"])

    async def tags() -> Any:
        return (await fetch(world.ada, "moving")).json()["tags"]

    await eventually(tags, lambda found: found == ["new"])


async def test_two_processes_see_each_others_changes(world: World) -> None:
    second = build(world.installation.settings("prompts"))
    await second.database.open()
    other = next(worker for worker in second.workers if isinstance(worker, Memory))
    listening = asyncio.create_task(other.run())
    try:

        async def is_live() -> bool:
            return other.is_live

        await eventually(is_live, bool, what="the second process")
        await world.publish("shared", "one", labels=["production"])
        # What is read before the publication's own notice came is not kept, so the first look may not be it.
        entry = await eventually(
            lambda: other.load("default", "shared"), lambda one: one is other.known("default", "shared")
        )
        assert entry is not None and entry.labels == {"production": 1}
        assert await other.load("other", "shared") is None
        await world.publish("shared", "two", labels=["production"])

        async def known() -> bool:
            return other.known("default", "shared") is entry

        await eventually(known, lambda found: not found)
        entry = await other.load("default", "shared")
        assert entry is not None and entry.labels == {"production": 2}
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await second.database.close()


async def test_without_notices_nothing_in_memory_is_believed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = await live(world)
    await world.publish("deaf", "one", labels=["production"])
    await fetch(world.ada, "deaf")
    monkeypatch.setattr(memory, "_notice", lambda payload: None)
    monkeypatch.setattr(memory, "_heard_at", float("-inf"))
    monkeypatch.setattr(Memory, "is_live", property(lambda self: False))
    await world.publish("deaf", "two", labels=["production"])
    assert (await fetch(world.ada, "deaf")).json()["content"]["text"] == "two"


async def test_a_long_poll_answers_when_the_prompt_changes(world: World) -> None:
    await world.publish("watched", "one", labels=["production"])
    await live(world)
    etag = (await fetch(world.ada, "watched")).headers["etag"]
    request = world.ada.build_request(
        "GET", at("watched"), params={"label": "production", "wait_s": 30}, headers={"if-none-match": etag}
    )
    waiting = asyncio.create_task(world.ada.send(request))
    await world.publish("something else", labels=["production"])
    await asyncio.sleep(0)
    assert not waiting.done()
    await world.publish("watched", "two", labels=["production"])
    changed = await waiting
    assert (changed.status_code, changed.json()["content"]["text"]) == (200, "two")
    unchanged = await world.ada.get(
        at("watched"),
        params={"label": "production", "wait_s": 1},
        headers={"if-none-match": changed.headers["etag"]},
    )
    assert unchanged.status_code == 304


async def test_memory_keeps_workspaces_apart(world: World) -> None:
    await world.publish("same title", "ada's", labels=["production"])
    eve = world.people["eve"]
    assert (await fetch(world.ada, "same title")).status_code == 200
    assert (await fetch(eve, "same title")).status_code == 404
    body = {"text": "eve's", "labels": ["production"]}
    assert (await eve.post(at("same title", "/versions"), json=body)).status_code == 201
    assert (await fetch(eve, "same title")).json()["content"]["text"] == "eve's"
    assert (await fetch(world.ada, "same title")).json()["content"]["text"] == "ada's"
    nobody = world.installation.client("prompts")
    assert (await fetch(nobody, "same title")).status_code == 401
    await nobody.aclose()


async def test_a_prompts_title_comes_before_anothers_name(world: World) -> None:
    first = await world.publish("Under/Name", "by name", labels=["production"])
    await live(world)
    assert (await fetch(world.ada, first["name"])).json()["content"]["text"] == "by name"
    admin = {"text": "by title", "labels": ["production"]}
    langfuse = await world.ada.post(
        "/prompts/api/public/v2/prompts", json={"name": "Under/Name", "prompt": "next", "labels": ["production"]}
    )
    assert langfuse.status_code == 201
    assert (await world.ada.post(at("Under/Name", "/versions"), json=admin)).json()["version"] == 3

    async def text() -> Any:
        return (await fetch(world.ada, first["name"])).json()["content"]["text"]

    await eventually(text, lambda found: found == "by title")


async def test_a_split_is_sticky_and_a_ramp_only_grows(world: World) -> None:
    await world.publish("split", "champion", labels=["production"])
    await world.publish("split", "challenger", labels=["challenger"])
    path = at("split", "/labels/production/split")
    units = [f"user-{number}" for number in range(400)]

    async def served() -> dict[str, str]:
        answers = [await fetch(world.ada, "split", unit=unit) for unit in units]
        for answer in answers:
            label = answer.headers["x-mintmark-label"]
            assert answer.json()["content"]["text"] == ("champion" if label == "production" else "challenger")
        return {unit: answer.headers["x-mintmark-label"] for unit, answer in zip(units, answers, strict=True)}

    async def settled(arms: dict[str, int]) -> dict[str, str]:
        async def shown() -> Any:
            return (await world.ada.get(path)).json()[0]["arms"]

        await eventually(shown, lambda found: found == arms)
        entry = await memory_of(world).load("default", "split")
        assert entry is not None
        return await served()

    assert set((await served()).values()) == {"production"}
    first = await world.ada.put(path, json={"arms": {"challenger": 2_000}, "reason": "begin"})
    assert first.status_code == 200, first.text
    fifth = await settled({"challenger": 2_000})
    assert 40 <= Counter(fifth.values())["challenger"] <= 130
    assert await served() == fifth
    blind = await world.ada.put(path, json={"arms": {"challenger": 5_000}})
    assert blind.status_code == 428
    stale = await world.ada.put(path, json={"arms": {}}, headers={"if-match": '"other"'})
    assert stale.status_code == 412
    tag = first.headers["etag"]
    assert (await world.ada.put(path, json={"arms": {"challenger": 5_000}}, headers={"if-match": tag})).is_success
    half = await settled({"challenger": 5_000})
    assert all(half[unit] == "challenger" for unit in units if fifth[unit] == "challenger")
    assert (await fetch(world.ada, "split")).json()["content"]["text"] == "champion"
    ended = await world.ada.put(path, json={"arms": {}, "reason": "end"}, headers={"if-match": "*"})
    assert ended.json()["arms"] == {}
    assert set((await settled({})).values()) == {"production"}
    assert len((await world.ada.get(path)).json()) == 3
    for arms in ({"production": 1}, {"latest": 1}, {"nowhere": 1}, {"challenger": 0}, {"challenger": 10_001}):
        answer = await world.ada.put(path, json={"arms": arms}, headers={"if-match": "*"})
        assert answer.json()["code"] == "split-refused"


async def test_usage_is_counted_by_application_and_group(world: World) -> None:
    await world.publish("used", labels=["production"])
    before = await world.ada.get(at("used", "/usage"))
    assert before.json() == []
    headers = {"x-mintmark-application": "claims-app", "x-mintmark-group": "claims"}
    for _ in range(5):
        await world.ada.get(at("used"), params={"label": "production"}, headers=headers)
    await world.ada.get(at("used"), params={"version": 1}, headers={"x-mintmark-application": "\x07"})
    await world.ada.get("/prompts/api/public/v2/prompts/used")

    async def usage() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await world.ada.get(at("used", "/usage"))).json()
        return found

    def counted(found: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
        return [(one["version"], one["application"], one["group"], one["fetches"]) for one in found]

    wanted = [(1, "claims-app", "claims", 5), (1, "user:ada", "", 2)]
    await eventually(usage, lambda found: counted(found) == wanted)
    assert (await world.people["eve"].get(at("used", "/usage"))).status_code == 404
