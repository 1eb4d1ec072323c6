"""A service is alone with its data: roles, workspaces, migrations, on a real Postgres."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import asyncpg
import pytest

from shared.db.database import FLUSH, Database
from shared.db.migrate import Migration, MigrationRefused, migrate, of_service, read
from shared.db.provision import provision
from shared.errors import Conflict, Invalid, Unavailable
from shared.events import SERVICES
from shared.testing.installation import Installation

KERNEL = read("shared", files("shared.db").joinpath("migrations"))


@pytest.fixture
async def database(bare_installation: Installation) -> Database:
    database = Database(bare_installation.dsn("registry"), "registry")
    await migrate(database, KERNEL)
    return database


async def test_a_role_reaches_no_other_schema(installation: Installation) -> None:
    for service in SERVICES:
        connection = await asyncpg.connect(installation.dsn(service))
        try:
            tables = await connection.fetch(
                "SELECT schemaname, tablename FROM pg_tables WHERE schemaname = ANY($1) AND schemaname <> $2",
                list(SERVICES),
                service,
            )
            assert len(tables) >= 5 * 5
            for row in tables:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(f'SELECT * FROM {row["schemaname"]}."{row["tablename"]}" LIMIT 1')
            for statement in ("CREATE SCHEMA mine", "CREATE TABLE public.mine (x int)", "SET ROLE mintmark_policy_2"):
                with pytest.raises(asyncpg.PostgresError):
                    await connection.execute(statement)
        finally:
            await connection.close()


OF_NO_WORKSPACE = ["router.spool_position"]
"""A spool holds the rows of all workspaces that its gateway serves; its position is two numbers and nobody's data."""


async def test_every_table_with_a_workspace_is_protected_even_from_its_owner(installation: Installation) -> None:
    unprotected = []
    for service in SERVICES:
        connection = await asyncpg.connect(installation.dsn(service))
        rows = await connection.fetch(
            "SELECT relname, relrowsecurity, relforcerowsecurity, EXISTS (SELECT FROM pg_attribute "
            "WHERE attrelid = c.oid AND attname = 'workspace' AND NOT attisdropped) AS has_workspace "
            "FROM pg_class AS c WHERE relnamespace = $1::regnamespace "
            "AND relkind IN ('r', 'p') AND relname <> 'schema_migrations'",
            service,
        )
        await connection.close()
        assert len(rows) >= 5
        unprotected += [
            f"{service}.{row['relname']}"
            for row in rows
            if not (row["has_workspace"] and row["relrowsecurity"] and row["relforcerowsecurity"])
        ]
    assert unprotected == OF_NO_WORKSPACE


async def test_a_flush_takes_along_what_was_committed_without_waiting(database: Database) -> None:
    connection = await database.connect()
    try:
        await connection.execute("SET synchronous_commit = off")  # as the relay's is
        await connection.execute("CREATE TABLE unhurried (number int)")
        for number in range(5):
            await connection.execute("INSERT INTO unhurried VALUES ($1)", number)
            written = await connection.fetchval("SELECT pg_current_wal_insert_lsn()::text")
            await connection.execute(FLUSH)
            assert await connection.fetchval("SELECT $1::text::pg_lsn <= pg_current_wal_flush_lsn()", written)
    finally:
        await connection.close()


async def test_a_transaction_sees_one_workspace(database: Database) -> None:
    await database.open()
    try:
        for workspace in ("one", "two"):
            async with database.begin(workspace) as tx:
                await tx.connection.execute(
                    "INSERT INTO idempotency (workspace, principal, key, request) VALUES ($1, 'a', 'b', 'c')", workspace
                )
        async with database.begin("one") as tx:
            assert [row["workspace"] for row in await tx.connection.fetch("SELECT workspace FROM idempotency")] == [
                "one"
            ]
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with tx.savepoint():
                    await tx.connection.execute(
                        "INSERT INTO idempotency (workspace, principal, key, request) VALUES ('two', 'x', 'y', 'z')"
                    )
        async with database.acquire() as connection:  # the setting does not outlive its transaction
            assert await connection.fetch("SELECT * FROM idempotency") == []
    finally:
        await database.close()


@pytest.mark.parametrize("workspace", ["it's", "a'; DROP TABLE inbox; --", "\\", "ü"])
async def test_a_workspace_is_never_sql(database: Database, workspace: str) -> None:
    await database.open()
    try:
        async with database.begin(workspace) as tx:
            assert await tx.connection.fetchval("SELECT current_setting('mintmark.workspace')") == workspace
        with pytest.raises(Invalid):
            async with database.begin("a\x00b"):
                pass
    finally:
        await database.close()


async def test_an_error_that_was_passed_over_does_not_commit_half(database: Database) -> None:
    await database.open()
    try:
        with pytest.raises(Conflict):
            async with database.begin("one") as tx:
                await tx.connection.execute(
                    "INSERT INTO idempotency (workspace, principal, key, request) VALUES ('one', 'a', 'b', 'c')"
                )
                with suppress(asyncpg.DivisionByZeroError):
                    await tx.connection.execute("SELECT 1/0")
        async with database.begin("one") as tx:
            assert await tx.connection.fetchval("SELECT count(*) FROM idempotency") == 0
    finally:
        await database.close()


async def test_migrations_apply_once_however_many_start_at_once(bare_installation: Installation) -> None:
    database = Database(bare_installation.dsn("registry"), "registry")
    applied = await asyncio.gather(*(migrate(database, KERNEL) for _ in range(5)))
    assert sorted(map(len, applied)) == [0, 0, 0, 0, len(KERNEL)]


async def test_a_changed_migration_is_refused(database: Database) -> None:
    changed = [replace(KERNEL[0], sql=KERNEL[0].sql + "\n-- changed"), *KERNEL[1:]]
    with pytest.raises(MigrationRefused, match="was changed after it was applied"):
        await migrate(database, changed)


async def test_a_newer_schema_is_refused(database: Database) -> None:
    await migrate(database, [*KERNEL, Migration("registry", 1, "0001_new", "CREATE TABLE new_one (x int)")])
    with pytest.raises(MigrationRefused, match="newer release"):
        await migrate(database, KERNEL)


async def test_a_failing_migration_leaves_nothing(database: Database) -> None:
    broken = Migration("registry", 1, "0001_broken", "CREATE TABLE half (x int); SELECT 1/0")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(database, [*KERNEL, broken])
    connection = await database.connect()
    assert await connection.fetchval("SELECT to_regclass('half')") is None
    await connection.close()


async def test_provisioning_twice_changes_nothing(bare_installation: Installation) -> None:
    dsns = {service: bare_installation.dsn(service) for service in SERVICES}
    await provision(bare_installation.backing.dsn(bare_installation.database), dsns)


async def test_a_database_that_is_gone_is_unavailable(bare_installation: Installation) -> None:
    gone = Database("postgresql://mintmark_registry:x@127.0.0.1:1/none", "registry")
    with pytest.raises(Unavailable):
        await gone.open()


@pytest.mark.parametrize("error", [FileNotFoundError("a file"), TimeoutError("a call"), ConnectionResetError("a peer")])
async def test_what_fails_inside_a_transaction_is_not_blamed_on_the_database(
    database: Database, error: Exception
) -> None:
    # Otherwise a handler's own error would be redelivered for ever, as a lost database is waited for without end.
    await database.open()
    try:
        with pytest.raises(type(error)):
            async with database.begin("one"):
                raise error
        with pytest.raises(Unavailable):
            async with database.begin("one") as tx:
                pid = await tx.connection.fetchval("SELECT pg_backend_pid()")
                async with database.acquire() as other:
                    await other.execute("SELECT pg_terminate_backend($1)", pid)
                await tx.connection.fetchval("SELECT 1")
        async with database.begin("one") as tx:
            assert await tx.connection.fetchval("SELECT 1") == 1
    finally:
        await database.close()


@pytest.mark.parametrize("service", SERVICES)
def test_migrations_are_numbered_without_gaps(service: str) -> None:
    assert of_service(service)


@pytest.mark.parametrize(
    ("names", "found"),
    [(("0001_init", "0003_later"), "0002 is missing"), (("0001_init", "0001_other"), "stands twice")],
    ids=["a gap", "a number given twice"],
)
def test_a_folder_that_does_not_count_up_by_one_is_refused(tmp_path: Path, names: tuple[str, ...], found: str) -> None:
    for name in names:
        (tmp_path / f"{name}.sql").write_text("SELECT 1;")
    with pytest.raises(MigrationRefused, match=found):
        read("registry", tmp_path)
