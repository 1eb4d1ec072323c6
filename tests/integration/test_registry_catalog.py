"""Titles, metadata that changes beside immutable versions, and versions that are hidden."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from registry_story import Registry, a_model, all_of, model_bytes, registry

from shared.events.base import Actor
from shared.events.names import name_of
from shared.events.registry import AssetChanged, AssetRegistered
from shared.events.router import Arm, GroupChanged
from shared.ids import digest_of
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(120)
HERE = "/registry/v1/assets/model/credit-pd"


async def etag_of(it: Registry, path: str) -> str:
    answer = await it.client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.headers["etag"]


async def changed(it: Registry, path: str, **body: Any) -> dict[str, Any]:
    answer = await it.client.patch(path, json=body, headers={"if-match": await etag_of(it, path)})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_what_is_said_of_a_version_changes_and_the_version_stays(installation: Installation) -> None:
    async with registry(installation) as it:
        await it.upload(model_bytes())
        ref = await it.register(a_model(tags={"team": "labour", "old": "1"}, description="first"))
        path = f"{HERE}/versions/1"
        before = await etag_of(it, path)
        view = await changed(
            it, path, description="second words", tags={"team": "risk", "old": None, "new": ""}, reason="why not"
        )
        assert view["tags"] == {"team": "risk", "new": ""} and view["revision"] == 1
        assert (await it.client.patch(path, json={"description": "x"})).status_code == 428
        stale = await it.client.patch(path, json={"description": "x"}, headers={"if-match": before})
        assert stale.status_code == 412

        found = (await it.client.get(path)).json()
        assert (found["description"], found["tags"]) == ("second words", {"team": "risk", "new": ""})
        assert found["digest"] == ref.digest and found["updated_at"] > found["registered_at"]
        log = (await it.client.get(f"{path}/metadata/history")).json()["items"]
        assert {(change["field"], change["before"], change["after"]) for change in log} == {
            ("description", "first", "second words"),
            ("tag:team", "labour", "risk"),
            ("tag:old", "1", None),
            ("tag:new", None, ""),
        }
        assert {change["who"]["id"] for change in log} == {"user:ada"} and {change["reason"] for change in log} == {
            "why not"
        }

        # Search follows, and the log cannot be rewritten.
        for query, count in (("tag.team=risk", 1), ("tag.team=labour", 0), ("tag.old=1", 0), ("q=words", 1)):
            assert len((await it.client.get(f"/registry/v1/search?{query}")).json()["items"]) == count, query
        said = await eventually(lambda: installation.events(AssetChanged), lambda seen: len(seen) == 4)
        assert {event.change for event in said} == {"metadata"} and {event.version for event in said} == {1}
        connection = await asyncpg.connect(installation.dsn("registry"))
        try:
            with pytest.raises(asyncpg.RestrictViolationError):
                await connection.execute("UPDATE registry.metadata_change SET after = NULL")
        finally:
            await connection.close()


async def test_an_asset_has_a_title_that_nobody_else_can_take(installation: Installation) -> None:
    title = "Credit PD (v2) 💶"
    async with registry(installation) as it:
        await it.upload(*(model_bytes(number) for number in range(4)))
        ref = await it.register(a_model(name_of(title), title=title))
        again = await it.register(a_model(name_of(title), model_bytes(1), title=title))
        assert ref.urn == again.urn == f"mm:model/{name_of(title)}" and again.version == 2
        found = (await it.client.get("/registry/v1/assets/model", params={"title": title})).json()
        assert (found["urn"], found["title"], found["versions"]) == (ref.urn, title, 2)
        by_name = (await it.client.get("/registry/v1/assets/model", params={"title": ref.name})).json()
        assert by_name["urn"] == ref.urn
        assert (await it.client.get("/registry/v1/assets/model?title=nobody")).status_code == 404

        wrong = await it.submit(a_model("some-other-name", model_bytes(2), title=title))
        assert (wrong["state"], wrong["code"]) == ("refused", "invalid")
        await it.register(a_model("plain", model_bytes(2)))
        taken = await it.client.patch(
            "/registry/v1/assets/model/plain",
            json={"title": title},
            headers={"if-match": await etag_of(it, "/registry/v1/assets/model/plain")},
        )
        assert taken.status_code == 409 and taken.json()["code"] == "name-taken"
        nowhere = await it.client.patch("/registry/v1/assets/model/plain", json={"title": ".."})
        assert nowhere.status_code == 422 and "in a URL that means a folder" in nowhere.text

        # Called otherwise, it keeps its URN; its first title's name stays taken by it.
        view = await changed(it, f"/registry/v1/assets/model/{ref.name}", title="Credit PD", tags={"team": "risk"})
        assert (view["urn"], view["title"]) == (ref.urn, "Credit PD")
        for name, count in (("Credit PD", 2), (ref.name, 2), (title, 0)):
            answer = await it.client.get("/registry/v1/search", params={"name": name})
            assert len(answer.json()["items"]) == count, name
        refused = await it.submit(a_model(name_of(title), model_bytes(3), title=title))
        assert (refused["state"], refused["code"]) == ("refused", "name-taken")
        # The same words in other cases are other titles with other names.
        upper, lower = name_of("Fraud"), name_of("fraud")
        assert upper != lower
        refs = await all_of(
            it.register(a_model(upper, model_bytes(3), title="Fraud")), it.register(a_model(lower, model_bytes(3)))
        )
        assert [ref.version for ref in refs] == [1, 1]


async def test_a_yanked_version_is_hidden_and_its_number_is_never_given_again(installation: Installation) -> None:
    async with registry(installation) as it:
        refs = await it.models(3)
        last = f"{HERE}/versions/3"
        reason = {"reason": "trained on the wrong year"}
        assert (await it.client.post(f"{last}/yank", json=reason)).status_code == 428
        answer = await it.client.post(f"{last}/yank", json=reason, headers={"if-match": await etag_of(it, last)})
        assert answer.status_code == 200 and answer.json()["yanked_at"]
        again = await it.client.post(f"{last}/yank", json=reason, headers={"if-match": answer.headers["etag"]})
        assert again.status_code == 409 and again.json()["code"] == "yanked"

        listed = (await it.client.get(f"{HERE}/versions")).json()["items"]
        assert [version["version"] for version in listed] == [2, 1]
        assert (await it.client.get(HERE)).json()["newest"]["version"] == 2
        for query in ("kind=model", "name=credit-pd", ""):
            found = (await it.client.get(f"/registry/v1/search?{query}")).json()["items"]
            assert [version["version"] for version in found] == [2, 1]
        shown = (await it.client.get(last)).json()
        assert shown["yanked_at"] and shown["undeployable"] == "it was yanked"
        alias = await it.client.put(
            f"{HERE}/aliases/best", json={"version": 3, "reason": "x"}, headers={"if-none-match": "*"}
        )
        assert alias.status_code == 409 and alias.json()["code"] == "yanked"
        await it.upload(model_bytes(9))
        assert (await it.register(a_model(data=model_bytes(9)))).version == 4
        (said,) = await eventually(lambda: installation.events(AssetChanged), lambda seen: len(seen) == 1)
        assert (said.change, said.version, said.reason) == ("yanked", 3, reason["reason"])
        assert refs[2].version == 3


async def test_what_is_in_use_is_not_yanked_and_its_users_are_named(installation: Installation) -> None:
    async with registry(installation) as it:
        (first, second) = await it.models(2)
        await it.client.put(f"{HERE}/aliases/best", json={"version": 1, "reason": "x"}, headers={"if-none-match": "*"})
        stage = await etag_of(it, f"{HERE}/versions/1/stage")
        await it.client.put(
            f"{HERE}/versions/1/stage", json={"stage": "production", "reason": "x"}, headers={"if-match": stage}
        )
        change = GroupChanged(
            group="credit",
            revision=1,
            arms=(Arm(asset=first, role="champion", weight_bp=10_000),),
            actor=Actor(id="user:bob", proven=True),
            at=datetime.now(UTC),
        )
        await installation.publish(change)

        async def refused() -> dict[str, Any]:
            path = f"{HERE}/versions/1"
            headers = {"if-match": await etag_of(it, path)}
            answer = await it.client.post(f"{path}/yank", json={"reason": "x"}, headers=headers)
            assert answer.status_code == 409 and answer.json()["code"] == "in-use"
            found: dict[str, Any] = answer.json()
            return found

        users = await eventually(refused, lambda found: len(found["used_by"]) == 3)
        assert users["used_by"] == ["stage production", "alias best", "group credit"]
        assert second.version == 2


VENDOR = {
    "type": "vendor-model",
    "provider": "openai",
    "model": "gpt-9-mini",
    "price": {"input": "0.15", "output": "0.60"},
    "context_tokens": 128_000,
    "regions": ["eu-central-1"],
    "end_of_life": "2027-06-30",
    "domains": ["support"],
}
EMBEDDER = {"type": "embedder", "dimension": 384, "tokenizer": "bert", "distance": "cosine"}


async def test_each_kind_has_details_of_its_own(installation: Installation) -> None:
    async with registry(installation) as it:
        await it.upload(model_bytes())
        plain = await it.register(a_model("plain"))
        for kind, details in (("vendor-model", VENDOR), ("embedder", EMBEDDER)):
            ref = await it.register(a_model("typed", kind=kind, artefact=None, details=details))
            found = (await it.client.get(f"/registry/v1/assets/{kind}/typed/versions/1")).json()
            kept = found["content"]["details"]
            assert details.items() <= {**kept, "price": details.get("price")}.items()
            assert found["digest"] == ref.digest == digest_of(found["content"])
        said = await eventually(lambda: installation.events(AssetRegistered), lambda seen: len(seen) == 3)
        assert [event.details and event.details.type for event in said] == [None, "vendor-model", "embedder"]
        content = (await it.client.get("/registry/v1/assets/model/plain/versions/1")).json()["content"]
        assert "details" not in content and plain.digest == digest_of(content)
        submission = json.loads(a_model("wrong").model_dump_json())
        for wrong in (VENDOR, {"type": "model", "domains": ["No Spaces"]}, {"type": "embedder"}, {"type": "spaceship"}):
            answer = await it.client.post("/registry/v1/submissions", json={**submission, "details": wrong})
            assert answer.status_code == 422, wrong
