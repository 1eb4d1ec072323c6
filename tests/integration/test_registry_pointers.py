"""Aliases and stages in time: who moved what, why, and what was where at a moment."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from registry_story import all_of, registry

from shared.events.registry import AssetChanged
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(120)
ASSET = "/registry/v1/assets/model/credit-pd"


async def set_alias(
    client: httpx.AsyncClient, alias: str, version: int, why: str = "because", **headers: str
) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.put(f"{ASSET}/aliases/{alias}", json={"version": version, "reason": why}, headers=named)


async def set_stage(client: httpx.AsyncClient, version: int, stage: str, why: str = "because") -> dict[str, Any]:
    etag = (await client.get(f"{ASSET}/versions/{version}/stage")).headers["etag"]
    body, headers = {"stage": stage, "reason": why}, {"if-match": etag}
    answer = await client.put(f"{ASSET}/versions/{version}/stage", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    move: dict[str, Any] = answer.json()
    return move


async def a_moment() -> str:
    """Now, with time before and after it."""
    await asyncio.sleep(0.02)
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    await asyncio.sleep(0.02)
    return now


async def test_an_alias_is_a_log(installation: Installation) -> None:
    async with registry(installation) as it:
        await it.models(3)
        client, start = it.client, await a_moment()
        first = await set_alias(client, "champion", 1, "first of its kind", if_none_match="*")
        assert first.status_code == 200 and first.json()["revision"] == 1
        with_one = await a_moment()
        second = await set_alias(client, "champion", 2, "two points of AUC more", if_match=first.headers["etag"])
        with_two = await a_moment()
        third = await set_alias(client, "champion", 3, if_match=second.headers["etag"])
        rolled = await client.post(f"{ASSET}/aliases/champion/rollback", json={"reason": "complaints"})
        assert (rolled.json()["before"], rolled.json()["after"]) == (3, 2)
        after_rollback = await a_moment()
        query = {"reason": "no longer needed"}
        removed = await client.delete(
            f"{ASSET}/aliases/champion", params=query, headers={"if-match": rolled.headers["etag"]}
        )
        assert removed.status_code == 200 and third.status_code == 200

        async def at(moment: str) -> Any:
            answer = await client.get(f"{ASSET}/aliases/champion", params={"at": moment})
            return answer.json()["after"] if answer.status_code == 200 else answer.status_code

        assert [await at(moment) for moment in (start, with_one, with_two, after_rollback)] == [404, 1, 2, 2]
        assert (await client.get(f"{ASSET}/aliases/champion")).status_code == 404
        many = (await client.get(f"{ASSET}/aliases", params={"at": with_two})).json()["items"]
        assert [(move["alias"], move["after"]) for move in many] == [("champion", 2)]
        assert (await client.get(f"{ASSET}/aliases")).json()["items"] == []

        page = (await client.get(f"{ASSET}/aliases/champion/history?page_size=3")).json()
        rest = (
            await client.get(f"{ASSET}/aliases/champion/history?page_size=3&page_token={page['next_page_token']}")
        ).json()
        moves = [(move["before"], move["after"], move["reason"]) for move in page["items"] + rest["items"]]
        assert moves == [
            (2, None, "no longer needed"),
            (3, 2, "complaints"),
            (2, 3, "because"),
            (1, 2, "two points of AUC more"),
            (None, 1, "first of its kind"),
        ]
        assert page["items"][0]["who"] == {"id": "user:ada", "proven": True}
        changes = await eventually(lambda: installation.events(AssetChanged), lambda seen: len(seen) == 5)
        assert [(change.name, change.before, change.after) for change in changes][:2] == [
            ("champion", None, 1),
            ("champion", 1, 2),
        ]
        # Removed, it may be rolled back, too.
        again = await client.post(f"{ASSET}/aliases/champion/rollback", json={"reason": "it was needed"})
        assert again.json()["after"] == 2


async def test_nobodys_move_is_lost(installation: Installation) -> None:
    viewer = installation.key("user:vera", "viewer")
    async with registry(installation) as it:
        await it.models(2)
        client = it.client
        unconditional = await set_alias(client, "champion", 1)
        assert (unconditional.status_code, unconditional.json()["code"]) == (428, "precondition-required")
        assert (await set_alias(client, "champion", 1, if_match='"made-up"')).status_code == 412
        assert (await set_alias(client, "champion", 1, if_match="*")).status_code == 412
        racing = await all_of(*(set_alias(client, "champion", 1 + n % 2, if_none_match="*") for n in range(6)))
        assert sorted(answer.status_code for answer in racing) == [200] + [412] * 5
        etag = (await client.get(f"{ASSET}/aliases/champion")).headers["etag"]
        now = (await client.get(f"{ASSET}/aliases/champion")).json()["after"]
        racing = await all_of(*(set_alias(client, "champion", 3 - now, if_match=etag) for _ in range(6)))
        assert sorted(answer.status_code for answer in racing) == [200] + [412] * 5
        history = (await client.get(f"{ASSET}/aliases/champion/history")).json()["items"]
        assert [move["revision"] for move in history] == [2, 1]

        same = await set_alias(client, "champion", 3 - now, if_match="*")
        assert same.status_code == 200 and same.json()["revision"] == 2  # where it points already nothing is logged
        assert (await set_alias(client, "champion", 9, if_match="*")).status_code == 404
        for name, code in (("latest", "alias-refused"), ("v1", "alias-refused"), ("7", "alias-refused")):
            assert (await set_alias(client, name, 1, if_none_match="*")).json()["code"] == code
        for name in ("a b", "x" * 200, "ünïcode", "-x", "a%00b"):
            assert (await set_alias(client, name, 1, if_none_match="*")).status_code == 422
        for body in (
            {"version": 1},
            {"version": 1, "reason": " "},
            {"version": "1", "reason": "x"},
            {"version": 1, "reason": "x", "b": 1},
        ):
            answer = await client.put(f"{ASSET}/aliases/champion", json=body, headers={"if-match": "*"})
            assert answer.status_code == 422, body
        assert (await client.get(f"{ASSET}/aliases/champion?at=yesterday")).status_code == 422
        assert (await client.get(f"{ASSET}/aliases/champion?at=2026-01-01T00:00:00")).status_code == 422
        async with installation.client("registry", viewer) as reader:
            assert (await set_alias(reader, "champion", 1, if_match="*")).status_code == 403
            assert (await reader.get(f"{ASSET}/aliases/champion")).status_code == 200
        nothing = await client.post(f"{ASSET}/aliases/other/rollback", json={"reason": "x"})
        assert (nothing.status_code, nothing.json()["code"]) == (409, "nothing-before")


async def test_what_was_production_at_a_time(installation: Installation) -> None:
    async with registry(installation) as it:
        await it.models(3)
        client, start = it.client, await a_moment()
        assert (await client.get(f"{ASSET}/production")).status_code == 404
        await set_stage(client, 1, "staging")
        await set_stage(client, 1, "production", "the first")
        with_one = await a_moment()
        await set_stage(client, 2, "production", "better")
        with_two = await a_moment()
        stages = [version["stage"] for version in (await client.get(f"{ASSET}/versions")).json()["items"]]
        assert stages == ["development", "production", "monitoring"]
        rolled = await client.post(f"{ASSET}/production/rollback", json={"reason": "it drifted"})
        assert rolled.status_code == 200 and rolled.json()["version"] == 1

        async def at(moment: str | None) -> Any:
            answer = await client.get(f"{ASSET}/production", params={"at": moment} if moment else {})
            return answer.json()["version"] if answer.status_code == 200 else answer.status_code

        assert [await at(moment) for moment in (start, with_one, with_two, None)] == [404, 1, 2, 1]
        assert (await client.get(ASSET)).json()["production"] == 1
        why = (await client.get(f"{ASSET}/production", params={"at": with_two})).json()
        assert (why["reason"], why["who"]["id"]) == ("better", "user:ada")
        history = (await client.get(f"{ASSET}/versions/1/stage/history")).json()["items"]
        assert [move["after"] for move in history] == ["production", "monitoring", "production", "staging"]
        assert history[1]["reason"] == "version 2 took its place: better"
        # The newest move wins over If-Match of an older state.
        stale = await client.put(
            f"{ASSET}/versions/1/stage", json={"stage": "retired", "reason": "x"}, headers={"if-match": '"old"'}
        )
        assert stale.status_code == 412
        assert (await client.put(f"{ASSET}/versions/1/stage", json={"stage": "x", "reason": "x"})).status_code == 422
        await set_stage(client, 3, "retired")
        etag = (await client.get(f"{ASSET}/versions/3/stage")).headers["etag"]
        back = await client.put(
            f"{ASSET}/versions/3/stage", json={"stage": "production", "reason": "x"}, headers={"if-match": etag}
        )
        assert (back.status_code, back.json()["code"]) == (409, "stage-refused")
        changes = await eventually(lambda: installation.events(AssetChanged), lambda seen: len(seen) == 7)
        assert {change.change for change in changes} == {"stage"}
        found = (await client.get("/registry/v1/search?stage=production")).json()["items"]
        assert [version["version"] for version in found] == [1]
