"""Batches: a file of rows is asked through the gateway, row for row, and comes back in its order whatever happens."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.router.app import batches_of
from services.router.batches.domain import Format, Job, Result, Shape, Spec, State
from services.router.domain import weigh
from services.router.errors import BatchOver, BatchRefused, UnknownBatch, UnknownGroup
from services.router.gateway.sealing import FileMasterKey
from services.router.gateway.tickets import Tickets
from services.router.handlers.batches import Batches
from services.router.settings import Settings
from services.router.store import Store
from shared.clock import utc_now
from shared.db.database import Database
from shared.db.queries import load
from shared.errors import NotFound
from shared.identity.principal import Principal
from shared.ids import new_id, sha256
from shared.settings import PlatformSettings

from .world import Postgres, World, a_version

CALLER = Principal("user:caller", "default", frozenset({"caller"}))
NEIGHBOUR = Principal("user:nina", "other", frozenset({"caller"}))


@dataclass
class Office:
    """A worker of batches whose clock can be set on, and the files of its callers."""

    batches: Batches
    settings: Settings
    database: Database
    ahead: timedelta = field(default_factory=timedelta)

    def clock(self) -> datetime:
        return utc_now() + self.ahead

    def again(self, **changes: Any) -> Batches:
        """Another worker of the same office."""
        settings = self.settings.model_copy(update=changes)
        master = FileMasterKey(settings.master_key_file) if settings.master_key_file else None
        return batches_of(settings, self.database, Store(load("services.router")), master, self.clock)

    async def put(self, data: bytes, by: Principal = CALLER) -> str:
        await self.batches.upload(by, sha256(data), one(data))
        return sha256(data)

    async def begin(self, group: str, data: bytes, format: Format = Format.JSONL, **more: Any) -> Job:
        spec = {"shape": Shape.FEATURES, "output_format": format, **more}
        return await self.batches.begin(CALLER, group, Spec(input=await self.put(data), format=format, **spec))

    async def finish(self, group: str, job: Job) -> Job:
        """Have it worked at until it is over."""
        while not (found := await self.batches.one("default", group, job.id)).state.is_over:
            owner = new_id()
            claimed = await self.batches.claim(owner)
            assert claimed is not None and claimed.id == job.id, found
            await self.batches.work(claimed, owner)
        return found

    async def output(self, job: Job) -> bytes:
        assert job.output is not None, job
        size, chunks = await self.batches.download(CALLER, job.output)
        data = b"".join([chunk async for chunk in chunks])
        assert len(data) == size
        return data

    async def lines(self, job: Job) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in (await self.output(job)).splitlines()]


async def one(data: bytes) -> AsyncIterator[bytes]:
    yield data


def jsonl(*rows: Any) -> bytes:
    return b"\n".join(row if isinstance(row, bytes) else orjson.dumps(row) for row in rows) + b"\n"


def people(count: int, **more: Any) -> bytes:
    return jsonl(*({"id": f"person-{n}", "AGEP": float(n), "MAR": n % 5, **more} for n in range(count)))


@pytest.fixture
async def office(world: World, postgres: Postgres, tmp_path: Path) -> AsyncIterator[Office]:
    settings = Settings(
        dsn=postgres.dsn, platform=PlatformSettings(data=tmp_path / "data"), master_key_file=world.master_key,
        gateway_url=str(world.http.base_url),
    )  # fmt: skip
    database = Database(postgres.dsn, "router")
    await database.open()
    await world.db.execute("DELETE FROM batch_job")
    made = Office(None, settings, database)  # type: ignore[arg-type]
    made.batches = made.again()
    yield made
    await database.close()


async def test_rows_come_back_in_order_and_each_is_a_row_of_the_group(world: World, office: Office, name: str) -> None:
    champion, challenger = (
        await world.deploy(a_version(1, name), "echo.1"),
        await world.deploy(a_version(2, name), "echo.2"),
    )
    group = weigh(await world.make_group(name, champion), [(challenger, 5000)], expected_revision=1)
    await world.until_served(await world.move(group, "weighted"))
    rows = [{"id": f"p{n}", "AGEP": n / 2, "MAR": n, "who": f"household-{n % 30}"} for n in range(60)]
    job = await office.begin(name, jsonl(*rows), unit_field="who", concurrency=5)
    assert (job.state, job.total) == (State.QUEUED, None)
    done = await office.finish(name, job)
    assert (done.state, done.total, done.recorded, done.failed) == (State.DONE, 60, 60, 0), done
    lines = await office.lines(done)
    assert [line["id"] for line in lines] == [row["id"] for row in rows]
    assert [line["outputs"] for line in lines] == [{"AGEP": row["AGEP"], "MAR": row["MAR"]} for row in rows]
    kept = {str(row["request_id"]): row for row in await world.rows(name)}
    assert len(kept) == 60
    for line, row in zip(lines, rows, strict=True):
        found = kept[line["request_id"]]
        assert (found["unit"], found["requester"], found["client_request_id"]) == (row["who"], "user:caller", row["id"])
        assert orjson.loads(found["tags"])["client"] == {"batch": str(job.id)}
        assert line["version"] == f"{found['asset']}@{found['version']}"
        assert found["arm"] == {1: "champion", 2: "challenger"}[found["version"]]
    assert {row["version"] for row in kept.values()} == {1, 2}
    assert await world.db.fetchval("SELECT count(*) FROM batch_result WHERE job_id = $1", job.id) == 0


async def test_parquet_in_and_out_typed_values_and_missing_ones(world: World, office: Office, name: str) -> None:
    await world.make_group(name, await world.deploy(a_version(5), "echo"))
    table = pa.table({
        "customer": pa.array(["a", "b", "c"]), "AGEP": pa.array([1.5, None, float("nan")]),
        "MAR": pa.array([1, 2, None], pa.int8()), "note": pa.array(["x", "y", "z"]),
    })  # fmt: skip
    file = io.BytesIO()
    pq.write_table(table, file)
    job = await office.begin(
        name, file.getvalue(), Format.PARQUET, id_field="customer", features=("AGEP", "MAR")
    )  # fmt: skip
    done = await office.finish(name, job)
    assert done.state is State.DONE, done
    answers = pq.read_table(io.BytesIO(await office.output(done))).to_pylist()
    assert [(one["id"], one["status"], one["error_code"]) for one in answers] == [(id, 200, None) for id in "abc"]
    assert [orjson.loads(one["output"]) for one in answers] == [
        {"AGEP": 1.5, "MAR": 1}, {"AGEP": None, "MAR": 2}, {"AGEP": None, "MAR": None},
    ]  # fmt: skip
    assert len(await world.rows(name)) == 3


async def test_requests_have_their_own_bodies_and_errors_are_results(world: World, office: Office, name: str) -> None:
    await world.make_group(name, await world.deploy(a_version(5), "echo"))
    tensor = {"name": "x", "datatype": "FP64", "shape": [1], "data": [1.0]}
    rows = [
        {"custom_id": "good", "url": f"/v2/models/{name}/infer", "body": {"inputs": [tensor]}},
        b"{this is no json",
        {"custom_id": "elsewhere", "url": "/v1/files", "body": {"inputs": [tensor]}},
        {"custom_id": "bare"},
        {"custom_id": "other", "url": "/v1/chat/completions", "body": {"model": "another", "messages": []}},
        {"custom_id": "streams", "url": "/v1/messages", "body": {"stream": True}},
        {
            "custom_id": "mismatch",
            "url": "/v1/chat/completions",
            "body": {"messages": [{"role": "user", "content": "?"}]},
        },
        [1, 2],
        {"custom_id": "last", "body": {"inputs": [tensor]}},
    ]
    job = await office.begin(name, jsonl(*rows), shape=Shape.REQUESTS)
    done = await office.finish(name, job)
    assert (done.state, done.recorded, done.failed) == (State.DONE, 9, 7), done
    lines = await office.lines(done)
    assert [line["custom_id"] for line in lines] == [
        "good",
        "1",
        "elsewhere",
        "bare",
        "other",
        "streams",
        "mismatch",
        "7",
        "last",
    ]
    assert [line["error"]["code"] if line["error"] else None for line in lines] == [
        None,
        *["field-refused"] * 5,
        "protocol-mismatch",
        "field-refused",
        None,
    ]
    assert lines[0]["response"]["body"]["outputs"][0]["data"] == [1.0]
    assert lines[1]["response"] is None and lines[6]["response"]["status_code"] == 422
    # what never was a request is no row; what the group refused is one
    assert sorted(row["status"] for row in await world.rows(name)) == [200, 200, 422]


async def test_a_worker_that_dies_leaves_no_more_than_its_window_to_be_asked_again(
    world: World, office: Office, name: str
) -> None:
    world.stub.delay_s = 0.02
    await world.make_group(name, await world.deploy(a_version(5), "slow.batch"))
    job = await office.begin(name, people(60), concurrency=4)
    owner = new_id()
    claimed = await office.batches.claim(owner)
    assert claimed is not None
    working = asyncio.create_task(office.batches.work(claimed, owner))
    async with asyncio.timeout(20):
        while (await office.batches.one("default", name, job.id)).recorded < 20:
            await asyncio.sleep(0.005)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    stood = await office.batches.one("default", name, job.id)
    assert stood.state is State.RUNNING and 20 <= stood.recorded < 60
    assert await office.again().claim(new_id()) is None, "its lease still holds"
    office.ahead = timedelta(seconds=61)
    done = await office.finish(name, job)
    assert (done.state, done.recorded, done.failed) == (State.DONE, 60, 0)
    assert [line["id"] for line in await office.lines(done)] == [f"person-{n}" for n in range(60)]
    asked = [row["client_request_id"] for row in await world.rows(name)]
    twice = len(asked) - len(set(asked))
    assert len(set(asked)) == 60 and twice <= 4, f"{twice} rows were asked twice"


async def test_rows_that_overtook_others_are_not_asked_again(world: World, office: Office, name: str) -> None:
    await world.make_group(name, await world.deploy(a_version(5), "echo.overtaken"))
    job = await office.begin(name, people(6))
    for place in (0, 2, 3):  # as a worker leaves them that died while it waited for row 1
        kept = Result(place, f"person-{place}", 200, "earlier", "v@1", {"outputs": []})
        await world.db.execute(
            "INSERT INTO batch_result (workspace, job_id, position, result) VALUES ('default', $1, $2, $3)",
            job.id, place, orjson.dumps(asdict(kept)).decode(),
        )  # fmt: skip
    done = await office.finish(name, job)
    assert done.state is State.DONE, done
    lines = await office.lines(done)
    assert [line["id"] for line in lines] == [f"person-{n}" for n in range(6)]
    assert [line["request_id"] == "earlier" for line in lines] == [True, False, True, True, False, False]
    assert world.stub.seen["echo.overtaken"] == 3


async def test_a_gateway_that_is_away_is_waited_for(world: World, office: Office, name: str) -> None:
    await world.make_group(name, await world.deploy(a_version(5), "echo"))
    job = await office.begin(name, people(5))
    away, owner = office.again(gateway_url="http://127.0.0.1:9"), new_id()
    claimed = await away.claim(owner)
    assert claimed is not None
    await away.work(claimed, owner)
    waiting = await office.batches.one("default", name, job.id)
    assert waiting.state is State.RUNNING and "does not answer" in (waiting.waits_for or "")
    assert (waiting.total, waiting.recorded) == (5, 0)
    assert await office.batches.claim(new_id()) is None
    office.ahead = timedelta(seconds=6)
    assert (await office.finish(name, job)).state is State.DONE


async def test_a_cancelled_batch_asks_no_further_row(world: World, office: Office, name: str) -> None:
    world.stub.delay_s = 0.05
    await world.make_group(name, await world.deploy(a_version(5), "slow.cancelled"))
    job = await office.begin(name, people(500), concurrency=2)
    working = asyncio.create_task(office.finish(name, job))
    async with asyncio.timeout(20):
        while (await office.batches.one("default", name, job.id)).recorded < 3:
            await asyncio.sleep(0.01)
    await office.batches.cancel("default", name, job.id)
    done = await working
    assert (done.state, done.output, done.error_code) == (State.CANCELLED, None, "cancelled")
    assert 3 <= done.recorded < 500
    with pytest.raises(BatchOver):
        await office.batches.cancel("default", name, job.id)
    seen = world.stub.seen["slow.cancelled"]
    assert seen < 500 and await world.db.fetchval("SELECT count(*) FROM batch_result WHERE job_id = $1", job.id) == 0
    queued = await office.begin(name, people(2))
    await office.batches.cancel("default", name, queued.id)
    assert (await office.finish(name, queued)).state is State.CANCELLED
    assert world.stub.seen["slow.cancelled"] == seen


FILES: list[tuple[str, bytes, dict[str, Any], str]] = [
    ("empty", b"", {}, "no row"),
    ("blank", b"\n\n \n", {}, "no row"),
    ("too many", people(21), {}, "21 rows"),
    ("no parquet", b"PAR1 is not all", {"format": Format.PARQUET}, "not Parquet"),
    ("one endless line", b"x" * (17 << 20), {}, "line of more"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "data", "more", "said"), FILES, ids=[one[0] for one in FILES])
async def test_a_file_that_cannot_be_one_fails_before_anything_is_asked(
    world: World, office: Office, name: str, what: str, data: bytes, more: dict[str, Any], said: str
) -> None:
    await world.make_group(name, await world.deploy(a_version(5), "echo"))
    office.batches = office.again(batch_rows=20)
    done = await office.finish(name, await office.begin(name, data, **more))
    assert (done.state, done.error_code, done.recorded) == (State.FAILED, "batch-refused", 0)
    assert said in (done.error_message or "")
    assert await world.rows(name) == []


async def test_who_may_do_what(world: World, office: Office, name: str) -> None:
    await world.make_group(name, await world.deploy(a_version(5), "echo"))
    digest = await office.put(people(1), by=NEIGHBOUR)
    spec = Spec(input=digest, format=Format.JSONL, shape=Shape.FEATURES, output_format=Format.JSONL)
    with pytest.raises(BatchRefused, match="no file"):  # the bytes are there, and are another workspace's
        await office.batches.begin(CALLER, name, spec)
    with pytest.raises(NotFound):
        await office.batches.download(CALLER, digest)
    with pytest.raises(UnknownGroup):
        await office.batches.begin(NEIGHBOUR, name, spec)
    for address in ("/etc/passwd", "file:///etc/passwd", "s3://bucket/key", "http://10.0.0.1/x", "sha256:short"):
        with pytest.raises(BatchRefused):
            await office.batches.begin(CALLER, name, spec.model_copy(update={"input": address}))
    job = await office.begin(name, people(1))
    with pytest.raises((UnknownBatch, UnknownGroup)):
        await office.batches.one("other", name, job.id)
    with pytest.raises(UnknownBatch):
        await office.batches.one("default", name, UUID(int=7))
    assert [one.id for one in await office.batches.page("default", name, None, 10)] == [job.id]
    # the gateway judges by the caller's roles: a viewer's batch is refused, with nothing asked
    await world.db.execute("UPDATE batch_job SET roles = '{viewer}' WHERE id = $1", job.id)
    done = await office.finish(name, job)
    assert done.state is State.FAILED and "forbidden" in (done.error_message or "")
    assert await world.rows(name) == []


async def test_a_ticket_is_good_for_its_workspace_and_for_a_while(world: World, name: str) -> None:
    await world.make_group(name, await world.deploy(a_version(5), "echo"))
    master = FileMasterKey(world.master_key)
    good = await Tickets(master, utc_now).issue(CALLER)
    assert (await world.infer(name, authorization=good)).status_code == 200
    old = await Tickets(master, lambda: utc_now() - timedelta(minutes=11)).issue(CALLER)
    outer = orjson.loads(base64.b64decode(good.removeprefix("Batch ")))
    moved = base64.b64encode(orjson.dumps({**outer, "workspace": "other"})).decode()
    for ticket in (old, f"Batch {moved}", "Batch", "Batch !!", "Batch e30=", good[:-8] + "AAAAAAA="):
        refused = await world.infer(name, authorization=ticket)
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated"), ticket
    assert (await world.infer(name, authorization=good, x_mintmark_tags='{"a": 1}')).status_code == 200
    for tags in ("[1]", "no json", '{"a": {}}', '{"a": "' + "x" * 3000 + '"}'):
        assert (await world.infer(name, authorization=good, x_mintmark_tags=tags)).status_code == 422
    rows = await world.rows(name)
    said = [(row["status"], orjson.loads(row["tags"] or "{}").get("client")) for row in rows]
    assert said == [(200, None), (200, {"a": 1}), *[(422, None)] * 4]
