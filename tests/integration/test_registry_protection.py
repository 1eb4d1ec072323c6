"""Protected aliases and stages move only to a version that was let through; what is needed is not retired."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from registry_story import Registry, a_dataset, a_model, model_bytes, registry

from shared.events.base import Actor, AssetRef
from shared.events.policy import ApprovalDecided, Envelope, GateDecided, PolicyPublished
from shared.events.router import Arm, GroupChanged
from shared.events.upstream import DatasetVersion
from shared.ids import digest_of, sha256
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(120)
ASSET = "/registry/v1/assets/model/credit-pd"
ADA, BEA = Actor(id="user:ada", proven=True), Actor(id="user:bea", proven=True)
EVIDENCE, OTHER = sha256(b"evidence"), sha256(b"other evidence")
STATEMENT = Envelope(payloadType="t", payload="e30=", signatures=({"keyid": "policy", "sig": "c2ln"},))


def published(number: int, document: dict[str, list[str]]) -> PolicyPublished:
    return PolicyPublished(
        policy="protection", number=number, document=document, digest=digest_of(document), actor=ADA,
        published_at=datetime.now(UTC),
    )  # fmt: skip


async def protect(installation: Installation, it: Registry, number: int, **lists: list[str]) -> None:
    """Publish what is protected, and wait until the registry knows."""
    document = {"aliases": [], "labels": [], "stages": []} | lists
    await installation.publish(published(number, document))
    wanted = {"aliases": document["aliases"], "stages": document["stages"], "intents": False}
    await eventually(
        lambda: it.client.get("/registry/v1/protection"), lambda answer: answer.json() == wanted, what="protection"
    )


def gate(asset: AssetRef, verdict: Any, binding: str = EVIDENCE) -> GateDecided:
    return GateDecided(
        gate_id=uuid4(), asset=asset, evaluation_id=uuid4(), verdict=verdict, reason=f"it is a {verdict}",
        policy_version=1, binding=binding, decided_at=datetime.now(UTC),
    )  # fmt: skip


def approval(asset: AssetRef, days: float = 30, binding: str = EVIDENCE) -> ApprovalDecided:
    now = datetime.now(UTC)
    return ApprovalDecided(
        approval_id=uuid4(), asset=asset, decision="approved", approver=BEA, author=ADA, reason="good", binding=binding,
        statement=STATEMENT, expires_at=now + timedelta(days=days), decided_at=now,
    )  # fmt: skip


async def said(installation: Installation, it: Registry, *events: GateDecided | ApprovalDecided) -> None:
    """Publish, and wait until the registry shows the last of them beside its version."""
    for event in events:
        await installation.publish(event)
    last = events[-1]
    field = "gate" if isinstance(last, GateDecided) else "approval"
    wanted = str(last.gate_id if isinstance(last, GateDecided) else last.approval_id)
    await eventually(
        lambda: it.client.get(f"{ASSET}/versions/{last.asset.version}"),
        lambda answer: (answer.json()[field] or {}).get(f"{field}_id") == wanted,
    )


async def move(client: httpx.AsyncClient, version: int) -> httpx.Response:
    present = await client.get(f"{ASSET}/aliases/champion")
    headers = {"if-match": present.headers["etag"]} if present.status_code == 200 else {"if-none-match": "*"}
    body = {"version": version, "reason": "because"}
    return await client.put(f"{ASSET}/aliases/champion", json=body, headers=headers)


async def stage(client: httpx.AsyncClient, path: str, to: str) -> httpx.Response:
    etag = (await client.get(f"{path}/stage")).headers["etag"]
    return await client.put(f"{path}/stage", json={"stage": to, "reason": "because"}, headers={"if-match": etag})


async def test_a_protected_alias_moves_only_to_what_was_let_through(installation: Installation) -> None:
    async with registry(installation) as it:
        one, two, three = await it.models(3)
        client = it.client
        assert (await move(client, 1)).status_code == 200, "a fresh workspace protects nothing"
        await protect(installation, it, 1, aliases=["champion"], stages=["production"])

        async def refused(version: int) -> str:
            answer = await move(client, version)
            assert (answer.status_code, answer.json()["code"]) == (409, "protected"), answer.text
            return str(answer.json()["detail"])

        assert "no gate has decided" in await refused(2)
        await said(installation, it, gate(two, "reject"))
        assert "its gate rejects it: it is a reject" in await refused(2)
        await said(installation, it, gate(two, "pass"))
        assert "not approved" in await refused(2)
        await said(installation, it, approval(two, days=-1))
        assert "expired" in await refused(2)
        await said(installation, it, approval(two, binding=OTHER))
        assert "judged anew" in await refused(2)
        stays = await stage(client, f"{ASSET}/versions/2", "production")
        assert (stays.status_code, stays.json()["code"]) == (409, "protected")

        await said(installation, it, approval(two))
        assert (await move(client, 2)).status_code == 200
        assert (await stage(client, f"{ASSET}/versions/2", "production")).status_code == 200
        back = await client.post(f"{ASSET}/aliases/champion/rollback", json={"reason": "hm"})
        assert (back.status_code, back.json()["code"]) == (409, "protected"), "version 1 was never let through"
        present = (await client.get(f"{ASSET}/aliases/champion")).headers["etag"]
        removed = await client.delete(
            f"{ASSET}/aliases/champion", params={"reason": "hm"}, headers={"if-match": present}
        )
        assert (removed.status_code, removed.json()["code"]) == (409, "protected")

        await protect(installation, it, 3)
        older = {"aliases": ["champion"], "labels": [], "stages": []}
        await installation.publish(published(2, older))
        await protect(installation, it, 4, stages=["retired"])
        assert (await move(client, 3)).status_code == 200, "an older word changes nothing"
        assert one.version == 1 and three.version == 3


async def test_what_is_needed_is_not_retired(installation: Installation) -> None:
    async with registry(installation) as it:
        client = it.client
        await it.upload(b"PAR1 golden rows PAR1", model_bytes(1), model_bytes(2))
        census = await it.register(a_dataset())
        golden = DatasetVersion(urn=census.urn, version=1)
        first = await it.register(a_model(data=model_bytes(1), training={"dataset": golden.model_dump()}))
        await it.register(a_model(data=model_bytes(2)))
        assert (await move(client, 1)).status_code == 200
        changed = GroupChanged(
            group="credit", revision=1, arms=(Arm(asset=first, role="champion", weight_bp=10_000),), reason="first",
            actor=ADA, at=datetime.now(UTC),
        )  # fmt: skip
        await installation.publish(changed)
        await eventually(
            lambda: client.get(f"{ASSET}/versions/1"), lambda answer: bool(answer.json()["groups"]), what="the group"
        )
        refused = await stage(client, f"{ASSET}/versions/1", "retired")
        assert (refused.status_code, refused.json()["code"]) == (409, "in-use")
        assert refused.json()["used_by"] == ["alias champion", "group credit"]
        dataset = "/registry/v1/assets/dataset/census/versions/1"
        needed = await stage(client, dataset, "retired")
        assert needed.json()["used_by"] == ["version mm:model/credit-pd@1"]

        await move(client, 2)
        empty = changed.model_copy(update={"revision": 2, "arms": (), "at": datetime.now(UTC)})
        await installation.publish(empty)
        await eventually(
            lambda: stage(client, f"{ASSET}/versions/1", "retired"), lambda answer: answer.status_code == 200
        )
        assert (await stage(client, dataset, "retired")).status_code == 200
