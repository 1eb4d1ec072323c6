"""Identifiers and digests: UUIDv7 for things that happen, SHA-256 over canonical JSON for things that are."""

from __future__ import annotations

import hashlib
from typing import Any
from uuid import UUID

import rfc8785
import uuid_utils.compat


def new_id() -> UUID:
    """A UUIDv7: unique, and sorted by the time it was made."""
    return UUID(int=uuid_utils.compat.uuid7().int)


def sha256(data: bytes) -> str:
    """`sha256:<64 hex>` of the bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def canonical(value: Any) -> bytes:
    """The value as canonical JSON (RFC 8785); raises ValueError where JSON has no such value."""
    return rfc8785.dumps(value)


def digest_of(value: Any) -> str:
    """`sha256:<64 hex>` of the value's canonical JSON."""
    return sha256(canonical(value))
