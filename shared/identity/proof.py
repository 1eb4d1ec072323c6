"""Who wrote an event from outside: a compact JWS in the extension attribute `proof`, made with an API key.

Its payload is `{"id", "source", "type", "workspace", "sha256"}`, where sha256 is over the data's canonical JSON
(RFC 8785), so that a proof fits one event only and survives re-encoding; its header is `{"alg": "Ed25519"|"EdDSA",
"kid": <API key id>}`.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from shared import strict_json
from shared.errors import MintmarkError, SignatureRefused
from shared.events.base import UNVERIFIED, Actor
from shared.events.envelope import Envelope
from shared.identity.authorizer import Authorizer
from shared.identity.keys import KeyRing, signing_key
from shared.ids import canonical

ALGORITHMS = ["EdDSA", "Ed25519"]


def claims(event_id: str, source: str, event_type: str, workspace: str, data: Any) -> dict[str, str]:
    """What a proof states."""
    return {
        "id": event_id,
        "source": source,
        "type": event_type,
        "workspace": workspace,
        "sha256": hashlib.sha256(canonical(data)).hexdigest(),
    }


def sign(api_key: str, event_id: str, source: str, event_type: str, workspace: str, data: Any) -> str:
    """The proof for an event, with the API key's text."""
    header = {"alg": "Ed25519", "kid": api_key.rpartition("_")[0]}
    payload = json.dumps(claims(event_id, source, event_type, workspace, data)).encode()
    return jws.serialize_compact(
        header, payload, _key(signing_key(api_key).private_bytes_raw(), private=True), algorithms=ALGORITHMS
    )


def _key(raw: bytes, *, private: bool) -> OKPKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    if private:
        key = Ed25519PrivateKey.from_private_bytes(raw)
        return OKPKey.import_key(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return OKPKey.import_key(
        Ed25519PublicKey.from_public_bytes(raw).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )


class Authors:
    """Names the proven author of an envelope, who may also do what the event asks for."""

    def __init__(self, ring: KeyRing, authorizer: Authorizer) -> None:
        self._ring = ring
        self._authorizer = authorizer

    def __call__(self, envelope: Envelope, action: str = "submit") -> Actor:
        """The author; UNVERIFIED without a proof.

        Raises SignatureRefused for a proof that does not hold, Forbidden for an author who may not do `action`: what a
        key may not do over HTTP it may not do over Kafka either.
        """
        if envelope.proof is None:
            return UNVERIFIED
        key_id = _key_id(envelope.proof)
        key = self._ring.find(key_id)
        if key is None:
            raise SignatureRefused(f"the proof names API key {key_id[:40]!r}, which is not in force here")
        if key.workspace != envelope.workspace:
            raise SignatureRefused(
                f"API key {key.id} belongs to workspace {key.workspace}, not to {envelope.workspace}"
            )
        try:
            signed = jws.deserialize_compact(
                envelope.proof, _key(key.verifier.public_bytes_raw(), private=False), algorithms=ALGORITHMS
            )
            stated = strict_json.loads(signed.payload)
            fitting = claims(
                envelope.id, envelope.source, envelope.type, envelope.workspace, strict_json.loads(envelope.data)
            )
        except (JoseError, MintmarkError, ValueError) as error:
            raise SignatureRefused(f"the proof does not verify with API key {key.id}: {error}") from None
        if stated != fitting:
            raise SignatureRefused("the proof was made for another event: id, source, type, workspace or data differ")
        self._authorizer.require(key.as_principal(), action, envelope.type.split(".v")[0])
        return Actor(id=key.principal, proven=True)


def _key_id(proof: str) -> str:
    try:
        header = jws.extract_compact(proof.encode()).headers()
        return str(header["kid"])
    except (JoseError, ValueError, KeyError, TypeError):
        raise SignatureRefused("the proof is not a compact JWS whose header has a kid") from None
