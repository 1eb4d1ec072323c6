"""A group's own keys: the salt of its hashes and the data key of its ciphertexts, sealed by the master key.

Without a master key a salt stands in the table as it is, which only the router's role reads; ciphertexts need one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.router.errors import SealBroken
from services.router.gateway.sealing import KEY_BYTES, NONCE_BYTES, Belonging, MasterKey, Sealed, Sealer, Secret

KINDS = ("salt", "data")
HASHED = "hmac-sha256:"
ENCRYPTED = "enc:v1:"


@dataclass(frozen=True, slots=True)
class GroupKeys:
    """Raises SealBroken where the key that is needed is not there or cannot be opened."""

    workspace: str
    group: str
    salt: bytes | None = field(default=None, repr=False)
    data: bytes | None = field(default=None, repr=False)

    def hashed(self, value: bytes) -> str:
        """HMAC-SHA-256 with the group's salt: the same value is the same hash in this group, and in no other."""
        if self.salt is None:
            raise SealBroken(f"The group {self.group!r} has no salt that this process can open.")
        return HASHED + hmac.new(self.salt, value, hashlib.sha256).hexdigest()

    def encrypted(self, value: Any, *, stable: bool = False) -> str:
        """AES-256-GCM of the value's JSON, bound to workspace and group. Raises SealBroken.

        `stable` makes the same value the same text, so that a unit's rows can still be found: its nonce is an HMAC.
        """
        if self.data is None:
            raise SealBroken(f"The group {self.group!r} has no data key that this process can open.")
        plain = orjson.dumps(value)
        nonce = hmac.new(self.data, plain, hashlib.sha256).digest() if stable else os.urandom(NONCE_BYTES)
        sealed = nonce[:NONCE_BYTES] + AESGCM(self.data).encrypt(nonce[:NONCE_BYTES], plain, self._bound)
        return ENCRYPTED + base64.urlsafe_b64encode(sealed).decode()

    def opened(self, text: str) -> Any:
        """What `encrypted` made a text of. Raises SealBroken."""
        try:
            if self.data is None:
                raise SealBroken(f"The group {self.group!r} has no data key that this process can open.")
            sealed = base64.urlsafe_b64decode(text.removeprefix(ENCRYPTED))
            return orjson.loads(AESGCM(self.data).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], self._bound))
        except (InvalidTag, ValueError, binascii.Error):
            raise SealBroken("A ciphertext in this row cannot be opened: it was changed, or its key was.") from None

    @property
    def _bound(self) -> bytes:
        return f"{self.workspace}\x00{self.group}".encode()


def new_key(workspace: str, group: str, kind: str, master: MasterKey | None) -> tuple[str, bool]:
    """A key as it is stored, and whether it is sealed. Blocks. Raises SealBroken for a data key without a master."""
    text = base64.b64encode(os.urandom(KEY_BYTES)).decode()
    if master is not None:
        return Sealer(master).seal(Secret(text), _belonging(workspace, group, kind)).to_json(), True
    if kind == "data":
        raise SealBroken(
            "To encrypt fields this router needs a master key: set MINTMARK_ROUTER_MASTER_KEY_FILE or …_KMS, "
            "for the gateways too."
        )
    return text, False


class GroupKeyRing:
    """Opens groups' keys, each sealed form once. Blocks where a KMS has to be asked."""

    def __init__(self, master: MasterKey | None) -> None:
        self._sealer = Sealer(master) if master is not None else None
        self._opened: dict[tuple[Belonging, str], bytes] = {}

    def keys_of(self, workspace: str, group: str, stored: Mapping[str, Mapping[str, Any]]) -> GroupKeys:
        """`stored` is `{kind: {"value": …, "sealed": true}}`. A key that cannot be opened is left out."""
        found = {kind: self._open(_belonging(workspace, group, kind), stored[kind]) for kind in KINDS if kind in stored}
        return GroupKeys(workspace, group, found.get("salt"), found.get("data"))

    def _open(self, of: Belonging, stored: Mapping[str, Any]) -> bytes | None:
        value = str(stored["value"])
        known = self._opened.get((of, value))
        if known is None:
            try:
                if not stored["sealed"]:
                    known = base64.b64decode(value, validate=True)
                elif self._sealer is not None:
                    known = base64.b64decode(self._sealer.open(Sealed.from_json(value), of).reveal(), validate=True)
            except (SealBroken, binascii.Error):
                return None
            if known is not None:
                self._opened[of, value] = known
        return known


def _belonging(workspace: str, group: str, kind: str) -> Belonging:
    """Providers' names hold no colon, so that a group's key is never taken for one of theirs."""
    return Belonging(workspace, f"group:{group}:{kind}")
