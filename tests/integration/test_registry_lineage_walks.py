"""Walks through the lineage: as of any moment, impact, ways between nodes, filters, hubs, nodes in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from registry_story import ROWS, Registry, a_dataset, a_model, model_bytes, registry

from shared.events.base import Actor, AssetRef
from shared.events.evaluator import EvalFailed
from shared.events.policy import GateDecided
from shared.events.router import Arm, GroupChanged
from shared.events.upstream import DatasetVersion, RunCompleted, Training
from shared.ids import sha256
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(120)
BOB = Actor(id="user:bob", proven=True)
NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
FUTURE = datetime.now(UTC) + timedelta(days=1)  # what is registered in the test is registered by then


def arms(**served: tuple[AssetRef, int]) -> tuple[Arm, ...]:
    return tuple(
        Arm.model_validate({"asset": asset, "role": role, "weight_bp": weight})
        for role, (asset, weight) in served.items()
    )


async def get(it: Registry, what: str = "", **query: Any) -> dict[str, Any]:
    answer = await it.client.get(f"/registry/v1/lineage{what}", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def served(it: Registry, at: datetime) -> dict[str, tuple[str, int]]:
    query = {"node": "group:live", "direction": "upstream", "max_depth": 1, "at": at.isoformat()}
    answer = await it.client.get("/registry/v1/lineage", params=query)  # 404 before the group is heard of
    return {
        edge["source"]: (edge["properties"]["role"], edge["properties"]["weight_bp"])
        for edge in answer.json().get("edges", ())
        if edge["source"].startswith("mm:")
    }


async def test_who_served_at_a_moment_stays_known(installation: Installation) -> None:
    async with registry(installation) as it:
        await it.upload(ROWS, model_bytes(7))
        census = await it.register(a_dataset())
        one, two = await it.models(2)
        poisoned = Training(run_id="17", dataset=DatasetVersion(urn=census.urn, version=1))
        three = await it.register(a_model("poisoned", model_bytes(7), training=poisoned))
        story = [
            arms(champion=(one, 10_000)),
            arms(champion=(one, 9_000), challenger=(three, 1_000)),
            arms(champion=(two, 10_000)),
            arms(champion=(three, 10_000)),  # it comes back, as another edge
            arms(champion=(one, 10_000)),
        ]
        for revision, those in enumerate(story):
            change = GroupChanged(
                group="live", revision=revision + 1, arms=those, actor=BOB, at=FUTURE + revision * HOUR
            )
            await installation.publish(change)

        async def then() -> list[dict[str, tuple[str, int]]]:
            return [await served(it, FUTURE + revision * HOUR + HOUR / 2) for revision in range(5)]

        wanted = [{str(arm.asset): (arm.role, arm.weight_bp) for arm in those} for those in story]
        await eventually(then, lambda found: found == wanted)
        assert await served(it, FUTURE - HOUR) == {}

        # What served with the poisoned dataset at each of these times?
        async def serving(at: datetime | None) -> list[tuple[str, str, int]]:
            query = {} if at is None else {"at": at.isoformat()}
            found = await get(it, "/impact", node=str(census), **query)
            return [(part["group"], part["role"], part["weight_bp"]) for part in found["serving"]]

        assert await serving(FUTURE + 1.5 * HOUR) == [("live", "challenger", 1_000)]
        assert await serving(FUTURE + 2.5 * HOUR) == []
        assert await serving(FUTURE + 3.5 * HOUR) == [("live", "champion", 10_000)]
        assert await serving(None) == []
        assert (await get(it, "/impact", node=str(census)))["counts"] == {"model": 1, "run": 1}
        found = await get(it, "/impact", node=str(census), at=(FUTURE + 3.5 * HOUR).isoformat())
        (group,) = found["affected"]["group"]
        way = [(edge["source"], edge["destination"]) for edge in group["path"]]
        assert way == [(str(census), str(three)), (str(three), "group:live")]


async def test_nodes_in_words_filters_ways_and_hubs(installation: Installation) -> None:
    async with registry(installation) as it:
        await it.upload(ROWS, model_bytes(), model_bytes(1))
        census = await it.register(a_dataset())
        golden = DatasetVersion(urn=census.urn, version=1)
        base = await it.register(a_model("base", training=Training(dataset=golden, run_id="17")))
        twin = await it.register(a_model("twin"))  # the same bytes, whoever trained them
        gate, failed = uuid4(), uuid4()
        await installation.publish(
            RunCompleted(run_id="17", name="base", status="finished", datasets=(golden,), started_at=NOW, ended_at=NOW),
            key=it.key,
        )
        await installation.publish(EvalFailed(evaluation_id=failed, asset=twin, code="timeout", reason="too long"))
        await installation.publish(
            GateDecided(
                gate_id=gate, asset=twin, verdict="review", reason="no data", policy_version=1,
                binding=sha256(b"x"), decided_at=NOW,
            )
        )  # fmt: skip
        await installation.publish(
            GroupChanged(group="live", revision=1, arms=arms(champion=(twin, 10_000)), actor=BOB, at=NOW)
        )
        moved = await it.client.put(
            "/registry/v1/assets/model/twin/versions/1/stage",
            json={"stage": "staging", "reason": "it is fine"},
            headers={"if-match": "*"},
        )
        assert moved.status_code == 200, moved.text
        wanted = {"run:17", str(base), str(twin), f"gate:{gate}", f"evaluation:{failed}", "group:live"}

        async def downstream() -> dict[str, str]:
            found = await get(it, node=str(census), direction="downstream")
            return {node["id"]: node["label"] for node in found["nodes"]}

        words = await eventually(downstream, lambda found: wanted <= found.keys() and found[f"gate:{gate}"] != "gate")
        assert words == {
            str(census): "census 1 (development)",
            "run:17": "run of base (finished)",
            str(base): "base 1 (development)",
            str(twin): "twin 1 (staging)",
            f"gate:{gate}": "gate: review",
            f"evaluation:{failed}": "evaluation failed: timeout",
            "group:live": "group live: champion twin 1",
        }
        models = await get(it, node=str(census), direction="descendants", type=["model", "group"])
        assert {node["kind"] for node in models["nodes"]} == {"dataset", "model", "group"}
        assert all("run:17" not in (edge["source"], edge["destination"]) for edge in models["edges"])
        near = await get(it, node=str(census), direction="downstream", association="ContributedTo")
        assert {node["id"] for node in near["nodes"]} == {str(census), "run:17", str(base)}

        way = await get(it, "/path", source=str(census), destination="group:live")
        assert [node["id"] for node in way["nodes"]] == [str(census), str(base), str(twin), "group:live"]
        assert way["found"] and [edge["association"] for edge in way["edges"]] == [
            "ContributedTo", "SameAs", "AssociatedWith",
        ]  # fmt: skip
        back = await get(it, "/path", source="group:live", destination=str(census))
        assert not back["found"] and back["edges"] == []
        assert (await get(it, "/path", source=str(census), destination=str(census)))["found"]
        for unknown in (
            {"source": "run:99", "destination": "group:live"},
            {"source": "group:live", "destination": "x"},
        ):
            assert (await it.client.get("/registry/v1/lineage/path", params=unknown)).status_code == 404
        assert (await it.client.get("/registry/v1/lineage/impact?node=run:99")).status_code == 404
        for bad in ("association=LooksLike", "max_edges=0", "max_edges=99999", "at=yesterday"):
            assert (await it.client.get(f"/registry/v1/lineage?node=group:live&{bad}")).status_code == 422, bad

        # Fine-tuned on a base of which only the asset is named: what the base stands on reaches it.
        await it.upload(model_bytes(5))
        tuned = await it.register(a_model("tuned", model_bytes(5), training=Training(base=("mm:model/base",))))
        reached = await get(it, "/impact", node=str(census))
        (way,) = (one["path"] for one in reached["affected"]["model"] if one["id"] == str(tuned))
        assert [(edge["association"], edge["destination"]) for edge in way] == [
            ("ContributedTo", str(base)), ("AssociatedWith", str(tuned)),
        ]  # fmt: skip

        # A hub is told as such, and what was beyond it too.
        db = await asyncpg.connect(installation.dsn("registry"), server_settings={"search_path": "registry"})
        await db.execute("SELECT set_config('mintmark.workspace', 'default', false)")
        await db.execute(
            "INSERT INTO edge (workspace, source, association, destination, since, event_id) "
            "SELECT 'default', 'run:hub', 'Produced', 'mm:model/h-' || n || '@1', now(), 'x' "
            "FROM generate_series(1, 10000) n"
        )
        await db.close()
        hub = await get(it, node="run:hub", direction="downstream")
        assert hub["bounded"] == ["run:hub"] and len(hub["edges"]) == 500 and not hub["truncated"]
        few = await get(it, node="run:hub", direction="downstream", max_edges=20)
        assert len(few["edges"]) == 20 and few["bounded"] == ["run:hub"]
        assert (await get(it, "/path", source="run:hub", destination="group:live"))["truncated"]


async def test_a_base_without_a_version_is_the_newest_of_that_time(installation: Installation) -> None:
    async with registry(installation) as it:
        await it.upload(*map(model_bytes, range(6)))

        async def made(name: str, number: int) -> AssetRef:
            of_base = Training(base=("mm:model/base",)) if name != "base" else Training()
            return await it.register(a_model(name, model_bytes(number), training=of_base))

        async def tuned_from(node: str) -> set[str]:
            found = await get(it, "/impact", node=node)
            return {one["id"] for one in found["affected"].get("model", ())}

        first, second = await made("base", 0), await made("base", 1)
        early = await made("early", 2)
        third = await made("base", 3)
        late = await made("late", 4)
        assert [await tuned_from(str(one)) for one in (first, second, third)] == [set(), {str(early)}, {str(late)}]
        assert await tuned_from("mm:model/base") == {str(early), str(late)}
        up = await get(it, node=str(early), direction="upstream")
        assert {node["id"] for node in up["nodes"]} == {str(early), str(second), "mm:model/base"}
        # A version that says it comes from its own asset comes from the one before, not from itself.
        again = await it.register(a_model("base", model_bytes(5), training=Training(base=("mm:model/base",))))
        assert str(again) in await tuned_from(str(third)) and await tuned_from(str(again)) == set()
