"""Providers' keys: sealed once, opened in memory, rotated without a restart, and never shown."""

from __future__ import annotations

import base64
import copy
import logging
import os
import pickle
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import orjson
import pytest
from botocore.stub import Stubber
from moto import mock_aws

from services.router.errors import SealBroken
from services.router.gateway.kms import KmsMasterKey
from services.router.gateway.protocols import protocol_of
from services.router.gateway.providers import Upstream, plan
from services.router.gateway.sealing import (
    HIDDEN,
    Belonging,
    FileMasterKey,
    KeyRing,
    MasterKey,
    Sealed,
    Sealer,
    Secret,
)
from shared.errors import Invalid, MintmarkError

KEY = "sk-very-secret-0123456789"
OURS, THEIRS = Belonging("acme", "openai"), Belonging("rival", "openai")


def write_keys(path: Path, current: str, *names: str, known: dict[str, str] | None = None) -> dict[str, str]:
    keys = {name: (known or {}).get(name) or base64.b64encode(os.urandom(32)).decode() for name in names}
    fresh = path.with_suffix(".new")
    fresh.write_bytes(orjson.dumps({"current": current, "keys": keys}))
    fresh.replace(path)
    return keys


@pytest.fixture(params=["file", "kms"])
def master(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MasterKey]:
    if request.param == "file":
        write_keys(tmp_path / "master.json", "1", "1")
        yield FileMasterKey(tmp_path / "master.json")
        return
    with mock_aws():
        client = boto3.client("kms", "eu-west-1", aws_access_key_id="a", aws_secret_access_key="b")
        yield KmsMasterKey(client, client.create_key()["KeyMetadata"]["Arn"])


def test_a_sealed_key_opens_to_what_was_sealed(master: MasterKey) -> None:
    sealed = Sealer(master).seal(Secret(KEY), OURS)
    again = Sealed.from_json(sealed.to_json())
    assert Sealer(master).open(again, OURS).reveal() == KEY
    assert KEY not in sealed.to_json()
    assert base64.b64encode(KEY.encode()).decode() not in sealed.to_json()
    assert Sealer(master).seal(Secret(KEY), OURS) != sealed, "no two seals are alike"
    assert Sealer(master).rewrap(sealed, OURS) == sealed


def test_a_sealed_key_is_nobody_elses(master: MasterKey) -> None:
    sealed = Sealer(master).seal(Secret(KEY), OURS)
    with pytest.raises(SealBroken):
        Sealer(master).open(sealed, THEIRS)


@pytest.mark.parametrize("field", ["wrapped", "nonce", "ciphertext", "master"])
def test_a_changed_seal_does_not_open(master: MasterKey, field: str) -> None:
    sealed = Sealer(master).seal(Secret(KEY), OURS)
    for changed in ("", "AAAA", "%%%", getattr(sealed, field)[:-4] + "AAA="):
        with pytest.raises(SealBroken) as broken:
            Sealer(master).open(replace(sealed, **{field: changed}), OURS)
        assert KEY not in "".join(traceback.format_exception(broken.value))
    with pytest.raises(SealBroken):
        Sealed.from_json('{"master": "1"}')


def test_master_keys_rotate_while_the_gateway_runs(tmp_path: Path) -> None:
    path = tmp_path / "master.json"
    first = write_keys(path, "1", "1")
    sealer = Sealer(FileMasterKey(path))
    sealed = sealer.seal(Secret(KEY), OURS)
    both = write_keys(path, "2", "1", "2", known=first)
    assert sealer.open(sealed, OURS).reveal() == KEY, "what the old one wrapped still opens"
    moved = sealer.rewrap(sealed, OURS)
    assert (moved.master, moved.ciphertext, moved.nonce) == ("2", sealed.ciphertext, sealed.nonce)
    write_keys(path, "2", "2", known=both)
    assert sealer.open(moved, OURS).reveal() == KEY
    with pytest.raises(SealBroken, match="not in the file any more"):
        sealer.open(sealed, OURS)


def test_kms_keys_rotate_as_well() -> None:
    with mock_aws():
        client = boto3.client("kms", "eu-west-1", aws_access_key_id="a", aws_secret_access_key="b")
        old, new = (client.create_key()["KeyMetadata"]["Arn"] for _ in range(2))
        sealed = Sealer(KmsMasterKey(client, old)).seal(Secret(KEY), OURS)
        sealer = Sealer(KmsMasterKey(client, new))
        moved = sealer.rewrap(sealed, OURS)
        assert (sealed.master, moved.master) == (old, new)
        assert sealer.open(moved, OURS).reveal() == KEY
        with Stubber(client) as stub, pytest.raises(SealBroken, match="DisabledException"):
            stub.add_client_error("decrypt", "DisabledException", f"the key of {KEY} is disabled")
            sealer.open(moved, OURS)


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b'{"current": "1", "keys": {}}', b'{"current": "1", "keys": {"1": "c2hvcnQ="}}',
     b'{"current": "1", "keys": {"1": 3}}', b'{"current": "1", "keys": {"1": "%"}}'],
)  # fmt: skip
def test_a_master_key_file_that_is_none_is_said_to_be(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "master.json").write_bytes(content)
    with pytest.raises(SealBroken):
        Sealer(FileMasterKey(tmp_path / "master.json")).seal(Secret(KEY), OURS)
    with pytest.raises(SealBroken, match="cannot be read"):
        Sealer(FileMasterKey(tmp_path / "absent.json")).seal(Secret(KEY), OURS)


def test_a_ring_takes_new_keys_and_keeps_the_old_where_a_new_one_is_broken(tmp_path: Path) -> None:
    write_keys(tmp_path / "master.json", "1", "1")
    sealer = Sealer(FileMasterKey(tmp_path / "master.json"))
    ring = KeyRing(sealer)
    with pytest.raises(SealBroken):
        ring.secret_of(OURS)
    assert ring.take({OURS: sealer.seal(Secret(KEY), OURS)}) == {}
    held = ring.secret_of(OURS)
    broken = replace(sealer.seal(Secret("other"), OURS), nonce="AAAA")
    assert list(ring.take({OURS: broken, THEIRS: sealer.seal(Secret("theirs"), THEIRS)})) == [OURS]
    assert ring.secret_of(OURS) is held
    assert ring.secret_of(THEIRS).reveal() == "theirs"
    assert ring.take({OURS: sealer.seal(Secret("rotated"), OURS)}) == {}
    assert ring.secret_of(OURS).reveal() == "rotated"
    assert held.reveal() == KEY, "a request in flight keeps the key it began with"
    assert "rotated" not in repr(ring)


# -- never shown


def test_a_secret_says_itself_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    secret = Secret(KEY)
    said = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>40}",
        "".join(map(str, [secret])),
        f"{[secret]} { {'k': secret} }",
    ]
    logging.getLogger("test").warning("key %s", secret, extra={"secret": secret})
    said.append(caplog.text + repr(caplog.records[0].__dict__))
    try:
        raise MintmarkError(f"failed with {secret}", secret=secret)
    except MintmarkError as error:
        said.append("".join(traceback.format_exception(error)) + repr(error.extra))
    assert all(KEY not in text for text in said)
    for attempt in (orjson.dumps, pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            attempt(secret)
    assert secret == Secret(KEY)
    assert secret != Secret(KEY + "x")


@pytest.mark.parametrize("value", ["", "a\r\nx-evil: 1", "schlüssel", "a\x00b"])
def test_what_cannot_stand_in_a_header_is_no_key(value: str) -> None:
    with pytest.raises(Invalid) as refused:
        Secret(value)
    assert not value or value not in str(refused.value)


CHAT = {"model": "live", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize("kind", ["openai", "anthropic", "gemini"])
@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 429, 500, 302])
def test_a_provider_that_says_the_key_back_says_it_to_us_only(kind: str, status: int) -> None:
    """Neither the client's answer nor an error, and so no row, event or log, ever holds it."""
    protocol = protocol_of("/v1/chat/completions")
    assert protocol is not None
    upstream = Upstream(kind, "m")
    attempt = plan(protocol.open(orjson.dumps(CHAT), ""), upstream, Secret(KEY), created=0, request_id="r")
    assert KEY not in repr(attempt)
    assert KEY not in repr(attempt.request)
    message: dict[str, Any] = {"role": "assistant", "content": f"your key is {KEY}"}
    echo = {
        "error": {"message": f"Incorrect API key provided: {KEY}", "type": "x"},
        "id": KEY, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "content": [{"type": "text", "text": KEY}], "model": KEY,
        "candidates": [{"content": {"parts": [{"text": KEY}]}, "finishReason": "STOP"}],
    }  # fmt: skip
    try:
        answered = attempt.answer(status, [], orjson.dumps(echo))
    except MintmarkError as error:
        assert KEY not in str(error)
        assert KEY.encode() not in attempt.failed(error)
    else:
        assert KEY.encode() not in answered.body
        assert KEY not in repr(answered)
        assert HIDDEN in answered.body
