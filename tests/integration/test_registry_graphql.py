"""GraphQL over the catalog: what hangs together in one query, no statement more for 50 assets, and limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from graphql import get_introspection_query
from registry_story import Registry, a_dataset, a_model, model_bytes, registry

from shared.events.upstream import DatasetVersion, RunCompleted, Training
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(180)
NESTED = """query ($first: Int!) {
  assets(kind: "model", first: $first) {
    items {
      urn aliases { name version } production { version }
      versions(first: 2) {
        version stage evaluations gates bindings { consumer } groups { name arms } live { group figures }
        run { id state }
        datasets { role version { urn content } }
        upstream(depth: 2) { nodes { id label } }
        asset { title }
      }
    }
  }
}"""


async def ask(it: Registry, query: str, **variables: Any) -> dict[str, Any]:
    answer = await it.client.post("/registry/graphql", json={"query": query, "variables": variables})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def code(found: dict[str, Any]) -> str:
    return str(found["errors"][0]["extensions"]["code"])


DRIVERS = ("typeinfo_tree", "'jit'")
"""Words of what the driver asks by itself, once a connection, about types that it meets for the first time."""


@asynccontextmanager
async def counted(
    it: Registry, monkeypatch: pytest.MonkeyPatch, begins: str = "begin_reading"
) -> AsyncIterator[list[str]]:
    """The statements that the registry's database is sent meanwhile by the transaction of a request."""
    seen: list[str] = []
    database = it.installation.services["registry"].database
    begin, asking = getattr(database, begins), asyncio.current_task()

    def log(record: Any) -> None:
        if not any(word in record.query for word in DRIVERS):
            seen.append(record.query)

    @asynccontextmanager
    async def watched(workspace: str) -> AsyncIterator[Any]:
        async with begin(workspace) as tx:
            if asyncio.current_task() is asking:  # and not a worker of the service
                tx.connection.add_query_logger(log)
            try:
                yield tx
            finally:
                tx.connection.remove_query_logger(log)

    monkeypatch.setattr(database, begins, watched)
    yield seen
    monkeypatch.undo()


async def test_a_nested_query_takes_as_many_statements_for_fifty_assets_as_for_one(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = installation.key("user:eve", "owner", workspace="elsewhere")
    nobody = installation.key("user:bob", "caller")
    async with registry(installation) as it:
        await it.upload(b"PAR1 golden rows PAR1", *(model_bytes(number) for number in range(50)))
        census = await it.register(a_dataset())
        trained = DatasetVersion(urn=census.urn, version=1)
        now = datetime.now(UTC)
        run = RunCompleted(
            run_id="17", name="train", status="finished", datasets=(trained,), started_at=now, ended_at=now
        )
        await installation.publish(run, key=it.key)
        for number in range(50):
            training = Training(dataset=trained, run_id="17")
            tags = {"n": str(number)}
            await it.register(a_model(f"m{number:02}", model_bytes(number), training=training, tags=tags))
        await it.client.post("/registry/v1/bindings", json={
            "urn": "mm:model/m00", "version": 1, "consumer": "app", "purpose": "letters",
        })  # fmt: skip
        alias = {"version": 1, "reason": "good"}
        path = "/registry/v1/assets/model/m00/aliases/champion"
        await it.client.put(path, json=alias, headers={"if-none-match": "*"})
        await eventually(
            lambda: ask(it, '{ run(id: "17") { state } }'), lambda found: found["data"]["run"] is not None, what="run"
        )

        async with counted(it, monkeypatch) as one:
            first = await ask(it, NESTED, first=1)
        async with counted(it, monkeypatch) as fifty:
            all_of_them = await ask(it, NESTED, first=50)
        assert "errors" not in all_of_them, all_of_them["errors"]
        assert len(all_of_them["data"]["assets"]["items"]) == 50
        assert len(one) == len(fifty) > 5, f"{len(one)} statements for one asset, {len(fifty)} for fifty"

        async with counted(it, monkeypatch, "begin") as beside:
            alone = (await it.client.get("/registry/v1/assets/model/m00/versions/1")).json()
        assert len(beside) == 1, "everything next to a version is one statement"
        assert alone["datasets"] == [{"dataset": str(census), "role": "training", "approval": None}]
        assert (alone["risk"], alone["live"], alone["lineage"]) == (
            None, [], "/registry/v1/lineage?node=mm%3Amodel%2Fm00%401",
        )  # fmt: skip

        (item,) = first["data"]["assets"]["items"]
        (version,) = item["versions"]
        assert item["aliases"] == [{"name": "champion", "version": 1}] and item["production"] is None
        assert version["bindings"] == [{"consumer": "app"}]
        assert version["run"] == {"id": "17", "state": "finished"}
        assert version["datasets"][0]["version"]["urn"] == census.urn
        upstream = {node["id"] for node in version["upstream"]["nodes"]}
        assert {"run:17", "mm:dataset/census@1", "mm:model/m00@1"} <= upstream
        assert first["extensions"]["cost"]["asked"] < all_of_them["extensions"]["cost"]["asked"]

        found = await ask(it, "{ search(filter: \"tags.n = '7'\") { total items { urn } } }")
        assert found["data"]["search"] == {"total": 1, "items": [{"urn": "mm:model/m07"}]}
        hanging = await ask(it, '{ lineage(node: "run:17", direction: "downstream") { edges { destination } } }')
        assert len(hanging["data"]["lineage"]["edges"]) == 50
        aliased = await ask(it, '{ aliased(urn: "mm:model/m00", alias: "champion") { version } }')
        assert aliased["data"]["aliased"] == {"version": 1}
        pages = await ask(it, '{ assets(first: 2, after: "mm:model/m01") { next items { urn } } }')
        assert pages["data"]["assets"]["next"] == "mm:model/m03"
        assert (await ask(it, "{ nothing }"))["errors"][0]["extensions"]["code"] == "invalid"

        async with installation.client("registry", stranger) as other:
            asked = {"query": '{ assets { items { urn } } version(urn: "mm:model/m00", version: 1) { urn } }'}
            answer = (await other.post("/registry/graphql", json=asked)).json()
            assert answer["data"] == {"assets": {"items": []}, "version": None}
        async with installation.client("registry", nobody) as other:
            assert (await other.post("/registry/graphql", json={"query": "{ __typename }"})).status_code == 403


async def test_queries_that_ask_for_too_much_are_refused_before_they_run(installation: Installation) -> None:
    async with registry(installation) as it:
        deep = '{ asset(urn: "mm:model/x") ' + "{ versions(first: 1) { asset " * 49 + "{ urn }" + " } }" * 49 + " }"
        assert code(await ask(it, deep)) == "too-deep"
        assert code(await ask(it, "{" * 2_900)) in ("syntax", "too-dear")
        wide = "{ assets(first: 100) { items { versions(first: 100) { asset { versions(first: 100) { urn } } } } } }"
        assert code(await ask(it, wide)) == "too-dear"
        aliases = " ".join(f"a{n}: assets(first: 100) {{ items {{ urn kind }} }}" for n in range(100))
        assert code(await ask(it, "{ " + aliases + " }")) == "too-dear"
        spread = "".join(f"fragment f{n} on Query {{ ...f{n + 1} ...f{n + 1} }} " for n in range(30))
        bomb = "{ ...f0 } " + spread + "fragment f30 on Query { __typename }"
        assert code(await ask(it, bomb)) == "too-dear"
        circle = "{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }"
        assert code(await ask(it, circle)) == "invalid"
        assert code(await ask(it, "{ " + "__typename " * 4_000 + "}")) in ("too-dear", "syntax")
        nested = "{ __schema { types " + "{ fields { type " * 20 + "{ name }" + " } }" * 20 + " } }"
        assert code(await ask(it, nested)) == "too-deep"
        assert code(await ask(it, "mutation { drop }")) in ("invalid", "syntax")
        assert code(await ask(it, "{ assets(first: 0) { next } }")) == "invalid"
        assert code(await ask(it, '{ search(filter: "metrics.auc >") { total } }')) not in ("internal", "")
        whole = await ask(it, get_introspection_query())
        assert "errors" not in whole and whole["data"]["__schema"]["mutationType"] is None

        named = {"query": "query ($u: String!) { asset(urn: $u) { urn } }", "variables": '{"u": "mm:model/x"}'}
        got = await it.client.get("/registry/graphql", params=named)
        assert got.json()["data"] == {"asset": None}
        listed = await it.client.post("/registry/graphql", json=[{"query": "{ __typename }"}])
        assert listed.status_code == 422, "no batches of operations"
