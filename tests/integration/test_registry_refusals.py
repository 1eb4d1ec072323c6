"""Bad input: each refused with a code and a sentence, by an event where it came by Kafka, and nothing half-written."""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Callable
from uuid import uuid4

import asyncpg
import pytest
from registry_story import ROWS, Registry, a_dataset, a_model, model_bytes, registry

from shared.bus import dead_letters
from shared.events.base import Artefact, AssetRef
from shared.events.registry import AssetRefused, AssetRegistered
from shared.events.upstream import AssetSubmitted, DatasetVersion, Training
from shared.ids import sha256
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(180)

PICKLE = pickle.dumps({"weights": [1.0] * 10})
NOWHERE = "sha256:" + "0" * 64


def artefact(data: bytes, kind: str = "lightgbm", **more: object) -> Artefact:
    return Artefact.model_validate({"digest": sha256(data), "format": kind, **more})


def dataset(name: str = "census", version: int = 1, digest: str | None = None) -> DatasetVersion:
    return DatasetVersion(urn=f"mm:dataset/{name}", version=version, digest=digest)


CASES: dict[str, Callable[[], AssetSubmitted]] = {
    "author-mismatch": lambda: a_model(author="user:somebody-else"),
    "unknown-format": lambda: a_model(artefact=artefact(PICKLE, "keras")),
    "unknown-format ": lambda: a_model(artefact=artefact(model_bytes(), "csv")),
    "format-mismatch   ": lambda: a_model(artefact=artefact(model_bytes(), "joblib")),
    "pickle-refused": lambda: a_model(artefact=artefact(PICKLE)),
    "pickle-refused ": lambda: a_model(artefact=artefact(PICKLE, "onnx")),
    "format-mismatch": lambda: a_model(artefact=artefact(ROWS, "onnx")),
    "format-mismatch ": lambda: a_model(artefact=artefact(model_bytes(), "skops")),
    "artefact-missing": lambda: a_model(data=b"never uploaded"),
    "size-mismatch": lambda: a_model(artefact=artefact(model_bytes(), size=3)),
    "unknown-dataset": lambda: a_model(golden_set=dataset("no-such-dataset")),
    "unknown-dataset ": lambda: a_model(golden_set=dataset(version=9)),
    "unknown-dataset  ": lambda: a_model(golden_set=dataset(digest=NOWHERE)),
    "unknown-dataset   ": lambda: a_model(training=Training(dataset=dataset("no-such-dataset"))),
    "unknown-dataset    ": lambda: a_model(golden_set=DatasetVersion(urn="mm:model/census", version=1)),
    "unknown-prompt": lambda: a_model(prompts=(AssetRef(urn="mm:prompt/x", version=1, digest=NOWHERE),)),
    "source-refused": lambda: a_model(artefact=Artefact(digest=NOWHERE, format="onnx", uri="file:///etc/passwd")),
    "source-refused ": lambda: a_model(artefact=Artefact(digest=NOWHERE, format="onnx", uri="http://169.254.169.254/")),
    "invalid": lambda: a_dataset(artefact=artefact(model_bytes())),
    "invalid ": lambda: a_model(manifest=a_dataset().manifest),
    "invalid  ": lambda: a_model(training=Training(parameters={"seed": 2**60})),
    "too-large": lambda: a_model(training=Training(parameters={"notes": "x" * 500_000})),
    "artefact-missing ": lambda: a_dataset(data=b"PAR1 never uploaded PAR1"),
    "format-mismatch  ": lambda: a_dataset(data=model_bytes()),
}


async def test_each_bad_submission_is_refused_with_its_code(installation: Installation) -> None:
    async with registry(installation) as it:
        await it.upload(model_bytes(), ROWS, PICKLE)
        await it.register(a_dataset())
        before = await rows(it)
        events = {code: make() for code, make in CASES.items()}
        for code, event in events.items():
            # A proof is over canonical JSON, too, so that what it cannot hold comes unsigned.
            await installation.publish(event, key=None if code == "invalid  " else it.key)
        found = await refusals(it, len(events))
        for code, event in events.items():
            refused = found[event.submission_id]
            assert refused.code == code.strip(), (code, refused)
            assert refused.urn == event.urn and len(refused.reason) > 20
            view = await it.client.get(f"/registry/v1/submissions/{event.submission_id}")
            if code not in ("invalid  ",):  # what canonical JSON cannot hold is not kept
                assert view.json()["state"] == "refused" and view.json()["reason"] == refused.reason
        assert await rows(it) == before
        assert len(await installation.events(AssetRegistered)) == 1


async def test_what_is_no_submission_is_answered_all_the_same(installation: Installation) -> None:
    async with registry(installation):
        good = json.loads(a_model().model_dump_json())
        bodies = [
            (b"{", "malformed"),
            (b'{"a": 1, "a": 2}', "malformed"),
            (b'{"metrics": {"auc": NaN}}', "malformed"),
            (b"[" * 100_000, "malformed"),
            (json.dumps({**good, "kind": "spell"}).encode(), "invalid"),
            (json.dumps({**good, "name": "Ünïcode/../x"}).encode(), "invalid"),
            (json.dumps({**good, "name": "x" * 200}).encode(), "invalid"),
            (json.dumps({name: value for name, value in good.items() if name != "artefact"}).encode(), "invalid"),
            (json.dumps({**good, "artefact": {"digest": "md5:1", "format": "onnx"}}).encode(), "invalid"),
        ]
        for number, (body, _) in enumerate(bodies):
            await installation.send_raw("asset.submitted", body, headers(f"bad-{number}"), b"mm:model/credit-pd")
        await installation.send_raw("asset.submitted", b"{}", headers("bad-version", "asset.submitted.v9"))
        await installation.send_raw("asset.submitted", b"not even an event", [])
        # Nobody may speak for every workspace at once.
        await installation.send_raw("asset.submitted", b"{}", [*headers("bad-star"), ("ce_workspace", b"*")])
        found = await eventually(lambda: installation.events(AssetRefused), lambda seen: len(seen) == len(bodies) + 3)
        codes = {refused.event_id: refused.code for refused in found}
        for number, (body, code) in enumerate(bodies):
            assert codes[f"bad-{number}"] == code, body[:80]
        assert codes["bad-version"] == "unknown-type"
        assert sorted(codes.values()).count("not-a-cloudevent") == 2
        named = [refused for refused in found if refused.submission_id is not None]
        assert {str(refused.submission_id) for refused in named} == {good["submission_id"]}
        assert await dead_letters.listed(installation.kafka, "registry") == []


async def test_an_author_is_believed_only_with_a_proof_of_his_own(installation: Installation) -> None:
    mallory = installation.key("user:mallory", "publisher")
    elsewhere = installation.key("user:eve", "publisher", workspace="elsewhere")
    async with registry(installation) as it:
        await it.upload(model_bytes())
        claimed, forged, foreign = a_model(author="user:ada"), a_model(author="user:ada"), a_model()
        await installation.publish(claimed)
        await installation.publish(forged, key=mallory)
        await installation.publish(foreign, key=elsewhere)  # signed for a workspace that the key does not belong to
        tampered = a_model()
        header = json.dumps({"alg": "Ed25519", "kid": it.key.rpartition("_")[0]}).encode()
        proof = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, b"{}", b"x" * 64))
        await installation.send_raw(
            "asset.submitted", tampered.model_dump_json().encode(), [*headers("tampered"), ("ce_proof", proof)]
        )
        found = await refusals(it, 4)
        assert found[claimed.submission_id].code == "author-unproven"
        assert found[forged.submission_id].code == "author-mismatch"
        assert found[foreign.submission_id].code == "signature-refused"
        assert found[tampered.submission_id].code == "signature-refused"
        assert (await it.client.get("/registry/v1/assets/model/credit-pd")).status_code == 404


async def test_an_installation_may_refuse_what_nobody_has_proven(installation: Installation) -> None:
    async with registry(installation, require_proof=True) as it:
        await it.upload(model_bytes())
        unsigned, signed = a_model(), a_model()
        await installation.publish(unsigned)
        await installation.publish(signed, key=it.key)
        assert (await refusals(it, 1))[unsigned.submission_id].code == "author-unproven"
        await it.registered(signed)


async def test_http_refuses_with_problems(installation: Installation) -> None:
    viewer = installation.key("user:vera", "viewer")
    async with registry(installation) as it:
        good = a_model().model_dump_json()
        for body, status, code in [
            (b"{", 400, "malformed"),
            (b'{"a": NaN}', 400, "malformed"),
            (b"{}", 422, "invalid"),
            (good.replace('"credit-pd"', '"../x"').encode(), 422, "invalid"),
        ]:
            answer = await it.client.post("/registry/v1/submissions", content=body)
            assert (answer.status_code, answer.json()["code"]) == (status, code)
            assert answer.headers["content-type"] == "application/problem+json"
        async with installation.client("registry", viewer) as client:
            client.headers["content-type"] = "application/json"
            assert (await client.post("/registry/v1/submissions", content=good)).json()["code"] == "forbidden"
            assert (await client.put(f"/registry/v1/artefacts/{sha256(b'x')}", content=b"x")).status_code == 403
        async with installation.client("registry") as client:
            assert (await client.post("/registry/v1/submissions", content=good)).status_code == 401
        assert (await it.client.get(f"/registry/v1/submissions/{uuid4()}")).status_code == 404
        refused = await it.submit(a_model(data=b"never uploaded"))
        assert (refused["state"], refused["code"]) == ("refused", "artefact-missing")
        assert (await it.client.get("/registry/v1/assets/model/credit-pd/versions?page_token=e30")).status_code == 422
        for made_up in ("IltdIg", "WyJ4IiwxXQ", "%00"):
            answer = await it.client.get(f"/registry/v1/assets/model/credit-pd/versions?page_token={made_up}")
            assert answer.status_code == 422


def headers(event_id: str, kind: str = "asset.submitted.v1") -> list[tuple[str, bytes]]:
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", event_id.encode()),
        ("ce_source", b"test"),
        ("ce_type", kind.encode()),
    ]


async def refusals(it: Registry, count: int) -> dict[object, AssetRefused]:
    found = await eventually(lambda: it.installation.events(AssetRefused), lambda seen: len(seen) >= count)
    return {refused.submission_id: refused for refused in found}


async def rows(it: Registry) -> dict[str, int]:
    """How many rows each table of registered things has, seen past row-level security."""
    connection = await asyncpg.connect(it.installation.backing.dsn(it.installation.database))
    try:
        tables = ("asset", "version", "artefact", "edge", "alias_move", "stage_move")
        return {table: await connection.fetchval(f"SELECT count(*) FROM registry.{table}") for table in tables}
    finally:
        await connection.close()
