"""A gateway and a shipper as processes on a Postgres and a Kafka of their own: what the tests of rows kill."""

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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import asyncpg
import httpx
from aiokafka import AIOKafkaConsumer
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from deploy.local.infrastructure import Infrastructure
from deploy.local.ports import Ports
from deploy.local.processes import end_with_this_process
from services.router.domain import log_table
from shared.db.database import Database
from shared.db.migrate import migrate, of_service
from shared.db.provision import provision
from shared.events.envelope import decode
from shared.events.router import InferenceLogged
from shared.identity.keys import ApiKey, append
from shared.testing.installation import WITHIN_S, eventually
from tests.integration.gateway.stub import StubServer
from tests.integration.gateway.world import BODY, POLICY, World, a_version

POINTS = {"gateway": ("spool.written",), "shipper": ("shipper.copied", "shipper.committed")}
MODULES = {"gateway": "services.router.gateway", "shipper": "services.router.gateway.shipper", "router": "services"}
GROUP = "under-fire"


@contextmanager
def own_infrastructure() -> Iterator[Infrastructure]:
    """Durable: what Postgres has confirmed must be there after a crash. Kafka is started by those who need it."""
    with tempfile.TemporaryDirectory(prefix="mintmark-rows-", ignore_cleanup_errors=True) as name:
        infrastructure = Infrastructure(Path(name), Ports.free())
        end_with_this_process(infrastructure.table)
        infrastructure.start_postgres()
        try:
            yield infrastructure
        finally:
            infrastructure.stop_postgres("immediate")
            infrastructure.kill_kafka()


class Rows:
    """The processes of one case, that are killed and started again; the stub behind them stays."""

    def __init__(self, infrastructure: Infrastructure, folder: Path, stub: StubServer, random: Random) -> None:
        self.infrastructure = infrastructure
        self.folder = folder
        self.stub = stub
        self.random = random
        self.ports = Ports.free()
        self.dsn = infrastructure.admin_dsn.replace("mintmark_admin", "mintmark_router")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.topic_prefix = f"{folder.name}."
        self.sent = 0
        self.answered: list[str] = []
        key, record = ApiKey.generate("user:caller", ["caller"], "default")
        self.headers = {"authorization": f"Bearer {key}"}
        append(folder / "keys.json", record)
        raw = POLICY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        (folder / "trust.json").write_text(json.dumps({"policy": base64.b64encode(raw).decode()}))
        master = {"current": "1", "keys": {"1": base64.b64encode(random.randbytes(32)).decode()}}
        (folder / "master-key.json").write_text(json.dumps(master))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports.gateway}"

    @property
    def spool(self) -> Path:
        return self.folder / "gateway" / "spool"

    async def prepare(self) -> None:
        """One group without rows, whose champion the stub answers for."""
        await provision(self.infrastructure.admin_dsn, {"router": self.dsn})
        await migrate(Database(self.dsn, "router"), of_service("router"))
        db = await self.connect()
        await db.execute(f"DROP TABLE IF EXISTS {log_table(GROUP)} CASCADE")
        await db.execute("ALTER TABLE group_revision DISABLE TRIGGER append_only")
        await db.execute(
            "DELETE FROM comparison_delta; DELETE FROM comparison_sum; DELETE FROM comparison_shadowed; "
            "DELETE FROM group_measured; DELETE FROM group_revision; DELETE FROM model_group; DELETE FROM outbox"
        )
        world = World(db, self.stub, None, None, None, self.folder)  # type: ignore[arg-type]
        world.until_served = _at_once  # type: ignore[method-assign, assignment]
        await world.make_group(GROUP, await world.deploy(a_version(5)))
        await db.close()

    async def connect(self) -> asyncpg.Connection:
        settings = {"search_path": "router", "mintmark.workspace": "*"}
        return await asyncpg.connect(self.dsn, server_settings=settings, timeout=5)

    def start(self, name: str, crash_at: str = "", **more: str) -> None:
        """Start `gateway`, `shipper` or `router`, the service that says on Kafka what the shipper has noted down."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MINTMARK_")}
        environment = {
            **kept,
            "MINTMARK_ROUTER_DSN": self.dsn,
            "MINTMARK_DATA": str(self.folder),
            "MINTMARK_TRUST_FILE": str(self.folder / "trust.json"),
            "MINTMARK_KEYS_FILE": str(self.folder / "keys.json"),
            "MINTMARK_ROUTER_MASTER_KEY_FILE": str(self.folder / "master-key.json"),
            "MINTMARK_KAFKA_BOOTSTRAP": self.infrastructure.kafka_bootstrap,
            "MINTMARK_KAFKA_TOPIC_PREFIX": self.topic_prefix,
            "MINTMARK_KAFKA_PARTITIONS": "1",
            "MINTMARK_GATEWAY_PORT": str(self.ports.gateway),
            "MINTMARK_GATEWAY_GRPC_PORT": str(self.ports.grpc),
            "MINTMARK_GATEWAY_SEGMENT_BYTES": "60000",
            "MINTMARK_SHIPPER_PORT": str(self.ports.shipper),
            **({"MINTMARK_CRASH_AT": crash_at} if crash_at else {}),
            **more,
        }
        arguments = ["router", "--port", str(self.ports.router)] if name == "router" else []
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", MODULES[name], *arguments], env=environment, stdout=log, stderr=log
            )

    async def until_ready(self, name: str) -> None:
        port = {"gateway": self.ports.gateway, "router": self.ports.router}[name]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:

            async def look() -> int:
                try:
                    return (await http.get("/readyz")).status_code
                except httpx.TransportError:
                    return 0

            await eventually(look, lambda status: status == 200, what=f"{name} ready")

    async def ask(self, stop: asyncio.Event) -> None:
        """A client that asks without pause, on one connection as long as that holds."""
        async with httpx.AsyncClient(base_url=self.url, headers=self.headers, timeout=10) as http:
            while not stop.is_set():
                self.sent += 1
                try:
                    answer = await http.post(f"/v2/models/{GROUP}/infer", json=BODY)
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
                    continue
                assert answer.status_code == 200, answer.text
                self.answered.append(answer.headers["x-mintmark-request-id"])

    async def until_answered(self, number: int) -> None:
        """So many answers more than now."""
        enough = len(self.answered) + number
        async with asyncio.timeout(WITHIN_S):
            while len(self.answered) < enough:
                await asyncio.sleep(0.01)

    async def hurt(self, victim: str) -> None:
        """Kill it at any moment, or have it die at a point, and start it again."""
        if victim == "postgres":
            await asyncio.to_thread(self.infrastructure.kill_postgres)
            await asyncio.sleep(self.random.uniform(0, 0.5))
            await asyncio.to_thread(self.infrastructure.start_postgres)
            return
        if victim == "kafka":
            await asyncio.to_thread(self.infrastructure.kill_kafka)
            await asyncio.sleep(self.random.uniform(0, 0.5))
            await asyncio.to_thread(self.infrastructure.start_kafka)
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

    async def hold(self) -> int:
        """Every answered request is a row, none is there twice, and each is said once; returns how many there are."""
        db = await self.connect()
        try:

            async def look() -> Counter[str]:
                found = await db.fetch(f"SELECT request_id FROM {log_table(GROUP)}")
                return Counter(str(row["request_id"]) for row in found)

            await eventually(look, lambda ids: set(self.answered) <= ids.keys(), what="every row")
            await asyncio.sleep(0.5)
            ids = await look()
            assert max(ids.values()) == 1
            assert len(ids) <= self.sent
            assert await db.fetchval("SELECT count(*) FROM unplaced_row") == 0
            if "router" in self.processes:
                await eventually(lambda: db.fetchval("SELECT count(*) FROM outbox"), lambda n: n == 0)
                said = _requests(await self._on_kafka())
            else:
                outbox = await db.fetch("SELECT data FROM outbox WHERE topic = 'inference.logged'")
                said = _requests([row["data"] for row in outbox])
            assert said.keys() == ids.keys()
            assert max(said.values()) == 1
            return len(ids)
        finally:
            await db.close()

    async def _on_kafka(self) -> list[bytes]:
        """What is on inference.logged: each event once, as it may be there twice under the same id."""
        topic = self.topic_prefix + "inference.logged"
        found: dict[str, bytes] = {}
        async with AIOKafkaConsumer(
            topic, bootstrap_servers=self.infrastructure.kafka_bootstrap, auto_offset_reset="earliest"
        ) as consumer:
            ends = await consumer.end_offsets(list(consumer.assignment()))
            while any([await consumer.position(partition) < end for partition, end in ends.items()]):
                for records in (await consumer.getmany(timeout_ms=300)).values():
                    for record in records:
                        envelope = decode(record.value, record.headers, record.key)
                        found[envelope.id] = envelope.data
        return list(found.values())

    def end(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


def _requests(events: list[bytes]) -> Counter[str]:
    """How often each request was said."""
    parsed = [InferenceLogged.model_validate_json(event) for event in events]
    return Counter(str(entry.request_id) for event in parsed for entry in event.rows)


async def _at_once(*_: object) -> None:
    """Nobody serves yet."""
