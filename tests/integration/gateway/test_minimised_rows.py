"""Rows of real traffic, minimised before they are on the disk; searched, and erased even when they come late."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from services.router.domain import log_table
from services.router.gateway.minimisation.keys import GroupKeyRing, new_key
from services.router.gateway.sealing import FileMasterKey
from services.router.tables.filters import read_filters
from services.router.tables.store import TableStore, Wanted, as_json
from shared.db.database import Transaction, set_codecs
from shared.db.queries import load
from shared.ids import new_id

from .world import BODY, World, a_version

LAST = datetime(9999, 1, 1, tzinfo=UTC)
FIRST = datetime(1, 1, 1, tzinfo=UTC)
TABLES = TableStore(load("services.router.tables"))


async def configure(world: World, name: str, settings: dict[str, Any], *kinds: str, sealed: bool = True) -> None:
    """Put a `rows` section in force as the router does, with the keys that it needs."""
    group = world.gateway.snapshot.routes[name].group  # type: ignore[union-attr]
    revision = group.revision + 1
    master = FileMasterKey(world.master_key) if sealed else None
    async with world.db.transaction():
        for kind in kinds:
            value, is_sealed = new_key("default", name, kind, master)
            await world.db.execute(
                "INSERT INTO group_key (workspace, group_name, kind, value, sealed) VALUES ('default', $1, $2, $3, $4)",
                name, kind, value, is_sealed,
            )  # fmt: skip
        await world.db.execute(
            "INSERT INTO group_revision SELECT workspace, group_name, $2::bigint, 'configured', champion_urn, "
            "champion_version, champion_digest, challengers, who, why, evidence, at, shadows, hosted "
            "FROM group_revision WHERE group_name = $1 AND revision = $2::bigint - 1", name, revision,
        )  # fmt: skip
        await world.db.execute(
            "INSERT INTO group_setting VALUES ('default', $1, 'rows', $2, $3, 'user:ada', 'test', now())",
            name, revision, orjson.dumps(settings).decode(),
        )  # fmt: skip
        await world.db.execute("UPDATE model_group SET revision = $2 WHERE name = $1", name, revision)
    await world.until_served(replace(group, revision=revision))


def spooled(tmp_path: Path) -> bytes:
    return b"".join(path.read_bytes() for path in (tmp_path / "gateway" / "spool").rglob("*.rows"))


async def test_nothing_that_a_rule_takes_out_reaches_the_disk(world: World, name: str, tmp_path: Path) -> None:
    await world.make_group(name, await world.deploy(a_version(5)))
    rules = [
        {"field": "unit", "action": "hash"},
        {"field": "features.AGEP", "action": "encrypt"},
        {"field": "input.parameters.note", "action": "mask"},
        {"field": "output", "action": "drop"},
        {"field": "client_request_id", "action": "drop"},
    ]
    await configure(world, name, {"fields": rules}, "salt", "data")
    body = {**BODY, "id": "patient-4711", "parameters": {"note": "mail bo@example.com"}}
    answer = await world.infer(name, body, x_request_id="secret-client-id")
    assert answer.status_code == 200 and answer.json()["outputs"]
    on_disk = spooled(tmp_path)
    assert name.encode() in on_disk
    for secret in (b"patient-4711", b"bo@example.com", b"secret-client-id", b"42.0"):
        assert secret not in on_disk, secret
    (row,) = await world.rows(name)
    keys = GroupKeyRing(FileMasterKey(world.master_key)).keys_of("default", name, await stored_keys(world, name))
    assert row["unit"] == keys.hashed(b"patient-4711")
    features, sent = orjson.loads(row["features"]), orjson.loads(row["input"])
    assert keys.opened(features["AGEP"]) == 42.0
    assert sent["id"] == row["unit"] and sent["parameters"]["note"] == "mail [email]"
    assert keys.opened(sent["inputs"][0]["data"]) == [42.0]
    assert (row["output"], row["client_request_id"]) == (None, None)
    assert row["score"] is not None, "no rule was about the score"


async def stored_keys(world: World, name: str) -> dict[str, Any]:
    rows = await world.db.fetch("SELECT kind, value, sealed FROM group_key WHERE group_name = $1", name)
    assert all(row["sealed"] for row in rows)
    return {row["kind"]: {"value": row["value"], "sealed": row["sealed"]} for row in rows}


async def test_a_rule_without_its_key_costs_the_field_and_not_the_row(world: World, name: str) -> None:
    await world.make_group(name, await world.deploy(a_version(5)))
    await configure(world, name, {"fields": [{"field": "features.AGEP", "action": "hash"}]})
    assert (await world.infer(name)).status_code == 200
    (row,) = await world.rows(name)
    assert (row["status"], row["features"], row["input"]) == (200, None, None)
    assert f'mintmark_gateway_fields_lost_total{{group="{name}"}} 1.0' in (await world.http.get("/metrics")).text


async def test_refused_consent_keeps_what_operation_needs_and_nothing_else(
    world: World, name: str, tmp_path: Path
) -> None:
    await world.make_group(name, await world.deploy(a_version(5)))
    await world.infer(name, x_mintmark_consent="none")
    assert b"person-1" not in spooled(tmp_path) and b"42.0" not in spooled(tmp_path)
    (row,) = await world.rows(name)
    assert row["unit"] == str(row["request_id"])
    assert (row["status"], row["version"], row["latency_ms"] > 0) == (200, 5, True)
    kept = ("input", "output", "features", "shap", "requester", "score", "prediction", "client_request_id")
    assert {row[column] for column in kept} == {None}
    assert orjson.loads(row["tags"]) == {"consent": "none"}


async def test_a_flag_in_the_body_is_heeded_and_silence_is_what_the_group_says(world: World, name: str) -> None:
    await world.make_group(name, await world.deploy(a_version(5)))
    await configure(world, name, {"consent": {"path": "parameters.consent", "when_absent": "minimise"}})
    for said in ({"consent": True}, {"consent": False}, {}):
        await world.infer(name, {**BODY, "parameters": said})
    rows = await world.rows(name)
    assert [row["input"] is not None for row in rows] == [True, False, False]
    assert [row["unit"] == "person-1" for row in rows] == [True, False, True]


# -- erased


async def erase(world: World, name: str, subject: str, at: datetime) -> asyncpg.Record:
    """As the router erases: rows that are there, and a word for those that come late."""
    salt = b"salt" * 4
    gone = await world.db.fetchrow("SELECT * FROM erase_rows($1, $2, '[]')", name, [subject])
    await world.db.execute(
        "INSERT INTO erasure (id, workspace, groups, salt, subjects, reason, who, at, receipt) "
        "VALUES ($1, 'default', $2, $3, $4, 'asked for', 'user:ada', $5, '{}')",
        new_id(), [name], salt, [hashlib.sha256(salt + subject.encode()).digest()], at,
    )  # fmt: skip
    return gone


async def test_a_row_that_is_still_in_a_spool_is_erased_when_it_comes(world: World, name: str) -> None:
    await world.make_group(name, await world.deploy(a_version(5)))
    await world.infer(name, x_mintmark_unit="ada")
    assert len(await world.rows(name)) == 1
    for unit in ("ada", "bo", "ada"):
        await world.infer(name, x_mintmark_unit=unit)
    gone = await erase(world, name, "ada", datetime.now(UTC))
    assert gone["row_count"] == 1, "only what was in the table"
    await world.infer(name, x_mintmark_unit="ada")  # afterwards: another matter
    rows = await world.rows(name)
    assert [row["unit"] for row in rows] == ["bo", "ada"]
    late = await world.db.fetchval("SELECT late_rows FROM erasure WHERE groups = $1", [name])
    assert late == 2
    said = await world.db.fetch("SELECT data FROM outbox WHERE topic = 'inference.logged'")
    units = [
        row["unit"] for one in said if (event := orjson.loads(one["data"]))["group"] == name for row in event["rows"]
    ]
    assert sorted(units) == ["ada", "ada", "bo"], "the late ones were not said"


# -- searched


async def fill(db: asyncpg.Connection, name: str, at: datetime, count: int) -> None:
    """`count` rows, a second apart, the last one at `at`; every hundredth failed."""
    for day in {(at - timedelta(seconds=count - number)).date() for number in range(count + 1)}:
        await db.execute("SELECT inference_log_day($1, $2)", name, day)
    await db.execute(
        f"INSERT INTO {log_table(name)} (request_id, received_at, status, latency_ms, revision, workspace, asset, "
        "version, digest, arm, unit, score, trace_id, error_code, features, input) "
        "SELECT gen_random_uuid(), $1::timestamptz - make_interval(secs => $2 - n), "
        "CASE WHEN n % 100 = 0 THEN 502 ELSE 200 END, n, 1, 'default', 'mm:model/m', "
        "1 + n % 3, 'sha256:' || repeat('0', 64), 'champion', 'u' || n % 50, "
        "n / 1000.0, 't', CASE WHEN n % 100 = 0 THEN 'upstream-failed' END, jsonb_build_object('AGEP', n), "
        "jsonb_build_object('id', 'person ' || n) FROM generate_series(1, $2::integer) AS n",
        at, count,
    )  # fmt: skip


async def search(db: asyncpg.Connection, name: str, *texts: str, most: int = 10_000, budget_ms: float = 1e6) -> Any:
    wanted = Wanted(FIRST, LAST, (LAST, new_id()), read_filters(texts))
    return await TABLES.search(Transaction(db, "default"), name, wanted, most, budget_ms)


@pytest.fixture
async def found(world: World, name: str) -> tuple[asyncpg.Connection, str]:
    """A group with 3,000 rows over two days."""
    await world.make_group(name, await world.deploy(a_version(5)))
    await set_codecs(world.db)
    noon = datetime.now(UTC).replace(hour=0, minute=20, second=0, microsecond=0)
    await fill(world.db, name, noon, 3000)
    return world.db, name


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ((), 3000),
        (("status>=500",), 30),
        (("error_code=upstream-failed", "version=2"), 10),
        (("unit=u7",), 60),
        (("unit=nobody",), 0),
        (("latency_ms>=2000", "latency_ms<2500"), 500),
        (("features.AGEP=1234",), 1),
        (("features.AGEP>2990",), 10),
        (('features.AGEP="1234"',), 1),
        (("features.AGEP!=1",), 2999),
        (("features.NONE is null", "input.id^person 299"), 11),
        (("input~PERSON 29",), 111),
        (("error_code is not null",), 30),
        (("score<0.1", "unit^u1"), 22),
        (("received_at<2020-01-01T00:00:00Z",), 0),
        (("asset=mm:model/m'; DROP TABLE feedback; --",), 0),
    ],
)
async def test_every_column_is_a_filter(
    found: tuple[asyncpg.Connection, str], filters: tuple[str, ...], count: int
) -> None:
    db, name = found
    rows = await search(db, name, *filters)
    assert (len(rows.rows), rows.reached) == (count, None)
    times = [(row["received_at"], row["request_id"]) for row in rows.rows]
    assert times == sorted(times, reverse=True)


async def test_a_search_that_runs_out_of_time_goes_on_where_it_stopped(found: tuple[asyncpg.Connection, str]) -> None:
    db, name = found
    before, seen, calls = (LAST, new_id()), [], 0
    while True:
        wanted = Wanted(FIRST, LAST, before, read_filters(["features.AGEP<1500"]))
        page = await TABLES.search(Transaction(db, "default"), name, wanted, 10_000, 0.0)
        seen.extend(row["latency_ms"] for row in page.rows)
        calls += 1
        if page.reached is None:
            break
        assert page.reached < before
        before = page.reached
    assert sorted(seen) == [float(n) for n in range(1, 1500)]
    assert calls > 1, "the budget was not heeded"


async def test_a_page_asks_only_the_days_that_it_needs(found: tuple[asyncpg.Connection, str]) -> None:
    db, name = found
    days = await db.fetch("SELECT * FROM inference_days($1, $2, $3)", name, FIRST, LAST)
    assert len(days) >= 3  # yesterday, today and tomorrow's, newest first
    assert [day[0] for day in days] == sorted((day[0] for day in days), reverse=True)
    condition = await db.fetchval("SELECT inference_condition($1)", as_json(read_filters(["status>=500"])))
    plan = await db.fetch(
        f"EXPLAIN SELECT * FROM {log_table(name)} WHERE received_at >= now() - interval '1 hour' AND {condition}"
    )
    assert "failed_" in "\n".join(line[0] for line in plan) or "Seq Scan" in "\n".join(line[0] for line in plan)


# -- the typed view


async def test_the_view_has_a_typed_column_a_feature_and_keeps_to_the_workspace(world: World, name: str) -> None:
    version = await world.deploy(a_version(5))
    inputs = [
        {"name": "AGEP", "datatype": "FP64"}, {"name": "MAR", "datatype": "INT64"},
        {"name": "unit", "datatype": "BYTES"}, {"name": "x" * 70, "datatype": "FP32"},
        {"name": 'a"b; --', "datatype": "BOOL"},
    ]  # fmt: skip
    await world.db.execute(
        "UPDATE served_version SET signature = $2 WHERE urn = $1",
        version.urn,
        orjson.dumps({"inputs": inputs}).decode(),
    )
    await world.make_group(name, version)
    view = f"inference_view_{name.replace('-', '_')}"
    types = {
        row["column_name"]: row["data_type"]
        for row in await world.db.fetch("SELECT * FROM information_schema.columns WHERE table_name = $1", view)
    }
    assert types["AGEP"] == "double precision" and types["MAR"] == "bigint" and types['a"b; --'] == "boolean"
    assert types["unit"] == "text" and types["feature_3"] == "text" and types["feature_4"] == "double precision"
    await fill(world.db, name, datetime.now(UTC), 1)
    await world.db.execute(
        f"""UPDATE {log_table(name)} SET features = '{{"AGEP": 42.5, "MAR": "hmac-sha256:00", "unit": "u"}}'"""
    )
    row = await world.db.fetchrow(f'SELECT "AGEP", "MAR", feature_3 FROM {view}')
    assert tuple(row) == (42.5, None, "u")
    async with world.db.transaction():
        await world.db.execute("SELECT set_config('mintmark.workspace', 'other', true)")
        assert await world.db.fetchval(f"SELECT count(*) FROM {view}") == 0


async def test_the_view_follows_the_champion(world: World, name: str) -> None:
    version = await world.deploy(a_version(5))
    await world.make_group(name, version)
    due = "SELECT count(*) FROM inference_views_due() WHERE group_name = $1"
    assert await world.db.fetchval(due, name) == 0
    changed = orjson.dumps({"inputs": [{"name": "SEX", "datatype": "INT64"}]}).decode()
    await world.db.execute("UPDATE served_version SET signature = $2 WHERE urn = $1", version.urn, changed)
    assert await world.db.fetchval(due, name) == 1
    await world.db.execute("SELECT renew_inference_view($1)", name)
    assert await world.db.fetchval(due, name) == 0
    assert await world.db.fetch(f'SELECT "SEX" FROM inference_view_{name.replace("-", "_")}') == []
