"""A real broker and a real database on this machine: closed to strangers, and whole again after every kind of crash."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from deploy.local import jars
from deploy.local.broker import aot_cache_file, aot_cache_of
from deploy.local.folder import default_cache
from deploy.local.infrastructure import Infrastructure, start_infrastructure
from deploy.local.processes import ProcessRecord, is_alive


@pytest.fixture(scope="module")
def infrastructure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Infrastructure]:
    """Durable, as `mintmark up` makes it: these tests are about what survives."""
    with start_infrastructure(tmp_path_factory.mktemp("infrastructure")) as started:
        yield started


async def create_topic(infrastructure: Infrastructure, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=infrastructure.kafka_bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    await admin.close()


async def publish(infrastructure: Infrastructure, topic: str, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=infrastructure.kafka_bootstrap, acks="all") as producer:
        await producer.send_and_wait(topic, value)


async def read_one(infrastructure: Infrastructure, topic: str) -> bytes:
    async with AIOKafkaConsumer(
        topic, bootstrap_servers=infrastructure.kafka_bootstrap, auto_offset_reset="earliest"
    ) as consumer:
        record = await consumer.getone()
    assert record.value is not None
    return bytes(record.value)


async def execute(infrastructure: Infrastructure, *statements: str) -> object:
    connection = await asyncpg.connect(infrastructure.admin_dsn)
    try:
        for statement in statements[:-1]:
            await connection.execute(statement)
        return await connection.fetchval(statements[-1])
    finally:
        await connection.close()


async def test_a_record_survives_kill_9_of_the_broker(infrastructure: Infrastructure) -> None:
    await create_topic(infrastructure, "kept")
    await publish(infrastructure, "kept", b"acknowledged")

    infrastructure.kill_kafka()
    begun = time.monotonic()
    infrastructure.start_kafka()
    print(f"the broker was back {time.monotonic() - begun:.1f} s after kill -9")

    assert await read_one(infrastructure, "kept") == b"acknowledged"


@pytest.mark.parametrize("how", ["kill", "immediate", "fast"])
async def test_a_committed_row_survives(infrastructure: Infrastructure, how: str) -> None:
    await execute(infrastructure, f"CREATE TABLE kept_{how} (n int)", f"INSERT INTO kept_{how} VALUES (1) RETURNING n")

    if how == "kill":
        infrastructure.kill_postgres()
        infrastructure.start_postgres()
    elif how == "immediate":
        infrastructure.restart_postgres("immediate")
    else:
        infrastructure.restart_postgres("fast")

    assert await execute(infrastructure, f"SELECT count(*) FROM kept_{how}") == 1


async def test_a_pid_file_whose_pid_now_belongs_to_another_program_is_no_obstacle(
    infrastructure: Infrastructure,
) -> None:
    infrastructure.kill_postgres()
    pid_file = infrastructure.folder.postgres / "cluster" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]))

    infrastructure.start_postgres()

    assert await execute(infrastructure, "SELECT 1") == 1


async def test_nobody_gets_in_without_the_password(infrastructure: Infrastructure) -> None:
    wrong = infrastructure.admin_dsn.replace(infrastructure.admin_dsn.split(":")[2].split("@")[0], "wrong")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(wrong)
    assert await execute(infrastructure, "SHOW unix_socket_directories") == ""
    methods = await execute(infrastructure, "SELECT string_agg(DISTINCT auth_method, ',') FROM pg_hba_file_rules")
    assert methods == "scram-sha-256"


async def test_postgres_is_18_with_pgvector_and_utf8(infrastructure: Infrastructure) -> None:
    assert str(await execute(infrastructure, "SHOW server_version")).startswith("18.")
    assert await execute(infrastructure, "SHOW server_encoding") == "UTF8"
    distance = await execute(
        infrastructure, "CREATE EXTENSION IF NOT EXISTS vector", "SELECT '[3,4]'::vector <-> '[0,0]'"
    )
    assert distance == 5.0


def test_everything_listens_on_the_loopback_address_only(infrastructure: Infrastructure) -> None:
    addresses = set()
    for name in ("kafka", "postgres"):
        record = infrastructure.table.running(name)
        assert record is not None
        found = psutil.Process(record.pid).net_connections("inet")
        addresses |= {one.laddr.ip.removeprefix("::ffff:") for one in found if one.status == psutil.CONN_LISTEN}
    assert addresses == {"127.0.0.1"}


async def test_a_clean_restart_keeps_ports_and_data(infrastructure: Infrastructure) -> None:
    await create_topic(infrastructure, "across")
    await publish(infrastructure, "across", b"a restart")

    assert infrastructure.stop() == {"kafka": "stopped", "postgres": "stopped"}
    again = Infrastructure(infrastructure.folder.root, infrastructure.ports)
    again.start()

    assert again.kafka_bootstrap == infrastructure.kafka_bootstrap
    assert await read_one(again, "across") == b"a restart"


def test_a_storage_folder_left_half_made_is_made_again(tmp_path: Path) -> None:
    """Given what an `up` leaves that was killed while it made the storage, then the next one starts both."""
    (tmp_path / "kafka" / "log.unfinished").mkdir(parents=True)
    (tmp_path / "postgres" / "cluster.unfinished").mkdir(parents=True)
    (tmp_path / "postgres" / "cluster.unfinished" / "PG_VERSION").write_text("18")

    with start_infrastructure(tmp_path, throwaway=True) as started:
        assert {"kafka", "postgres"} <= set(started.table.names())
    assert not list(tmp_path.glob("*/*.unfinished"))


def test_a_damaged_java_cache_costs_a_slower_start_and_nothing_else(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    copied = jars.kafka_cache(cache) / "jars"
    copied.mkdir(parents=True)
    for jar in jars.ensure_jars(default_cache()).folder.iterdir():
        (copied / jar.name).hardlink_to(jar)
    aot_cache_file(cache).write_bytes(os.urandom(4096))

    with start_infrastructure(tmp_path / "data", cache=cache) as started:
        assert started.table.running("kafka") is not None


def test_a_throwaway_ends_with_the_process_that_wanted_it(tmp_path: Path) -> None:
    """Given a test run that is killed with -9, then its broker and its database do not stay behind."""
    script = (
        "import sys, time; from pathlib import Path\n"
        "from deploy.local.infrastructure import start_infrastructure\n"
        "start_infrastructure(Path(sys.argv[1]), throwaway=True); print('up', flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"up\n"
    table = Infrastructure.table_of(tmp_path)
    records = [record for name in table.names() if isinstance(record := table.running(name), ProcessRecord)]
    assert len(records) == 2

    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()

    deadline = time.monotonic() + 60
    while any(is_alive(record) for record in records):
        assert time.monotonic() < deadline, "they are still there"
        time.sleep(0.1)


def test_the_java_cache_is_really_used(infrastructure: Infrastructure) -> None:
    """The JVM ignores a cache that does not fit without a word, and then starts at half the speed."""
    cache = aot_cache_of(infrastructure.cache)
    if cache is None:
        pytest.skip("it is still being made, in the background")
    infrastructure.stop_kafka()
    infrastructure.start_kafka()
    record = infrastructure.table.running("kafka")
    assert record is not None
    assert str(cache) in {mapped.path for mapped in psutil.Process(record.pid).memory_maps()}
