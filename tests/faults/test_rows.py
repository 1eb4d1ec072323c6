"""kill -9 of gateway, shipper and Postgres under load: every answered request is a row, and none is there twice.

A case is drawn from its seed alone. MINTMARK_TEST_SEEDS=20 runs that many; a usual run takes three, one of each victim.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random

import asyncpg
import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from deploy.local.cluster import PostgresCluster
from deploy.local.ports import Ports
from deploy.local.processes import ProcessTable
from services.router.domain import log_table
from shared.db.database import Database
from shared.db.migrate import migrate, of_service
from shared.db.provision import provision
from shared.identity.keys import ApiKey, write
from shared.testing.installation import eventually
from tests.integration.gateway.stub import StubServer
from tests.integration.gateway.world import BODY, POLICY, World, a_version

pytestmark = pytest.mark.timeout(180)
VICTIMS = ("gateway", "shipper", "postgres")
POINTS = {"gateway": ("spool.written",), "shipper": ("shipper.copied", "shipper.committed")}
GROUP = "under-fire"
LOAD_S = 4.0
ASKERS = 6


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresCluster]:
    """Durable: what Postgres has confirmed must be there after a crash."""
    with tempfile.TemporaryDirectory(prefix="mintmark-rows-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "logs").mkdir()
        (folder / "postgres").mkdir()
        table = ProcessTable(folder / "processes.json", folder / "logs")
        cluster = PostgresCluster(folder / "postgres", table, port=Ports.free().postgres, admin_password="secret")
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop("immediate")


class Rows:
    """A gateway and a shipper as processes, that are killed and started again; the stub behind them stays."""

    def __init__(self, cluster: PostgresCluster, folder: Path, stub: StubServer, random: Random) -> None:
        self.cluster = cluster
        self.folder = folder
        self.stub = stub
        self.random = random
        self.ports = Ports.free()
        self.dsn = cluster.admin_dsn.replace("mintmark_admin", "mintmark_router")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        key, record = ApiKey.generate("user:caller", ["caller"], "default")
        self.headers = {"authorization": f"Bearer {key}"}
        write(folder / "keys.json", [record])
        raw = POLICY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        (folder / "trust.json").write_text(json.dumps({"policy": base64.b64encode(raw).decode()}))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports.gateway}"

    async def prepare(self) -> None:
        await provision(self.cluster.admin_dsn, {"router": self.dsn})
        await migrate(Database(self.dsn, "router"), of_service("router"))
        db = await self.connect()
        await db.execute("DROP TABLE IF EXISTS " + log_table(GROUP))
        await db.execute("ALTER TABLE group_revision DISABLE TRIGGER append_only")
        await db.execute(
            "DELETE FROM comparison_delta; DELETE FROM comparison_sum; DELETE FROM group_revision; "
            "DELETE FROM model_group; DELETE FROM outbox"
        )
        world = World(db, self.stub, None, None, None, self.folder)  # type: ignore[arg-type]
        world.until_served = _at_once  # type: ignore[method-assign, assignment]
        await world.make_group(GROUP, await world.deploy(a_version(5)))
        await db.close()

    async def connect(self) -> asyncpg.Connection:
        settings = {"search_path": "router", "mintmark.workspace": "*"}
        return await asyncpg.connect(self.dsn, server_settings=settings, timeout=5)

    def start(self, name: str, crash_at: str = "") -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MINTMARK_")}
        environment = {
            **kept,
            "MINTMARK_ROUTER_DSN": self.dsn,
            "MINTMARK_DATA": str(self.folder),
            "MINTMARK_TRUST_FILE": str(self.folder / "trust.json"),
            "MINTMARK_KEYS_FILE": str(self.folder / "keys.json"),
            "MINTMARK_GATEWAY_PORT": str(self.ports.gateway),
            "MINTMARK_GATEWAY_GRPC_PORT": str(self.ports.grpc),
            "MINTMARK_GATEWAY_SEGMENT_BYTES": "60000",
            "MINTMARK_SHIPPER_PORT": str(self.ports.shipper),
            **({"MINTMARK_CRASH_AT": crash_at} if crash_at else {}),
        }
        module = "services.router.gateway" + (".shipper" if name == "shipper" else "")
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", module], env=environment, stdout=log, stderr=log
            )

    async def hurt(self, victim: str) -> None:
        """Kill it at any moment, or have it die at a point, and start it again."""
        if victim == "postgres":
            await asyncio.to_thread(self.cluster.stop, "immediate")
            await asyncio.sleep(self.random.uniform(0, 0.5))
            await asyncio.to_thread(self.cluster.start)
            return
        process = self.processes[victim]
        process.kill()
        await asyncio.to_thread(process.wait)
        self.start(victim, f"{self.random.choice(POINTS[victim])}:{self.random.randint(1, 30)}")
        begun = time.monotonic()
        while self.processes[victim].poll() is None and time.monotonic() - begun < self.random.uniform(1.5, 3):
            await asyncio.sleep(0.05)
        self.processes[victim].kill()
        await asyncio.to_thread(self.processes[victim].wait)
        self.start(victim)

    def end(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


async def _at_once(*_: object) -> None:
    """Nobody serves yet."""


@pytest.fixture
async def rows(cluster: PostgresCluster, tmp_path: Path, seed: int) -> AsyncIterator[Rows]:
    async with StubServer() as stub:
        world = Rows(cluster, tmp_path, stub, Random(seed))
        await world.prepare()
        world.start("gateway")
        world.start("shipper")
        try:
            async with httpx.AsyncClient(base_url=world.url) as http:

                async def look() -> int:
                    try:
                        return (await http.get("/readyz")).status_code
                    except httpx.TransportError:
                        return 0

                await eventually(look, lambda status: status == 200, what="the gateway")
            yield world
        finally:
            world.end()


@pytest.mark.parametrize("seed", range(int(os.environ.get("MINTMARK_TEST_SEEDS") or len(VICTIMS))))
async def test_answered_requests_are_rows_and_none_is_there_twice(rows: Rows, seed: int) -> None:
    answered: list[str] = []
    sent = 0
    stop = asyncio.Event()

    async def ask() -> None:
        nonlocal sent
        async with httpx.AsyncClient(base_url=rows.url, headers=rows.headers, timeout=10) as http:
            while not stop.is_set():
                sent += 1
                try:
                    answer = await http.post(f"/v2/models/{GROUP}/infer", json=BODY)
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
                    continue
                assert answer.status_code == 200, answer.text
                answered.append(answer.headers["x-mintmark-request-id"])

    askers = [asyncio.create_task(ask()) for _ in range(ASKERS)]
    await asyncio.sleep(rows.random.uniform(0.5, 1.5))
    victim = VICTIMS[seed % len(VICTIMS)]
    await rows.hurt(victim)
    await asyncio.sleep(LOAD_S - 2)
    stop.set()
    await asyncio.gather(*askers)
    began = time.monotonic()
    db = await rows.connect()
    try:

        async def look() -> set[str]:
            return {str(row["request_id"]) for row in await db.fetch(f"SELECT request_id FROM {log_table(GROUP)}")}

        found = await eventually(look, lambda ids: set(answered) <= ids, within_s=30, what="every row")
        took = time.monotonic() - began
        await asyncio.sleep(0.5)
        ids = Counter(str(r["request_id"]) for r in await db.fetch(f"SELECT request_id FROM {log_table(GROUP)}"))
        said = Counter(
            entry["request_id"]
            for row in await db.fetch("SELECT data FROM outbox WHERE topic = 'inference.logged'")
            for entry in json.loads(row["data"])["rows"]
        )
        print(
            f"seed {seed}: {victim} killed; {len(answered)} of {sent} answered, {len(ids)} rows {took:.1f} s after the "
            "last answer"
        )
        assert max(ids.values()) == 1 and max(said.values()) == 1
        assert said.keys() == ids.keys()
        assert set(answered) <= found and len(ids) <= sent
        assert await db.fetchval("SELECT count(*) FROM unplaced_row") == 0
    finally:
        await db.close()
