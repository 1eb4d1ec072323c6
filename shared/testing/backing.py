"""The brokers and databases of a test run, one of each a worker; every test takes a database and a topic prefix."""

from __future__ import annotations

import asyncio
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from shared.db.database import Database
from shared.db.migrate import migrate, of_service
from shared.db.provision import provision
from shared.events import SERVICES

BOOTSTRAP = "MINTMARK_TEST_BOOTSTRAP"
ADMIN_DSN = "MINTMARK_TEST_ADMIN_DSN"
TEMPLATE = "mintmark_template"


@dataclass(frozen=True, slots=True)
class Backing:
    """Where the run's Kafka and Postgres answer. Loopback, throwaway, without fsync."""

    bootstrap: str
    admin_dsn: str

    @classmethod
    def of_run(cls) -> Backing:
        """This worker's, of those that the test run started (tests/conftest.py)."""
        brokers, databases = os.environ[BOOTSTRAP].split(), os.environ[ADMIN_DSN].split()
        number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        return cls(brokers[number % len(brokers)], databases[number % len(databases)])

    def dsn(self, database: str, service: str | None = None) -> str:
        """DSN of a service's role (the administrator's without one) on a database."""
        parts = urlsplit(self.admin_dsn)
        netloc = parts.netloc if service is None else f"mintmark_{service}:test-{service}@{parts.hostname}:{parts.port}"
        return urlunsplit((parts.scheme, netloc, f"/{database}", "", ""))

    async def new_database(self, name: str) -> None:
        """A database with every service's schema, copied from a template that the first caller makes."""
        with _one_at_a_time("template"):
            await self._template()
            await self._execute(f'CREATE DATABASE "{name}" TEMPLATE {TEMPLATE} STRATEGY wal_log')

    async def empty_database(self, name: str) -> None:
        """A database with roles and schemas but no tables."""
        with _one_at_a_time("template"):
            await self._execute(f'CREATE DATABASE "{name}"')
            await provision(self.dsn(name), {service: self.dsn(name, service) for service in SERVICES})

    async def drop_database(self, name: str) -> None:
        await self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    async def _template(self) -> None:
        connection = await asyncpg.connect(self.admin_dsn)
        try:
            if await connection.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", TEMPLATE):
                return
            await connection.execute(f"CREATE DATABASE {TEMPLATE}_new")
        finally:
            await connection.close()
        dsns = {service: self.dsn(f"{TEMPLATE}_new", service) for service in SERVICES}
        await provision(self.dsn(f"{TEMPLATE}_new"), dsns)
        for service, dsn in dsns.items():
            if find_spec(f"services.{service}") and find_spec(f"services.{service}.app"):
                await migrate(Database(dsn, service), of_service(service))
        await self._execute(f"ALTER DATABASE {TEMPLATE}_new RENAME TO {TEMPLATE}")

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.admin_dsn)
        try:
            for attempt in range(20):
                try:
                    await connection.execute(statement)
                    return
                except asyncpg.ObjectInUseError:
                    # A connection that was just closed may still count as a user of the database.
                    await asyncio.sleep(0.1 * (attempt + 1))
            await connection.execute(statement)
        finally:
            await connection.close()


@contextmanager
def _one_at_a_time(name: str) -> Iterator[None]:
    """Between the processes of a parallel test run."""
    path = Path(tempfile.gettempdir()) / f"mintmark-test-{os.environ.get(BOOTSTRAP, 'x').replace(':', '-')}-{name}.lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
