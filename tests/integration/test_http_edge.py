"""The HTTP edge of every service, on a small one: problems, strict JSON, limits, idempotency, callers, ETags."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Annotated, Any
from uuid import uuid4

import pytest
from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel, Field

from shared.db.database import Database
from shared.db.migrate import migrate, read
from shared.errors import NotFound
from shared.events.base import Actor, AssetRef
from shared.events.registry import BindingCreated
from shared.http import Page, PageToken, etag, matches, require
from shared.http.edge import StrictRoute
from shared.identity.identity import Identity
from shared.identity.principal import Principal
from shared.service import Service
from shared.settings import ServiceSettings
from shared.testing.installation import Installation

DIGEST = "sha256:" + "a" * 64


class Note(BaseModel):
    text: str = Field(min_length=1, max_length=50)


def notes(database: Database) -> APIRouter:
    router = APIRouter(prefix="/registry/v1", route_class=StrictRoute)
    state = {"revision": 1}

    @router.post("/notes", status_code=201)
    async def add(note: Note, caller: Annotated[Principal, require("submit", "note")]) -> dict[str, Any]:
        async with database.begin(caller.workspace) as tx:
            number = await tx.connection.fetchval("INSERT INTO note (text) VALUES ($1) RETURNING id", note.text)
            if note.text == "fail":
                raise NotFound("the note's page is not there")
            asset = AssetRef(urn="mm:model/x", version=1, digest=DIGEST)
            actor = Actor(id=caller.id, proven=True)
            tx.emit(BindingCreated(binding_id=uuid4(), asset=asset, consumer="note", purpose=note.text, actor=actor))
        return {"id": number}

    @router.get("/notes")
    async def listed(
        caller: Annotated[Principal, require("read", "note")], word: str = "", page_token: str | None = None
    ) -> Page[str]:
        token = PageToken("notes", word)
        after = token.read(page_token)
        return Page(items=[str(after)], next_page_token=token.make(["a", 1]))

    @router.put("/state")
    async def change(
        response: Response,
        caller: Annotated[Principal, require("move", "note")],
        if_match: Annotated[str | None, Header()] = None,
    ) -> dict[str, int]:
        matches(if_match, etag(state["revision"]))
        state["revision"] += 1
        response.headers["etag"] = etag(state["revision"])
        return state

    @router.get("/broken")
    async def broken(caller: Annotated[Principal, require("read", "note")]) -> None:
        raise ZeroDivisionError("never shown")

    @router.put("/upload")
    async def upload(request: Request, caller: Annotated[Principal, require("submit", "note")]) -> dict[str, int]:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
        return {"size": size}

    return router


@pytest.fixture
async def edge(bare_installation: Installation) -> AsyncIterator[Installation]:
    settings = ServiceSettings(
        dsn=bare_installation.dsn("registry"),
        platform=bare_installation.platform(migrate_on_start=False, max_body_bytes=4096, max_upload_bytes=8192),
        kafka=bare_installation.kafka,
    )
    database = Database(settings.dsn, "registry")
    await migrate(database, read("shared", files("shared.db").joinpath("migrations")))
    connection = await database.connect()
    await connection.execute("CREATE TABLE note (id bigint GENERATED ALWAYS AS IDENTITY, text text)")
    await connection.close()
    uploads = ("/registry/v1/upload",)
    service = Service("registry", settings, database, Identity(settings), notes(database), uploads=uploads)
    bare_installation.services["registry"] = service
    await database.open()
    try:
        yield bare_installation
    finally:
        bare_installation.services.clear()
        await database.close()


async def count(edge: Installation, table: str) -> int:
    async with edge.services["registry"].database.begin("*") as tx:
        found: int = await tx.connection.fetchval(f"SELECT count(*) FROM {table}")
        return found


async def test_a_problem_has_a_code_a_sentence_and_a_trace(edge: Installation) -> None:
    async with edge.client("registry") as http:
        answer = await http.get("/registry/v1/notes")
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "unauthenticated"
    assert problem["detail"].startswith("Send a valid API key")
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "malformed"),
        (b'{"text": NaN}', 400, "malformed"),
        (b'{"text": "a", "text": "b"}', 400, "malformed"),
        (b'{"text": "\\u0000"}', 400, "malformed"),
        (b"[" * 3000, 400, "malformed"),
        (b'{"text": "\\ud800"}', 400, "malformed"),
        (b'{"text": 1e999}', 400, "malformed"),
        (b"\xff\xfe", 400, "malformed"),
        (b'{"text": ""}', 422, "invalid"),
        (b"{}", 422, "invalid"),
        (b"[]", 422, "invalid"),
        (b"null", 422, "invalid"),
    ],
)
async def test_bad_bodies_are_refused_with_a_reason(edge: Installation, body: bytes, status: int, code: str) -> None:
    key = edge.key("user:ada", "owner")
    async with edge.client("registry", key) as http:
        answer = await http.post("/registry/v1/notes", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["detail"]
    assert await count(edge, "note") == 0


async def test_unexpected_errors_say_nothing_of_the_inside(edge: Installation) -> None:
    async with edge.client("registry", edge.key("user:ada", "owner")) as http:
        answer = await http.get("/registry/v1/broken")
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal"
    assert "ZeroDivision" not in answer.text and "never shown" not in answer.text


async def test_large_bodies_are_refused_before_they_are_read(edge: Installation) -> None:
    key = edge.key("user:ada", "owner")
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1024
            yield b"x" * 1024

    async with edge.client("registry", key) as http:
        declared = await http.post("/registry/v1/notes", content=b"x" * 5000)
        streamed = await http.put("/registry/v1/upload", content=endless())
        fitting = await http.put("/registry/v1/upload", content=b"x" * 8000)
        no_upload = await http.put("/registry/v1/state", content=b"x" * 8000)
    assert declared.status_code == streamed.status_code == no_upload.status_code == 413
    assert declared.json()["code"] == "too-large"
    assert sent <= 16 * 1024
    assert fitting.json() == {"size": 8000}


async def test_the_same_key_has_one_effect_and_one_answer(edge: Installation) -> None:
    key = edge.key("user:ada", "owner")
    async with edge.client("registry", key) as http:
        headers = {"idempotency-key": "the-one"}
        answers = [await http.post("/registry/v1/notes", json={"text": "hello"}, headers=headers) for _ in range(3)]
        other = await http.post("/registry/v1/notes", json={"text": "bye"}, headers=headers)
        fresh = await http.post("/registry/v1/notes", json={"text": "hello"}, headers={"idempotency-key": "another"})
    assert [answer.status_code for answer in answers] == [201, 201, 201]
    assert len({answer.text for answer in answers}) == 1
    assert [answer.headers.get("idempotency-replayed") for answer in answers] == [None, "true", "true"]
    assert other.status_code == 422
    assert fresh.json() != answers[0].json()
    assert await count(edge, "note") == await count(edge, "outbox") == 2


async def test_racing_requests_with_one_key_have_one_effect(edge: Installation) -> None:
    key = edge.key("user:ada", "owner")
    async with edge.client("registry", key) as http:
        headers = {"idempotency-key": "race"}
        calls = [http.post("/registry/v1/notes", json={"text": "hello"}, headers=headers) for _ in range(10)]
        answers = await asyncio.gather(*calls)
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert await count(edge, "note") == 1


async def test_a_failed_request_frees_its_key(edge: Installation) -> None:
    key = edge.key("user:ada", "owner")
    async with edge.client("registry", key) as http:
        headers = {"idempotency-key": "again"}
        first = await http.post("/registry/v1/notes", json={"text": "fail"}, headers=headers)
        second = await http.post("/registry/v1/notes", json={"text": "fail"}, headers=headers)
    assert first.status_code == second.status_code == 404
    assert await count(edge, "note") == await count(edge, "idempotency") == 0


async def test_a_key_of_one_caller_is_not_anothers(edge: Installation) -> None:
    ada, bea = edge.key("user:ada", "owner"), edge.key("user:bea", "owner", workspace="other")
    for key in (ada, bea):
        async with edge.client("registry", key) as http:
            answer = await http.post("/registry/v1/notes", json={"text": "x"}, headers={"idempotency-key": "same"})
            assert answer.status_code == 201
            assert "idempotency-replayed" not in answer.headers
    assert await count(edge, "note") == 2


async def test_roles_decide_what_a_caller_may_do(edge: Installation) -> None:
    keys = {role: edge.key(f"user:{role}", role) for role in ("viewer", "publisher", "caller", "nobody")}
    found = {}
    for role, key in keys.items():
        async with edge.client("registry", key) as http:
            read_ = (await http.get("/registry/v1/notes")).status_code
            write = (await http.post("/registry/v1/notes", json={"text": "x"})).status_code
            found[role] = (read_, write)
    assert found == {"viewer": (200, 403), "publisher": (200, 201), "caller": (403, 403), "nobody": (403, 403)}


async def test_a_change_names_the_state_it_was_decided_on(edge: Installation) -> None:
    async with edge.client("registry", edge.key("user:ada", "owner")) as http:
        missing = await http.put("/registry/v1/state")
        wrong = await http.put("/registry/v1/state", headers={"if-match": '"nonsense"'})
        current = wrong.json()["etag"]
        right = await http.put("/registry/v1/state", headers={"if-match": current})
        again = await http.put("/registry/v1/state", headers={"if-match": current})
    assert [answer.status_code for answer in (missing, wrong, right, again)] == [428, 412, 200, 412]


async def test_a_page_token_belongs_to_its_query(edge: Installation) -> None:
    async with edge.client("registry", edge.key("user:ada", "owner")) as http:
        token = (await http.get("/registry/v1/notes", params={"word": "a"})).json()["next_page_token"]
        same = await http.get("/registry/v1/notes", params={"word": "a", "page_token": token})
        other = await http.get("/registry/v1/notes", params={"word": "b", "page_token": token})
        garbage = await http.get("/registry/v1/notes", params={"word": "a", "page_token": "%%%"})
    assert same.json()["items"] == ["['a', 1]"]
    assert other.status_code == garbage.status_code == 422


async def test_unknown_addresses_and_methods_are_problems(edge: Installation) -> None:
    async with edge.client("registry") as http:
        answers = [
            await http.get("/registry/v1/nothing"),
            await http.delete("/registry/v1/notes"),
        ]
    assert [answer.status_code for answer in answers] == [404, 405]
    assert all(answer.headers["content-type"] == "application/problem+json" for answer in answers)


async def test_operations_are_served(edge: Installation) -> None:
    async with edge.client("registry") as http:
        assert (await http.get("/livez")).json() == {"status": "alive"}
        ready = await http.get("/readyz")
        assert "mintmark_http_seconds" in (await http.get("/metrics")).text
        assert (await http.get("/schemas/asset.submitted.v1.json")).json()["properties"]["kind"]
        assert (await http.get("/schemas/nothing.v1.json")).status_code == 404
        assert "/registry/v1/notes" in (await http.get("/openapi.json")).json()["paths"]
        assert (await http.get("/asyncapi.json")).json()["asyncapi"] == "3.0.0"
    assert ready.status_code == 503  # it was never started
