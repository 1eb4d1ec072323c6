"""The gateway believes what the policy service signs, in the form in which it signs it, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.policy.domain import statement
from services.policy.handlers.approvals import KEYID, PAYLOAD_TYPE
from services.router.domain import Version
from services.router.errors import ApprovalRefused
from services.router.gateway.__main__ import APPROVAL_SIGNER
from services.router.gateway.approvals import APPROVAL_MEDIA_TYPE, Approval, verified_approval
from services.router.gateway.arms import Target
from shared.errors import Refused
from shared.events.base import Actor, AssetRef
from shared.identity.dsse import sign

KEY = Ed25519PrivateKey.generate()
TRUSTED = {APPROVAL_SIGNER: KEY.public_key()}
ASSET = AssetRef(urn="mm:model/employment", version=3, digest="sha256:" + "a" * 64)


def payload(**changes: Any) -> dict[str, Any]:
    now = datetime(2026, 11, 20, tzinfo=UTC)
    ada, bob = Actor(id="user:ada", proven=True), Actor(id="user:bob", proven=True)
    said = statement(
        approval_id="a",
        workspace="default",
        asset=ASSET,
        artefact=None,
        bound=ASSET.digest,
        gate_id="g",
        policy="gate",
        policy_version=1,
        approver=ada,
        author=bob,
        reason="good",
        decided_at=now,
        expires_at=now,
    )
    return {**said, **changes}


def envelope(said: object, *, kind: str = PAYLOAD_TYPE, keyid: str = KEYID) -> str:
    return sign(orjson.dumps(said), kind, KEY, keyid).to_json().decode()


def test_a_statement_of_the_policy_service_is_read() -> None:
    assert PAYLOAD_TYPE == APPROVAL_MEDIA_TYPE
    version = Version(ASSET.urn, ASSET.version, ASSET.digest)
    assert verified_approval(envelope(payload()), TRUSTED) == Approval("default", version)


@pytest.mark.parametrize(
    "forged",
    [
        envelope(payload(type="waiver")),
        envelope(payload(decision="rejected")),
        envelope({"type": "approval", "decision": "approved"}),
        envelope([]),
        envelope(payload(), kind="application/vnd.in-toto+json"),
        envelope(payload(), keyid="deployer"),
        envelope(payload()).replace('"payload":"', '"payload":"AAAA', 1),
        "{}",
        "",
    ],
)
def test_whatever_is_not_a_trusted_approval_is_refused(forged: str) -> None:
    with pytest.raises(Refused) as refused:
        verified_approval(forged, TRUSTED)
    assert refused.value.code in ("signature-refused", ApprovalRefused.code)


@pytest.mark.parametrize(
    "url", ["http://model:99999", "http://model:port", "http://[::1", "ftp://model", "http://", ""]
)
def test_an_address_that_nobody_can_be_asked_at_is_refused_with_a_sentence(url: str) -> None:
    with pytest.raises(ApprovalRefused, match="no usable endpoint"):
        Target.at(Version("mm:model/fraud", 1, "sha256:" + "0" * 64), url, "good")
