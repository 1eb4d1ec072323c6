"""The artefact store in a folder."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

from shared.artefacts.store import CHUNK, checked, written
from shared.errors import IntegrityFailed, NotFound, TooLarge
from shared.ids import sha256


class FolderStore:
    """`<root>/ab/cdef…`, written beside its place and moved into it, so that nothing half-written is ever seen."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, digest: str) -> Path:
        """Where the bytes of a digest stand, or would."""
        name = checked(digest)
        return self._root / name[:2] / name[2:]

    async def put(self, chunks: AsyncIterator[bytes], expected: str | None = None) -> tuple[str, int]:
        self._root.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._root, prefix=".part-")
        part = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                digest, size = await written(chunks, file, expected)
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
