"""Search over HTTP: one registry with a small catalog, asked in every way; and what is not taken."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
from guide import blocks, run, served
from registry_story import Registry, a_model, model_bytes, registry

from services.registry.api.search import SearchPage
from shared.events.base import Actor, Interval
from shared.events.evaluator import EvalCompleted
from shared.events.names import name_of
from shared.events.policy import ClassificationChanged
from shared.events.upstream import DatasetVersion
from shared.ids import digest_of, sha256
from shared.testing.backing import Backing
from shared.testing.installation import Installation, eventually

pytestmark = [pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]
SEARCH = "/registry/v1/search"

CATALOG: list[dict[str, Any]] = [
    {"name": "credit-pd", "task": "classification", "licence": "Apache-2.0", "tags": {"team": "risk", "tier": "gold"},
     "metrics": {"auc": 0.91, "loss": 0.2}, "description": "Probability that a household does not pay back its loan."},
    {"name": "credit-pd", "task": "classification", "licence": "Apache-2.0", "tags": {"team": "risk"},
     "metrics": {"auc": 0.93}, "description": "Probability that a household does not pay back its loan."},
    {"name": name_of("Churn (Müller)"), "title": "Churn (Müller)", "task": "classification", "licence": "MIT",
     "tags": {"team": "sales", "k=1": "a'b"}, "metrics": {"auc": 0.78},
     "description": "Which subscribers will leave and cancel their contract."},
    {"name": "energy-load", "task": "forecasting", "tags": {"team": "grid"}, "metrics": {"loss": 0.9},
     "description": "Electricity demand of the next day, hour by hour."},
    {"name": "pay-rise", "task": "regression", "licence": "MIT", "tags": {"team": "sales"}, "metrics": {"auc": 0.5},
     "description": "Salaries of employees, from surveys."},
]  # fmt: skip


@dataclass
class Asking:
    it: Registry
    client: httpx.AsyncClient
    other_key: str

    async def page(self, **asked: Any) -> dict[str, Any]:
        answer = await self.client.get(SEARCH, params=asked)
        assert answer.status_code == 200, answer.text
        SearchPage.model_validate_json(answer.content)
        page: dict[str, Any] = answer.json()
        return page

    async def found(self, filter: str = "", **asked: Any) -> list[str]:
        page = await self.page(filter=filter, **asked)
        return [f"{one['title']}@{one['version']}" for one in page["items"]]

    async def refused(self, **asked: Any) -> dict[str, Any]:
        answer = await self.client.get(SEARCH, params=asked)
        assert answer.status_code == 422, answer.text
        problem: dict[str, Any] = answer.json()
        return problem


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def asking(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Asking]:
    installation = await Installation(Backing.of_run(), tmp_path_factory.mktemp("search")).prepare()
    other_key = installation.key("user:eve", "owner", workspace="elsewhere")
    async with registry(installation) as it:
        for number, given in enumerate(CATALOG):
            await it.upload(model_bytes(number))
            await it.register(a_model(data=model_bytes(number), **given))
        for version, stage in ((1, "staging"), (2, "production")):
            path = f"/registry/v1/assets/model/credit-pd/versions/{version}/stage"
            moved = await it.client.put(path, json={"stage": stage, "reason": "x"}, headers={"if-match": "*"})
            assert moved.status_code == 200, moved.text
        champion = "/registry/v1/assets/model/credit-pd/aliases/champion"
        await it.client.put(champion, json={"version": 2, "reason": "x"}, headers={"if-none-match": "*"})
        yield Asking(it, it.client, other_key)
    await installation.close()


async def test_filters_of_mlflow_and_more(asking: Asking) -> None:
    both = ["credit-pd@2", "credit-pd@1"]
    for filter, wanted in {
        "name LIKE 'credit%'": both,
        "name ILIKE '%MÜLLER%'": ["Churn (Müller)@1"],
        f"name = 'Churn (Müller)' AND name = '{name_of('Churn (Müller)')}'": ["Churn (Müller)@1"],
        "tags.team = 'risk' AND tags.tier = 'gold'": ["credit-pd@1"],
        "tag.`k=1` = 'a''b'": ["Churn (Müller)@1"],
        "metrics.auc > 0.9 and metrics.auc <= 0.91": ["credit-pd@1"],
        "metrics.auc > 0.9 OR task = 'forecasting'": ["energy-load@1", *both],
        "NOT (licence IN ('MIT', 'Apache-2.0'))": ["energy-load@1"],
        "licence IS NULL AND metrics.auc IS NULL": ["energy-load@1"],
        "tags.tier != 'silver'": ["credit-pd@1"],
        "tags.`mlflow.prompt.is_prompt` != 'true' AND name LIKE 'credit%'": both,
        "aliases = 'champion' AND current_stage = 'Production'": ["credit-pd@2"],
        "stage = 'staging' AND version = 1 AND attributes.name = 'credit-pd'": ["credit-pd@1"],
        "created > '2020-01-01' AND created < '2020-01-02'": [],
        "creation_timestamp > 1700000000000 AND name = 'pay-rise'": ["pay-rise@1"],
        "author = 'user:ada' AND kind != 'prompt' AND task = 'regression'": ["pay-rise@1"],
        "alias IS NULL AND tags.team LIKE 'ris_'": ["credit-pd@1"],
    }.items():
        assert await asking.found(filter) == wanted, filter
    assert await asking.found("tags.team = 'risk'", q="household", licence="Apache-2.0", **{"tag.tier": "gold"}) == [
        "credit-pd@1"
    ]


async def test_the_same_once_it_is_folded(asking: Asking) -> None:
    installation = asking.it.installation

    async def pending() -> int:
        return await _count(installation, "SELECT count(*) FROM registry.search_change")

    assert await eventually(pending, lambda count: count == 0, what="the fold") == 0
    await test_filters_of_mlflow_and_more(asking)
    assert await _count(installation, "SELECT sum(versions) FROM registry.vocabulary WHERE term = 'kind=model'") == 5


async def _count(installation: Installation, sql: str) -> int:
    import asyncpg

    connection = await asyncpg.connect(installation.backing.dsn(installation.database))
    try:
        return int(await connection.fetchval(sql))
    finally:
        await connection.close()


async def test_orders_and_pages(asking: Asking) -> None:
    by_auc = ["credit-pd@2", "credit-pd@1", "Churn (Müller)@1", "pay-rise@1", "energy-load@1"]
    for order, wanted in {
        "metrics.auc DESC": by_auc,
        "metrics.auc ASC": [*by_auc[3::-1], "energy-load@1"],
        "name": ["Churn (Müller)@1", "credit-pd@2", "credit-pd@1", "energy-load@1", "pay-rise@1"],
        "created ASC": ["credit-pd@1", "credit-pd@2", "Churn (Müller)@1", "energy-load@1", "pay-rise@1"],
    }.items():
        assert await asking.found(order_by=order) == wanted, order
        seen: list[str] = []
        token: dict[str, str] = {}
        while True:
            page = await asking.page(order_by=order, page_size=2, **token)
            seen += [f"{one['title']}@{one['version']}" for one in page["items"]]
            assert page["total"] == 5
            if page["next_page_token"] is None:
                break
            token = {"page_token": page["next_page_token"]}
        assert seen == wanted, order
    page = await asking.page(order_by="name", page_size=2)
    other = await asking.refused(order_by="metrics.auc", page_size=2, page_token=page["next_page_token"])
    assert "another query" in other["detail"]


async def test_facets_count_what_was_found(asking: Asking) -> None:
    page = await asking.page(filter="metrics.auc > 0.6", facets="usual,tags.team")
    facets = {name: {one["value"]: one["count"] for one in facet["values"]} for name, facet in page["facets"].items()}
    assert facets["licence"] == {"Apache-2.0": 2, "MIT": 1} and facets["tags.team"] == {"risk": 2, "sales": 1}
    assert facets["stage"] == {"development": 1, "staging": 1, "production": 1} and facets["kind"] == {"model": 3}
    assert all(facet["whole"] for facet in page["facets"].values())


async def test_why_a_version_was_found(asking: Asking) -> None:
    page = await asking.page(filter="metrics.auc > 0.9 OR licence = 'MIT'", q="paying loans")
    (newest, _) = page["items"]
    assert newest["why"]["fits"] == ["metrics.auc > 0.9"] and newest["why"]["words"] == ["loan", "pay"]
    assert "**pay** back its **loan**" in newest["why"]["snippet"]


async def test_meaning_and_words_together(asking: Asking) -> None:
    async def embedded() -> list[str]:
        page = await asking.page(q="customers who quit", mode="semantic")
        return [] if page["notes"] else [one["title"] for one in page["items"]]

    assert (await eventually(embedded, bool, what="embeddings"))[0] == "Churn (Müller)"
    assert (await asking.found(q="power consumption tomorrow", mode="semantic"))[0] == "energy-load@1"
    hybrid = await asking.page(q="wages survey", mode="hybrid", filter="NOT task = 'forecasting'")
    assert hybrid["items"][0]["name"] == "pay-rise" and hybrid["items"][0]["why"]["similarity"] > 0
    assert {one["title"] for one in hybrid["items"]} == {"pay-rise", "Churn (Müller)", "credit-pd"}
    assert (await asking.found("stage = 'production'", q="wages", mode="semantic")) == ["credit-pd@2"]


async def test_a_question_becomes_a_filter_that_is_shown(asking: Asking) -> None:
    page = await asking.page(
        mode="question", q="models for household loans in production with auc over 0.9, newest first"
    )
    assert page["understood_as"] == {
        "filter": "kind = 'model' AND metrics.auc > 0.9 AND stage = 'production'", "q": "household loans",
        "order_by": "created DESC", "mode": "text", "by": "rules",
    }  # fmt: skip
    assert [one["version"] for one in page["items"]] == [2]


async def test_what_others_say_of_a_version_is_found(asking: Asking) -> None:
    it = asking.it
    asset = (await it.client.get("/registry/v1/assets/model/credit-pd/versions/2")).json()
    ref = {"urn": asset["urn"], "version": 2, "digest": asset["digest"]}
    now = "2026-11-20T10:00:00Z"
    await it.installation.publish(
        EvalCompleted.model_validate({
            "evaluation_id": uuid4(), "asset": ref, "template": "t", "report": sha256(b"r"), "rows": 10,
            "golden_set": DatasetVersion(urn="mm:dataset/census", version=1, digest=digest_of("x")),
            "measures": {"roc_auc": Interval(value=0.9, low=0.8, high=0.95, n=10, method="bootstrap")},
            "started_at": now, "ended_at": now,
        })
    )  # fmt: skip
    await it.installation.publish(
        ClassificationChanged(
            urn=asset["urn"], risk="high", cost="low", actor=Actor(id="user:ada", proven=True), reason="credit"
        )
    )

    async def found() -> list[str]:
        return await asking.found("risk = 'high' AND measures.roc_auc >= 0.9")

    assert await eventually(found, bool, what="risk and measure") == ["credit-pd@2"]
    # A version that comes later has the class of its asset.
    await it.upload(model_bytes(77))
    await it.register(a_model(data=model_bytes(77)))
    assert await asking.found("risk = 'high'") == ["credit-pd@3", "credit-pd@2", "credit-pd@1"]
    yanked = await it.client.post(
        "/registry/v1/assets/model/credit-pd/versions/3/yank", json={"reason": "x"}, headers={"if-match": "*"}
    )
    assert yanked.status_code == 200, yanked.text
    assert await asking.found("risk = 'high'") == ["credit-pd@2", "credit-pd@1"]
    assert await asking.found("yanked = 'true'") == ["credit-pd@3"]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"filter": "kind = "}, "column 7: expected a text in quotes or a number, found the end\nkind = \n      ^"),
        ({"filter": "colour = 'red'"}, "column 1: there is no field 'colour'"),
        ({"filter": "stage = 'limbo'"}, "stage is one of development"),
        ({"filter": "metrics.auc > 'much'"}, "expected a number"),
        ({"filter": "name > 'a'"}, "takes =, !=, IN, LIKE"),
        ({"filter": "(" * 9_000 + "kind = 'model'" + ")" * 9_000}, "nested 100 deep at most"),
        ({"filter": "NOT " * 4_000 + "kind = 'model'"}, "nested 100 deep at most"),
        ({"filter": " OR ".join(["kind='model'"] * 1_000)}, "500 comparisons at most"),
        ({"filter": "name LIKE '" + "%a" * 100 + "'"}, "20 wildcards at most"),
        ({"filter": "tags.team IN (" + ",".join(f"'{n}'" for n in range(2_100)) + ")"}, "2000 values at most"),
        ({"filter": "x" * 20_001}, "20000|20,000"),
        ({"filter": "kind = 'model'\x00"}, "NUL"),
        ({"order_by": "colour"}, "cannot order by"),
        ({"facets": "metrics.auc"}, "has no facets"),
        ({"mode": "semantic", "q": "x", "order_by": "name"}, "comes by relevance"),
        ({"page_token": "WyJ4Il0"}, "another query"),
        ({"colour": "red"}, "does not know"),
    ],
)  # fmt: skip
async def test_what_is_not_taken(asking: Asking, asked: dict[str, Any], says: str) -> None:
    problem = await asking.refused(**asked)
    assert any(part in problem["detail"] for part in says.split("|")), problem


async def test_a_made_up_token_is_no_row(asking: Asking) -> None:
    import base64

    page = await asking.page(order_by="metrics.auc", page_size=1)
    query = json.loads(base64.urlsafe_b64decode(page["next_page_token"] + "=="))[0]
    for values in (["x", 1], [1, "x"], [-1, None], [1], [2**70, 1.0], [1, [2]]):
        forged = base64.urlsafe_b64encode(json.dumps([query, *values]).encode()).decode().rstrip("=")
        await asking.refused(order_by="metrics.auc", page_size=1, page_token=forged)


async def test_another_workspace_finds_nothing_of_it(asking: Asking) -> None:
    async with asking.it.installation.client("registry", asking.other_key) as eve:
        for asked in ({}, {"filter": "kind = 'model'"}, {"q": "loan", "mode": "hybrid"}, {"filter": "name LIKE '%'"}):
            answer = await eve.get(SEARCH, params={**asked, "facets": "usual"})
            assert answer.status_code == 200, answer.text
            page = answer.json()
            assert page["items"] == [] and page["total"] == 0, asked
            assert all(facet["values"] == [] for facet in page["facets"].values())


async def test_writers_and_readers_at_once(asking: Asking) -> None:
    """Whoever registers finds it in the next moment, though the worker folds all the while."""
    it = asking.it

    async def one(number: int) -> None:
        data = model_bytes(1_000 + number)
        await it.upload(data)
        await it.register(a_model(f"busy-{number}", data, tags={"busy": "yes"}))
        assert await asking.found(f"name = 'busy-{number}' AND tags.busy = 'yes'") == [f"busy-{number}@1"]

    await asyncio.gather(*(one(number) for number in range(30)))
    assert (await asking.page(filter="tags.busy = 'yes'"))["total"] == 30


async def test_what_the_guide_says_is_run(asking: Asking) -> None:
    """Each command of docs/how-to/search-the-catalog.md, as it stands there, and what it finds."""
    setup, filters, words, question, facets = blocks("search-the-catalog.md", "sh")
    async with served(asking.it.installation, "registry") as url:
        environment = {"MINTMARK_URL": url, "MINTMARK_API_KEY": asking.it.key}

        async def pages(block: str) -> list[dict[str, Any]]:
            lines = [line for line in block.splitlines() if line]
            said = [await run(environment, "sh", "-ec", f"{setup}\n{line}") for line in lines]
            return [json.loads(one) for one in said]

        found = [[one["name"] for one in page["items"]] for page in await pages(filters)]
        assert found[0] == ["credit-pd"] * 2 and "pay-rise" in found[1] and found[2][0] == "credit-pd"

        def are_embedded(found: list[dict[str, Any]]) -> bool:  # soon after they are registered
            return all(page["items"] and page["items"][0]["name"] == "credit-pd" for page in found)

        every_word, _, _ = await eventually(lambda: pages(words), are_embedded, what="the nearest by meaning")
        assert {one["name"] for one in every_word["items"]} == {"credit-pd"}
        (answered,) = await pages(question)
        assert answered["understood_as"]["by"] == "rules" and answered["items"][0]["version"] == 2
        (counted,) = await pages(facets)
        assert counted["facets"]["tags.team"]["whole"] and counted["total"] >= 3
