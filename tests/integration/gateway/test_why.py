"""Why a request went where it went, as the router's API tells it from the rows that the gateway wrote."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from services.router.api.inferences import WhyView
from services.router.domain import BUCKETS, Shadow, mirror
from services.router.handlers.inferences import Inferences
from services.router.handlers.keys import GroupKeyring
from services.router.store import Store
from services.router.tables.store import TableStore
from shared.db.database import Database
from shared.db.queries import load
from shared.testing.installation import eventually

from .test_pursuit import a_group, ref
from .world import Postgres, World, a_version


@pytest.fixture
async def inferences(postgres: Postgres) -> AsyncIterator[Inferences]:
    database = Database(postgres.dsn, "router")
    await database.open()
    tables = TableStore(load("services.router.tables"))
    yield Inferences(database, Store(load("services.router")), tables, GroupKeyring(tables, None))
    await database.close()


async def why(inferences: Inferences, name: str, request_id: str) -> WhyView:
    return WhyView.of(await inferences.why("default", name, UUID(request_id)))


async def test_why_by_weight_by_rule_by_failover_and_by_cache(world: World, inferences: Inferences, name: str) -> None:
    one, two = (ref(a_version(number, f"m-{name}")) for number in (1, 2))
    settings = {
        "rules": [{"name": "beta", "when": [{"header": "x-cohort", "equals": "beta"}], "to": two}],
        "failover": [{"name": "home", "targets": [{"version": one}]}],
        "cache": {},
    }
    group = await a_group(world, name, settings, weight_bp=2500)
    plain = await world.infer(name, x_mintmark_unit="ada")
    beta = await world.infer(name, x_cohort="beta")
    again = await world.infer(name, x_cohort="beta")
    world.stub.behaviours[f"good.2-{name}"] = "busy"
    other = {"inputs": [{"name": "AGEP", "datatype": "FP64", "shape": [1, 1], "data": [7.0]}]}
    elsewhere = await world.infer(name, other, x_cohort="beta")
    await world.rows(name)

    said = await why(inferences, name, plain.headers["x-mintmark-request-id"])
    assert (said.unit, said.revision, said.rule, said.cache) == ("ada", group.revision, None, None)
    assert sum(end - start for one in said.ranges for start, end in one.ranges) == BUCKETS
    (owner,) = [one.asset for one in said.ranges if any(start <= said.bucket < end for start, end in one.ranges)]
    assert owner == said.chosen == said.served
    assert [(one.outcome, one.breaker) for one in said.attempts] == [("ok", "closed")]
    assert "falls into this bucket at every request" in said.explanation

    said = await why(inferences, name, beta.headers["x-mintmark-request-id"])
    assert (said.rule, said.served and said.served.version) == ("beta", 2)
    assert "the rule 'beta' was the first to match" in said.explanation

    said = await why(inferences, name, again.headers["x-mintmark-request-id"])
    assert (said.cache, said.attempts) == ("hit", ())
    assert "from the cache" in said.explanation

    said = await why(inferences, name, elsewhere.headers["x-mintmark-request-id"])
    assert [one.outcome for one in said.attempts] == ["upstream-503", "ok"]
    assert said.failed_over and said.served is not None and said.served.version == 1
    assert f"mm:model/m-{name}@2 was asked and gave upstream-503" in said.explanation
    assert f"mm:model/m-{name}@1 (home) answered" in said.explanation


async def test_why_of_one_that_was_left_alone_and_of_a_shadow(world: World, inferences: Inferences, name: str) -> None:
    group = await a_group(world, name, {"breaker": {"consecutive_failures": 1, "open_s": 60}}, "busy")
    await world.infer(name)
    refused = await world.infer(name)
    await world.rows(name)
    said = await why(inferences, name, refused.headers["x-mintmark-request-id"])
    assert [one.model_dump() for one in said.skipped] == [{"to": f"mm:model/m-{name}@1", "why": "breaker open"}]
    assert "was not asked: breaker open" in said.explanation

    third = await world.deploy(a_version(3, f"m-{name}"), f"good.3-{name}")
    moved = mirror(group, [Shadow(third, 10_000)], expected_revision=group.revision)
    await world.until_served(await world.move(moved, "mirrored"))
    moved = await world.configure(moved, "routing", {})
    of = (await world.infer(name)).headers["x-mintmark-request-id"]
    rows = await eventually(lambda: world.rows(name), lambda rows: len(rows) == 4)
    (shadow,) = [row for row in rows if row["shadow_of"] is not None]
    said = await why(inferences, name, str(shadow["request_id"]))
    assert str(said.shadow_of) == of and "sent to the shadow" in said.explanation
    assert said.served is not None and said.served.version == third.version
