"""An experiment charges the version that was drawn, whoever answered: failovers, caches, rules beside the weights."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.router.api.comparisons import ComparisonView, VersionView
from services.router.comparison.ledger import Ledger
from services.router.domain import Group, choose
from services.router.handlers.comparisons import Comparisons, Question
from services.router.store import Store
from shared.clock import utc_now
from shared.db.database import Database
from shared.db.queries import load

from .test_pursuit import a_group, ref, told
from .world import Postgres, World, a_version

EACH = 40


@pytest.fixture
async def comparisons(postgres: Postgres) -> AsyncIterator[Comparisons]:
    database = Database(postgres.dsn, "router")
    await database.open()
    yield Comparisons(database, Store(load("services.router")), Ledger(load("services.router.comparison")), utc_now)
    await database.close()


async def compared(comparisons: Comparisons, name: str) -> tuple[ComparisonView, dict[int | None, VersionView]]:
    """As GET …/comparison has it, and its versions by number."""
    view = ComparisonView.of(await comparisons.view("default", name, Question()), Question())
    return view, {one.version: one for one in view.versions}


def units_of(group: Group) -> list[str]:
    """EACH units of either version: chance shall not decide whether the split is as promised."""
    found: dict[int, list[str]] = {1: [], 2: []}
    number = 0
    while min(map(len, found.values())) < EACH:
        of = found[choose(group, f"unit-{number}").version]
        if len(of) < EACH:
            of.append(f"unit-{number}")
        number += 1
    return [*found[1], *found[2]]


def to_the_champion(name: str, **more: Any) -> dict[str, Any]:
    champion = {"version": ref(a_version(1, f"m-{name}"))}
    return {"failover": [{"name": "home", "targets": [champion]}], "retries": {"most": 2, "least": 1000}, **more}


async def test_a_challenger_that_fails_over_is_charged_and_the_split_is_as_promised(
    world: World, comparisons: Comparisons, name: str
) -> None:
    breaker = {"consecutive_failures": 1000, "failure_share": None}
    group = await a_group(world, name, to_the_champion(name, breaker=breaker), weight_bp=5_000)
    units = units_of(group)
    for place, unit in enumerate(units):
        world.stub.behaviours[f"good.2-{name}"] = "busy" if place % 2 else "good"
        assert (await world.infer(name, x_mintmark_unit=unit)).status_code == 200
    rows = await world.rows(name)
    assert [row["version"] for row in rows].count(1) == EACH + EACH // 2
    view, sides = await compared(comparisons, name)
    assert (sides[1].error_rate, sides[2].error_rate) == (0.0, 0.5)
    assert sides[2].errors_by_class == {"upstream-503": EACH // 2}
    assert view.n == len(units) == len(rows)
    assert view.sample_ratio.p is not None and view.sample_ratio.p > 0.9 and not view.sample_ratio.mismatch
    assert view.verdicts[0].primary is not None
    assert view.verdicts[0].primary.value == pytest.approx(0.5), "the verdict's own figures, not the shown ones alone"


async def test_a_version_that_is_left_alone_is_charged_and_one_behind_a_rule_is_not(
    world: World, comparisons: Comparisons, name: str
) -> None:
    two = ref(a_version(2, f"m-{name}"))
    rules = [{"name": "beta", "when": [{"header": "x-cohort", "equals": "beta"}], "to": two}]
    breaker = {"consecutive_failures": 2, "open_s": 600}
    settings = to_the_champion(name, breaker=breaker, rules=rules)
    group = await a_group(world, name, settings, two="busy", weight_bp=5_000)
    for unit in units_of(group):
        await world.infer(name, x_mintmark_unit=unit)
    for _ in range(EACH):
        await world.infer(name, x_cohort="beta")
    assert "drawn" not in told((await world.rows(name))[-1])
    view, sides = await compared(comparisons, name)
    assert sides[2].errors_by_class == {"upstream-503": 2, "targets-unavailable": EACH - 2}
    assert (sides[2].n, sides[2].error_rate, view.n) == (EACH, 1.0, 3 * EACH)
    assert view.sample_ratio.p is not None and not view.sample_ratio.mismatch


async def test_who_was_only_slower_than_a_hedge_did_not_fail(world: World, comparisons: Comparisons, name: str) -> None:
    hedge = {"percentile": 90, "at_least_ms": 30, "least_answers": 5}
    settings = {"hedge": hedge, "failover": "FAILOVER", "retries": {"least": 100}}
    await a_group(world, name, settings)
    for _ in range(6):
        await world.infer(name)
    world.stub.behaviours[f"good.1-{name}"] = "stall"
    response = await world.infer(name)
    assert response.headers["x-mintmark-version"].endswith("@2")
    row = (await world.rows(name))[-1]
    assert told(row)["drawn"] == {"urn": f"mm:model/m-{name}", "version": 1, "digest": a_version(1).digest}
    view, sides = await compared(comparisons, name)
    assert (sides[1].n, sides[1].errors, view.n) == (7, 0, 7)


async def test_a_cached_answer_is_its_versions_in_the_split_and_a_ruled_one_is_not(
    world: World, comparisons: Comparisons, name: str
) -> None:
    two = ref(a_version(2, f"m-{name}"))
    rules = [{"name": "beta", "when": [{"header": "x-cohort", "equals": "beta"}], "to": two}]
    group = await a_group(world, name, {"cache": {}, "rules": rules}, weight_bp=5_000)
    for unit in units_of(group):
        await world.infer(name, x_mintmark_unit=unit)
    for _ in range(2 * EACH):  # all to the challenger, and all from the cache
        assert (await world.infer(name, x_cohort="beta")).headers["x-mintmark-cache"] == "hit"
    rows = await world.rows(name)
    assert [told(row).get("cache") for row in rows].count("hit") == len(rows) - 2
    view, _ = await compared(comparisons, name)
    assert view.sample_ratio.p is not None and view.sample_ratio.p > 0.9


async def test_a_field_rule_that_drops_the_tags_hides_no_failure(
    world: World, comparisons: Comparisons, name: str
) -> None:
    group = await a_group(world, name, to_the_champion(name), two="busy", weight_bp=10_000)
    await world.configure(group, "rows", {"fields": [{"field": "tags", "action": "drop"}]})
    assert (await world.infer(name, x_mintmark_tags='{"customer": "ada"}')).status_code == 200
    (row,) = await world.rows(name)
    assert set(told(row)) == {"failed_over", "drawn"}
    _, sides = await compared(comparisons, name)
    assert (sides[2].n, sides[2].errors, sides[1].errors) == (1, 1, 0)
