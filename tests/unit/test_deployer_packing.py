"""What a bundle's manifest says of a model, and where it has it from."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import lightgbm
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.deployer import packing
from services.deployer.bundle import BundleRefused
from services.deployer.domain import Approval, Asset, Statement
from services.deployer.errors import ArtefactDamaged, ArtefactMissing, NotDeployable
from shared.artefacts.folder import FolderStore
from shared.events.base import Artefact, AssetRef, Signature, Tensor
from shared.events.policy import Envelope
from shared.events.upstream import Training
from shared.ids import sha256

KEY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
REF = AssetRef(urn="mm:model/iris", version=2, digest=sha256(b"version"))
APPROVAL = Approval(
    Statement.model_validate(
        {
            "type": "approval",
            "approval_id": uuid4(),
            "workspace": "default",
            "asset": REF,
            "artefact": None,
            "binding": sha256(b"binding"),
            "decision": "approved",
            "approver": {"id": "user:bea", "proven": True},
            "gate_id": uuid4(),
            "expires_at": "2027-01-01T00:00:00Z",
        }
    ),
    Envelope.model_validate({"payloadType": "x", "payload": "", "signatures": [{"keyid": "policy", "sig": ""}]}),
)


def trained(folder: Path, objective: str, classes: int = 1, names: list[str] | None = None) -> Path:
    rng = np.random.default_rng(1)
    rows, target = rng.normal(size=(200, 3)), rng.integers(0, max(classes, 2), 200)
    parameters = {"objective": objective, "verbosity": -1, "num_threads": 1, "num_class": classes}
    data = lightgbm.Dataset(rows, target, feature_name=names or "auto")
    lightgbm.train(parameters, data, 2).save_model(str(folder / "model.txt"))
    return folder / "model.txt"


def asset(model: Path | None, format: str = "lightgbm", **more: Any) -> Asset:
    digest = sha256(model.read_bytes()) if model else sha256(b"")
    given: dict[str, Any] = {
        "ref": REF,
        "kind": "model",
        "task": "classification",
        "artefact": Artefact(digest=digest, format=format),
        "signature": Signature(),
        "training": Training(),
        "licence": "CC0-1.0",
    }
    return Asset(**given | more)


def inputs(*names: str, **more: Any) -> Signature:
    return Signature(inputs=tuple(Tensor(**{"name": name, "datatype": "FP64"} | more) for name in names))


def test_without_a_signature_a_lightgbm_model_speaks_for_itself(tmp_path: Path) -> None:
    model = trained(tmp_path, "binary", names=["age", "pay", "years"])
    made = packing.pack(tmp_path, asset(model), APPROVAL, "default", model, KEY)
    manifest = made.manifest
    assert [(f.name, f.datatype, f.nullable) for f in manifest.features] == [
        ("age", "FP64", True), ("pay", "FP64", True), ("years", "FP64", True),
    ]  # fmt: skip
    assert (manifest.task, manifest.labels, manifest.model_name) == ("binary", (0, 1), "default.iris")
    assert (manifest.version, manifest.licence, manifest.asset_digest) == ("2", "CC0-1.0", REF.digest)
    assert manifest.evidence["approval"] == str(APPROVAL.statement.approval_id)
    assert [one.name for one in packing.signature_of(asset(model), manifest).inputs] == ["age", "pay", "years"]


def test_the_task_is_the_models_own_and_the_labels_are_the_trainings(tmp_path: Path) -> None:
    three = trained(tmp_path, "multiclass", 3)
    manifest = packing.manifest_of(asset(three), APPROVAL, "default", three)
    assert (manifest.task, manifest.labels) == ("multiclass", (0, 1, 2))
    named = Training(parameters={"labels": ["setosa", "versicolor", "virginica"]})
    manifest = packing.manifest_of(asset(three, training=named), APPROVAL, "default", three)
    assert manifest.labels == ("setosa", "versicolor", "virginica")
    number = trained(tmp_path, "regression")
    manifest = packing.manifest_of(asset(number, task="regression"), APPROVAL, "default", number)
    assert (manifest.task, manifest.labels) == ("regression", ())


def test_other_formats_are_described_by_signature_and_training(tmp_path: Path) -> None:
    model = tmp_path / "model"
    training = Training(parameters={"background": [1, 2.5, None]})
    signature = inputs("x", "y", "z", datatype="INT32", nullable=True)
    found = packing.manifest_of(
        asset(None, "skops", signature=signature, training=training), APPROVAL, "default", model
    )
    assert [(f.name, f.datatype, f.nullable) for f in found.features] == [
        ("x", "INT64", True), ("y", "INT64", True), ("z", "INT64", True),
    ]  # fmt: skip
    assert (found.task, found.labels, found.background) == ("binary", (0, 1), (1, 2.5, None))
    outputs = (Tensor(name="probability", datatype="FP32", shape=(-1, 4)),)
    wide = Signature(inputs=inputs("x", shape=(-1, 2)).inputs, outputs=outputs)
    found = packing.manifest_of(asset(None, "onnx", signature=wide), APPROVAL, "default", model)
    assert ([f.name for f in found.features], found.task, len(found.labels)) == (["x_0", "x_1"], "multiclass", 4)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"kind": "retriever"}, "only a model"),
        ({"artefact": None}, "only a model"),
        ({"artefact": Artefact(digest=sha256(b""), format="parquet")}, "'parquet'"),
        ({}, "no inputs"),
        ({"signature": inputs("x", datatype="BYTES")}, "only numbers"),
        ({"signature": inputs("x", "x")}, "same name"),
        ({"signature": inputs("x"), "training": Training(parameters={"labels": [1]})}, "labels do not fit"),
        ({"signature": inputs("x"), "training": Training(parameters={"labels": {"a": 1}})}, "labels"),
        ({"signature": inputs("x"), "training": Training(parameters={"background": "far"})}, "background"),
        ({"signature": inputs("x"), "training": Training(parameters={"background": [1, 2]})}, "background row"),
    ],
)
def test_what_cannot_be_described_is_refused_with_a_reason(tmp_path: Path, more: dict[str, Any], reason: str) -> None:
    with pytest.raises(NotDeployable, match=reason):
        packing.manifest_of(asset(None, "skops", **more), APPROVAL, "default", tmp_path / "model")


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"tree\nnum_tree_per_iteration=many\nfeature_names=a\n"])
def test_a_file_that_is_no_lightgbm_text_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model").write_bytes(content)
    with pytest.raises(NotDeployable, match="text format"):
        packing.manifest_of(asset(tmp_path / "model"), APPROVAL, "default", tmp_path / "model")


def test_only_the_registered_bytes_are_packed(tmp_path: Path) -> None:
    model = trained(tmp_path, "binary")
    version = asset(model)
    model.write_bytes(model.read_bytes() + b"\n")
    with pytest.raises(BundleRefused, match="not the artefact"):
        packing.pack(tmp_path, version, APPROVAL, "default", model, KEY)


async def test_bytes_are_fetched_whole_and_unchanged_or_not_at_all(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    digest = await store.put_bytes(b"bytes" * 1000)
    assert (await packing.fetch(store, digest, tmp_path / "x")).read_bytes() == b"bytes" * 1000

    async def again() -> AsyncIterator[bytes]:
        async for chunk in packing.chunks(tmp_path / "x"):
            yield chunk

    assert (await store.put(again()))[0] == digest
    store.path(digest).chmod(0o600)
    store.path(digest).write_bytes(b"other")
    with pytest.raises(ArtefactDamaged):
        await packing.fetch(store, digest, tmp_path / "x")
    store.path(digest).unlink()
    with pytest.raises(ArtefactMissing):
        await packing.fetch(store, digest, tmp_path / "x")


def test_guards_are_a_file_of_their_own_under_the_bundle_s_checksums(tmp_path: Path) -> None:
    model = trained(tmp_path, "binary")
    guard = {"name": "words", "kind": "regex", "patterns": ["secret"]}
    made = packing.pack(tmp_path, asset(model, guardrails=(guard,)), APPROVAL, "default", model, KEY)
    assert packing.guardrails_of(made) == (guard,)
    data = made.path.read_bytes().replace(b"secret", b"secreT")
    made.path.write_bytes(data)
    with pytest.raises(BundleRefused, match=r"guardrails\.json"):
        packing.guardrails_of(made)
    plain = packing.pack(tmp_path, asset(model), APPROVAL, "default", model, KEY)
    assert (set(plain.members), packing.guardrails_of(plain)) == ({"model.txt"}, ())
