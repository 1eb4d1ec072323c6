"""`make bench-events`: the hop from commit to handled, sustained throughput, and draining a deep outbox.

Everything on this machine: broker, Postgres (fsync on), writers, relay, consumer. The bare aiokafka round trip is
measured in the same run, interleaved with the hop, so that their ratio means something on a machine that wobbles.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from bench import report
from deploy.local.infrastructure import Infrastructure, start_infrastructure
from shared.bus import topics
from shared.bus.inbox import Consumer, Inbox, Route
from shared.bus.relay import Relay
from shared.bus.subscriber import SPARE_CONNECTIONS, Subscriber
from shared.bus.transport import KafkaSettings
from shared.db.database import Database, Transaction
from shared.db.migrate import migrate, read
from shared.db.provision import provision
from shared.events import topics as every_topic
from shared.events.base import Actor, AssetRef, TopicSpec
from shared.events.envelope import Received
from shared.events.registry import BindingCreated
from shared.telemetry import traces

PARTITIONS = 3
WRITERS = LANES = 24
BARE_TOPIC = "bench.bare"


def event(number: int) -> BindingCreated:
    """A small event of one of 1,000 aggregates."""
    return BindingCreated(
        binding_id=uuid4(),
        asset=AssetRef(urn=f"mm:model/m{number % 1000}", version=1, digest="sha256:" + "0" * 64),
        consumer="bench",
        purpose=str(number),
        actor=Actor(id="user:bench", proven=True),
    )


async def prepare(infra: Infrastructure, kafka: KafkaSettings) -> None:
    """Roles, kernel tables, and a table of effects on either side."""
    await provision(infra.admin_dsn, infra.dsns)
    for service in ("registry", "policy"):
        database = Database(infra.dsns[service], service)
        await migrate(database, read("shared", files("shared.db").joinpath("migrations")))
        connection = await database.connect()
        await connection.execute(
            "CREATE TABLE business (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, number text)"
        )
        await connection.close()
    wanted = {"binding.created", "policy.dlq"}
    await topics.ensure(kafka, [*(spec for spec in every_topic() if spec.name in wanted), TopicSpec(BARE_TOPIC, 1)])


@contextlib.asynccontextmanager
async def publishing(dsn: str, kafka: KafkaSettings) -> AsyncIterator[Database]:
    """The saying side: its database and its relay."""
    database = Database(dsn, "registry", pool_size=WRITERS + 2)
    await database.open()
    relay = asyncio.create_task(Relay(database, kafka, "registry").run())
    try:
        yield database
    finally:
        relay.cancel()
        await asyncio.gather(relay, return_exceptions=True)
        await database.close()


@contextlib.asynccontextmanager
async def hearing(dsn: str, kafka: KafkaSettings, handled: Any) -> AsyncIterator[Subscriber]:
    """The hearing side: one business row an event, in the inbox's transaction."""
    database = Database(dsn, "policy", pool_size=LANES + SPARE_CONNECTIONS)
    await database.open()

    async def handle(tx: Transaction, received: Received[BindingCreated]) -> None:
        await tx.connection.execute("INSERT INTO business (number) VALUES ($1)", received.event.purpose)
        handled(received.event.purpose)

    subscriber = Subscriber(Inbox(database, Consumer("policy", (Route(BindingCreated, handle),)), "policy"), kafka)
    await subscriber.start()
    try:
        while subscriber.progress.complaint(time.monotonic()):
            await asyncio.sleep(0.05)
        yield subscriber
    finally:
        await subscriber.stop()
        await database.close()


async def write_one(database: Database, number: int) -> None:
    """One business transaction with one event."""
    async with database.begin("default") as tx:
        await tx.connection.execute("INSERT INTO business (number) VALUES ($1)", str(number))
        tx.emit(event(number))


async def hop(infra: Infrastructure, kafka: KafkaSettings, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of `rounds` hops and as many bare round trips, taken in turn."""
    arrived: dict[str, asyncio.Future[float]] = {}

    def handled(number: str) -> None:
        if number in arrived and not arrived[number].done():
            arrived[number].set_result(time.perf_counter())

    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all", enable_idempotence=True)
    bare_consumer = AIOKafkaConsumer(BARE_TOPIC, bootstrap_servers=kafka.bootstrap, auto_offset_reset="latest")
    await producer.start()
    await bare_consumer.start()
    bare: list[float] = []
    hops: list[float] = []
    async with publishing(infra.dsns["registry"], kafka) as database, hearing(infra.dsns["policy"], kafka, handled):
        for number in range(-30, rounds):
            began = time.perf_counter()
            await producer.send(BARE_TOPIC, b"x" * 400)
            await bare_consumer.getone()
            bare_ms = (time.perf_counter() - began) * 1000
            arrived[str(number)] = asyncio.get_running_loop().create_future()
            await write_one(database, number)
            committed = time.perf_counter()
            hop_ms = (await arrived[str(number)] - committed) * 1000
            if number >= 0:  # the first rounds warm caches and connections
                bare.append(bare_ms)
                hops.append(hop_ms)
            await asyncio.sleep(0.005)
    await producer.stop()
    await bare_consumer.stop()
    return {"bare": bare, "hop": hops}


def _write_all(dsn: str, kafka: KafkaSettings, first: int, count: int) -> None:
    async def run() -> None:
        async with publishing(dsn, kafka) as database:
            numbers = iter(range(first, first + count))

            async def writer() -> None:
                for number in numbers:
                    await write_one(database, number)

            await asyncio.gather(*(writer() for _ in range(WRITERS)))
            while True:
                async with database.begin("*") as tx:
                    if not await tx.connection.fetchval("SELECT EXISTS (SELECT FROM outbox)"):
                        return
                await asyncio.sleep(0.05)

    uvloop.run(run())


async def sustained(infra: Infrastructure, kafka: KafkaSettings, count: int) -> dict[str, Any]:
    """Writers and relay in one process, consumer in this one; timed from the first effect to the last."""
    seen = 0
    done = asyncio.Event()

    def handled(_: str) -> None:
        nonlocal seen
        seen += 1
        if seen == count:
            done.set()

    async with hearing(infra.dsns["policy"], kafka, handled):
        before = cpu_seconds(infra)
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        children = usage.ru_utime + usage.ru_stime
        writer = multiprocessing.get_context("spawn").Process(
            target=_write_all, args=(infra.dsns["registry"], kafka, 1_000_000, count)
        )
        writer.start()
        while seen == 0:
            await asyncio.sleep(0.001)
        began = time.perf_counter()
        first = seen
        await done.wait()
        seconds = time.perf_counter() - began
        after = cpu_seconds(infra)
        await asyncio.to_thread(writer.join)
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        after["writer"] = usage.ru_utime + usage.ru_stime - children  # its start included
    spent = {f"cpu_us_{name}": round((after[name] - before.get(name, 0.0)) / count * 1e6) for name in after}
    return {"events": count, "seconds": round(seconds, 2), "events_per_s": round((count - first) / seconds), **spent}


def cpu_seconds(infra: Infrastructure) -> dict[str, float]:
    """CPU that each part has used so far: says what a core is spent on."""
    found = {"consumer": time.process_time(), "writer": 0.0, "broker": 0.0, "postgres": 0.0}
    data = str(infra.folder.root)
    for process in psutil.process_iter(["pid", "ppid", "name", "cmdline", "cpu_times"]):
        times = process.info["cpu_times"]
        seconds = (times.user + times.system) if times else 0.0
        command = " ".join(process.info["cmdline"] or [])
        if process.info["name"] == "java" and data in command:
            found["broker"] += seconds
        elif process.info["name"] == "postgres":
            found["postgres"] += seconds
    return found


def _drain(dsn: str, kafka: KafkaSettings, depth: int, results: Any) -> None:
    async def run() -> None:
        database = Database(dsn, "registry")
        await database.open()
        relay = asyncio.create_task(Relay(database, kafka, "registry").run())
        marks: list[tuple[float, int]] = []
        try:
            while not marks or marks[-1][1] > 0:
                async with database.begin("*") as tx:
                    left = await tx.connection.fetchval("SELECT count(*) FROM outbox")
                marks.append((time.perf_counter(), left))
                await asyncio.sleep(2)
        finally:
            relay.cancel()
            await asyncio.gather(relay, return_exceptions=True)
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        results.put({"marks": marks, "peak_rss_mib": round(rss)})

    uvloop.run(run())


async def drain(infra: Infrastructure, kafka: KafkaSettings, depth: int) -> dict[str, Any]:
    """Fill the outbox with `depth` rows, let one relay empty it; rates of the first and last third, peak memory."""
    database = Database(infra.dsns["registry"], "registry")
    connection = await database.connect()
    await connection.execute("SET mintmark.workspace = 'default'")
    await connection.execute(
        "INSERT INTO outbox (workspace, event_id, topic, type, key, sequence, data) "
        "SELECT 'default', gen_random_uuid()::text, 'bench.bare', 'bench.bare.v1', 'mm:model/m' || n % 1000, n, "
        "convert_to(repeat('x', 400), 'UTF8') "
        "FROM generate_series(1, $1) AS n",
        depth,
        timeout=600,
    )
    await connection.execute("ANALYZE outbox")
    await connection.close()
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_drain, args=(infra.dsns["registry"], kafka, depth, results))
    process.start()
    answer = await asyncio.to_thread(results.get)
    await asyncio.to_thread(process.join)
    marks = [mark for mark in answer["marks"] if mark[1] > 0]
    third = max(1, len(marks) // 3)

    def rate(part: list[tuple[float, int]]) -> int:
        return round((part[0][1] - part[-1][1]) / (part[-1][0] - part[0][0])) if len(part) > 1 else 0

    whole = answer["marks"]
    return {
        "events": depth,
        "seconds": round(whole[-1][0] - whole[0][0], 1),
        "events_per_s": round(depth / (whole[-1][0] - whole[0][0])),
        "first_third_per_s": rate(marks[: third + 1]),
        "last_third_per_s": rate(marks[-third - 1 :]),
        "peak_rss_mib": answer["peak_rss_mib"],
    }


async def run(arguments: argparse.Namespace, infra: Infrastructure) -> None:
    kafka = KafkaSettings(bootstrap=infra.kafka_bootstrap, partitions=PARTITIONS)
    await prepare(infra, kafka)
    times = await hop(infra, kafka, arguments.rounds)
    rows: list[dict[str, Any]] = [
        {"what": "bare aiokafka round trip", **report.summary(times["bare"])},
        {"what": "commit to handled, idle", **report.summary(times["hop"])},
        {"what": "sustained outbox to inbox", **await sustained(infra, kafka, arguments.events)},
    ]
    if arguments.depth:
        # The same relay on a tenth of the rows: depth by itself must not make it slower.
        rows.append({"what": "draining a shallow outbox", **await drain(infra, kafka, arguments.depth // 10)})
        rows.append({"what": "draining a deep outbox", **await drain(infra, kafka, arguments.depth)})
    ratio = rows[1]["p50_ms"] / rows[0]["p50_ms"]
    report.write(
        "events",
        rows,
        {
            "hop / bare round trip, p50": f"{ratio:.2f} (goal at most 2.5)",
            "sustained events/s": f"{rows[2]['events_per_s']} (goal at least 2,000)",
            "processes": "writers+relay, consumer, broker, Postgres; load average at the end " + str(os.getloadavg()),
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--depth", type=int, default=1_000_000)
    arguments = parser.parse_args()
    traces.start("bench")
    with tempfile.TemporaryDirectory(prefix="mintmark-bench-") as folder:
        infra = start_infrastructure(Path(folder) / "data")
        try:
            uvloop.run(run(arguments, infra))
        finally:
            infra.stop()


if __name__ == "__main__":
    main()
