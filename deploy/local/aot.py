"""Kafka's Java AOT cache: made once per user in the background by a throwaway broker, used by every start after that.

The JVM checks the cache against its own build and the class path and starts without it when they differ, so a
stale one costs time and nothing else. Run as `python -m deploy.local.aot CACHE`, at the lowest priority.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from deploy.local.broker import NAME, KafkaBroker, aot_cache_file, aot_cache_of
from deploy.local.folder import check_free_space
from deploy.local.jars import kafka_cache
from deploy.local.ports import Ports
from deploy.local.processes import ProcessTable, end_with_this_process

DUMP_WITHIN_S = 300.0
TRAINING_RECORDS = 200


def make_in_background(cache_root: Path) -> int | None:
    """Start the making unless the cache is there or being made; returns the process id, or None."""
    if aot_cache_of(cache_root) is not None or _being_made(cache_root):
        return None
    with (kafka_cache(cache_root) / "aot.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy.local.aot", str(cache_root)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    pid = process.pid
    # It outlives this command, so nobody here waits for it.
    process.returncode = 0
    return pid


def make(cache_root: Path) -> bool:
    """Run a broker in training mode on free ports, use it a little, stop it; the JVM writes the cache as it ends.

    Returns False when another process is making it. The cache appears under its name only when it is whole.
    """
    with _lock_file(cache_root).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        check_free_space(cache_root)
        for abandoned in kafka_cache(cache_root).glob("aot-*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=kafka_cache(cache_root), prefix="aot-") as scratch:
            unfinished = Path(scratch) / "kafka.aot"
            ports = Ports.free()
            table = ProcessTable(Path(scratch) / "state.json", Path(scratch))
            broker = KafkaBroker(
                Path(scratch), cache_root, table, port=ports.kafka, controller_port=ports.controller,
                jvm_flags=(f"-XX:AOTCacheOutput={unfinished}",),
            )  # fmt: skip
            try:
                broker.start()
                end_with_this_process(table)
                asyncio.run(_use(broker.bootstrap))
            finally:
                table.stop(NAME, within_s=DUMP_WITHIN_S)
            for stale in kafka_cache(cache_root).glob("*.aot"):
                stale.unlink()
            unfinished.replace(aot_cache_file(cache_root))
    return True


async def _use(bootstrap: str) -> None:
    """Walk the paths that every client walks: a topic made, records written, a group joined, records read."""
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic("training", num_partitions=1, replication_factor=1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True) as producer:
        for number in range(TRAINING_RECORDS):
            await producer.send("training", key=b"key", value=str(number).encode())
    async with AIOKafkaConsumer(
        "training", bootstrap_servers=bootstrap, group_id="training", auto_offset_reset="earliest"
    ) as consumer:
        async with asyncio.timeout(30):
            for _ in range(TRAINING_RECORDS):
                await consumer.getone()
        await consumer.commit()


def _lock_file(cache_root: Path) -> Path:
    return kafka_cache(cache_root) / "aot.lock"


def _being_made(cache_root: Path) -> bool:
    with _lock_file(cache_root).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


if __name__ == "__main__":
    os.nice(19)
    make(Path(sys.argv[1]))
