"""What only an administrator may do: a role and a schema for each service, each closed to the others."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import unquote, urlsplit

import asyncpg

LOCK = 0x6D696E75


async def provision(admin_dsn: str, service_dsns: Mapping[str, str]) -> None:
    """Make (or mend) role `mintmark_<service>` and schema `<service>` for each service; idempotent.

    The role's name and password are those of the service's DSN. It may connect, owns its schema, and reaches
    nothing else: PUBLIC loses its rights on the database and on schema public.
    """
    connection = await asyncpg.connect(admin_dsn, timeout=10)
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
            database = await connection.fetchval("SELECT quote_ident(current_database())")
            await connection.execute(f"REVOKE ALL ON DATABASE {database} FROM PUBLIC")
            await connection.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
            for service, dsn in service_dsns.items():
                await _role(connection, database, service, dsn)
                await _extensions(connection, service)
    finally:
        await connection.close()


EXTENSIONS = {"registry": ("vector",)}
"""What a service uses where the server has it, in its own schema; only an administrator may make them."""


async def _extensions(connection: asyncpg.Connection, service: str) -> None:
    for extension in EXTENSIONS.get(service, ()):
        there = await connection.fetchval("SELECT count(*) FROM pg_available_extensions WHERE name = $1", extension)
        if there:
            schema = await connection.fetchval("SELECT quote_ident($1)", service)
            with suppress(asyncpg.InsufficientPrivilegeError):  # the service does without it
                async with connection.transaction():
                    await connection.execute(f"CREATE EXTENSION IF NOT EXISTS {extension} SCHEMA {schema}")


async def _role(connection: asyncpg.Connection, database: str, service: str, dsn: str) -> None:
    parts = urlsplit(dsn)
    role, password = unquote(parts.username or ""), unquote(parts.password or "")
    literal = await connection.fetchval("SELECT quote_literal($1)", password)
    name = await connection.fetchval("SELECT quote_ident($1)", role)
    schema = await connection.fetchval("SELECT quote_ident($1)", service)
    exists = await connection.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role)
    verb = "ALTER" if exists else "CREATE"
    await connection.execute(
        f"{verb} ROLE {name} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS PASSWORD {literal}"
    )
    await connection.execute(f"GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {name}")
    await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    # An administrator who is no superuser (RDS) must be a member of the role to give it the schema.
    if not await connection.fetchval("SELECT pg_has_role(current_user, $1, 'MEMBER')", role):
        await connection.execute(f"GRANT {name} TO CURRENT_USER")
    await connection.execute(f"ALTER SCHEMA {schema} OWNER TO {name}")
    await connection.execute(f"REVOKE ALL ON SCHEMA {schema} FROM PUBLIC")
    await connection.execute(f"ALTER ROLE {name} IN DATABASE {database} SET search_path = {schema}")
