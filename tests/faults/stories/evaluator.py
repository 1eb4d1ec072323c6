"""The evaluator: what is registered is measured once, on a small golden set, whoever dies over it."""

from __future__ import annotations

import io
from typing import Any
from uuid import UUID, uuid4

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shared.artefacts import open_store
from shared.events.base import Artefact, AssetRef, Signature, Tensor
from shared.events.evaluator import EvalCompleted, EvalFailed
from shared.events.policy import DatasetApproved
from shared.events.registry import AssetRegistered, DatasetRegistered
from shared.events.upstream import DatasetFile, DatasetVersion, EvalRequested, Manifest
from shared.ids import sha256
from tests.faults.stories.base import ADA, AT, INBOX, NAMES, RELAY, Story, once_each

DATASET = AssetRef(urn="mm:dataset/people", version=1, digest=sha256(b"people"))
FEATURES = ("age", "income")
ROWS = 200


class EvaluatorStory(Story):
    service = "evaluator"
    points = (*INBOX, "inbox.parked", *RELAY, "parking.handled", "http.committed", "worker.claimed", "worker.between")
    deepest = 3
    inputs = 4
    pause_s = 4.0

    async def prepare(self) -> None:
        self.versions: list[str] = []
        self.requested: list[UUID] = []
        store = open_store(self.world.installation.platform())
        columns = _rows()
        self.model = _trained(columns).encode()
        sink = io.BytesIO()
        pq.write_table(pa.table(columns), sink)
        content = sink.getvalue()
        await store.put_bytes(self.model)
        await store.put_bytes(content)
        file = DatasetFile(path="golden.parquet", digest=sha256(content), size=len(content), rows=ROWS, split="golden")
        manifest = Manifest(files=(file,), source="test", licence="none", label="label")
        await self.publish(DatasetRegistered(asset=DATASET, manifest=manifest, author=ADA, registered_at=AT))
        approved = DatasetApproved(asset=DATASET, decision="approved", approver=ADA, reason="fine", decided_at=AT)
        await self.publish(approved)

    async def step(self, number: int) -> None:
        """A version; every third time with a request for a second evaluation, which comes before the version does.

        Every fourth time the second evaluation is asked for by HTTP.
        """
        urn, version = f"mm:model/model-{number % NAMES}", number // NAMES + 1
        ref = AssetRef(urn=urn, version=version, digest=sha256(b"%d" % number))
        self.versions.append(str(ref))
        if number % 3 == 0:
            request = EvalRequested(request_id=uuid4(), asset=ref)
            self.requested.append(request.request_id)
            await self.publish(request)
        await self.publish(
            AssetRegistered(
                asset=ref,
                submission_id=uuid4(),
                kind="model",
                task="classification",
                artefact=Artefact(digest=sha256(self.model), format="lightgbm"),
                signature=Signature(inputs=tuple(Tensor(name=name, datatype="FP64") for name in FEATURES)),
                golden_set=DatasetVersion(urn=DATASET.urn, version=1),
                author=ADA,
                registered_at=AT,
            )
        )
        if number % 4 == 0:
            self.versions.append(str(ref))
            body = {"urn": urn, "version": version}
            self.world.beside(self.world.post("/evaluator/v1/evaluations", body, until=("not-found",)))

    async def complaints(self) -> list[str]:
        completed = self.world.tape.once(EvalCompleted)
        found = [f"failed: {event.reason}" for event in self.world.tape.once(EvalFailed)]
        rows = await self.world.rows("SELECT id, urn, version, state FROM evaluation")
        found += once_each("eval.completed", (row["id"] for row in rows), (e.evaluation_id for e in completed))
        own = sorted(f"{row['urn']}@{row['version']}" for row in rows if row["id"] not in self.requested)
        if own != sorted(self.versions):
            found.append(f"evaluations of versions: {own}, asked for were {sorted(self.versions)}")
        missing = set(self.requested) - {row["id"] for row in rows}
        found += [f"the evaluation {one} was asked for and is not there" for one in missing]
        found += [f"evaluation {row['id']} is {row['state']}" for row in rows if row["state"] != "done"]
        left = await self.world.rows("SELECT evaluation_id FROM shard")
        return found + [f"a shard of {row['evaluation_id']} was left behind" for row in left]


def _rows() -> dict[str, Any]:
    random = np.random.default_rng(1)
    age = random.normal(40, 10, ROWS)
    label = (random.random(ROWS) < 1 / (1 + np.exp(-(age - 40) / 5))).astype(int)
    return {"age": age, "income": random.normal(3, 1, ROWS), "label": label}


def _trained(columns: dict[str, Any]) -> str:
    features = np.column_stack([columns[name] for name in FEATURES])
    data = lightgbm.Dataset(features, columns["label"], feature_name=list(FEATURES))
    parameters = {"objective": "binary", "verbose": -1, "num_threads": 1, "num_leaves": 4}
    text: str = lightgbm.train(parameters, data, 3).model_to_string()
    return text
