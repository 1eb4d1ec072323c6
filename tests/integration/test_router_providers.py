"""Providers and their keys: set once, changed, never shown; groups that name a provider instead of a deployment."""

from __future__ import annotations

import base64
import json
import logging
import secrets
from typing import Any

import asyncpg
import httpx
import pytest
from router_story import asset, decided, deploy, named, statement

from services.router.gateway.sealing import Belonging, FileMasterKey, Sealed, Sealer
from shared.events.base import AssetRef
from shared.events.router import GroupChanged, GroupPromoted, ProviderChanged
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(120)
PROVIDERS = "/router/v1/providers"
GROUPS = "/router/v1/groups"
KEY = "sk-live-0123456789abcdef"
ACME: dict[str, Any] = {
    "name": "acme",
    "kind": "openai-compatible",
    "base_url": "http://127.0.0.1:9/v1",
    "model": "big",
}


def vendor(number: int) -> AssetRef:
    return asset(number, "tumour").model_copy(update={"urn": "mm:vendor-model/assistant"})


def at(ref: AssetRef, provider: str = "acme", **more: str) -> dict[str, Any]:
    return {**named(ref), "upstream": {"provider": provider, **more}}


async def approve(installation: Installation, of: AssetRef) -> None:
    await installation.publish(decided(of, "approved", statement(installation, of)), source="mintmark/policy")


async def until_approved(client: httpx.AsyncClient, name: str, champion: dict[str, Any]) -> httpx.Response:
    """Make a group once the approval of its champion was heard."""
    return await eventually(
        lambda: client.post(GROUPS, json={"name": name, "champion": champion}),
        lambda answer: answer.status_code != 403,
        what="the approval",
    )


async def until_said(installation: Installation, count: int) -> list[ProviderChanged]:
    async def look() -> list[ProviderChanged]:
        return await installation.events(ProviderChanged)

    return await eventually(look, lambda found: len(found) >= count, what="provider.changed")


async def everything(installation: Installation) -> str:
    """All that Postgres holds of the router, as text."""
    connection = await asyncpg.connect(installation.backing.dsn(installation.database))
    try:
        names = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'router'")
        found = [
            str(await connection.fetch(f'SELECT t::text AS row FROM router."{row["tablename"]}" t')) for row in names
        ]
    finally:
        await connection.close()
    return "\n".join(found)


async def test_a_key_is_set_and_never_shown(installation: Installation, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    operator = installation.key("user:otto", "operator")
    viewer = installation.key("user:vera", "viewer")
    neighbour = installation.key("user:nina", "owner", workspace="other")
    await installation.start("router")
    said: list[str] = []
    async with installation.client("router", operator) as client:

        async def ask(method: str, path: str, **more: Any) -> httpx.Response:
            answer = await client.request(method, path, **more)
            said.append(answer.text + str(answer.headers))
            return answer

        made = await ask("POST", PROVIDERS, json=ACME)
        assert (made.status_code, made.json()["key"], made.headers["etag"]) == (201, None, '"1"'), made.text
        assert (await ask("POST", PROVIDERS, json=ACME)).json()["code"] == "provider-name-taken"
        put = await ask("PUT", f"{PROVIDERS}/acme/key", json={"key": KEY})
        assert (put.status_code, put.json()["key"]["set_by"]) == (200, "user:otto"), put.text
        # what is wrong is said without what was sent
        for body in (
            {"key": KEY + "\n"},
            {"key": KEY, "more": KEY},
            {"key": [KEY]},
            {"keys": KEY},
            {"key": KEY * 1000},
        ):
            wrong = await ask("PUT", f"{PROVIDERS}/acme/key", json=body)
            assert wrong.status_code == 422, wrong.text
        assert (await ask("PUT", f"{PROVIDERS}/acme/key", content=f'{{"key": "{KEY}"')).status_code in (400, 422)
        assert (await ask("PUT", f"{PROVIDERS}/nobody/key", json={"key": KEY})).json()["code"] == "unknown-provider"
        assert (await ask("POST", PROVIDERS, json={**ACME, "name": "b", "key": KEY})).status_code == 422
        assert (await ask("GET", f"{PROVIDERS}/acme")).json() == put.json()
        assert (await ask("GET", PROVIDERS)).json()["items"] == [put.json()]

        # the sealed key opens with the master key, for this provider of this workspace alone
        async with installation.services["router"].database.begin("default") as tx:
            sealed = Sealed.from_json(await tx.connection.fetchval("SELECT sealed FROM provider"))
        master = installation.folder / "master-key.json"
        assert Sealer(FileMasterKey(master)).open(sealed, Belonging("default", "acme")).reveal() == KEY

        # another master key: what is stored is wrapped anew, and the old one may go
        keys = json.loads(master.read_text())["keys"]
        keys["2"] = base64.b64encode(secrets.token_bytes(32)).decode()
        master.write_text(json.dumps({"current": "2", "keys": keys}))
        assert (await ask("POST", f"{PROVIDERS}:rewrap")).json() == {"keys": 1}
        master.write_text(json.dumps({"current": "2", "keys": {"2": keys["2"]}}))
        async with installation.services["router"].database.begin("default") as tx:
            again = Sealed.from_json(await tx.connection.fetchval("SELECT sealed FROM provider"))
        assert (again.master, again.ciphertext) == ("2", sealed.ciphertext)
        assert Sealer(FileMasterKey(master)).open(again, Belonging("default", "acme")).reveal() == KEY

        # changed at the same address it keeps its key; at another it does not
        same = {**{k: v for k, v in ACME.items() if k != "name"}, "max_tokens": 100, "expected_revision": 1}
        changed = await ask("PUT", f"{PROVIDERS}/acme", json=same)
        assert (changed.json()["revision"], changed.json()["key"] is not None) == (2, True), changed.text
        assert (await ask("PUT", f"{PROVIDERS}/acme", json=same)).json()["code"] == "revision-conflict"
        moved = {**same, "base_url": "http://127.0.0.1:10/v1", "expected_revision": 2}
        assert (await ask("PUT", f"{PROVIDERS}/acme", json=moved)).json()["key"] is None
        assert (await ask("DELETE", f"{PROVIDERS}/acme")).status_code == 204
        assert (await ask("DELETE", f"{PROVIDERS}/acme")).json()["code"] == "unknown-provider"
        assert (await ask("POST", PROVIDERS, json=ACME)).status_code == 201
    async with installation.client("router", viewer) as client:
        assert (await client.get(f"{PROVIDERS}/acme")).status_code == 200
        assert (await client.put(f"{PROVIDERS}/acme/key", json={"key": KEY})).status_code == 403
        assert (await client.post(PROVIDERS, json={**ACME, "name": "b"})).status_code == 403
    async with installation.client("router", neighbour) as client:
        assert (await client.get(f"{PROVIDERS}/acme")).json()["code"] == "unknown-provider"
        assert (await client.get(PROVIDERS)).json()["items"] == []
    told = await until_said(installation, 7)
    assert [(one.change, one.revision, one.has_key) for one in told] == [
        ("created", 1, False), ("key_set", 1, True), ("key_rewrapped", 1, True), ("changed", 2, True),
        ("changed", 3, False), ("removed", 3, False), ("created", 1, False),
    ]  # fmt: skip
    assert {one.actor.id for one in told} == {"user:otto"}
    assert [one.base_url for one in told][3:5] == ["http://127.0.0.1:9/v1", "http://127.0.0.1:10/v1"]
    said += [str(record.value) for record in await installation.records(ProviderChanged.topic.name)]
    text = "\n".join([*said, await everything(installation), caplog.text, *(str(vars(one)) for one in caplog.records)])
    assert KEY not in text


async def test_a_configuration_is_read_strictly(installation: Installation) -> None:
    key = installation.key("user:otto", "operator")
    await installation.start("router")
    async with installation.client("router", key) as client:
        for change, field in (
            ({"kind": "magic"}, "kind"), ({"base_url": "ftp://x"}, "base_url"), ({"base_url": None}, "base_url"),
            ({"base_url": "http://user:secret@x/"}, "base_url"), ({"base_url": "http://2130706433/"}, "base_url"),
            ({"kind": "bedrock", "base_url": None, "region": "moon"}, "region"), ({"key_header": "host"}, "key_header"),
            ({"name": "A b"}, "name"),
        ):  # fmt: skip
            answer = await client.post(PROVIDERS, json={**ACME, **change})
            assert (answer.status_code, answer.json()["field"]) == (422, field), (change, answer.text)
            assert "secret@" not in answer.text
        for base in ("http://169.254.169.254/", "http://10.0.0.1/", "http://[::ffff:10.0.0.1]/"):
            answer = await client.post(PROVIDERS, json={**ACME, "base_url": base})
            assert (answer.status_code, answer.json()["code"]) == (422, "address-refused"), answer.text


async def test_a_group_names_a_provider_for_an_approved_version(installation: Installation) -> None:
    key = installation.key("user:otto", "owner")
    await installation.start("router")
    one, two, three, four = (vendor(number) for number in range(1, 5))
    async with installation.client("router", key) as client:
        assert (await client.post(PROVIDERS, json=ACME)).status_code == 201
        bare = {**ACME, "name": "bare", "model": None}
        assert (await client.post(PROVIDERS, json=bare)).status_code == 201
        early = await client.post(GROUPS, json={"name": "chat", "champion": at(one)})
        assert (early.status_code, early.json()["code"]) == (403, "not-approved")
        for version in (two, three, one):  # heard in this order
            await approve(installation, version)
        made = await until_approved(client, "chat", at(one))
        assert made.status_code == 201, made.text
        assert made.json()["hosted"] == [{"asset": one.model_dump(), "provider": "acme", "model": "big"}]
        assert made.json()["evidence"]["champion"]["upstream"] == {"provider": "acme", "model": "big"}
        unknown = await client.post(GROUPS, json={"name": "g", "champion": at(one, "nobody")})
        assert unknown.json()["code"] == "unknown-provider"
        modelless = await client.post(GROUPS, json={"name": "g", "champion": at(one, "bare")})
        assert (modelless.status_code, modelless.json()["field"]) == (422, "model"), modelless.text
        undeployed = await client.post(GROUPS, json={"name": "g", "champion": named(one)})
        assert undeployed.json()["code"] == "not-deployed"

        async def weigh(revision: int, *challengers: dict[str, Any]) -> httpx.Response:
            weights = [{"asset": challenger, "weight_bp": 1000} for challenger in challengers]
            body = {"challengers": weights, "expected_revision": revision}
            return await client.put(f"{GROUPS}/chat/challengers", json=body)

        assert (await weigh(1, at(four))).json()["code"] == "not-approved"
        assert (await weigh(1, at(two, "bare", model="small"))).status_code == 200
        await deploy(installation, client, three)
        assert (await weigh(2, named(two), named(three))).status_code == 200, "a provider's beside a deployed one"
        promoted = await client.post(f"{GROUPS}/chat:promote", json={"asset": named(two), "expected_revision": 3})
        assert promoted.status_code == 200, promoted.text
        assert promoted.json()["unavailable"] is None
        used = await client.delete(f"{PROVIDERS}/bare")
        assert (used.status_code, used.json()["code"]) == (409, "provider-in-use") and "chat" in used.json()["detail"]
        back = await client.post(f"{GROUPS}/chat:rollback", json={})
        assert back.json()["champion"] == one.model_dump()
        assert {host["asset"]["version"] for host in back.json()["hosted"]} == {1, 2}

        await installation.publish(decided(two, "rejected"), source="mintmark/policy")
        await approve(installation, vendor(9))
        assert (await until_approved(client, "other", at(vendor(9)))).status_code == 201
        barred = await client.post(f"{GROUPS}/chat:promote", json={"asset": named(two), "expected_revision": 5})
        assert (barred.status_code, barred.json()["code"]) == (403, "not-approved")
    (event,) = await installation.events(GroupPromoted)
    assert event.evidence["champion"]["upstream"] == {"provider": "bare", "model": "small"}
    assert len(await installation.events(GroupChanged)) == 6
