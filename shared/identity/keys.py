"""API keys: shown once, kept as a hash and the public half of a signing key derived from the secret.

A key is `mmk_<12 characters>_<64 hex digits>`; the part before the last underscore is its id. The server stores
SHA-256 of the whole (256 random bits need no slow hash) and an Ed25519 public key, so it can check both a bearer
and a signature, and can make neither.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.clock import Clock, utc_now
from shared.errors import Unauthenticated, Unavailable
from shared.identity.principal import Principal

SIGNING_INFO = b"mintmark event signing v1"
ID_CHARACTERS = "abcdefghijkmnpqrstuvwxyz23456789"
RELOAD_S = 1.0


def signing_key(api_key: str) -> Ed25519PrivateKey:
    """The Ed25519 key that belongs to an API key: HKDF-SHA256 (RFC 5869) of the key's text, no salt."""
    seed = HKDF(algorithm=SHA256(), length=32, salt=None, info=SIGNING_INFO).derive(api_key.encode())
    return Ed25519PrivateKey.from_private_bytes(seed)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What the server keeps of a key. Holds nothing that lets anybody call or sign."""

    id: str
    sha256: str
    public_key: str
    principal: str
    roles: frozenset[str]
    workspace: str
    created_at: str
    expires_at: str | None = None

    @classmethod
    def generate(
        cls,
        principal: str,
        roles: Iterable[str],
        workspace: str = "default",
        *,
        expires_at: datetime | None = None,
        clock: Clock = utc_now,
    ) -> tuple[str, dict[str, Any]]:
        """A new key: its secret text, to be shown once, and the public record to store."""
        key_id = "mmk_" + "".join(secrets.choice(ID_CHARACTERS) for _ in range(12))
        text = f"{key_id}_{secrets.token_hex(32)}"
        raw = signing_key(text).public_key().public_bytes_raw()
        return text, {
            "id": key_id,
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "public_key": base64.b64encode(raw).decode(),
            "principal": principal,
            "roles": sorted(roles),
            "workspace": workspace,
            "created_at": clock().isoformat(),
            "expires_at": expires_at.isoformat() if expires_at else None,
        }

    @classmethod
    def read(cls, record: dict[str, Any]) -> ApiKey:
        return cls(**{**record, "roles": frozenset(record["roles"])})

    def expired(self, now: datetime) -> bool:
        return self.expires_at is not None and datetime.fromisoformat(self.expires_at) <= now

    @property
    def verifier(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(self.public_key))

    def as_principal(self) -> Principal:
        return Principal(id=self.principal, workspace=self.workspace, roles=self.roles, key_id=self.id)


class KeyRing:
    """The keys in force, from a file that is read again when it changes. Without a file nobody has a key."""

    def __init__(self, path: Path | None, clock: Clock = utc_now) -> None:
        self._path = path
        self._clock = clock
        self._keys: dict[str, ApiKey] = {}
        self._stamp: tuple[int, int] | None = None
        self._looked = float("-inf")
        self._lock = threading.Lock()

    def find(self, key_id: str) -> ApiKey | None:
        """A key in force, by its id; None when unknown or expired."""
        self._refresh()
        key = self._keys.get(key_id)
        return None if key is None or key.expired(self._clock()) else key

    def authenticate(self, text: str) -> Principal:
        """The principal of a key's secret text. Raises Unauthenticated."""
        key = self.find(text.rpartition("_")[0])
        found = hashlib.sha256(text.encode()).hexdigest()
        if key is None or not hmac.compare_digest(found, key.sha256):
            raise Unauthenticated("this API key is not known here, or it has expired")
        return key.as_principal()

    def _refresh(self) -> None:
        if self._path is None or time.monotonic() - self._looked < RELOAD_S:
            return
        with self._lock:
            self._looked = time.monotonic()
            try:
                status = self._path.stat()
                stamp = (status.st_mtime_ns, status.st_ino)
                if stamp != self._stamp:
                    records = json.loads(self._path.read_text())
                    self._keys = {record["id"]: ApiKey.read(record) for record in records}
                    self._stamp = stamp
            except FileNotFoundError:
                self._keys, self._stamp = {}, None
            except (OSError, ValueError, KeyError, TypeError) as error:
                # Fail closed: a half-known ring would let a revoked key live on.
                self._keys, self._stamp = {}, None
                raise Unavailable(f"the API keys in {self._path.name} cannot be read: {error}") from error


def append(path: Path, record: dict[str, Any]) -> None:
    """Add a key's public record to the file."""
    with _changing(path) as records:
        records.append(record)


def remove(path: Path, key_id: str) -> bool:
    """Take a key out of the file; False when it is not there."""
    with _changing(path) as records:
        kept = [record for record in records if record["id"] != key_id]
        found = len(kept) < len(records)
        records[:] = kept
    return found


@contextmanager
def _changing(path: Path) -> Iterator[list[dict[str, Any]]]:
    """The file's records, put back as they are at the end: whole or not at all, one process after the other.

    The file stays readable by its owner alone.
    """
    with path.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        records = json.loads(path.read_text()) if path.exists() else []
        yield records
        fresh = path.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(records, indent=1))
        fresh.replace(path)
