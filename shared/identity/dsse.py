"""DSSE envelopes with Ed25519: the one way in which statements of ours are signed and checked.

Follows the DSSE specification v1 (https://github.com/secure-systems-lab/dsse): the signature covers
`PAE("DSSEv1", payloadType, payload)`, so a payload signed as one type can never be replayed as another.
Stricter than the specification on purpose: every signature of an envelope must be by a trusted key and must
verify, and base64 is accepted in its one canonical form only, so that one statement has one envelope.
"""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import SignatureRefused


class Signature(BaseModel):
    """Who signed (`keyid`, a name in the verifier's trust store) and the base64 of the 64 bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    keyid: str
    sig: str


class Envelope(BaseModel):
    """The JSON shape of DSSE; `payload` is base64, read it only through `verify`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    payloadType: str  # noqa: N815 - the name is the specification's
    payload: str
    signatures: tuple[Signature, ...] = Field(strict=False)

    def to_json(self) -> bytes:
        return orjson.dumps(self.model_dump())

    @classmethod
    def from_json(cls, data: bytes) -> "Envelope":
        """Raises SignatureRefused when `data` is not a DSSE envelope."""
        try:
            return cls.model_validate(orjson.loads(data))
        except (orjson.JSONDecodeError, ValidationError) as error:
            raise SignatureRefused(
                "this is not a DSSE envelope: payloadType, payload and signatures expected"
            ) from error


def pae(payload_type: str, payload: bytes) -> bytes:
    """Pre-authentication encoding: the exact bytes that are signed; lengths are of bytes, not of characters."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(payload: bytes, payload_type: str, key: Ed25519PrivateKey, keyid: str) -> Envelope:
    """An envelope of `payload` with one signature."""
    signature = Signature(keyid=keyid, sig=_encode(key.sign(pae(payload_type, payload))))
    return Envelope(payloadType=payload_type, payload=_encode(payload), signatures=(signature,))


def verify(envelope: Envelope, trusted: Mapping[str, Ed25519PublicKey], payload_type: str) -> bytes:
    """The payload, once every signature is by a key in `trusted` (keyid to key); else SignatureRefused.

    `trusted` should hold only the keys that may say this kind of thing, not every key one knows.
    """
    if envelope.payloadType != payload_type:
        raise SignatureRefused(f"the envelope holds {envelope.payloadType!r}, expected was {payload_type!r}")
    if not envelope.signatures:
        raise SignatureRefused("the envelope is not signed")
    payload = _decode(envelope.payload, "payload")
    for signature in envelope.signatures:
        key = trusted.get(signature.keyid)
        if key is None:
            raise SignatureRefused(
                f"the signer {signature.keyid!r} is not trusted for this; add its key to the trust file"
            )
        try:
            key.verify(_decode(signature.sig, "signature"), pae(envelope.payloadType, payload))
        except InvalidSignature:
            raise SignatureRefused(f"the signature of {signature.keyid!r} does not fit the payload") from None
    return payload


def read_trust_file(path: Path) -> dict[str, Ed25519PublicKey]:
    """The public keys in a trust file, `{"<keyid>": "<base64 of the raw 32 bytes>"}`; else SignatureRefused."""
    try:
        entries = orjson.loads(path.read_bytes())
        return {str(name): Ed25519PublicKey.from_public_bytes(_decode(raw, "key")) for name, raw in entries.items()}
    except (OSError, ValueError, AttributeError, SignatureRefused) as error:
        raise SignatureRefused(f"the trust file {path} cannot be read: {error}") from error


def _encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _decode(text: str, what: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise SignatureRefused(f"the {what} is not base64") from None
    if _encode(raw) != text:  # b64decode lets unused trailing bits vary: many texts, one meaning
        raise SignatureRefused(f"the {what} is not canonical base64")
    return raw
