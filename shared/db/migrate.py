"""Forward-only migrations: numbered SQL files, applied once each under a lock, and held to their checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

import asyncpg

from shared.db.database import Database
from shared.errors import MintmarkError

LOCK = 0x6D696E74  # "mint": one lock a schema, combined with the schema's hash


class MigrationRefused(MintmarkError):
    """The schema and the migrations of this release do not fit together."""

    code = "migration-refused"


@dataclass(frozen=True, slots=True)
class Migration:
    """One step; `owner` is `shared` for the kernel's tables, else the service."""

    owner: str
    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def read(owner: str, folder: Traversable) -> list[Migration]:
    """The migrations of one folder, in order. Raises MigrationRefused for a gap or a number given twice."""
    steps = []
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        if entry.name.endswith(".sql"):
            number = entry.name.split("_", 1)[0]
            if not number.isdecimal():
                raise MigrationRefused(f"{owner}/{entry.name} does not start with its number")
            steps.append(Migration(owner, int(number), entry.name.removesuffix(".sql"), entry.read_text()))
    for position, step in enumerate(steps, start=1):
        if step.number != position:
            raise MigrationRefused(f"{owner}: migration {position:04} is missing or stands twice (found {step.name})")
    return steps


def of_service(name: str) -> list[Migration]:
    """The kernel's migrations, then the service's own."""
    return [
        *read("shared", files("shared.db").joinpath("migrations")),
        *read(name, files(f"services.{name}").joinpath("migrations")),
    ]


async def migrate(database: Database, steps: Iterable[Migration]) -> list[str]:
    """Apply what is missing; returns the names of what was applied. Safe to run from many processes at once.

    Raises MigrationRefused when an applied file was changed since, or when the schema is of a newer release.
    """
    applied: list[str] = []
    connection = await database.connect()
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1, hashtext($2))", LOCK, database.schema)
            await connection.execute(
                "CREATE TABLE IF NOT EXISTS schema_migrations (owner text, number integer, name text NOT NULL, "
                "checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (owner, number))"
            )
            known = {
                (row["owner"], row["number"]): row
                for row in await connection.fetch("SELECT owner, number, name, checksum FROM schema_migrations")
            }
            for step in steps:
                row = known.pop((step.owner, step.number), None)
                if row is None:
                    await _apply(connection, step)
                    applied.append(f"{step.owner}/{step.name}")
                elif row["checksum"] != step.checksum:
                    raise MigrationRefused(
                        f"{step.owner}/{step.name} was changed after it was applied to {database.schema}; "
                        "restore the file and put the change into a new migration"
                    )
            if known:
                newest = max(known)
                raise MigrationRefused(
                    f"schema {database.schema} was migrated by a newer release ({newest[0]} {newest[1]:04}); "
                    "install that one"
                )
    finally:
        await connection.close()
    return applied


async def _apply(connection: asyncpg.Connection, step: Migration) -> None:
    await connection.execute(step.sql)
    await connection.execute(
        "INSERT INTO schema_migrations (owner, number, name, checksum) VALUES ($1, $2, $3, $4)",
        step.owner, step.number, step.name, step.checksum,
    )  # fmt: skip
