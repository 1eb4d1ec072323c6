"""Models beside search: the shipped one's vectors under an index and without one; another one behind a gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx
import pytest
import uvicorn
from registry_story import Registry, a_model, model_bytes, registry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from services.registry.search import meaning
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(120)
TEXTS = {
    "churn": "Which subscribers will leave and cancel their contract.",
    "energy": "Electricity demand of the next day, hour by hour.",
    "wages": "Salaries of employees, from surveys.",
    "credit": "Probability that a household does not pay back its loan.",
}


async def fill(it: Registry) -> None:
    for number, (name, text) in enumerate(TEXTS.items()):
        await it.upload(model_bytes(number))
        await it.register(a_model(name, model_bytes(number), description=text))


async def asked(client: httpx.AsyncClient, q: str, **more: Any) -> dict[str, Any]:
    answer = await client.get("/registry/v1/search", params={"q": q, "mode": "semantic", **more})
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


async def embedded(client: httpx.AsyncClient) -> None:
    async def look() -> bool:
        page = await asked(client, "x")
        return page["notes"] == [] and page["total"] == len(TEXTS)

    await eventually(look, bool, what="embeddings")


async def test_many_texts_are_found_by_the_index_and_without_it_by_words(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with registry(installation) as it:
        await fill(it)
        await embedded(it.client)
        exact = await asked(it.client, "customers who quit")
        monkeypatch.setattr(meaning, "EXACT_MOST", 1)
        few = await asked(it.client, "customers who quit")
        monkeypatch.setattr(meaning, "FEW", 0)
        by_index = await asked(it.client, "customers who quit")
        for page in (exact, few, by_index):
            assert page["items"][0]["name"] == "churn" and page["total"] == len(TEXTS)
            assert page["items"][0]["why"]["similarity"] == pytest.approx(
                exact["items"][0]["why"]["similarity"], abs=0.01
            )
        one = await asked(it.client, "customers who quit", filter="name = 'wages'")
        assert [found["name"] for found in one["items"]] == ["wages"]

        db = await asyncpg.connect(installation.backing.dsn(installation.database))
        await db.execute("DROP EXTENSION vector CASCADE; DROP TABLE IF EXISTS registry.near")
        await db.close()
    await installation.services["registry"].stop()
    await installation.start("registry")
    async with installation.client("registry", it.key) as client:
        page = await asked(client, "quit contract", mode="hybrid")
        assert [one["name"] for one in page["items"]] == ["churn"]
        assert page["notes"] == ["more than 1 texts and no pgvector: found by words alone"]
        monkeypatch.setattr(meaning, "EXACT_MOST", 100)
        assert (await asked(client, "customers who quit"))["items"][0]["name"] == "churn"


@dataclass
class Gateway:
    """What a gateway answers at `/v1/embeddings` and `/v1/chat/completions`."""

    url: str = ""
    open: asyncio.Event = field(default_factory=asyncio.Event)
    says: str = ""
    seen: list[str] = field(default_factory=list)

    async def embeddings(self, request: Request) -> JSONResponse:
        await self.open.wait()
        body = await request.json()
        self.seen.append(f"{body['model']} {request.headers['authorization']}")
        vectors = [[float("tricity" in text or text == "light"), 1.0, 0.5] for text in body["input"]]
        data = [{"index": index, "embedding": vector} for index, vector in enumerate(vectors)]
        return JSONResponse({"data": data[::-1]})

    async def chat(self, request: Request) -> JSONResponse:
        return JSONResponse({"choices": [{"message": {"content": self.says}}]})


@asynccontextmanager
async def gateway() -> AsyncIterator[Gateway]:
    made = Gateway()
    routes = [
        Route("/v1/embeddings", made.embeddings, methods=["POST"]),
        Route("/v1/chat/completions", made.chat, methods=["POST"]),
    ]
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=0, log_level="warning", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    await eventually(lambda: asyncio.sleep(0, server.started), bool, what="the gateway")
    made.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        made.open.set()
        server.should_exit = True
        await serving


async def test_another_model_embeds_everything_again_and_the_old_vectors_answer_until_then(
    installation: Installation,
) -> None:
    async with registry(installation) as it, gateway() as stub:
        await fill(it)
        await embedded(it.client)
        await installation.services["registry"].stop()
        more = {"gateway_url": stub.url, "gateway_key": "k", "embeddings_group": "e5", "questions_group": "small"}
        await installation.start("registry", **more)
        async with installation.client("registry", it.key) as client:
            before = await asked(client, "customers who quit")
            assert before["items"][0]["name"] == "churn" and before["notes"] == []
            stub.open.set()

            async def models() -> list[str]:
                db = await asyncpg.connect(installation.backing.dsn(installation.database))
                try:
                    rows = await db.fetch(
                        "SELECT DISTINCT model FROM registry.embedding UNION SELECT model FROM registry.near"
                    )
                    return [row["model"] for row in rows]
                finally:
                    await db.close()

            assert await eventually(models, lambda found: found == ["gateway/e5"], what="re-embedding") == [
                "gateway/e5"
            ]
            after = await asked(client, "light")
            assert after["items"][0]["name"] == "energy" and set(stub.seen) == {"e5 Bearer k"}

            for says, filter, by in (
                ('Sure: {"filter": "name = \'wages\'", "q": "", "order_by": "name"}', "name = 'wages'", "small"),
                ('{"filter": "colour = 1", "q": "", "order_by": ""}', "kind = 'model'", "rules"),
                ('{"filter": ["x"], "q": 1}', "kind = 'model'", "rules"),
                ("DROP TABLE version", "kind = 'model'", "rules"),
            ):
                stub.says = says
                page = await asked(client, "models", mode="question")
                assert (page["understood_as"]["filter"], page["understood_as"]["by"]) == (filter, by), json.dumps(page)[
                    :300
                ]
