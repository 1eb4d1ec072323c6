"""Archives: rows as Parquet in the artefact store, counted, hashed and readable back; and exports of the same form."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from services.router.errors import UnknownGroup
from services.router.store import Row, Store
from services.router.tables.errors import TooMuchToExport, UnknownArchive
from services.router.tables.filters import Filter
from services.router.tables.store import Archive, TableStore
from shared.artefacts import ArtefactStore
from shared.clock import Clock
from shared.db.database import EVERY_WORKSPACE, Database, Transaction
from shared.errors import Conflict
from shared.ids import new_id
from shared.late import loaded

CHUNK = 1024 * 1024
PARQUET = "services.router.tables.parquet"  # imported where it is needed: Arrow is large, and archives are rare
COPY_S = 3600.0
MOST_EXPORTED = 1_000_000
FIRST_DAY = date(1, 1, 1)


class Archives:
    """Makes archives and reads them."""

    def __init__(
        self, database: Database, store: Store, tables: TableStore, artefacts: ArtefactStore, clock: Clock
    ) -> None:
        self._database = database
        self._store = store
        self._tables = tables
        self._artefacts = artefacts
        self._clock = clock

    # -- made

    async def retire_day(self, workspace: str, group: str, partition: str, day: date, cause: str) -> Archive:
        """Archive a day of rows and drop it, in one transaction. Raises Conflict when rows come for it meanwhile."""
        async with self._database.begin(workspace) as tx:
            await self._tables.lock_archive(tx, group)
            since = datetime.combine(day, time(), UTC)
            about = {"group": group, "day": day.isoformat(), "archive": str(new_id())}
            async with self._written(tx, group, since, since + timedelta(days=1), (), about) as (file, rows):
                archive = await self._kept(tx, UUID(about["archive"]), group, day, file, rows, cause)
            if not await self._tables.drop_archived_day(tx, group, partition, rows):
                raise Conflict(
                    f"rows of {day} came to {group!r} while it was archived; it is archived at the next look"
                )
            return archive

    async def without(
        self, tx: Transaction, group: str, goes: Callable[[dict[str, Any]], bool]
    ) -> tuple[int, list[Archive]]:
        """Replace those archives of the group that hold rows which go; returns how many rows, and the new archives.

        The old bytes are removed by `remove_replaced`, once the transaction is over.
        """
        await loaded(PARQUET)
        from services.router.tables import parquet

        gone, made = 0, []
        for archive in await self._tables.all_archives(tx, group):
            with tempfile.TemporaryDirectory(prefix="mintmark-erasure-") as name:
                source, target = Path(name) / "before.parquet", Path(name) / "after.parquet"
                await self._fetch(archive["digest"], source)
                if not await asyncio.to_thread(parquet.count_of, source, goes):
                    continue
                about = {"group": group, "day": archive["day"].isoformat(), "archive": str(new_id())}
                went = await asyncio.to_thread(parquet.copy_without, source, target, goes, about)
                rows, replacement = archive["row_count"] - went, UUID(about["archive"])
                made.append(await self._kept(tx, replacement, group, archive["day"], target, rows, "erasure"))
                await self._tables.replace_archive(tx, archive["id"], replacement)
                gone += went
        return gone, made

    async def remove_replaced(self) -> None:
        """Remove the bytes of archives that others have replaced."""
        async with self._database.begin(EVERY_WORKSPACE) as tx:
            for archive_id, digest in await self._tables.bytes_to_remove(tx):
                await self._artefacts.remove(digest)
                await self._tables.bytes_removed(tx, archive_id, self._clock())

    # -- read

    async def listed(self, workspace: str, group: str, after: tuple[date, UUID] | None, most: int) -> list[Archive]:
        """Oldest first; of a deleted group too."""
        async with self._database.begin(workspace) as tx:
            after_day, after_id = after or (FIRST_DAY, UUID(int=0))
            return [archive_of(row) for row in await self._tables.archives(tx, group, after_day, after_id, most)]

    async def one(self, workspace: str, archive_id: UUID) -> Archive:
        """Raises UnknownArchive."""
        async with self._database.begin(workspace) as tx:
            row = await self._tables.archive(tx, archive_id)
        if row is None or row["replaced_by"] is not None:
            raise UnknownArchive()
        return archive_of(row)

    async def rows(self, workspace: str, archive_id: UUID, after: int, most: int) -> list[dict[str, Any]]:
        """Rows of an archive, verified by its digest, from a place on. Raises UnknownArchive, IntegrityFailed."""
        archive = await self.one(workspace, archive_id)
        await loaded(PARQUET)
        from services.router.tables import parquet

        with tempfile.TemporaryDirectory(prefix="mintmark-archive-") as name:
            file = Path(name) / "rows.parquet"
            await self._fetch(archive.digest, file)
            return await asyncio.to_thread(parquet.page, file, after, most)

    def content(self, archive: Archive) -> AsyncIterator[bytes]:
        """The Parquet file itself, in chunks."""
        return self._artefacts.read(archive.digest)

    async def export(
        self, workspace: str, group: str, since: datetime, until: datetime, filters: tuple[Filter, ...]
    ) -> AsyncIterator[bytes]:
        """Rows that the filters let through as a Parquet file, oldest first. Raises UnknownGroup, TooMuchToExport."""
        async with self._database.begin(workspace) as tx:
            if await self._store.group(tx, group) is None:
                raise UnknownGroup(group)
            async with self._written(tx, group, since, until, filters, {"group": group}) as (file, rows):
                if rows > MOST_EXPORTED:
                    raise TooMuchToExport()
                handle = file.open("rb")  # the file goes with its folder, the handle stays readable
        return _chunks(handle)

    # -- both

    @asynccontextmanager
    async def _written(
        self,
        tx: Transaction,
        group: str,
        since: datetime,
        until: datetime,
        filters: tuple[Filter, ...],
        about: dict[str, str],
    ) -> AsyncIterator[tuple[Path, int]]:
        """The rows in a Parquet file that is there inside the block, and how many."""
        await loaded(PARQUET)
        from services.router.tables import parquet

        statement = await self._tables.export_statement(tx, group, since, until, filters)
        with tempfile.TemporaryDirectory(prefix="mintmark-archive-") as name:
            csv, file = Path(name) / "rows.csv", Path(name) / "rows.parquet"
            status = await tx.connection.copy_from_query(statement, output=csv, format="csv", timeout=COPY_S)
            rows = await asyncio.to_thread(parquet.write, csv, file, about)
            if status != f"COPY {rows}":
                raise Conflict(f"Postgres said {status}, but the Parquet file has {rows} rows; nothing was dropped")
            csv.unlink()
            yield file, rows

    async def _kept(
        self, tx: Transaction, archive_id: UUID, group: str, day: date, file: Path, rows: int, cause: str
    ) -> Archive:
        digest, size = await self._artefacts.put(_chunks(file.open("rb")))
        archive = Archive(archive_id, group, day, digest, size, rows, cause, self._clock())
        await self._tables.add_archive(tx, archive)
        return archive

    async def _fetch(self, digest: str, target: Path) -> None:
        """Raises IntegrityFailed for bytes that were changed in the store."""
        with target.open("wb") as file:
            async for chunk in self._artefacts.read(digest):
                await asyncio.to_thread(file.write, chunk)


def archive_of(row: Row) -> Archive:
    return Archive(
        row["id"], row["group_name"], row["day"], row["digest"], row["bytes"], row["row_count"], row["cause"],
        row["made_at"],
    )  # fmt: skip


async def _chunks(file: Any) -> AsyncIterator[bytes]:
    with file:
        while chunk := await asyncio.to_thread(file.read, CHUNK):
            yield chunk
