"""A Postgres of the gateway's tests alone, because they stop and kill it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import uvloop

from deploy.local.cluster import PostgresCluster
from deploy.local.ports import Ports
from deploy.local.processes import ProcessTable
from shared.db.database import Database
from shared.db.migrate import migrate, of_service
from shared.db.provision import provision
from shared.identity.keys import ApiKey, append
from shared.ids import new_id

from .stub import StubServer
from .world import Postgres, World, a_world


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    """The loop that the gateway runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="package")
def postgres() -> Iterator[Postgres]:
    with tempfile.TemporaryDirectory(prefix="mintmark-gateway-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        ports = Ports.free()
        (folder / "logs").mkdir()
        table = ProcessTable(folder / "processes.json", folder / "logs")
        (folder / "postgres").mkdir()
        cluster = PostgresCluster(
            folder / "postgres", table, port=ports.postgres, admin_password="secret", durable=False
        )
        cluster.start()
        dsn = f"postgresql://mintmark_router:secret@127.0.0.1:{ports.postgres}/mintmark"
        try:
            asyncio.run(_prepare(cluster.admin_dsn, dsn))
            yield Postgres(cluster, dsn)
        finally:
            cluster.stop("immediate")


async def _prepare(admin_dsn: str, dsn: str) -> None:
    await provision(admin_dsn, {"router": dsn})
    await migrate(Database(dsn, "router"), of_service("router"))


@pytest.fixture
async def db(postgres: Postgres) -> AsyncIterator[asyncpg.Connection]:
    settings = {"search_path": "router", "mintmark.workspace": "*"}
    connection = await asyncpg.connect(postgres.dsn, server_settings=settings)
    yield connection
    await connection.close()


@pytest.fixture
async def stub() -> AsyncIterator[StubServer]:
    async with StubServer() as server:
        yield server


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    """API keys by who holds them."""
    holders = {"caller": ("default", "caller"), "viewer": ("default", "viewer"), "neighbour": ("other", "caller")}
    made = {who: ApiKey.generate(f"user:{who}", [role], workspace) for who, (workspace, role) in holders.items()}
    for _, record in made.values():
        append(tmp_path / "keys.json", record)
    return {who: text for who, (text, _) in made.items()}


@pytest.fixture
async def world(
    postgres: Postgres, db: asyncpg.Connection, stub: StubServer, keys: dict[str, str], tmp_path: Path
) -> AsyncIterator[World]:
    async with a_world(postgres, db, stub, keys, tmp_path, request_bytes=64 << 10) as world:
        yield world


@pytest.fixture
async def hasty(
    postgres: Postgres, db: asyncpg.Connection, stub: StubServer, keys: dict[str, str], tmp_path: Path
) -> AsyncIterator[World]:
    """Waits a second for a model server: for those alone that never answer, as a busy machine may need as long."""
    async with a_world(postgres, db, stub, keys, tmp_path, upstream_timeout_s=1.0) as world:
        yield world


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A group name of this test's own."""
    return f"g{abs(hash(request.node.nodeid)) % 10**12}-{new_id().hex[-8:]}"
