"""Prompts: published once, numbered without gaps, labelled with history, and on the same road as every asset."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg
import pytest

from shared.events.prompts import PromptLabelMoved, PromptPublished
from shared.events.registry import AssetRegistered
from shared.http import PageToken
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(120)
PATH = "/prompts/v1/prompts/summary"


async def test_a_published_prompt_lands_in_the_registry_with_its_author(installation: Installation) -> None:
    key = installation.key("user:ada", "publisher")
    await installation.start("prompts", "registry")
    async with installation.client("prompts", key) as http:
        body = {"text": "Summarize {{ text }} in {{n}} words.", "commit_message": "first"}
        made = await http.post(f"{PATH}/versions", json=body, headers={"idempotency-key": "one"})
        again = await http.post(f"{PATH}/versions", json=body, headers={"idempotency-key": "one"})
        assert made.status_code == again.status_code == 201
        assert made.json() == again.json()
        assert sorted(made.json()["content"]["variables"]) == ["n", "text"]
        registered = await installation.wait_for(AssetRegistered, lambda event: event.kind == "prompt")
        assert registered.author.id == "user:ada" and registered.author.proven
        assert registered.artefact.digest == made.json()["digest"]

        async def state() -> Any:
            return (await http.get(PATH)).json()["state"]

        await eventually(state, lambda found: found == "registered")
    assert len(await installation.events(PromptPublished)) == 1


async def test_the_database_itself_keeps_what_was_published(installation: Installation) -> None:
    key = installation.key("user:ada", "owner")
    await installation.start("prompts")
    async with installation.client("prompts", key) as http:
        assert (await http.post(f"{PATH}/versions", json={"text": "Say {{ x }}"})).status_code == 201
        assert (await http.put(f"{PATH}/labels/production", json={"version": 1})).status_code == 200
    admin = await asyncpg.connect(installation.backing.dsn(installation.database))  # whom row-level security passes by
    try:
        for statement in (
            "UPDATE prompts.prompt_version SET content = '{}'",
            "UPDATE prompts.prompt_version SET author = 'user:mallory', state = 'registered'",
            "DELETE FROM prompts.prompt_version",
            "TRUNCATE prompts.prompt_version",
            "UPDATE prompts.label_move SET after = 2",
            "DELETE FROM prompts.label_move",
        ):
            with pytest.raises(asyncpg.RestrictViolationError):
                await admin.execute(statement)
        await admin.execute("UPDATE prompts.prompt_version SET state = 'refused', code = 'invalid'")
        with pytest.raises(asyncpg.RestrictViolationError, match="publish another"):
            await admin.execute("UPDATE prompts.prompt_version SET state = 'registered'")
    finally:
        await admin.close()


async def test_versions_have_no_gaps_and_labels_have_a_history(installation: Installation) -> None:
    key = installation.key("user:ada", "owner")
    await installation.start("prompts")
    async with installation.client("prompts", key) as http:
        bodies = [{"text": f"Version {n} of {{{{x}}}}"} for n in range(10)]
        made = await asyncio.gather(*(http.post(f"{PATH}/versions", json=body) for body in bodies))
        assert sorted(answer.json()["version"] for answer in made) == list(range(1, 11))

        label = f"{PATH}/labels/production"
        first = await http.put(label, json={"version": 3, "reason": "good"})
        assert first.status_code == 200
        blind = await http.put(label, json={"version": 4})
        moved = await http.put(label, json={"version": 4}, headers={"if-match": first.headers["etag"]})
        late = await http.put(label, json={"version": 5}, headers={"if-match": first.headers["etag"]})
        assert [answer.status_code for answer in (blind, moved, late)] == [428, 200, 412]
        now = (await http.get(PATH, params={"label": "production"})).json()
        before = (await http.get(PATH, params={"label": "production", "at": first.json()["at"]})).json()
        assert (now["version"], before["version"]) == (4, 3)
        assert now["labels"] == ["production"]
        shown = (await http.get(label)).json()
        assert [(entry["before"], entry["after"]) for entry in shown["history"]] == [(3, 4), (None, 3)]
        page = (await http.get(f"{PATH}/versions", params={"page_size": 4})).json()
        rest = await http.get(f"{PATH}/versions", params={"page_size": 9, "page_token": page["next_page_token"]})
        assert [entry["version"] for entry in page["items"] + rest.json()["items"]] == list(range(10, 0, -1))
        difference = (await http.get(f"{PATH}/diff", params={"before": 1, "after": 2})).json()["diff"]
        assert difference.startswith("--- summary@1\n+++ summary@2")
    moves = await eventually(lambda: installation.events(PromptLabelMoved), lambda found: len(found) == 2)
    assert [(move.before, move.after) for move in moves] == [(None, 3), (3, 4)]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "template-invalid"),
        ({"text": "a", "messages": [{"role": "user", "content": "b"}]}, "template-invalid"),
        ({"text": "{{not a name}}"}, "template-invalid"),
        ({"text": "x", "variables": {"unused": {}}}, "template-invalid"),
        ({"text": ""}, "invalid"),
        ({"text": "x" * 100_001}, "invalid"),
        ({"messages": [{"role": "wizard", "content": "b"}]}, "invalid"),
        ({"text": "x", "surprise": 1}, "invalid"),
        ({"text": "x", "config": {"seed": 10**30}}, "template-invalid"),
        ({"text": "x", "config": {"stop": "\ud800"}}, "malformed"),
    ],
)
async def test_what_is_no_prompt_is_refused(installation: Installation, body: dict[str, Any], code: str) -> None:
    key = installation.key("user:ada", "owner")
    await installation.start("prompts")
    async with installation.client("prompts", key) as http:
        sent = json.dumps(body).encode()
        answer = await http.post(f"{PATH}/versions", content=sent, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (400 if code == "malformed" else 422, code)
        assert (await http.get(PATH)).status_code == 404


@pytest.mark.parametrize("title", [".", ".."])
async def test_a_title_that_no_url_can_hold_is_refused_wherever_it_comes_from(
    installation: Installation, title: str
) -> None:
    key = installation.key("user:ada", "owner")
    await installation.start("prompts")
    async with installation.client("prompts", key) as http:
        encoded = title.replace(".", "%2E")  # httpx takes only the bare dots out of a path; browsers take both
        answers = [
            await http.post(f"/prompts/v1/prompts/{encoded}/versions", json={"text": "x"}),
            await http.post("/prompts/api/public/v2/prompts", json={"name": title, "prompt": "x"}),
        ]
        assert [answer.status_code for answer in answers] == [422, 400]
        for answer in answers:
            assert "in a URL that means a folder" in answer.text
        assert (await http.get("/prompts/v1/prompts")).json()["items"] == []


async def test_odd_questions_get_an_answer(installation: Installation) -> None:
    key = installation.key("user:ada", "owner")
    await installation.start("prompts")
    async with installation.client("prompts", key) as http:
        assert (await http.post(f"{PATH}/versions", json={"text": "x"})).status_code == 201
        for path in ("?at=0001-01-01T00:00:00%2B14:00", "?version=99999999999", "?label=%00", "/versions?page_token=x"):
            assert (await http.get(PATH + path)).status_code == 422
        for query, after in ((("versions", "summary"), "x"), (("versions", "summary"), 10**18), (("prompts",), 7)):
            path = "/prompts/v1/prompts" + ("" if query == ("prompts",) else "/summary/versions")
            answer = await http.get(path, params={"page_token": PageToken(*query).make([after])})
            assert answer.status_code == 422


async def test_a_prompt_stays_in_its_workspace(installation: Installation) -> None:
    ada, eve = installation.key("user:ada", "owner"), installation.key("user:eve", "owner", workspace="other")
    await installation.start("prompts")
    async with installation.client("prompts", ada) as http:
        assert (await http.post(f"{PATH}/versions", json={"text": "secret"})).status_code == 201
        assert (await http.put(f"{PATH}/labels/production", json={"version": 1})).status_code == 200
        assert (await http.put(f"{PATH}/labels/latest", json={"version": 1})).json()["code"] == "label-reserved"
        assert (await http.put(f"{PATH}/labels/canary", json={"version": 9})).status_code == 404
    async with installation.client("prompts", eve) as http:
        for path in ("", "/versions", "/labels/production", "/diff?before=1&after=1"):
            assert (await http.get(PATH + path)).status_code == 404
        assert (await http.get("/prompts/v1/prompts")).json()["items"] == []
