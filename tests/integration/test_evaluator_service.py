"""The evaluator as a service: what it hears it measures, once, and what cannot be measured is an error."""

from __future__ import annotations

import io
import os
from typing import Any
from uuid import uuid4

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.evaluator.processes import ScoringProcesses
from shared.artefacts import open_store
from shared.db import Database
from shared.events.base import Actor, Artefact, AssetRef, Signature, Tensor
from shared.events.evaluator import EvalCompleted, EvalFailed
from shared.events.policy import DatasetApproved
from shared.events.registry import AssetRegistered, DatasetRegistered
from shared.events.upstream import DatasetFile, DatasetVersion, EvalRequested, Manifest
from shared.ids import sha256
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(150)
ADA = Actor(id="user:ada", proven=True)
AT = "2026-11-20T10:00:00Z"
DATASET = AssetRef(urn="mm:dataset/people", version=1, digest="sha256:" + "d" * 64)
FEATURES = ("age", "income")


class Deadly:
    """Whatever process receives this ends."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (1,)


def rows(count: int, seed: int = 1) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    age, income = random.normal(40, 10, count), random.normal(3, 1, count)
    label = (random.random(count) < 1 / (1 + np.exp(-(age - 40) / 5))).astype(int)
    return {"age": age, "income": income, "label": label, "SEX": random.integers(1, 3, count)}


def parquet(columns: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def trained() -> bytes:
    data = rows(2000)
    dataset = lightgbm.Dataset(
        np.column_stack([data["age"], data["income"]]), data["label"], feature_name=list(FEATURES)
    )
    booster = lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1, "num_leaves": 7}, dataset, 20)
    text: str = booster.model_to_string()
    return text.encode()


async def dataset(installation: Installation, content: bytes, count: int, **more: Any) -> DatasetRegistered:
    await open_store(installation.platform()).put_bytes(content)
    file = DatasetFile(path="golden.parquet", digest=sha256(content), size=len(content), rows=count, split="golden")
    manifest = Manifest(
        files=(file,), source="test", licence="none", **{"label": "label", "sensitive": ("SEX",), **more}
    )
    return DatasetRegistered(asset=DATASET, manifest=manifest, author=ADA, registered_at=AT)


def registered(content: bytes, version: int = 1, **more: Any) -> AssetRegistered:
    found: dict[str, Any] = {
        "asset": AssetRef(urn="mm:model/credit", version=version, digest=sha256(content + bytes([version]))),
        "submission_id": uuid4(),
        "kind": "model",
        "task": "classification",
        "artefact": Artefact(digest=sha256(content), format="lightgbm"),
        "signature": Signature(inputs=tuple(Tensor(name=name, datatype="FP64") for name in FEATURES)),
        "golden_set": DatasetVersion(urn=DATASET.urn, version=1),
        "author": ADA,
        "registered_at": AT,
        **more,
    }
    return AssetRegistered(**found)


def approved(decision: str = "approved") -> DatasetApproved:
    return DatasetApproved.model_validate(
        {"asset": DATASET, "decision": decision, "approver": ADA, "reason": "fine", "decided_at": AT}
    )


async def test_a_registered_version_is_measured_once_its_golden_set_is_approved(installation: Installation) -> None:
    key = installation.key("user:ada", "viewer")
    model = trained()
    await open_store(installation.platform()).put_bytes(model)
    await installation.start("evaluator")
    # In the wrong order: the asset comes before its dataset is known.
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await installation.publish(registered(model), times=3, event_id="registered-once", traceparent=parent)
    await installation.publish(registered(model))  # submitted again: the same version
    await installation.publish(await dataset(installation, parquet(rows(6000, 2)), 6000))

    async def waiting() -> list[Any]:
        async with installation.client("evaluator", key) as http:
            return list((await http.get("/evaluator/v1/evaluations")).json()["items"])

    (found,) = await eventually(waiting, bool)
    assert found["state"] == "waiting"
    await installation.publish(approved())
    done = await installation.wait_for(EvalCompleted)
    assert done.rows == 6000
    assert {"accuracy_score", "roc_auc", "f1_score", "log_loss", "coverage"} <= set(done.measures)
    assert any(name.startswith("fairness") for name in done.measures)
    assert any(name.startswith("latency_ms") for name in done.measures)
    auc = done.measures["roc_auc"]
    assert 0.8 < auc.low < auc.value < auc.high < 1
    async with installation.client("evaluator", key) as http:
        shown = (await http.get(f"/evaluator/v1/evaluations/{done.evaluation_id}")).json()
        report = (await http.get(f"/evaluator/v1/evaluations/{done.evaluation_id}/report")).json()
    assert shown["state"] == "done"
    assert report["rows"] == 6000
    (record,) = await installation.records("eval.completed")
    assert dict(record.headers)["traceparent"].decode().split("-")[1] == "0af7651916cd43dd8448eb211c80319c"


async def test_rows_without_a_label_are_said_to_be_unscored(installation: Installation) -> None:
    model, columns = trained(), rows(400)
    columns["label"] = [None if number % 4 == 0 else int(label) for number, label in enumerate(columns["label"])]
    await open_store(installation.platform()).put_bytes(model)
    await installation.start("evaluator", require_approved_datasets=False)
    await installation.publish(await dataset(installation, parquet(columns), 400))
    await installation.publish(registered(model))
    done = await installation.wait_for(EvalCompleted)
    assert (done.rows, done.errors) == (400, 100)
    assert done.measures["coverage"].value == 0.75


async def test_a_model_that_ends_its_process_each_time_fails_and_others_are_measured(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, deadly = trained(), trained() + b"\n"
    store = open_store(installation.platform())
    for content in (good, deadly):
        await store.put_bytes(content)
    run = ScoringProcesses.run

    async def die_of_one(processes: ScoringProcesses, job: Any, *arguments: Any) -> Any:
        if arguments[1].content == deadly:
            arguments = (*arguments[:2], Deadly())
        return await run(processes, job, *arguments)

    # No file is known that kills the libraries of today; what a process dies of is put into its job instead.
    monkeypatch.setattr(ScoringProcesses, "run", die_of_one)
    await installation.start("evaluator", require_approved_datasets=False, most_attempts=2)
    await installation.publish(await dataset(installation, parquet(rows(300)), 300))
    await installation.publish(registered(deadly, version=1))
    await installation.publish(registered(good, version=2))
    failed = await installation.wait_for(EvalFailed)
    done = await installation.wait_for(EvalCompleted)
    assert (failed.asset.version, failed.code) == (1, "model-crashed")
    assert done.asset.version == 2
    assert len(await installation.events(EvalFailed)) == len(await installation.events(EvalCompleted)) == 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("model is garbage", "model-refused"),
        ("model is a pickle", "model-is-pickle"),
        ("golden set is garbage", "golden-set-unreadable"),
        ("golden set has one class", "single-class"),
        ("label column is missing", "label-missing"),
        ("golden set is gone", "not-found"),
        ("no golden set", "not-measurable"),
        ("unknown task", "not-measurable"),
        ("dataset rejected", "dataset-rejected"),
    ],
)
async def test_what_cannot_be_measured_is_an_error_and_no_score(
    installation: Installation, change: str, code: str
) -> None:
    model = {"model is garbage": b"tree\nnot a model", "model is a pickle": b"\x80\x04N."}.get(change) or trained()
    store = open_store(installation.platform())
    await store.put_bytes(model)
    columns = rows(300)
    if change == "golden set has one class":
        columns["label"] = np.ones(300, dtype=int)
    content = b"PAR1 not parquet" if change == "golden set is garbage" else parquet(columns)
    event = await dataset(installation, content, 300, label="other" if change == "label column is missing" else "label")
    if change == "golden set is gone":
        store.path(sha256(content)).unlink()  # type: ignore[attr-defined]
    more: dict[str, Any] = {"no golden set": {"golden_set": None}, "unknown task": {"task": "poetry"}}.get(change, {})
    await installation.start("evaluator")
    await installation.publish(event)
    await installation.publish(approved("rejected" if change == "dataset rejected" else "approved"))
    await installation.publish(registered(model, **more))
    failed = await installation.wait_for(EvalFailed)
    assert failed.code == code
    assert failed.reason
    assert await installation.events(EvalCompleted) == []


async def test_an_evaluation_goes_on_after_a_crash(installation: Installation) -> None:
    model = trained()
    await open_store(installation.platform()).put_bytes(model)
    await installation.start("evaluator", lease_s=1.0)
    await installation.publish(await dataset(installation, parquet(rows(20_000, 3)), 20_000))
    await installation.publish(approved())
    await installation.publish(registered(model))
    service = installation.services["evaluator"]

    async def done_shards() -> int:
        async with service.database.begin("*") as tx:
            return int(await tx.connection.fetchval("SELECT count(*) FROM shard WHERE result IS NOT NULL"))

    await eventually(done_shards, lambda count: 0 < count < 5)
    await service.stop()
    before = await done_shards_of(installation)
    assert 0 < before < 5
    await installation.start("evaluator", lease_s=1.0)
    done = await installation.wait_for(EvalCompleted)
    assert done.rows == 20_000
    assert len(await installation.events(EvalCompleted)) == 1


async def done_shards_of(installation: Installation) -> int:
    connection = await Database(installation.dsn("evaluator"), "evaluator").connect()
    await connection.execute("SET mintmark.workspace = '*'")
    count = await connection.fetchval("SELECT count(*) FROM shard WHERE result IS NOT NULL")
    await connection.close()
    return int(count)


async def test_evaluations_are_asked_for_and_stay_in_their_workspace(installation: Installation) -> None:
    ada = installation.key("user:ada", "publisher")
    eve = installation.key("user:eve", "owner", workspace="other")
    model = trained()
    await open_store(installation.platform()).put_bytes(model)
    await installation.start("evaluator", require_approved_datasets=False)
    await installation.publish(await dataset(installation, parquet(rows(500)), 500))
    event = registered(model)
    await installation.publish(event)
    await installation.wait_for(EvalCompleted)
    async with installation.client("evaluator", eve) as http:
        assert (await http.get("/evaluator/v1/evaluations")).json()["items"] == []
        body = {"urn": "mm:model/credit", "version": 1}
        assert (await http.post("/evaluator/v1/evaluations", json=body)).status_code == 404
    async with installation.client("evaluator", ada) as http:
        asked = await http.post("/evaluator/v1/evaluations", json=body)
        assert asked.status_code == 202
        page = (await http.get("/evaluator/v1/evaluations", params={"page_size": 1})).json()
        rest = (await http.get("/evaluator/v1/evaluations", params={"page_token": page["next_page_token"]})).json()
    assert len(page["items"]) == len(rest["items"]) == 1
    wrong = AssetRef(urn="mm:model/credit", version=1, digest="sha256:" + "0" * 64)
    await installation.publish(EvalRequested(request_id=uuid4(), asset=wrong))
    failed = await installation.wait_for(EvalFailed)
    assert failed.code == "wrong-digest"
    ranker = AssetRef(urn="mm:reranker/passages", version=1, digest="sha256:" + "0" * 64)
    await installation.publish(EvalRequested(request_id=uuid4(), asset=ranker))
    failed = await installation.wait_for(EvalFailed, lambda event: event.asset == ranker)
    assert failed.code == "not-measurable" and "a reranker" in failed.reason
