"""Datasets governed: golden sets locked, rows in common found, bytes ended with a receipt, Croissant in and out."""

from __future__ import annotations

import asyncio
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import mlcroissant
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from registry_story import Registry, a_model, model_bytes, registry

from services.registry.datasets.reading import Files
from services.registry.datasets.worker import Retaining
from services.registry.store import Store
from shared.artefacts import open_store
from shared.artefacts.folder import FolderStore
from shared.clock import utc_now
from shared.db.database import Database
from shared.db.queries import load
from shared.errors import Conflict, Unavailable
from shared.events.base import AssetRef
from shared.events.registry import AssetChanged
from shared.events.upstream import (
    AssetSubmitted,
    Column,
    DatasetFile,
    DatasetVersion,
    Manifest,
    Revision,
    RunCompleted,
    Training,
)
from shared.identity import dsse
from shared.ids import sha256
from shared.testing.installation import Installation, eventually
from tests.faults.world import Process

pytestmark = pytest.mark.timeout(120)
NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
V1 = "/registry/v1/datasets"


def rows(*numbers: int, form: str = "csv") -> bytes:
    made = [{"a": number, "b": number / 4, "y": number % 2} for number in numbers]
    if form == "csv":
        return ("a,b,y\n" + "".join(f"{row['a']},{row['b']},{row['y']}\n" for row in made)).encode()
    if form == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in made).encode()
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(made), file)
    return file.getvalue()


def a_file(data: bytes, split: str, form: str = "csv", path: str | None = None) -> DatasetFile:
    return DatasetFile.model_validate(
        {
            "path": path or f"{split}.{form}", "digest": sha256(data), "size": len(data), "rows": 3, "split": split,
            "format": form,
        }
    )  # fmt: skip


def a_dataset(name: str, *files: DatasetFile, **more: Any) -> AssetSubmitted:
    manifest = Manifest(files=files, label="y", source="made for a test", licence="CC0-1.0", **more)
    return AssetSubmitted(submission_id=uuid4(), kind="dataset", name=name, manifest=manifest)


def of(ref: AssetRef) -> DatasetVersion:
    return DatasetVersion(urn=ref.urn, version=ref.version)


async def dataset(it: Registry, ref: AssetRef) -> dict[str, Any]:
    answer = await it.client.get(f"{V1}/{ref.name}/versions/{ref.version}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def mark(client: httpx.AsyncClient, ref: AssetRef, what: str, holds: bool, reason: str = "so") -> httpx.Response:
    return await client.put(f"{V1}/{ref.name}/versions/{ref.version}/{what}", json={"holds": holds, "reason": reason})


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOK_S", "WAIT_S"):
        monkeypatch.setattr(f"services.registry.datasets.worker.{name}", 0.05)


async def test_nothing_is_trained_on_a_locked_golden_set(installation: Installation) -> None:
    bob = installation.key("user:bob", "approver")
    publisher = installation.key("pipeline:x", "publisher")
    data, other = rows(1, 2, 3), rows(4, 5, 6)
    async with registry(installation) as it, installation.client("registry", bob) as bobs:
        await it.upload(data, other, *(model_bytes(number) for number in range(4)))
        golden = await it.register(a_dataset("golden", a_file(data, "golden")))
        open_set = await it.register(a_dataset("open", a_file(other, "train")))
        before = await it.register(a_model("before", model_bytes(0), training=Training(dataset=of(golden))))

        async with installation.client("registry", publisher) as publishers:
            assert (await mark(publishers, golden, "golden", True)).status_code == 403
        assert (await mark(it.client, golden, "golden", True, "the measure of 2026")).status_code == 200
        again = await mark(bobs, golden, "golden", True)
        assert (again.status_code, again.json()["code"]) == (409, "no-change")

        for training in (Training(dataset=of(golden)), Training(dataset=of(golden), run_id="9")):
            refused = await it.submit(a_model("cheat", model_bytes(1), training=training))
            assert (refused["state"], refused["code"]) == ("refused", "golden-locked")
            assert "user:ada" in refused["reason"] and "the measure of 2026" in refused["reason"]
        # A run says that it was fed with it: that stays in the lineage, and what it made is refused.
        later = datetime.now(UTC) + timedelta(hours=1)
        run = RunCompleted(
            run_id="17", name="cheat", status="finished", datasets=(of(golden),), started_at=later, ended_at=later
        )
        await installation.publish(run, key=it.key)
        found = await eventually(lambda: dataset(it, golden), lambda found: bool(found["violations"]))
        assert found["violations"][0]["run_id"] == "17" and found["violations"][0]["code"] == "golden-locked"
        refused = await it.submit(a_model("cheat", model_bytes(2), training=Training(run_id="17")))
        assert (refused["state"], refused["code"]) == ("refused", "golden-locked")
        # To be measured on it is what it is for.
        await it.register(
            a_model("fair", model_bytes(3), training=Training(dataset=of(open_set)), golden_set=of(golden))
        )
        assert found["trained_on_it"] == [str(before)] and found["golden"]["who"]["id"] == "user:ada"

        own = await mark(it.client, golden, "golden", False)
        assert (own.status_code, own.json()["code"]) == (403, "same-person")
        assert (await mark(bobs, golden, "golden", False, "it is stale")).status_code == 200
        await it.register(a_model("later", model_bytes(2), training=Training(dataset=of(golden))))
        log = (await it.client.get(f"{V1}/golden/versions/1/log")).json()
        assert [(one["what"], one["holds"], one["who"]["id"], one["reason"]) for one in log] == [
            ("golden", False, "user:bob", "it is stale"), ("golden", True, "user:ada", "the measure of 2026"),
        ]  # fmt: skip
        for path in ("golden/versions/2", "none/versions/1", "golden/versions/2/log", "none/versions/1/croissant"):
            assert (await it.client.get(f"{V1}/{path}")).status_code == 404
        assert (
            await it.client.put(f"{V1}/none/versions/1/golden", json={"holds": True, "reason": "x"})
        ).status_code == 404
        assert (
            await it.client.put(f"{V1}/golden/versions/1/golden", json={"holds": True, "reason": ""})
        ).status_code == 422


async def test_rows_that_stand_in_two_splits_are_found(installation: Installation) -> None:
    train, test = rows(*range(1000)), rows(*range(990, 1100), form="parquet")
    golden, broken = rows(*range(500, 503), *range(2000, 2097), form="jsonl"), b"PAR1 no rows PAR1"
    async with registry(installation) as it:
        await it.upload(train, test, golden, broken, model_bytes(0), model_bytes(1))
        leaky = await it.register(a_dataset("leaky", a_file(train, "train"), a_file(test, "test", "parquet")))
        measure = await it.register(a_dataset("measure", a_file(golden, "golden", "jsonl")))
        unread = await it.register(a_dataset("unread", a_file(broken, "golden", "parquet")))
        model = await it.register(a_model("m", training=Training(dataset=of(leaky)), golden_set=of(measure)))
        other = await it.register(
            a_model("m", model_bytes(1), training=Training(dataset=of(leaky)), golden_set=of(unread))
        )
        found = await eventually(lambda: dataset(it, leaky), lambda found: found["counting"] == "done")
        splits = {one["split"]: (one["rows"], one["distinct"], one["exact"]) for one in found["splits"]}
        assert splits == {"train": (1000, 1000, True), "test": (110, 110, True)}
        (overlap,) = found["overlaps"]
        assert (overlap["left"]["split"], overlap["right"]["split"]) == ("train", "test")
        assert (overlap["shared"], overlap["exact"], overlap["share_of_right"]) == (10, True, round(10 / 110, 6))

        async def of_model() -> list[dict[str, Any]]:
            answer = await it.client.get(f"/registry/v1/assets/model/m/versions/{model.version}")
            overlaps: list[dict[str, Any]] = answer.json()["overlaps"]
            return overlaps

        (overlap,) = await eventually(of_model, bool)
        assert overlap["left"] == {"dataset": "mm:dataset/leaky@1", "split": "train", "rows": 1000, "distinct": 1000}
        assert overlap["right"]["dataset"] == "mm:dataset/measure@1" and overlap["shared"] == 3

        async def said_of(ref: AssetRef) -> AssetChanged:
            told: AssetChanged = await installation.wait_for(
                AssetChanged, lambda event: (event.urn, event.name) == (ref.urn, "overlap")
            )
            return told

        told = await said_of(model)
        assert told.version == 1 and told.after[0]["shared"] == 3
        assert "3 rows of mm:dataset/measure@1 (golden) stand in mm:dataset/leaky@1 (train)" in told.reason
        await said_of(leaky)

        failed = await eventually(lambda: dataset(it, unread), lambda found: found["counting"] == "failed")
        assert "cannot be read as parquet" in failed["counting_error"]
        db = await asyncpg.connect(
            installation.dsn("registry"), server_settings={"search_path": "registry", "mintmark.workspace": "*"}
        )

        async def of_other() -> Any:
            return await db.fetchrow(
                "SELECT state, error FROM dataset_work WHERE urn = $1 AND version = $2", other.urn, other.version
            )

        row = await eventually(of_other, lambda row: row["state"] == "failed")
        await db.close()
        assert "mm:dataset/unread@1 could not be counted" in row["error"]


async def test_rows_are_counted_once_the_store_and_the_database_are_themselves_again(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[Exception] = [*(Unavailable() for _ in range(7)), Conflict()]
    reading = Files.sketch

    async def sketch(self: Files, files: Any) -> Any:
        if failures:
            raise failures.pop()
        return await reading(self, files)

    monkeypatch.setattr(Files, "sketch", sketch)
    async with registry(installation) as it:
        data = rows(*range(10))
        await it.upload(data)
        ref = await it.register(a_dataset("late", a_file(data, "train")))
        found = await eventually(lambda: dataset(it, ref), lambda found: found["counting"] != "waiting")
        assert found["counting"] == "done" and not failures


def bytes_there(installation: Installation, data: bytes) -> bool:
    digest = sha256(data).removeprefix("sha256:")
    return (Path(installation.folder) / "artefacts" / digest[:2] / digest[2:]).exists()


async def age(installation: Installation, *names: str) -> None:
    """As if these datasets had been registered ten days ago."""
    db = await asyncpg.connect(
        installation.dsn("registry"), server_settings={"search_path": "registry", "mintmark.workspace": "*"}
    )
    urns = [f"mm:dataset/{name}" for name in names]
    await db.execute("UPDATE dataset SET expires_at = expires_at - interval '10 days' WHERE urn = ANY($1)", urns)
    await db.close()


async def test_what_may_be_kept_no_longer_goes_and_nothing_else(installation: Installation) -> None:
    stranger = installation.key("user:eve", "owner", workspace="elsewhere")
    own, shared, foreign, held, logged = rows(1), rows(2), rows(3), rows(4), rows(5)
    async with (
        registry(installation, retention_look_s=0.05, retention_grace_s=0) as it,
        installation.client("registry", stranger) as eve,
    ):
        await it.upload(own, shared, foreign, held)
        assert (await eve.put(f"/registry/v1/artefacts/{sha256(foreign)}", content=foreign)).status_code == 201
        files = [
            a_file(own, "train", path="own.csv"), a_file(shared, "test", path="shared.csv"),
            a_file(foreign, "golden", path="foreign.csv"), a_file(logged, "train", path="logged.csv"),
        ]  # fmt: skip
        logging = await it.client.put("/registry/api/2.0/mlflow-artifacts/artifacts/0/run/data.csv", content=logged)
        assert logging.status_code == 200, logging.text
        ending = await it.register(a_dataset("ending", *files, retention_days=5))
        staying = await it.register(a_dataset("staying", a_file(shared, "train")))
        under_hold = await it.register(a_dataset("held", a_file(held, "train"), retention_days=5))
        for ref in (ending, staying, under_hold):
            await eventually(lambda ref=ref: dataset(it, ref), lambda found: found["counting"] == "done")
        assert (await mark(it.client, under_hold, "hold", True, "a case at court")).status_code == 200

        # The dry run tells it before, and changes nothing.
        dry = (await it.client.get(f"{V1}:retention")).json()
        assert dry == []
        at = (datetime.now(UTC) + timedelta(days=6)).isoformat()
        (going,) = (await it.client.get(f"{V1}:retention", params={"at": at})).json()
        stays = {one["digest"]: one["stays"] for one in going["files"]}
        assert stays == {sha256(own): False, sha256(shared): True, sha256(foreign): False, sha256(logged): True}
        assert (await dataset(it, ending))["retention"]["state"] == "kept"

        await age(installation, "ending", "held")
        found = await eventually(lambda: dataset(it, ending), lambda found: found["retention"]["state"] == "erased")
        assert [bytes_there(installation, data) for data in (own, shared, foreign, held)] == [False, True, True, True]
        gone = await it.client.get(f"/registry/v1/artefacts/{sha256(own)}")
        assert gone.status_code == 404
        for data in (shared, logged):
            assert (await it.client.get(f"/registry/v1/artefacts/{sha256(data)}")).content == data
        assert (await it.client.get(f"/registry/v1/artefacts/{sha256(foreign)}")).status_code == 404
        assert (await eve.get(f"/registry/v1/artefacts/{sha256(foreign)}")).content == foreign

        receipt = found["retention"]["receipt"]
        envelope = dsse.Envelope.from_json(json.dumps(receipt["envelope"]).encode())
        trusted = dsse.read_trust_file(installation.folder / "trust.json")
        signed = json.loads(
            dsse.verify(envelope, {"registry": trusted["registry"]}, "application/vnd.mintmark.retention+json")
        )
        assert signed == receipt["payload"]
        assert signed["dataset"] == str(ending) and signed["digest"] == ending.digest and signed["retention_days"] == 5
        assert [one["paths"] for one in signed["removed"]] == [["own.csv"]]
        resting = "something else of this workspace rests on it"
        assert {one["digest"]: one["why"] for one in signed["kept"]} == {
            sha256(shared): resting, sha256(logged): resting, sha256(foreign): "it is held elsewhere",
        }  # fmt: skip
        # Manifest, hashes and lineage stay; so does what was counted.
        assert [one["path"] for one in found["manifest"]["files"]] == [
            "own.csv",
            "shared.csv",
            "foreign.csv",
            "logged.csv",
        ]
        assert sum(one["rows"] for one in found["splits"]) == 4
        told = await installation.wait_for(AssetChanged, lambda event: event.name == "retention")
        assert (told.urn, told.after["removed"]) == (ending.urn, 1)

        kept = await dataset(it, under_hold)
        assert kept["retention"]["state"] == "kept" and kept["hold"]["reason"] == "a case at court"
        assert (await mark(it.client, under_hold, "hold", False, "it is over")).status_code == 200
        await eventually(lambda: dataset(it, under_hold), lambda found: found["retention"]["state"] == "erased")
        assert not bytes_there(installation, held)


async def waiting(installation: Installation) -> int:
    """How many wait for a lock on bytes."""
    db = await asyncpg.connect(installation.dsn("registry"))
    found = await db.fetchval(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    await db.close()
    return int(found)


async def test_bytes_that_are_being_removed_are_accepted_from_nobody(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store takes its time; an upload and a registration come after retention looked who holds the bytes."""
    data, other = rows(1), rows(2)
    removing, go_on, remove = asyncio.Event(), asyncio.Event(), FolderStore.remove

    async def slowly(self: FolderStore, digest: str) -> None:
        if digest == sha256(data):
            removing.set()
            await go_on.wait()
        await remove(self, digest)

    monkeypatch.setattr(FolderStore, "remove", slowly)
    async with registry(installation, retention_look_s=0.05, retention_grace_s=0) as it:
        await it.upload(data)
        ending = await it.register(a_dataset("ending", a_file(data, "train"), retention_days=5))
        await eventually(lambda: dataset(it, ending), lambda found: found["counting"] == "done")
        await age(installation, "ending")
        await removing.wait()

        upload = asyncio.create_task(it.client.put(f"/registry/v1/artefacts/{sha256(data)}", content=data))
        second = a_dataset("second", a_file(data, "train"))
        submitting = asyncio.create_task(it.submit(second))
        await eventually(lambda: waiting(installation), lambda found: found == 2, what="both of them")
        await it.upload(other)  # nobody else is kept waiting
        go_on.set()

        refused = await upload
        assert (refused.status_code, refused.json()["code"]) == (422, "artefact-missing"), refused.text
        assert "upload it again" in refused.json()["detail"]
        view = await submitting
        assert (view["state"], view["code"]) == ("refused", "artefact-missing"), view
        await eventually(lambda: dataset(it, ending), lambda found: found["retention"]["state"] == "erased")
        await it.upload(data)
        await it.register(a_dataset("second", a_file(data, "train")))
        assert (await it.client.get(f"/registry/v1/artefacts/{sha256(data)}")).content == data


async def test_retention_leaves_alone_what_somebody_is_claiming(installation: Installation) -> None:
    data = rows(1)
    digest = sha256(data)
    database = Database(installation.dsn("registry"), "registry", pool_size=2)
    store, files = Store(load("services.registry")), Files(open_store(installation.platform()))

    async def ends(grace_s: float) -> None:
        await Retaining(database, store, files, utc_now, grace_s, None).round()

    async with registry(installation, retention_look_s=3600) as it:
        await database.open()
        await it.upload(data)
        ending = await it.register(a_dataset("ending", a_file(data, "train"), retention_days=5))
        await eventually(lambda: dataset(it, ending), lambda found: found["counting"] == "done")
        await age(installation, "ending")

        async with database.begin("default") as tx:
            await store.versions.claim(tx, [digest])
            await ends(3600)
            assert (await dataset(it, ending))["retention"]["state"] == "kept"
        await ends(3600)
        assert (await dataset(it, ending))["retention"]["state"] == "released"
        async with database.begin("elsewhere") as tx:
            await store.versions.claim(tx, [digest])
            await store.versions.hold_artefacts(tx, [(digest, len(data))], utc_now())
            await ends(0)
            assert (await dataset(it, ending))["retention"]["state"] == "released"
        await ends(0)
        found = (await dataset(it, ending))["retention"]
        assert found["state"] == "erased" and bytes_there(installation, data)
        assert found["receipt"]["payload"]["kept"] == [{"digest": digest, "why": "it is held elsewhere"}]
        await database.close()


async def test_killed_between_its_steps_retention_ends_once(installation: Installation) -> None:
    """First with the version released and its bytes there; then with its bytes gone and no receipt."""
    key, data = installation.key("user:ada", "owner"), rows(1)
    await installation.make_topics()
    environment = {
        **installation.environment(),
        "MINTMARK_REGISTRY_RETENTION_LOOK_S": "0.05",
        "MINTMARK_REGISTRY_RETENTION_GRACE_S": "0",
    }

    async def started() -> Process:
        process = Process(("registry",), environment, installation.folder / "logs")
        await process.start("worker.between")
        return await process.ready()

    first = await started()
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    async with httpx.AsyncClient(base_url=first.url, headers=headers) as http:
        it = Registry(installation, key, http)
        await it.upload(data)
        ending = await it.register(a_dataset("ending", a_file(data, "train"), retention_days=5))
        await eventually(lambda: dataset(it, ending), lambda found: found["counting"] == "done")
        await age(installation, "ending")
        assert await first.ended(30), first.log
    assert bytes_there(installation, data)
    second = await started()
    assert await second.ended(30), second.log
    assert not bytes_there(installation, data)
    # Nobody kills the third one, so it needs no process of its own.
    async with registry(installation, retention_look_s=0.05, retention_grace_s=0) as it:
        found = await eventually(lambda: dataset(it, ending), lambda found: found["retention"]["state"] == "erased")
        assert [one["digest"] for one in found["retention"]["receipt"]["payload"]["removed"]] == [sha256(data)]
        await installation.wait_for(AssetChanged, lambda event: event.name == "retention")
    events = await installation.events(AssetChanged)
    assert [event.name for event in events].count("retention") == 1


COLUMNS = (Column(name="a", type="integer"), Column(name="b", type="float", nullable=False, description="a quarter"))


async def test_croissant_out_is_valid_and_in_again_is_the_same(installation: Installation, tmp_path: Path) -> None:
    train, test = rows(1, 2), rows(3)
    async with registry(installation) as it:
        await it.upload(train, test)
        event = a_dataset(
            "census", a_file(train, "train"), a_file(test, "golden", path="held out.csv"), columns=COLUMNS,
            consent="contract", retention_days=30, sensitive=("b",), sensitivity="restricted",
            revision=Revision(system="dvc", repository="https://example.org/r.git", commit="abc", path="data"),
        )  # fmt: skip
        ref = await it.register(event)
        answer = await it.client.get(f"{V1}/census/versions/1/croissant")
        assert answer.headers["content-type"].startswith("application/ld+json")
        path = tmp_path / "croissant.json"
        path.write_text(answer.text)
        read = await asyncio.to_thread(mlcroissant.Dataset, str(path))
        assert not read.metadata.ctx.issues.errors
        assert {file.name for file in read.metadata.distribution} == {"train.csv", "held out.csv"}
        assert [field.name for field in read.metadata.record_sets[0].fields] == ["a", "b"]

        imported = await it.client.post(f"{V1}:importCroissant?dry_run=true", content=answer.content)
        assert imported.status_code == 202, imported.text
        assert Manifest.model_validate(imported.json()["manifest"]) == (
            Manifest.model_validate((await dataset(it, ref))["manifest"])
        )
        assert imported.json()["submission"] is None
        registered = (await it.client.post(f"{V1}:importCroissant", content=answer.content)).json()["submission"]
        assert (registered["state"], registered["version"]) == ("registered", 1), "the same content is one version"


async def test_a_croissant_that_others_wrote(installation: Installation) -> None:
    data, md5 = rows(1, 2, 3), "d41d8cd98f00b204e9800998ecf8427e"
    ctx = mlcroissant.Context(conforms_to="http://mlcommons.org/croissant/1.0")

    def written(*files: mlcroissant.FileObject, **more: Any) -> str:
        extract = mlcroissant.Extract(ctx=ctx, column="a")
        source = mlcroissant.Source(ctx=ctx, file_object="my-validation.csv", extract=extract)
        field = mlcroissant.Field(ctx=ctx, id="r/a", name="a", data_types=mlcroissant.DataType.INTEGER, source=source)
        sets = [mlcroissant.RecordSet(ctx=ctx, id="r", name="r", fields=[field])]
        fields = {"name": "Wages of 2026", "license": ["CC-BY-4.0"], "url": "https://example.org/wages", **more}
        made = mlcroissant.Metadata(
            ctx=ctx, description="who earns what", distribution=list(files), record_sets=sets, **fields
        )
        return json.dumps(made.to_json(), default=str)

    def a_file_object(**more: Any) -> mlcroissant.FileObject:
        fields = {"sha256": sha256(data).removeprefix("sha256:"), "encoding_formats": ["text/csv"], **more}
        return mlcroissant.FileObject(
            ctx=ctx, id="my-validation.csv", name="my-validation.csv",
            content_url="https://example.org/my-validation.csv", **fields,
        )  # fmt: skip

    async with registry(installation) as it:

        async def post(text: str, query: str = "") -> httpx.Response:
            return await it.client.post(f"{V1}:importCroissant{query}", content=text)

        unknown = await post(written(a_file_object()))
        assert unknown.json()["code"] == "croissant-refused" and "upload it first" in unknown.json()["detail"]
        await it.upload(data)
        answer = (await post(written(a_file_object()), "?label=y")).json()
        assert answer["submission"]["state"] == "registered", answer
        manifest = answer["manifest"]
        (file,) = manifest["files"]
        assert (file["split"], file["rows"], file["size"], file["format"]) == ("validation", 3, len(data), "csv")
        assert (manifest["source"], manifest["licence"], manifest["label"]) == (
            "https://example.org/wages", "CC-BY-4.0", "y",
        )  # fmt: skip
        assert [(column["name"], column["type"]) for column in manifest["columns"]] == [("a", "integer")]
        assert answer["submission"]["urn"].startswith("mm:dataset/wages-of-2026-x")

        refused = await post(written(a_file_object(sha256=None, md5=md5, content_size="12 B")))
        assert refused.status_code == 422 and "only an md5" in refused.json()["detail"]
        other = json.loads(written(a_file_object()))
        for changed, word in (
            ({"distribution": []}, "distribution"), ({"license": None}, "license"), ({"name": None}, "name"),
            ({"name": ".."}, "in a URL"), ({"name": "x" * 501}, "title"),
            ({"conformsTo": "http://mlcommons.org/croissant/0.8"}, "conformsTo"), ({"@type": "sc:Thing"}, "@type"),
            ({"@context": ...}, "@context"), ({"distribution": [7, {"@type": "cr:FileSet"}]}, "FileSet"),
        ):  # fmt: skip
            document = {key: value for key, value in {**other, **changed}.items() if value is not ...}
            answer = await post(json.dumps(document))
            assert answer.status_code == 422 and word in answer.json()["detail"], (changed, answer.text)
        assert (await post("[]")).status_code == 422 and (await post("{")).status_code == 400
