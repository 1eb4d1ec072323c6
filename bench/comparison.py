"""`make bench-comparison`: the comparative view over 10 million rows, and what keeping its aggregates costs.

Rows are generated in memory and taken through the aggregate path itself (`aggregate`, `record`, `fold`) into Postgres
with fsync on, spread over the minutes of several days and three versions; of a tenth the labels are known. The rows
themselves are not written: no view reads them. The view is asked of its handler, as the API does, over all time
and over spans that cut hours and days, while further rows are being recorded and folded.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import uvloop

from bench import report
from deploy.local.infrastructure import start_infrastructure
from services.router.comparison.aggregates import Aggregate, Key, Outcome, Said, aggregate, judged
from services.router.comparison.ledger import Ledger
from services.router.domain import Buckets, Challenger, Change, Group, Version
from services.router.handlers import Comparisons
from services.router.handlers.comparisons import Question
from services.router.store import Entry, Store
from services.router.worker import Comparer
from shared.clock import utc_now
from shared.db.database import Database
from shared.db.migrate import migrate, of_service
from shared.db.provision import provision
from shared.db.queries import load
from shared.telemetry import traces

GROUP = "bench"
VERSIONS = tuple(Version("mm:model/bench", number, f"sha256:{number:064x}") for number in (1, 2, 3))
SHARES = (0.8, 0.15, 0.05)
BATCH = 5_000
LABELLED = 10
DAYS = 7


def batch(number: int, count: int, at: datetime) -> list[Outcome]:
    """`count` rows of one minute: log-normal latencies, 1 % errors, scores, tokens and cost, 100,000 units."""
    random = np.random.default_rng(number)
    versions = random.choice(3, count, p=SHARES)
    latencies = random.lognormal(3 + 0.05 * versions, 0.5)
    scores, units = random.beta(2, 3, count), random.integers(0, 100_000, count)
    failed, tokens = random.random(count) < 0.01, random.integers(10, 2_000, count)
    return [
        Outcome(
            UUID(int=number * BATCH + place), at, 2, VERSIONS[arm].urn, VERSIONS[arm].version, VERSIONS[arm].digest,
            f"user-{unit}", 502 if fails else 200, "upstream-failed" if fails else None, latency, score, used,
            used // 4, used * 2e-6,
        )
        for place, (arm, latency, score, unit, fails, used) in enumerate(
            zip(*(column.tolist() for column in (versions, latencies, scores, units, failed, tokens)), strict=True)
        )
    ]  # fmt: skip


def labels(number: int, rows: list[Outcome]) -> list[Said]:
    """A tenth of the rows with their true labels."""
    draws = np.random.default_rng(number).random(len(rows)).tolist()
    return [
        Said(row, str(int((row.score or 0) >= 0.5)), "label", None, str(int(draw < (row.score or 0))))
        for row, draw in list(zip(rows, draws, strict=True))[::LABELLED]
    ]


def minute_of(number: int, batches: int, now: datetime) -> datetime:
    """Batches spread evenly over DAYS, the last one now."""
    return now - timedelta(minutes=(batches - 1 - number) * DAYS * 1440 // batches)


def made(numbers: range, count: int, batches: int, now: datetime) -> tuple[list[tuple[Key, str]], float]:
    """Aggregates of some batches as text, and the CPU seconds that `aggregate` alone took."""
    found: dict[Key, Aggregate] = {}
    spent = 0.0
    for number in numbers:
        rows = batch(number, count, minute_of(number, batches, now))
        began = time.process_time()
        parts = aggregate(rows)
        spent += time.process_time() - began
        for more in (parts, judged(labels(number, rows))):
            for key, part in more.items():
                found.setdefault(key, Aggregate()).add(part)
    return [(key, part.dumped()) for key, part in found.items()], spent


async def prepare(admin_dsn: str, dsns: dict[str, str]) -> tuple[Database, Store, Ledger]:
    """A group with three versions, at its second revision."""
    await provision(admin_dsn, dsns)
    database = Database(dsns["router"], "router", pool_size=8)
    await migrate(database, of_service("router"))
    await database.open()
    store, ledger = Store(load("services.router")), Ledger(load("services.router.comparison"))
    born = utc_now() - timedelta(days=DAYS + 1)
    buckets = (Buckets(((0, 1_500),)), Buckets(((1_500, 2_000),)))
    challengers = tuple(Challenger(*one) for one in zip(VERSIONS[1:], buckets, strict=True))
    async with database.begin("default") as tx:
        made = Group(GROUP, "default", 1, VERSIONS[0])
        await store.add_group(tx, Entry(Change.CREATED, made, "user:bench", "", {}, born, born))
        weighted = Group(GROUP, "default", 2, VERSIONS[0], challengers)
        assert await store.swap(tx, 1, Entry(Change.WEIGHTED, weighted, "user:bench", "", {}, born, born))
    return database, store, ledger


async def fill(database: Database, ledger: Ledger, rows: int, now: datetime) -> dict[str, Any]:
    """All rows through the aggregate path; two processes aggregate, this one stores and folds."""
    batches = rows // BATCH
    loop, spent, began = asyncio.get_running_loop(), 0.0, time.perf_counter()
    folded, fold_s = 0, 0.0
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        chunk = 40
        tasks = [
            loop.run_in_executor(pool, made, range(at, min(at + chunk, batches)), BATCH, batches, now)
            for at in range(0, batches, chunk)
        ]
        for task in asyncio.as_completed(tasks):
            parts, seconds = await task
            spent += seconds
            async with database.begin("default") as tx:
                await ledger.add_dumped(tx, GROUP, parts)
            folding = time.perf_counter()
            async with database.begin("default") as tx:
                folded += await ledger.fold(tx, GROUP)
            fold_s += time.perf_counter() - folding
    return {
        "what": "aggregate 5,000 rows at a time",
        "n": batches * BATCH,
        "us_a_row": round(spent / (batches * BATCH) * 1e6, 2),
        "seconds": round(time.perf_counter() - began, 1),
        "fold_ms_a_delta": round(fold_s / max(1, folded) * 1000, 2),
    }


async def recorded(database: Database, ledger: Ledger, rounds: int) -> dict[str, Any]:
    """`record` as the shipper calls it, in a transaction of its own each time."""
    spent = []
    for number in range(rounds):
        rows = batch(10_000_000 + number, BATCH, utc_now())
        began = time.perf_counter()
        async with database.begin("default") as tx:
            await ledger.record(tx, GROUP, rows)
        spent.append((time.perf_counter() - began) * 1000)
    return {"what": f"record {BATCH:,} rows and commit", **report.summary(spent)}


async def viewed(database: Database, store: Store, ledger: Ledger, rounds: int, expected: int) -> list[dict[str, Any]]:
    """The view over three kinds of spans, with recording and folding beside it."""
    comparisons = Comparisons(database, store, ledger, utc_now)
    now, rows = utc_now(), []
    spans = {
        "all time": Question(),
        "3 days, cut at minutes": Question(now - timedelta(days=3, minutes=7), now - timedelta(minutes=3)),
        "the last 24 hours": Question(now - timedelta(days=1)),
    }
    stop = asyncio.Event()

    async def traffic() -> None:
        number = 0
        while not stop.is_set():
            async with database.begin("default") as tx:
                await ledger.record(tx, GROUP, batch(20_000_000 + number, 500, utc_now()))
            number += 1
            await asyncio.sleep(0.05)

    beside = [
        asyncio.create_task(traffic()), asyncio.create_task(Comparer(database, ledger, utc_now, 0.5).run())
    ]  # fmt: skip
    try:
        for name, question in spans.items():
            spent, seen = [], 0
            for _ in range(rounds):
                began = time.perf_counter()
                found = await comparisons.view("default", GROUP, question)
                spent.append((time.perf_counter() - began) * 1000)
                seen = found.n
                await asyncio.sleep(0.01)
            p95 = round(report.percentile(spent, 0.95), 1)
            rows.append({"what": f"view, {name}", **report.summary(spent), "p95_ms": p95, "rows_seen": seen})
            if name == "all time":
                assert seen >= expected, f"the view saw {seen} rows of {expected}"
                print("verdict:", found.judged[0].verdict.sentence)
    finally:
        stop.set()
        await beside[0]
        beside[1].cancel()
        await asyncio.gather(beside[1], return_exceptions=True)
    return rows


async def run(arguments: argparse.Namespace, admin_dsn: str, dsns: dict[str, str]) -> None:
    database, store, ledger = await prepare(admin_dsn, dsns)
    now = utc_now().replace(second=0, microsecond=0)
    filled = await fill(database, ledger, arguments.rows, now)
    async with database.begin("default") as tx:
        stored = await tx.connection.fetchrow(
            "SELECT count(*) AS sums, pg_total_relation_size('comparison_sum') AS bytes FROM comparison_sum"
        )
    rows = [filled, await recorded(database, ledger, 30)]
    rows += await viewed(database, store, ledger, arguments.rounds, filled["n"])
    slowest = max(row["p95_ms"] for row in rows if "p95_ms" in row)
    report.write(
        "comparison",
        rows,
        {
            "view p95, slowest span": f"{slowest} ms (goal under 200 ms)",
            "rows": f"{filled['n']:,} over {DAYS} days, {len(VERSIONS)} versions, a tenth labelled",
            "kept": f"{stored['sums']:,} sums in {stored['bytes'] / 2**20:.1f} MiB",
            "load average at the end": str(os.getloadavg()),
        },
    )
    await database.close()


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
