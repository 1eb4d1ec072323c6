"""A DSSE envelope proves its signer, its type and its payload, or it is refused."""

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.errors import SignatureRefused
from shared.identity.dsse import Envelope, pae, read_trust_file, sign, verify

KIND = "application/vnd.in-toto+json"
KEY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
OTHER = Ed25519PrivateKey.from_private_bytes(b"\x08" * 32)
TRUSTED = {"deployer": KEY.public_key()}


def changed(envelope: Envelope, **fields: object) -> Envelope:
    return Envelope.from_json(json.dumps(json.loads(envelope.to_json()) | fields).encode())


def test_the_pre_authentication_encoding_is_the_one_of_the_specification() -> None:
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae("tüp", b"") == "DSSEv1 4 tüp 0 ".encode()


@pytest.mark.parametrize("payload", [b"", b"{}", bytes(range(256))])
def test_what_was_signed_comes_back(payload: bytes) -> None:
    envelope = sign(payload, KIND, KEY, "deployer")
    assert verify(Envelope.from_json(envelope.to_json()), TRUSTED, KIND) == payload


def test_a_signer_who_is_not_trusted_is_refused() -> None:
    with pytest.raises(SignatureRefused, match="'mallory' is not trusted"):
        verify(sign(b"x", KIND, KEY, "mallory"), TRUSTED, KIND)


def test_a_trusted_name_with_another_key_is_refused() -> None:
    with pytest.raises(SignatureRefused, match="does not fit"):
        verify(sign(b"x", KIND, OTHER, "deployer"), TRUSTED, KIND)


def test_a_second_signature_that_is_not_trusted_spoils_the_envelope() -> None:
    good, bad = sign(b"x", KIND, KEY, "deployer"), sign(b"x", KIND, OTHER, "mallory")
    both = changed(good, signatures=[s.model_dump() for s in good.signatures + bad.signatures])
    with pytest.raises(SignatureRefused, match="not trusted"):
        verify(both, TRUSTED, KIND)


def test_a_changed_payload_is_refused() -> None:
    envelope = changed(sign(b"yes", KIND, KEY, "deployer"), payload=base64.b64encode(b"no!").decode())
    with pytest.raises(SignatureRefused, match="does not fit"):
        verify(envelope, TRUSTED, KIND)


def test_a_statement_of_another_type_is_refused_even_when_the_label_is_changed() -> None:
    envelope = sign(b"x", "application/other", KEY, "deployer")
    with pytest.raises(SignatureRefused, match="expected was"):
        verify(envelope, TRUSTED, KIND)
    with pytest.raises(SignatureRefused, match="does not fit"):
        verify(changed(envelope, payloadType=KIND), TRUSTED, KIND)


def test_no_signature_is_no_proof() -> None:
    with pytest.raises(SignatureRefused, match="not signed"):
        verify(changed(sign(b"x", KIND, KEY, "deployer"), signatures=[]), TRUSTED, KIND)


@pytest.mark.parametrize("payload", ["eA", "eA==\n", " eA==", "eB==", "e A==", "_-==", "ü"])
def test_only_canonical_base64_is_read(payload: str) -> None:
    with pytest.raises(SignatureRefused, match="base64"):
        verify(changed(sign(b"x", KIND, KEY, "deployer"), payload=payload), TRUSTED, KIND)


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"null", b"{}", b"\xff", b'{"payloadType":1,"payload":"","signatures":[]}',
     b'{"payloadType":"a","payload":"","signatures":[{"sig":"x"}]}',
     b'{"payloadType":"a","payload":"","signatures":[],"more":1}', b"[" * 5000],
)  # fmt: skip
def test_what_is_not_an_envelope_is_refused_with_a_sentence(data: bytes) -> None:
    with pytest.raises(SignatureRefused, match="not a DSSE envelope"):
        Envelope.from_json(data)


def test_the_trust_file_names_keys(tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    path.write_text(json.dumps({"deployer": base64.b64encode(KEY.public_key().public_bytes_raw()).decode()}))
    assert verify(sign(b"x", KIND, KEY, "deployer"), read_trust_file(path), KIND) == b"x"


@pytest.mark.parametrize("text", ["", "[]", '{"deployer": "AAAA"}', '{"deployer": 3}', '{"deployer": "*"}'])
def test_a_malformed_trust_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trust.json"
    path.write_text(text)
    with pytest.raises(SignatureRefused, match=r"trust\.json"):
        read_trust_file(path)
