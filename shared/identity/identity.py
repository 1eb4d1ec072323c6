"""Everything about identity that a service needs, made from its settings once."""

from __future__ import annotations

import base64
import binascii
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from shared.clock import Clock, utc_now
from shared.errors import MintmarkError, SignatureRefused, Unauthenticated
from shared.identity.authorizer import Authorizer
from shared.identity.dsse import read_trust_file
from shared.identity.keys import KeyRing
from shared.identity.principal import Principal
from shared.identity.tokens import Tokens

if TYPE_CHECKING:
    from shared.identity.proof import Authors
    from shared.settings import ServiceSettings


class KeyUnreadable(MintmarkError):
    """A key file cannot be used."""

    code = "key-unreadable"


class Identity:
    """Authenticates callers, authorizes them, and proves authors of events."""

    def __init__(self, settings: ServiceSettings, clock: Clock = utc_now) -> None:
        self.ring = KeyRing(settings.platform.keys_file, clock)
        self.tokens = Tokens(settings.oidc)
        self.authorizer = Authorizer(settings.platform.policies)

    @cached_property
    def authors(self) -> Authors:
        """Made where events are heard: a gateway, which hears none, need not load what checks signatures."""
        from shared.identity.proof import Authors

        return Authors(self.ring, self.authorizer)

    async def authenticate(self, authorization: str | None) -> Principal:
        """The caller of an `Authorization` header's value. Raises Unauthenticated.

        `Bearer` takes an API key or a JWT; `Basic` takes the key's id and the key, for clients that know only that.
        """
        scheme, _, credential = (authorization or "").partition(" ")
        credential = credential.strip()
        if scheme.lower() == "bearer" and credential:
            if credential.startswith("mmk_"):
                return self.ring.authenticate(credential)
            return await self.tokens.authenticate(credential)
        if scheme.lower() == "basic" and credential:
            try:
                user, _, key = base64.b64decode(credential, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                raise Unauthenticated("the Basic credential is not base64 of `key id:key`") from None
            principal = self.ring.authenticate(key)
            if principal.key_id != user:
                raise Unauthenticated("the user name is not the id of the API key")
            return principal
        raise Unauthenticated()


def trusted_keys(path: Path | None) -> dict[str, Ed25519PublicKey]:
    """Public keys by name (`policy`, `deployer`) from the trust file; empty without a file, so nothing verifies."""
    if path is None:
        return {}
    try:
        return read_trust_file(path)
    except SignatureRefused as error:
        raise KeyUnreadable(error.message) from error


def signing_key(path: Path) -> Ed25519PrivateKey:
    """A service's private signing key (PEM, PKCS#8). Raises KeyUnreadable."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise KeyUnreadable(f"the signing key {path.name} cannot be read: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyUnreadable(f"the signing key {path.name} is not an Ed25519 key")
    return key
