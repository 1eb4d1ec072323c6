"""The spool: torn tails, damage, size limits, fsync policies, two shippers, and who may read a partition."""

from __future__ import annotations

import asyncio
import errno
import json
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from services.router.domain import log_table
from services.router.gateway.metrics import Metrics
from services.router.gateway.shipper.metrics import ShipperMetrics
from services.router.gateway.shipper.shipper import Shipper
from services.router.gateway.spool.format import Position, frame
from services.router.gateway.spool.reader import READ_BYTES, SpoolReader, Stretch, spools
from services.router.gateway.spool.writer import Fsync, SpoolLimits, SpoolWriter
from shared.db.database import Database
from shared.events.router import InferenceLogged
from shared.testing.installation import eventually

from .stub import StubServer
from .world import Postgres, World, a_version, a_world


async def kept(writer: SpoolWriter, payload: bytes, *, drop: bool = False) -> bool:
    """Submit; True when the row is kept (or dropped), False when it is refused."""
    done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    writer.submit(payload, drop, lambda error: done.set_result(error is None))
    return await asyncio.wait_for(done, 5)


def taken(reader: SpoolReader, position: Position) -> tuple[list[bytes], Position]:
    """Everything from the position on."""
    found = []
    reader.look_for_writer()
    while (stretch := reader.read(position)) is not None:
        found += [bytes(stretch.data[start:end]) for start, end in stretch.payloads]
        position = stretch.until
    return found, position


@pytest.mark.parametrize("fsync", list(Fsync))
async def test_what_is_kept_is_read_across_segments(tmp_path: Path, fsync: Fsync) -> None:
    writer = SpoolWriter(tmp_path / "spool", Metrics(), SpoolLimits(fsync, segment_bytes=500))
    await writer.start()
    rows = [b"row %04d" % number * 10 for number in range(100)]
    for start in range(0, 100, 5):
        assert all(await asyncio.gather(*(kept(writer, row) for row in rows[start : start + 5])))
    (folder,) = spools(tmp_path / "spool")
    reader = SpoolReader(folder)
    assert reader.open() and not SpoolReader(folder).open()
    found, position = taken(reader, reader.first())
    assert found == rows and position.segment > 5 and not reader.is_done(position)
    await writer.stop()
    more, position = taken(reader, position)
    assert more == [] and reader.is_done(position)
    reader.remove()
    assert list((tmp_path / "spool").iterdir()) == []


@pytest.mark.parametrize("tail", [b"\x07", b"\x08\x00\x00\x00\xff", frame(b"x" * 100)[:60]])
async def test_a_torn_tail_is_cut_once_the_writer_is_dead(tmp_path: Path, tail: bytes) -> None:
    writer = SpoolWriter(tmp_path / "spool", Metrics(), SpoolLimits())
    await writer.start()
    await kept(writer, b"whole")
    (segment,) = writer.folder.glob("*.rows")
    with segment.open("ab") as file:
        file.write(tail)
    reader = SpoolReader(writer.folder)
    reader.open()
    found, position = taken(reader, reader.first())
    assert found == [b"whole"]
    assert taken(reader, position) == ([], position)  # it may still be growing
    await writer.stop()
    found, position = taken(reader, position)
    assert found == [] and reader.is_done(position)
    assert not (tmp_path / "damaged").exists()
    reader.close()


async def test_a_damaged_record_costs_itself_and_is_set_aside(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path / "spool", Metrics(), SpoolLimits())
    await writer.start()
    for number in range(3):
        await kept(writer, b"row number %d" % number)
    await writer.stop()
    (segment,) = writer.folder.glob("*.rows")
    damaged = bytearray(segment.read_bytes())
    damaged[len(frame(b"row number 0")) + 10] ^= 1
    segment.write_bytes(damaged)
    reader = SpoolReader(writer.folder)
    reader.open()
    found, position = taken(reader, reader.first())
    assert found == [b"row number 0", b"row number 2"] and reader.is_done(position)
    assert len(list((tmp_path / "damaged").iterdir())) == 1
    reader.close()


async def test_a_full_spool_refuses_or_drops_as_the_group_chose_and_takes_again_when_shipped(tmp_path: Path) -> None:
    metrics = Metrics()
    writer = SpoolWriter(tmp_path / "spool", metrics, SpoolLimits(segment_bytes=1_000, spool_bytes=5_000))
    await writer.start()
    taken_in = 0
    while await kept(writer, b"x" * 400):
        taken_in += 1
    assert 10 <= taken_in <= 13 and not writer.is_accepting
    assert await kept(writer, b"x" * 400, drop=True)
    assert (metrics.rows_refused, metrics.rows_dropped) == (1, 1)
    assert b"mintmark_gateway_rows_dropped_total 1.0" in metrics.render()
    reader = SpoolReader(writer.folder)
    reader.open()
    found, position = taken(reader, reader.first())
    assert len(found) == taken_in
    reader.forget(position)
    # the writer measures its folder twice a second
    assert await eventually(lambda: kept(writer, b"x" * 400), bool, what="room")
    await writer.stop()
    reader.close()


async def test_two_shippers_of_one_spool_take_every_row_once(world: World, name: str, postgres: Postgres) -> None:
    await world.make_group(name, await world.deploy(a_version(5)))
    folder = world.gateway.settings.spool_folder
    for _ in range(30):
        assert (await world.infer(name)).status_code == 200
    other = Shipper(folder, Database(postgres.dsn, "router"), ShipperMetrics(lambda: 0), poll_s=0.01)
    reader = SpoolReader(world.gateway.rows.folder)  # past the lock, as on a file system that knows none
    other._readers[world.gateway.rows.folder] = reader
    await asyncio.gather(world.shipper.catch_up(), other.catch_up(), return_exceptions=True)
    await other.close()
    assert len(await world.rows(name)) == 30


async def test_what_cannot_be_read_just_now_holds_back_nothing_before_it(
    world: World, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next batch is read while Postgres takes this one, from a disk that fails at that moment."""
    await world.make_group(name, await world.deploy(a_version(5)))
    await asyncio.gather(*(world.infer(name) for _ in range(3)))
    read, calls = SpoolReader.read, 0

    def failing(self: SpoolReader, position: Position, most: int = READ_BYTES) -> Stretch | None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(errno.EIO, "the disk fails")
        return read(self, position, most)

    monkeypatch.setattr(SpoolReader, "read", failing)
    await world.shipper.catch_up()
    assert calls > 2 and len(await world.rows(name)) == 3


async def test_rows_are_said_in_batches_that_hold_to_their_contract(world: World, name: str) -> None:
    version = await world.deploy(a_version(5))
    await world.make_group(name, version)
    for number in range(310):
        await world.infer(name, x_mintmark_unit=f"unit-{number}")
    rows = await world.rows(name)
    said = await world.db.fetch(
        "SELECT type, data FROM outbox WHERE topic = 'inference.logged' AND key = $1 ORDER BY id", f"mm:group/{name}"
    )
    events = [InferenceLogged.model_validate_json(row["data"]) for row in said]
    entries = [entry for event in events for entry in event.rows]
    assert {row["type"] for row in said} == {InferenceLogged.type()}
    assert sorted(entry.request_id for entry in entries) == [row["request_id"] for row in rows]
    first, row = entries[0], rows[0]
    assert (first.at, first.unit, first.status) == (row["received_at"], "unit-0", 200)
    assert (first.score, first.label, first.latency_ms) == (0.75, "1", row["latency_ms"])
    assert first.asset is not None and (first.asset.urn, first.asset.version) == (version.urn, 5)


async def test_nobody_reads_past_the_policy_of_the_table(world: World, name: str, postgres: Postgres) -> None:
    """The partition that is COPYed into has no policy of its own; nobody may read it, only the table above it."""
    await world.make_group(name, await world.deploy(a_version(5)))
    await world.infer(name)
    (row,) = await world.rows(name)
    day = await world.db.fetchval("SELECT inference_log_day($1, $2)", name, row["received_at"].date())
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await world.db.fetch(f"SELECT * FROM {day}")
    for workspace, seen in (("other", 0), ("default", 1)):
        settings = {"search_path": "router", "mintmark.workspace": workspace}
        connection = await asyncpg.connect(postgres.dsn, server_settings=settings)
        assert await connection.fetchval(f"SELECT count(*) FROM {log_table(name)}") == seen
        await connection.close()
    with pytest.raises(asyncpg.CheckViolationError):
        await world.db.execute(
            f"INSERT INTO {day} (request_id, received_at, status, latency_ms, revision, workspace, unit, trace_id) "
            "VALUES (gen_random_uuid(), $1, 200, 1, 1, 'other', 'u', '')",
            row["received_at"],
        )


async def test_rows_of_a_group_that_is_gone_are_set_aside_and_nothing_waits(world: World, name: str) -> None:
    await world.make_group(name, await world.deploy(a_version(5)))
    await world.make_group(f"{name}-b", await world.deploy(a_version(6)))
    await world.infer(name)
    await world.infer(f"{name}-b")
    await world.db.execute(f"DROP TABLE {log_table(name)} CASCADE")
    assert len(await world.rows(f"{name}-b")) == 1
    aside = await world.db.fetch("SELECT * FROM unplaced_row WHERE group_name = $1", name)
    assert len(aside) == 1 and aside[0]["workspace"] == "default"


async def test_what_a_row_keeps_beside_the_figures(world: World, name: str) -> None:
    version = await world.deploy(a_version(5))
    await world.make_group(name, version)
    answer = await world.infer(name, x_request_id="mine-7")
    (row,) = await world.rows(name)
    assert (row["requester"], row["client_request_id"], row["protocol"]) == ("user:caller", "mine-7", "open-inference")
    assert (row["arm"], row["attempts"], json.loads(row["features"])) == ("champion", 1, {"AGEP": 42.0})
    assert row["request_id"] == UUID(answer.headers["x-mintmark-request-id"])


async def test_a_spool_of_a_gateway_that_died_is_shipped_and_removed(
    postgres: Postgres, db: asyncpg.Connection, stub: StubServer, keys: dict[str, str], tmp_path: Path, name: str
) -> None:
    async with a_world(postgres, db, stub, keys, tmp_path) as first:
        await first.make_group(name, await first.deploy(a_version(5)))
        await first.infer(name)
    folder = tmp_path / "gateway" / "spool"
    assert len(spools(folder)) == 1
    async with a_world(postgres, db, stub, keys, tmp_path) as second:
        await second.infer(name)
        assert len(await second.rows(name)) == 2
        await second.shipper.catch_up()
        assert [path.name for path in spools(folder)] == [second.gateway.rows.folder.name]
