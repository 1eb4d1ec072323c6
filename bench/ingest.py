"""`make bench-ingest`: the shipper on a full spool against a bare loop of asyncpg's COPY of the same rows.

The bare loop has the rows ready as Python values and COPYs them to a table of the same columns and indexes in batches
of 500, each its own transaction, and does nothing else: no spool, no checksum, no position, no events. Interleaved, on
the same durable Postgres; the median of the rounds counts.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import uvloop

from bench import report
from bench.gateway import ANSWERS, INFER
from deploy.local.cluster import PostgresCluster
from deploy.local.ports import Ports
from deploy.local.processes import ProcessTable
from services.router.domain import log_table
from services.router.gateway import garbage, rows
from services.router.gateway.metrics import Metrics
from services.router.gateway.shipper.metrics import ShipperMetrics
from services.router.gateway.shipper.shipper import Shipper
from services.router.gateway.spool.format import address
from services.router.gateway.spool.writer import SpoolLimits, SpoolWriter
from shared.db.database import Database
from shared.db.migrate import migrate, of_service
from shared.db.provision import provision
from shared.ids import new_id

GROUP = "bench"
DIGEST = "sha256:" + "a" * 64
URN = "mm:model/bench"
BATCH = 500
FEATURES = b'{"AGEP":42.0,"MAR":42.0}'
OUTPUT = ANSWERS["/infer"]


async def spool(folder: Path, count: int) -> float:
    """Write `count` rows as a gateway does; returns the seconds it took."""
    writer = SpoolWriter(folder, Metrics(), SpoolLimits())
    await writer.start()
    answer = rows.Answer(200, output=OUTPUT, score=0.75, prediction="1")
    served, who = rows.served_by(URN, 5, DIGEST, "champion"), rows.asked_by("user:bench", "open-inference")
    to, workspace = address("default", GROUP), rows.text("default")
    done = asyncio.Event()
    left = count

    def recorded(error: object) -> None:
        nonlocal left
        assert error is None
        left -= 1
        if not left:
            done.set()

    began = time.perf_counter()
    for number in range(count):
        request_id = new_id()
        rest = rows.rest(
            f"person-{number}", request_id.hex, who, answer, error_code=None, upstream_ms=1.0, ttft_ms=None, attempts=1,
            client_request_id=None, features=FEATURES, input=INFER,
        )  # fmt: skip
        head = rows.head(request_id.bytes, time.time(), 200, 1.5, 1)
        writer.submit(b"".join((to, head, workspace, served, rest)), False, recorded)
        if number % 100 == 99:
            await asyncio.sleep(0)
    await done.wait()
    took = time.perf_counter() - began
    await writer.stop()
    return took


def values(count: int) -> list[tuple[Any, ...]]:
    """The same rows as Python values, in the order of the columns."""
    now = datetime.now(UTC)
    found = []
    for number in range(count):
        request_id: UUID = new_id()
        served = ("default", URN, 5, DIGEST, "champion")
        said = (f"person-{number}", 0.75, "1", None, request_id.hex, "user:bench", "open-inference", 1.0, None, 1)
        nothing = (None,) * 6
        texts = (FEATURES.decode(), INFER.decode(), OUTPUT.decode(), None)
        found.append((request_id, now, 200, 1.5, 1, *served, *said, *nothing, *texts))
    return found


async def bare(connection: asyncpg.Connection, table: str, ready: list[tuple[Any, ...]]) -> float:
    began = time.perf_counter()
    for start in range(0, len(ready), BATCH):
        await connection.copy_records_to_table(table, records=ready[start : start + BATCH], columns=rows.COLUMN_NAMES)
    return time.perf_counter() - began


async def run(count: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="mintmark-ingest-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "logs").mkdir()
        (folder / "postgres").mkdir()
        table = ProcessTable(folder / "processes.json", folder / "logs")
        cluster = PostgresCluster(folder / "postgres", table, port=Ports.free().postgres, admin_password="s")
        cluster.start()
        try:
            dsn = cluster.admin_dsn.replace("mintmark_admin", "mintmark_router")
            await provision(cluster.admin_dsn, {"router": dsn})
            await migrate(Database(dsn, "router"), of_service("router"))
            settings = {"search_path": "router", "mintmark.workspace": "*"}
            db = await asyncpg.connect(dsn, server_settings=settings, command_timeout=600)
            await db.execute(
                "INSERT INTO model_group (workspace, name, log_table, revision, created_at)"
                " VALUES ('default', $1, $2, 1, now())", GROUP, log_table(GROUP),
            )  # fmt: skip
            await db.execute("SELECT create_inference_log($1, 'default')", GROUP)
            await compare(db, dsn, folder / "spool", count, rounds)
            await db.close()
        finally:
            cluster.stop("immediate")


async def compare(db: asyncpg.Connection, dsn: str, folder: Path, count: int, rounds: int) -> None:
    found: dict[str, list[float]] = {"bare COPY loop": [], "shipper": [], "gateway's spool": []}
    for number in range(rounds):
        await db.execute(f"DROP TABLE IF EXISTS bare; CREATE TABLE bare (LIKE {log_table(GROUP)} INCLUDING ALL)")
        ready = values(count)
        garbage.look_seldom()
        found["bare COPY loop"].append(count / await bare(db, "bare", ready))
        del ready
        found["gateway's spool"].append(count / await spool(folder, count))
        shipper = Shipper(folder, Database(dsn, "router"), ShipperMetrics(lambda: 0), poll_s=0.01)
        began = time.perf_counter()
        await shipper.catch_up()  # looks for the spool and connects; takes all of it
        found["shipper"].append(count / (time.perf_counter() - began))
        await shipper.close()
        print(f"round {number + 1}: " + ", ".join(f"{what} {rates[-1]:,.0f}/s" for what, rates in found.items()))
        shipped = await db.fetchval(f"SELECT count(*) FROM {log_table(GROUP)}")
        assert shipped == count * (number + 1), f"{shipped} rows in the table"
        await db.execute("DELETE FROM outbox")
    rate = {what: statistics.median(rates) for what, rates in found.items()}
    report.write(
        "ingest",
        [{"what": what, "rows_per_s": round(value)} for what, value in rate.items()],
        {
            "rows a round": count,
            "bytes a row in the spool": "about 950",
            "shipper / bare COPY loop": f"{rate['shipper'] / rate['bare COPY loop']:.2f} (goal 0.7)",
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    uvloop.run(run(arguments.rows, arguments.rounds))


if __name__ == "__main__":
    main()
