"""Artefacts that are fetched: outside the Kafka handler, by whoever holds the lease, with the answer as an event."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import boto3
import pytest
from moto.server import ThreadedMotoServer
from registry_story import a_model, model_bytes, registry

from shared.events.base import Artefact
from shared.events.registry import AssetRefused
from shared.events.upstream import AssetSubmitted, DatasetFile, Manifest
from shared.ids import sha256
from shared.testing.installation import Installation

pytestmark = pytest.mark.timeout(120)


def fetched(
    data: bytes, uri: str, name: str = "credit-pd", declared: str = "lightgbm", **more: object
) -> AssetSubmitted:
    artefact = Artefact.model_validate({"digest": sha256(data), "format": declared, "uri": uri, **more})
    return a_model(name, artefact=artefact)


async def test_a_file_is_fetched_and_its_answer_belongs_to_the_same_story(
    installation: Installation, tmp_path: Path
) -> None:
    root = tmp_path / "pipeline"
    root.mkdir()
    (root / "model.txt").write_bytes(model_bytes())
    (root / "bad.txt").write_bytes(b"not a model")
    async with registry(installation, source_roots=(root,)) as it:
        good = fetched(model_bytes(), f"file://{root}/model.txt")
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        event_id = await installation.publish(good, key=it.key, traceparent=parent)
        (answer,) = await it.registered(good)
        assert answer.artefact is not None and answer.artefact.uri is None
        record = (await installation.records("asset.registered"))[-1]
        headers = {name: value.decode() for name, value in record.headers}
        assert headers["ce_causationid"] == event_id and headers["traceparent"].split("-")[1] == parent.split("-")[1]
        assert (await it.client.get(f"/registry/v1/artefacts/{sha256(model_bytes())}")).content == model_bytes()

        cases = {
            "digest-mismatch": fetched(model_bytes(1), f"file://{root}/model.txt", "a"),
            "format-mismatch": fetched(b"not a model", f"file://{root}/bad.txt", "b"),
            "too-large": fetched(model_bytes(2), f"file://{root}/model.txt", "c", size=3),
            "source-failed": fetched(model_bytes(3), f"file://{root}/none.txt", "d"),
            "source-refused": fetched(model_bytes(4), "file:///etc/hostname", "e"),
        }
        for event in cases.values():
            await installation.publish(event, key=it.key)
        for code, event in cases.items():
            view = await it.decided(event)
            assert (view["state"], view["code"]) == ("refused", code)
            refused = await installation.wait_for(
                AssetRefused, lambda seen, e=event: seen.submission_id == e.submission_id
            )
            assert refused.code == code
            assert (await it.client.get(f"/registry/v1/assets/model/{event.name}")).status_code == 404


async def test_from_a_bucket_that_is_listed(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3 = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
        for bucket in ("models", "private"):
            s3.create_bucket(Bucket=bucket)
            s3.put_object(Bucket=bucket, Key="team/model.txt", Body=model_bytes())
        platform = installation.platform(s3_endpoint=f"http://{host}:{port}")
        monkeypatch.setattr(installation, "platform", lambda: platform)
        async with registry(installation, source_buckets=("models/team",)) as it:
            good = fetched(model_bytes(), "s3://models/team/model.txt")
            refused = fetched(model_bytes(1), "s3://private/team/model.txt", "b")
            missing = fetched(model_bytes(2), "s3://models/team/none.txt", "c")
            for event in (good, refused, missing):
                await installation.publish(event, key=it.key)
            assert (await it.decided(good))["state"] == "registered"
            assert (await it.decided(refused))["code"] == "source-refused"
            assert (await it.decided(missing))["code"] == "source-failed"
    finally:
        server.stop()


async def test_a_datasets_files_are_all_fetched_or_nothing_is_registered(
    installation: Installation, tmp_path: Path
) -> None:
    def file(name: str, split: str) -> DatasetFile:
        data = b"PAR1" + name.encode()
        (tmp_path / name).write_bytes(data)
        return DatasetFile.model_validate(
            {
                "path": name,
                "digest": sha256(data),
                "size": len(data),
                "rows": 1,
                "split": split,
                "uri": f"file://{tmp_path}/{name}",
            }
        )

    async with registry(installation, source_roots=(tmp_path,)) as it:
        files = (file("train.parquet", "train"), file("golden.parquet", "golden"))
        gone = files[1].model_copy(
            update={"path": "x", "digest": sha256(b"x"), "size": 1, "uri": f"file://{tmp_path}/gone"}
        )

        def dataset(name: str, *files: DatasetFile) -> AssetSubmitted:
            return a_model(
                name, kind="dataset", artefact=None, manifest=Manifest(files=files, source="here", licence="CC0-1.0")
            )

        whole, half = dataset("whole", *files), dataset("half", files[0], gone)
        await installation.publish(whole, key=it.key)
        await installation.publish(half, key=it.key)
        assert (await it.decided(whole))["state"] == "registered"
        assert (await it.decided(half))["code"] == "source-failed"
        registered = (await it.client.get("/registry/v1/assets/dataset/whole")).json()["newest"]
        assert [entry["uri"] for entry in registered["content"]["manifest"]["files"]] == [None, None]


async def test_work_of_a_worker_that_died_is_taken_over(installation: Installation, tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_bytes(model_bytes())
    async with registry(installation, source_roots=(tmp_path,)) as it:
        event = fetched(model_bytes(), f"file://{tmp_path}/model.txt")
        connection = await asyncpg.connect(installation.backing.dsn(installation.database))
        try:
            # As a worker leaves it that was killed: claimed, with a lease that runs out a second from now.
            await connection.execute(
                "CREATE FUNCTION registry.as_claimed() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN NEW.lease := gen_random_uuid(); NEW.due_at := now() + interval '1 second'; RETURN NEW; END $$"
            )
            await connection.execute(
                "CREATE TRIGGER as_claimed BEFORE INSERT ON registry.submission "
                "FOR EACH ROW EXECUTE FUNCTION registry.as_claimed()"
            )
            view = await it.submit(event)
            assert view["state"] == "fetching"
            await asyncio.sleep(0.6)
            assert (await it.client.get(f"/registry/v1/submissions/{event.submission_id}")).json()[
                "state"
            ] == "fetching"
            assert (await it.decided(event))["state"] == "registered"
        finally:
            await connection.close()
