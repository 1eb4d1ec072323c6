"""Registering, from asset.submitted on Kafka or by HTTP to asset.registered."""

from __future__ import annotations

from uuid import uuid4

import pytest

from shared.events.base import Artefact
from shared.events.registry import AssetRegistered, DatasetRegistered
from shared.events.upstream import AssetSubmitted, DatasetFile, DatasetVersion, Manifest
from shared.ids import sha256
from shared.testing.installation import Installation

pytestmark = pytest.mark.timeout(120)
MODEL = b"tree\nversion=v4\nnum_class=1\n"
ROWS = b"PAR1 rows PAR1"


def a_model(name: str = "credit-pd", data: bytes = MODEL, **more: object) -> AssetSubmitted:
    artefact = Artefact(digest=sha256(data), format="lightgbm")
    return AssetSubmitted(**{"submission_id": uuid4(), "kind": "model", "name": name, "artefact": artefact, **more})  # type: ignore[arg-type]


def a_dataset(name: str = "census", data: bytes = ROWS) -> AssetSubmitted:
    file = DatasetFile(path="golden.parquet", digest=sha256(data), size=len(data), rows=1, split="golden")
    manifest = Manifest(files=(file,), label="y", source="made here", licence="CC0-1.0")
    return AssetSubmitted(submission_id=uuid4(), kind="dataset", name=name, manifest=manifest)


async def test_a_dataset_and_a_model_are_registered_from_kafka(installation: Installation) -> None:
    key = installation.key("pipeline:credit", "publisher")
    await installation.start("registry")
    async with installation.client("registry", key) as client:
        for data in (MODEL, ROWS):
            assert (await client.put(f"/registry/v1/artefacts/{sha256(data)}", content=data)).status_code == 201
        dataset = a_dataset()
        await installation.publish(dataset, key=key)
        registered = await installation.wait_for(DatasetRegistered)
        assert registered.asset.urn == "mm:dataset/census" and registered.asset.version == 1
        assert registered.author.id == "pipeline:credit" and registered.author.proven
        model = a_model(golden_set=DatasetVersion(urn="mm:dataset/census", version=1), author="pipeline:credit")
        await installation.publish(model, key=key)
        answer = await installation.wait_for(AssetRegistered, lambda event: event.submission_id == model.submission_id)
        assert str(answer.asset) == "mm:model/credit-pd@1"
        assert answer.golden_set.digest == registered.asset.digest
        assert answer.artefact.size == len(MODEL)
        found = (await client.get("/registry/v1/assets/model/credit-pd")).json()
        assert found["newest"]["digest"] == answer.asset.digest
        bytes_back = await client.get(f"/registry/v1/artefacts/{sha256(MODEL)}")
        assert bytes_back.content == MODEL
