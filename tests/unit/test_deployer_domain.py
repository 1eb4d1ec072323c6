"""What lets a version through: policy's signature about this very version, in force, and nothing less."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.deployer.domain import (
    APPROVAL_TYPE,
    Asset,
    Decision,
    model_name,
    requester_of,
    require_approved,
    require_not_rejected,
    require_registered,
    wait_s,
)
from shared.errors import MintmarkError
from shared.events.base import UNVERIFIED, Actor, Artefact, AssetRef, Signature
from shared.events.policy import Envelope
from shared.events.upstream import Training
from shared.identity import dsse
from shared.ids import canonical, sha256

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
POLICY = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
OTHER = Ed25519PrivateKey.from_private_bytes(b"\x02" * 32)
TRUSTED = {"policy": POLICY.public_key()}
REF = AssetRef(urn="mm:model/credit.pd", version=3, digest=sha256(b"version"))
ASSET = Asset(
    REF, "model", "classification", Artefact(digest=sha256(b"model"), format="lightgbm"), Signature(), Training(), None
)


def signed(
    key: Ed25519PrivateKey = POLICY, keyid: str = "policy", kind: str = APPROVAL_TYPE, **stated: Any
) -> Decision:
    payload = {
        "type": "approval",
        "approval_id": str(uuid4()),
        "workspace": "default",
        "asset": REF.model_dump(),
        "artefact": sha256(b"model"),
        "binding": sha256(b"binding"),
        "decision": "approved",
        "approver": {"id": "user:bea", "proven": True},
        "gate_id": str(uuid4()),
        "expires_at": (NOW + timedelta(days=1)).isoformat(),
    } | stated
    envelope = dsse.sign(canonical(payload), kind, key, keyid)
    return Decision(uuid4(), "approved", "fine", Envelope.model_validate(envelope.model_dump()))


def test_what_policy_signed_about_this_version_lets_it_through() -> None:
    approval = require_approved(ASSET, "default", signed(), TRUSTED, NOW)
    assert approval.statement.asset == REF
    assert approval.evidence["approver"] == "user:bea" and approval.evidence["statement"].startswith("sha256:")


@pytest.mark.parametrize(
    ("decision", "code"),
    [
        (None, "not-approved"),
        (Decision(uuid4(), "rejected", "withdrawn", None), "not-approved"),
        (Decision(uuid4(), "approved", "a row says so", None), "not-approved"),
        (Decision(uuid4(), "rejected", "a row says no", signed().statement), "not-approved"),
        (signed(OTHER), "signature-refused"),
        (signed(OTHER, "deployer"), "signature-refused"),
        (signed(kind="application/vnd.mintmark.ledger-head+json"), "signature-refused"),
        (signed(type="ledger-head"), "not-approved"),
        (signed(decision="rejected"), "not-approved"),
        (signed(workspace="elsewhere"), "not-approved"),
        (signed(asset=REF.model_dump() | {"urn": "mm:model/other"}), "not-approved"),
        (signed(asset=REF.model_dump() | {"version": 4}), "not-approved"),
        (signed(asset=REF.model_dump() | {"digest": sha256(b"other")}), "wrong-digest"),
        (signed(artefact=sha256(b"other")), "wrong-digest"),
        (signed(artefact=None), "wrong-digest"),
        (signed(expires_at=NOW.isoformat()), "approval-expired"),
        (signed(expires_at="2026-11-21T10:00:00"), "not-approved"),
    ],
)
def test_anything_less_does_not(decision: Decision | None, code: str) -> None:
    with pytest.raises(MintmarkError) as refused:
        require_approved(ASSET, "default", decision, TRUSTED, NOW)
    assert refused.value.code == code


def test_nobody_is_trusted_without_a_trust_file() -> None:
    with pytest.raises(MintmarkError) as refused:
        require_approved(ASSET, "default", signed(), {}, NOW)
    assert refused.value.code == "signature-refused"


def test_the_version_must_be_the_registered_one() -> None:
    assert require_registered(REF, ASSET) is ASSET
    for wanted, known, code in [
        (REF, None, "unknown-asset"),
        (REF.model_copy(update={"digest": sha256(b"x")}), ASSET, "wrong-digest"),
    ]:
        with pytest.raises(MintmarkError) as refused:
            require_registered(wanted, known)
        assert refused.value.code == code


def test_a_gate_that_rejects_stops_what_was_approved() -> None:
    for verdict in (None, "pass", "review"):
        require_not_rejected(ASSET, verdict)
    with pytest.raises(MintmarkError, match="rejects"):
        require_not_rejected(ASSET, "reject")


def test_who_asks_must_be_proven_unless_the_installation_says_otherwise() -> None:
    rita = Actor(id="user:rita", proven=True)
    assert requester_of(None, rita, unverified="refuse") == rita
    assert requester_of("user:rita", rita, unverified="refuse") == rita
    assert requester_of(None, UNVERIFIED, unverified="allow") == UNVERIFIED
    for claimed, proven, unverified, code in [
        ("user:eve", rita, "allow", "requester-mismatch"),
        (None, UNVERIFIED, "refuse", "unproven"),
        ("user:rita", UNVERIFIED, "allow", "unproven"),
    ]:
        with pytest.raises(MintmarkError) as refused:
            requester_of(claimed, proven, unverified=unverified)  # type: ignore[arg-type]
        assert refused.value.code == code


def test_two_workspaces_never_meet_under_one_model_name() -> None:
    names = {
        model_name(workspace, AssetRef(urn=f"mm:model/{name}", version=1, digest=REF.digest))
        for workspace in ("a", "a-b")
        for name in ("b.c", "c", "b-c", "a.b.c")
    }
    assert len(names) == 8


def test_waiting_grows_and_is_bounded() -> None:
    assert [wait_s(tries) for tries in (1, 2, 3, 7, 8, 100)] == [0.5, 1, 2, 30, 30, 30]
