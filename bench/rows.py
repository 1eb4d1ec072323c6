"""`make bench-rows`: browsing and searching one group's inference table of 10 million rows.

The rows are made inside Postgres, a day at a time, with the columns and sizes that a gateway's rows have (about 700
bytes), spread over a week: three versions, 1 % of failures, 100,000 units. Each query is one that a person asks of the
API, with values drawn anew each time, through the store and its transaction as the handler does it. What finds less
than a page of rows within its budget says how far it went, and the table says how many calls it takes to the end.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import uvloop

from bench import report
from deploy.local.infrastructure import start_infrastructure
from services.router.domain import Change, Group, Version, log_table
from services.router.handlers.inferences import FIRST, LAST, LAST_ID, Inferences
from services.router.handlers.keys import GroupKeyring
from services.router.store import Entry, Store
from services.router.tables.filters import read_filters
from services.router.tables.store import TableStore, Wanted
from shared.clock import utc_now
from shared.db.database import Database
from shared.db.migrate import migrate, of_service
from shared.db.provision import provision
from shared.db.queries import load
from shared.telemetry import traces

GROUP = "bench"
DAYS = 7
PAGE = 50
GOAL_MS = 100

ROWS = """
INSERT INTO {table} (request_id, received_at, status, latency_ms, revision, workspace, asset, version, digest, arm,
    unit, score, prediction, error_code, trace_id, requester, protocol, upstream_ms, attempts, client_request_id,
    features, input, output)
SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(h, 1, 3) || '8'
        || substr(h, 4, 15))::uuid,
    at, CASE WHEN failed THEN 502 ELSE 200 END, 5 + 40 * random(), 2, 'default', 'mm:model/bench', version,
    'sha256:' || repeat('a', 64), CASE version WHEN 1 THEN 'champion' ELSE 'challenger' END,
    'user-' || (r * 100000)::integer, CASE WHEN NOT failed THEN r END,
    CASE WHEN NOT failed THEN (r > 0.5)::integer::text END, CASE WHEN failed THEN 'upstream-failed' END, h,
    'user:bench', 'open-inference', 4.0, 1, CASE WHEN n % 10 = 0 THEN 'client-' || n END,
    format('{{"AGEP": %s, "WKHP": %s, "MAR": %s}}', 18 + (n * 7919) % 70, round((r * 80)::numeric, 2),
           1 + n % 5)::jsonb,
    format('{{"inputs": [{{"name": "AGEP", "datatype": "FP64", "shape": [1, 1], "data": [%s]}}, '
           '{{"name": "WKHP", "datatype": "FP64", "shape": [1, 1], "data": [%s]}}]}}', 18 + n % 70, r)::jsonb,
    format('{{"model_name": "bench", "outputs": [{{"name": "probability", "datatype": "FP64", "shape": [1], '
           '"data": [%s]}}]}}', r)::jsonb
FROM (SELECT n, $1::timestamptz + (n - $2) * $4::interval AS at, random() AS r, md5(n::text) AS h,
             random() < 0.01 AS failed, CASE WHEN n % 1000 = 0 THEN 3 WHEN n % 10 = 0 THEN 2 ELSE 1 END AS version
      FROM generate_series($2::bigint, $3::bigint - 1) AS n) made
"""


async def fill(dsn: str, rows: int, now: datetime) -> dict[str, Any]:
    """A day a statement, two at a time; then what autovacuum would do."""
    began = time.perf_counter()
    a_day = rows // DAYS
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    starts = [today - timedelta(days=DAYS - number) for number in range(DAYS)]
    settings = {"search_path": "router", "mintmark.workspace": "*", "synchronous_commit": "off"}
    step = timedelta(days=1) / a_day

    async def day(number: int, gate: asyncio.Semaphore) -> None:
        async with gate:
            db = await asyncpg.connect(dsn, server_settings=settings, command_timeout=600)
            await db.fetchval("SELECT inference_log_day($1, $2)", GROUP, starts[number].date())
            sql = ROWS.format(table=log_table(GROUP))
            await db.execute(sql, starts[number], number * a_day, (number + 1) * a_day, step)
            await db.execute(f"VACUUM (ANALYZE) p{starts[number]:%Y%m%d}_{GROUP}")
            await db.close()

    gate = asyncio.Semaphore(3)
    await asyncio.gather(*(day(number, gate) for number in range(DAYS)))
    seconds = time.perf_counter() - began
    return {"what": "made in Postgres", "n": a_day * DAYS, "seconds": round(seconds, 1)}


def queries(now: datetime, rows: int) -> dict[str, Callable[[random.Random], Wanted]]:
    """What people ask, with values of their own each time."""
    week = timedelta(days=DAYS)

    def moment(dice: random.Random) -> datetime:
        return now - timedelta(days=1) - week * dice.random() * 0.8

    def where(*filters: str, since: datetime = FIRST, until: datetime = LAST) -> Wanted:
        return Wanted(since, until, (LAST, LAST_ID), read_filters(filters))

    return {
        "newest page": lambda _: where(),
        "a page far down": lambda dice: Wanted(FIRST, LAST, (moment(dice), LAST_ID)),
        "an hour": lambda dice: (lambda at: where(since=at, until=at + timedelta(hours=1)))(moment(dice)),
        "unit=": lambda dice: where(f"unit=user-{dice.randrange(100_000)}"),
        "unit= of nobody": lambda dice: where(f"unit=nobody-{dice.random()}"),
        "client_request_id=": lambda dice: where(f"client_request_id=client-{dice.randrange(rows // 10) * 10}"),
        "status>=500": lambda dice: where("status>=500", until=moment(dice)),
        "error_code=, one version": lambda dice: where("error_code=upstream-failed", "version=2", until=moment(dice)),
        "version= of 10 %": lambda dice: where("version=2", until=moment(dice)),
        "version= of 0.1 %": lambda dice: where("version=3", until=moment(dice)),
        "score between": lambda dice: (lambda at: where(f"score>={at}", f"score<{at + 0.01}"))(dice.random() * 0.9),
        "features.AGEP=": lambda dice: where(f"features.AGEP={dice.randrange(18, 88)}", until=moment(dice)),
        "features of 1 in 10,000": lambda dice: where(f"features.WKHP={dice.randrange(8000) / 100}"),
        "input~": lambda dice: where(f"input~{dice.randrange(18, 88)}"),
        "a value of no row": lambda _: where("features.WKHP>1000"),
    }


async def ask(reads: Inferences, of: Callable[[random.Random], Wanted], rounds: int) -> dict[str, Any]:
    spent, rows, whole = [], 0, 0
    for number in range(rounds):
        wanted = of(random.Random(number))
        began = time.perf_counter()
        found = await reads.page("default", GROUP, wanted, PAGE + 1, LAST)
        spent.append((time.perf_counter() - began) * 1000)
        rows += len(found.rows)
        whole += found.reached is None
    p95 = report.percentile(spent, 0.95)
    return {
        **report.summary(spent), "p95_ms": round(p95, 1), "rows_a_page": round(rows / rounds, 1),
        "whole": f"{whole / rounds:.0%}",
    }  # fmt: skip


async def calls_to_the_end(reads: Inferences) -> tuple[int, float]:
    """How many pages, and seconds, a search takes that finds nothing and has no index."""
    wanted = Wanted(FIRST, LAST, (LAST, LAST_ID), read_filters(["features.WKHP>1000"]))
    calls, began = 0, time.perf_counter()
    while True:
        found = await reads.page("default", GROUP, wanted, PAGE + 1, LAST)
        calls += 1
        if found.reached is None:
            return calls, time.perf_counter() - began
        wanted = Wanted(FIRST, LAST, found.reached, wanted.filters)


async def run(arguments: argparse.Namespace, admin_dsn: str, dsns: dict[str, str]) -> None:
    await provision(admin_dsn, dsns)
    database = Database(dsns["router"], "router", pool_size=4)
    await migrate(database, of_service("router"))
    await database.open()
    store, now = Store(load("services.router")), utc_now()
    version = Version("mm:model/bench", 1, "sha256:" + "a" * 64)
    async with database.begin("default") as tx:
        made = Group(GROUP, "default", 1, version)
        await store.add_group(tx, Entry(Change.CREATED, made, "user:bench", "", {}, now, now))
    filled = await fill(dsns["router"], arguments.rows, now)
    print(filled)
    tables = TableStore(load("services.router.tables"))
    reads = Inferences(database, store, tables, GroupKeyring(tables, None))
    rows = []
    for name, of in queries(now, arguments.rows).items():
        await ask(reads, of, 5)
        rows.append({"what": name, **await ask(reads, of, arguments.rounds)})
    async with database.begin("default") as tx:
        ids = [
            row["request_id"]
            for row in await tx.connection.fetch(f"SELECT request_id FROM {log_table(GROUP)} LIMIT {arguments.rounds}")
        ]
        size = await tx.connection.fetchrow(
            "SELECT sum(pg_table_size(inhrelid)) AS rows, sum(pg_indexes_size(inhrelid)) AS indexes FROM pg_inherits "
            "WHERE inhparent = $1::text::regclass", log_table(GROUP),
        )  # fmt: skip
    rows.append({"what": "one row, whole", **await inspect(reads, ids)})
    calls, seconds = await calls_to_the_end(reads)
    slowest = max(rows, key=lambda row: row["p95_ms"])
    report.write(
        "rows",
        rows,
        {
            "p95, slowest query": f"{slowest['p95_ms']} ms, {slowest['what']!r} (goal under {GOAL_MS} ms)",
            "rows": f"{filled['n']:,} over {DAYS} days, made in {filled['seconds']} s",
            "kept": f"{size['rows'] / 2**30:.1f} GiB of rows, {size['indexes'] / 2**30:.1f} GiB of indexes",
            "to the end of all, finding nothing": f"{calls} calls, {seconds:.1f} s",
            "load average at the end": str(os.getloadavg()),
        },
    )
    await database.close()


async def inspect(reads: Inferences, ids: list[UUID]) -> dict[str, Any]:
    spent = []
    for request_id in ids:
        began = time.perf_counter()
        await reads.one("default", GROUP, request_id, datetime.now(UTC))
        spent.append((time.perf_counter() - began) * 1000)
    return {**report.summary(spent), "p95_ms": round(report.percentile(spent, 0.95), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    traces.start("bench")
    with tempfile.TemporaryDirectory(prefix="mintmark-bench-") as folder:
        infra = start_infrastructure(Path(folder) / "data")
        try:
            uvloop.run(run(arguments, infra.admin_dsn, infra.dsns))
        finally:
            infra.stop()


if __name__ == "__main__":
    main()
