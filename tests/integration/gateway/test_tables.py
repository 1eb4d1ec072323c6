"""The router's own tables: one group is one table, logs only grow, and figures are what statistics says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from services.router.domain import log_table
from shared.ids import new_id

from .world import World, a_version

START = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.mark.parametrize("name", ['a"; drop table feedback; --', "A", "a_b", "", "a" * 49, "é"])
async def test_the_database_refuses_a_name_by_itself(db: asyncpg.Connection, name: str) -> None:
    with pytest.raises(asyncpg.PostgresError, match="cannot name a group"):
        await db.execute("SELECT create_inference_log($1, 'default')", name)


async def test_names_that_look_like_another_groups_index_have_tables_of_their_own(db: asyncpg.Connection) -> None:
    base = f"g{new_id().hex[-12:]}"
    longest = base + "x" * (48 - len(base))
    for name in (base, f"{base}-pkey", f"{base}-received-at-idx", f"pk-{base}", longest):
        table = await db.fetchval("SELECT create_inference_log($1, 'default')", name)
        assert table == log_table(name)
        protected = "SELECT relrowsecurity AND relforcerowsecurity FROM pg_class WHERE oid = $1::text::regclass"
        assert await db.fetchval(protected, table)
    with pytest.raises(asyncpg.DuplicateTableError):
        await db.execute("SELECT create_inference_log($1, 'default')", base)


async def test_two_groups_cannot_share_a_name_or_a_table_even_across_workspaces(world: World, name: str) -> None:
    version = await world.deploy(a_version(5))
    await world.make_group(name, version)
    with pytest.raises(asyncpg.UniqueViolationError):
        await world.make_group(name, version, workspace="other")


async def test_a_row_of_another_workspace_cannot_be_written_to_a_groups_table(world: World, name: str) -> None:
    await world.make_group(name, await world.deploy(a_version(5)))
    with pytest.raises(asyncpg.CheckViolationError):
        await insert(world.db, name, [row(START, 1, 0.5, "1", workspace="other")])


async def test_a_groups_log_can_only_grow(world: World, name: str) -> None:
    await world.make_group(name, await world.deploy(a_version(5)))
    for statement in (
        "UPDATE group_revision SET who = 'user:mallory'",
        "DELETE FROM group_revision",
        "TRUNCATE group_revision",
    ):
        with pytest.raises(asyncpg.PostgresError, match="append-only"):
            await world.db.execute(statement)


def row(
    at: datetime,
    version: int,
    score: float | None,
    prediction: str | None,
    *,
    status: int = 200,
    latency_ms: float = 1.0,
    workspace: str = "default",
) -> tuple[object, ...]:
    digest = f"sha256:{version:064x}"
    identity = (new_id(), workspace, at, "unit", "mm:model/employment", version, digest, status, None)
    return (*identity, "{}", "{}", None, score, prediction, latency_ms, 1.0, "0" * 32, 1)


async def insert(db: asyncpg.Connection, group: str, rows: list[tuple[object, ...]]) -> None:
    places = ", ".join(f"${place}" for place in range(1, 19))
    await db.executemany(
        f"INSERT INTO {log_table(group)} (request_id, workspace, received_at, unit, asset, version, digest, status, "
        "error_code, input, output, shap, score, prediction, latency_ms, upstream_ms, trace_id, revision) "
        f"VALUES ({places})",
        rows,
    )


async def label(db: asyncpg.Connection, group: str, labels: list[tuple[object, str]], day: int) -> None:
    await db.executemany(
        "INSERT INTO feedback (id, workspace, group_name, request_id, metric, label, who, received_at) "
        "VALUES ($1, 'default', $2, $3, 'label', $4, 'user:ada', $5)",
        [(new_id(), group, request_id, value, START + timedelta(days=day)) for request_id, value in labels],
    )
