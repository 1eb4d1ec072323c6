"""Rows of files that the artefact store holds: copied to a temporary file, read in batches in a thread."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import aclosing
from typing import IO

from services.registry.datasets.sketches import Sketch, Sketching
from shared.artefacts import ArtefactStore
from shared.errors import NotFound, Refused
from shared.events.upstream import DatasetFile

SPOOL_BYTES = 16 * 1024 * 1024


class RowsUnread(Refused):
    """The rows cannot be counted."""

    code = "rows-unread"


class Files:
    """Parquet needs its end before its beginning, so a file is whole on the disk before it is read."""

    def __init__(self, artefacts: ArtefactStore) -> None:
        self._artefacts = artefacts

    async def rows(self, digest: str, form: str) -> int | None:
        """How many rows a file has; None where it cannot be read."""
        try:
            made = Sketching(most=0)
            await self._into(made, digest, form)
        except (RowsUnread, NotFound):
            return None
        return made.made().rows

    async def sketch(self, files: Sequence[DatasetFile]) -> Sketch:
        """The hashes of all rows of the files. Raises RowsUnread, NotFound, Unavailable."""
        made = Sketching()
        for file in files:
            await self._into(made, file.digest, file.format)
        return await asyncio.to_thread(made.made)

    async def keep(self, sketch: Sketch) -> str:
        """Keep a sketch among the artefacts; returns its digest."""
        return await self._artefacts.put_bytes(sketch.to_bytes())

    async def kept(self, digest: str, rows: int, halvings: int) -> Sketch:
        return Sketch.from_bytes(await self._artefacts.get(digest), rows, halvings)

    async def there(self, digest: str) -> bool:
        return await self._artefacts.size(digest) is not None

    async def remove(self, digest: str) -> None:
        """Remove bytes for good. It is over when this ends, by a cancellation too: a thread goes on regardless."""
        removing = asyncio.ensure_future(self._artefacts.remove(digest))
        try:
            await asyncio.shield(removing)
        except asyncio.CancelledError:
            await asyncio.wait({removing})
            raise

    async def _into(self, sketching: Sketching, digest: str, form: str) -> None:
        with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
            async with aclosing(self._artefacts.read(digest)) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    await asyncio.to_thread(spool.write, chunk)
            spool.seek(0)
            await asyncio.to_thread(_fill, sketching, spool, form)


def _fill(sketching: Sketching, file: IO[bytes], form: str) -> None:
    from services.registry.datasets.rows import Unreadable, hashes_of  # Arrow, which only counting rows needs

    try:
        for hashes in hashes_of(file, form):
            sketching.add(hashes)
    except Unreadable as error:
        raise RowsUnread(str(error)) from error
