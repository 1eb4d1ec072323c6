"""Files that runs and models leave: bytes go to the artefact store as they stream, paths say where they stand."""

from __future__ import annotations

from collections.abc import AsyncIterator

from services.registry import formats
from services.registry.domain.tracking import File, checked_path
from services.registry.handlers.artefacts import hold
from services.registry.store import Store
from shared.artefacts import ArtefactStore
from shared.clock import Clock
from shared.db.database import Database
from shared.errors import NotFound, Refused
from shared.identity.principal import Principal

MOST_FILES = 10_000


class TrackedFiles:
    """A path means a digest; what is written again means another one, and the bytes of before stay where they were."""

    def __init__(self, database: Database, store: Store, artefacts: ArtefactStore, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._artefacts = artefacts
        self._clock = clock

    async def write(self, caller: Principal, path: str, chunks: AsyncIterator[bytes]) -> File:
        """Keep a file. Raises Invalid for a path that leads out of the root, ArtefactMissing as `Artefacts.upload`."""
        path = checked_path(path)
        digest, size = await self._artefacts.put(chunks)
        async with self._database.begin(caller.workspace) as tx:
            now = self._clock()
            await hold(self._store, self._artefacts, tx, digest, size, now)
            await self._store.tracking.put_file(tx, path, digest, size, now)
        return File(path, digest, size)

    async def read(self, caller: Principal, path: str) -> tuple[int, AsyncIterator[bytes]]:
        """Size and bytes. Raises NotFound."""
        async with self._database.begin(caller.workspace) as tx:
            found = await self._store.tracking.file(tx, checked_path(path))
        if found is None or found.digest is None or found.size is None:
            raise NotFound(f"no file stands at {path[:200]!r}")
        return found.size, self._artefacts.read(found.digest)

    async def text(self, caller: Principal, path: str, most: int = 1_000_000) -> bytes | None:
        """A small file's bytes; None where there is none."""
        async with self._database.begin(caller.workspace) as tx:
            found = await self._store.tracking.file(tx, path)
        if found is None or found.digest is None or (found.size or 0) > most:
            return None
        return await self._artefacts.get(found.digest, most=most)

    async def listed(self, caller: Principal, folder: str) -> list[File]:
        """What stands right in a folder: files, and folders without a digest."""
        if folder:
            checked_path(folder)
        async with self._database.begin(caller.workspace) as tx:
            below = await self._store.tracking.files(tx, folder, MOST_FILES)
        start = len(folder) + 1 if folder else 0
        found: dict[str, File] = {}
        for file in below:
            name, inner, _ = file.path[start:].partition("/")
            path = file.path[:start] + name
            found.setdefault(path, File(path) if inner else file)
        return list(found.values())

    async def held(self, caller: Principal, path: str, form: str) -> tuple[str, int] | None:
        """Digest and size of a file that is in the form that it is said to be in; None where it is not, or not here."""
        async with self._database.begin(caller.workspace) as tx:
            found = await self._store.tracking.file(tx, path)
        if found is None or found.digest is None or found.size is None:
            return None
        try:
            await formats.check(self._artefacts, found.digest, found.size, form)
        except Refused:
            return None
        return found.digest, found.size

    async def remove(self, caller: Principal, path: str) -> None:
        """A file or a folder stands there no longer; bytes that a version rests on stay."""
        async with self._database.begin(caller.workspace) as tx:
            await self._store.tracking.remove_files(tx, checked_path(path))
