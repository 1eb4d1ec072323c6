"""Licences in effect, attributions and bills of material of versions that are registered, over HTTP."""

from __future__ import annotations

import os
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from registry_story import ROWS, Registry, a_dataset, a_model, model_bytes, registry

from shared.events.base import Actor, Artefact, AssetRef
from shared.events.policy import WaiverSigned
from shared.events.upstream import AssetSubmitted, DatasetVersion, Training
from shared.ids import sha256
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(120)


def address(ref: AssetRef) -> str:
    return f"/registry/v1/assets/{ref.urn.removeprefix('mm:')}/versions/{ref.version}"


async def read(it: Registry, ref: AssetRef, what: str) -> Any:
    answer = await it.client.get(f"{address(ref)}/{what}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_versions_licence_attributions_and_bill_of_material(installation: Installation) -> None:
    outsider = installation.key("user:eve", "owner", workspace="other")
    async with registry(installation) as it:
        await it.upload(ROWS, *(model_bytes(number) for number in range(3)))
        census = await it.register(a_dataset())
        base = await it.register(a_model("base", model_bytes(0), licence="cc-by-nc-4.0"))
        training = Training(dataset=DatasetVersion(urn=census.urn, version=1), base=("mm:model/base",))
        mine = await it.register(a_model("mine", model_bytes(1), licence="apache-2.0", training=training))
        # A later version of the base is not what it was made from.
        await it.register(a_model("base", model_bytes(2), licence="MIT"))

        said = await read(it, mine, "licence")
        (conflict,) = said["conflicts"]
        assert conflict["kind"] == "non-commercial" and conflict["path"] == [str(mine), str(base)]
        assert said["declared"]["expression"] == "Apache-2.0" and said["commercial"] == "forbidden"
        assert said["effective"] == "Apache-2.0 AND CC-BY-NC-4.0 AND CC0-1.0"

        text = (await it.client.get(f"{address(mine)}/attribution")).text
        assert f"Comes in by: {mine} ← base {base}" in text

        answer = await it.client.get(f"{address(mine)}/bom")
        assert answer.headers["content-type"].startswith("application/vnd.cyclonedx+json")
        assert JsonStrictValidator(SchemaVersion.V1_7).validate_str(answer.text) is None
        assert answer.text == (await it.client.get(f"{address(mine)}/bom")).text
        assert {one["bom-ref"] for one in answer.json()["components"]} == {str(base), str(census)}

        assert len((await it.client.get("/registry/v1/licences")).json()) > 80
        async with installation.client("registry", outsider) as other:
            for what in ("licence", "attribution", "bom"):
                assert (await other.get(f"{address(mine)}/{what}")).status_code == 404


async def test_an_unknown_licence_is_registered_as_it_is_and_a_circle_of_bases_ends(installation: Installation) -> None:
    async with registry(installation) as it:
        await it.upload(model_bytes(0), model_bytes(1), model_bytes(2))
        await it.register(a_model("a", model_bytes(0), licence="lama3.1 ((", training=Training(base=("mm:model/b",))))
        await it.register(a_model("b", model_bytes(1), training=Training(base=("mm:model/a",))))
        last = await it.register(a_model("a", model_bytes(2), training=Training(base=("mm:model/b", "mm:model/gone"))))
        said = await read(it, last, "licence")
        assert said["declared"] is None
        reasons = {gap["node"]: gap for gap in said["gaps"]}
        assert reasons["mm:model/a@1"]["reason"].startswith("unknown") and "mm:model/gone" in reasons
        assert (await read(it, last, "bom"))["compositions"][0]["aggregate"] == "incomplete"
        reading = (await it.client.get("/registry/v1/licences/reading?expression=lama3.1")).json()
        assert not reading["known"] and "llama3.1" in reading["near"]
        assert (await it.client.get("/registry/v1/artefacts/sha256:" + "0" * 64 + "/scan")).status_code == 404


class Attack:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, ("id",))


def a_pickle(data: bytes, name: str = "legacy") -> AssetSubmitted:
    return a_model(name, data, artefact=Artefact(digest=sha256(data), format="pickle"))


async def test_a_pickle_is_scanned_and_held_back_until_two_people_have_signed(installation: Installation) -> None:
    async with registry(installation) as it:
        harmless, attack = pickle.dumps({"weights": [1.0, 2.0]}), pickle.dumps(Attack())
        await it.upload(harmless, attack)
        refused = a_pickle(attack, "trojan")
        await it.submit(refused)
        view = await it.decided(refused)
        assert view["code"] == "artefact-dangerous" and "posix.system" in view["reason"]
        scan = (await it.client.get(f"/registry/v1/artefacts/{sha256(attack)}/scan")).json()
        assert scan["verdict"] == "dangerous"

        taken = a_pickle(harmless)
        await it.submit(taken)
        assert (await it.decided(taken))["state"] == "registered"
        version = (await it.client.get("/registry/v1/assets/model/legacy/versions/1")).json()
        ref = AssetRef(urn=version["urn"], version=1, digest=version["digest"])
        said = await read(it, ref, "scan")
        assert {one["scanner"]: one["result"] for one in said["statements"]}["picklescan"] == "clean"
        assert "format:pickle" in said["held_back"]
        bill = await it.client.get(f"{address(ref)}/bom")
        assert JsonStrictValidator(SchemaVersion.V1_7).validate_str(bill.text) is None
        scanners = {one["annotator"]["component"]["name"] for one in bill.json()["annotations"]}
        assert scanners == {"mintmark-formats", "picklescan", "fickling"}

        async def promoted() -> httpx.Response:
            headers = {"if-none-match": "*"}
            body = {"version": 1, "reason": "try"}
            return await it.client.put("/registry/v1/assets/model/legacy/aliases/champion", json=body, headers=headers)

        answer = await promoted()
        assert answer.status_code == 409 and answer.json()["code"] == "held-back"
        stage = await it.client.get(f"{address(ref)}/stage")
        body, headers = {"stage": "production", "reason": "try"}, {"if-match": stage.headers["etag"]}
        answer = await it.client.put(f"{address(ref)}/stage", json=body, headers=headers)
        assert answer.status_code == 409 and answer.json()["code"] == "held-back"

        waiver = WaiverSigned(
            waiver_id=uuid4(),
            asset=ref,
            measure="format:pickle",
            signers=(Actor(id="user:bea", proven=True), Actor(id="user:cyd", proven=True)),
            reason="read by both, and converted next quarter",
            expires_at=datetime.now(UTC) + timedelta(days=30),
        )
        await installation.publish(waiver, source="mintmark/policy")
        await eventually(lambda: read(it, ref, "scan"), lambda found: found["held_back"] is None, what="the waiver")
        assert (await promoted()).status_code == 200
        withdrawn = waiver.model_copy(update={"withdrawn_at": datetime.now(UTC)})
        await installation.publish(withdrawn, source="mintmark/policy")
        await eventually(lambda: read(it, ref, "scan"), lambda found: found["held_back"] is not None, what="its end")
