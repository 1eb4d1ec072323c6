"""What every artefact store is: one in a folder (folder.py), one in a bucket (s3.py)."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from typing import IO, Protocol

from shared.errors import IntegrityFailed, Invalid

CHUNK = 1024 * 1024
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class ArtefactStore(Protocol):
    """Content-addressed bytes. Every method raises NotFound, IntegrityFailed, Invalid or Unavailable, never less."""

    async def put(self, chunks: AsyncIterator[bytes], expected: str | None = None) -> tuple[str, int]:
        """Stream bytes in, hashed as they pass; returns digest and size. Keeps nothing on IntegrityFailed."""

    async def put_bytes(self, data: bytes) -> str:
        """Keep bytes; returns their digest."""

    async def size(self, digest: str) -> int | None:
        """Size in bytes, None when it is not here."""

    async def get(self, digest: str, *, most: int = 512 * 1024 * 1024) -> bytes:
        """All bytes, verified. Raises NotFound, TooLarge, IntegrityFailed."""

    def read(self, digest: str) -> AsyncIterator[bytes]:
        """The bytes in chunks, verified at the end. Raises NotFound, IntegrityFailed."""

    async def remove(self, digest: str) -> None:
        """Forget bytes that nothing else has: where people have a right to it. What is not here is removed already."""


def checked(digest: str) -> str:
    """The 64 hex digits of a digest; nothing else ever becomes part of a path. Raises Invalid."""
    if not _DIGEST.fullmatch(digest):
        raise Invalid(f"{digest[:80]!r} is not a digest; it looks like sha256:<64 hex digits>")
    return digest[7:]


async def written(chunks: AsyncIterator[bytes], file: IO[bytes], expected: str | None) -> tuple[str, int]:
    """Write all bytes to a file, hashed as they pass; digest and size. Raises Invalid, IntegrityFailed."""
    if expected is not None:
        checked(expected)
    hasher, size = hashlib.sha256(), 0
    async for chunk in chunks:
        hasher.update(chunk)
        size += len(chunk)
        await asyncio.to_thread(file.write, chunk)
    digest = "sha256:" + hasher.hexdigest()
    if expected is not None and digest != expected:
        raise IntegrityFailed(f"the bytes have digest {digest}, not {expected}; nothing was kept")
    return digest, size
