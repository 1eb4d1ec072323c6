"""The artefact store's one interface, and its folder. S3 stands in s3.py."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import unquote, urlsplit

from shared.errors import IntegrityFailed, Invalid, NotFound, TooLarge
from shared.ids import sha256
from shared.settings import PlatformSettings

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


def open_store(settings: PlatformSettings) -> ArtefactStore:
    """The store that the settings name. Raises Invalid for an address of another kind."""
    address = settings.artefacts or (settings.data / "artefacts").absolute().as_uri()
    parts = urlsplit(address)
    if parts.scheme == "file":
        return FolderStore(Path(unquote(parts.path)))
    if parts.scheme == "s3":
        from shared.artefacts.s3 import S3Store

        return S3Store(parts.netloc, parts.path.strip("/"), settings.s3_endpoint)
    raise Invalid(f"MINTMARK_ARTEFACTS is {address!r}; it takes file:///folder or s3://bucket/prefix")


def checked(digest: str) -> str:
    """The 64 hex digits of a digest; nothing else ever becomes part of a path. Raises Invalid."""
    if not _DIGEST.fullmatch(digest):
        raise Invalid(f"{digest[:80]!r} is not a digest; it looks like sha256:<64 hex digits>")
    return digest[7:]


class FolderStore:
    """`<root>/ab/cdef…`, written beside its place and moved into it, so that nothing half-written is ever seen."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, digest: str) -> Path:
        """Where the bytes of a digest stand, or would."""
        name = checked(digest)
        return self._root / name[:2] / name[2:]

    async def put(self, chunks: AsyncIterator[bytes], expected: str | None = None) -> tuple[str, int]:
        if expected is not None:
            checked(expected)
        hasher, size = hashlib.sha256(), 0
        self._root.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._root, prefix=".part-")
        part = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                async for chunk in chunks:
                    hasher.update(chunk)
                    size += len(chunk)
                    await asyncio.to_thread(file.write, chunk)
                digest = "sha256:" + hasher.hexdigest()
                if expected is not None and digest != expected:
                    raise IntegrityFailed(f"the bytes have digest {digest}, not {expected}; nothing was kept")
                await asyncio.to_thread(_to_disk, file)
            place = self.path(digest)
            place.parent.mkdir(parents=True, exist_ok=True)
            part.chmod(0o640)
            part.replace(place)
            return digest, size
        finally:
            part.unlink(missing_ok=True)

    async def put_bytes(self, data: bytes) -> str:
        digest, _ = await self.put(_one(data))
        return digest

    async def size(self, digest: str) -> int | None:
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return None

    async def get(self, digest: str, *, most: int = 512 * 1024 * 1024) -> bytes:
        size = await self.size(digest)
        if size is None:
            raise NotFound(f"artefact {digest} is not in the store")
        if size > most:
            raise TooLarge(f"artefact {digest} has {size} bytes; {most} is the most that is read here")
        data = await asyncio.to_thread(self.path(digest).read_bytes)
        if sha256(data) != digest:
            raise IntegrityFailed(f"artefact {digest} was changed in the store")
        return data

    async def read(self, digest: str) -> AsyncIterator[bytes]:
        if await self.size(digest) is None:
            raise NotFound(f"artefact {digest} is not in the store")
        hasher = hashlib.sha256()
        with self.path(digest).open("rb") as file:
            while chunk := await asyncio.to_thread(file.read, CHUNK):
                hasher.update(chunk)
                yield chunk
        if "sha256:" + hasher.hexdigest() != digest:
            raise IntegrityFailed(f"artefact {digest} was changed in the store")

    async def remove(self, digest: str) -> None:
        self.path(digest).unlink(missing_ok=True)


def _to_disk(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


async def _one(data: bytes) -> AsyncIterator[bytes]:
    yield data
