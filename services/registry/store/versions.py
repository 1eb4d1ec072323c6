"""Assets, their versions, the terms that find them, and the artefacts that a workspace holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from services.registry.domain.assets import Content, Version
from shared.db.database import Transaction
from shared.events.base import Actor, AssetRef
from shared.events.upstream import AssetSubmitted

COMMON = 1_000
"""How far a term's versions are counted to tell the rare one."""


class Versions:
    """Tables asset, version, term, artefact."""

    def __init__(self, queries: Any) -> None:
        self._queries = queries

    async def lock_asset(self, tx: Transaction, event: AssetSubmitted, at: datetime) -> None:
        """Hold the asset until commit, made if need be."""
        await self._queries.lock_asset(
            tx.connection, workspace=tx.workspace, urn=event.urn, kind=event.kind, name=event.name, at=at
        )

    async def hold(self, tx: Transaction, urn: str) -> bool:
        """Hold an asset until commit; False when there is none."""
        return bool(await self._queries.asset_for_update(tx.connection, workspace=tx.workspace, urn=urn))

    async def with_digest(self, tx: Transaction, urn: str, digest: str) -> Version | None:
        row = await self._queries.version_by_digest(tx.connection, workspace=tx.workspace, urn=urn, digest=digest)
        return None if row is None else _version(row)

    async def one(self, tx: Transaction, urn: str, version: int) -> Version | None:
        row = await self._queries.version(tx.connection, workspace=tx.workspace, urn=urn, version=version)
        return None if row is None else _version(row)

    async def before(self, tx: Transaction, urn: str, before: int, most: int) -> list[Version]:
        """Newest first, below a version number."""
        rows = self._queries.versions_before(tx.connection, workspace=tx.workspace, urn=urn, before=before, most=most)
        return [_version(row) async for row in rows]

    async def twins(self, tx: Transaction, urn: str, artefact_digest: str) -> list[tuple[str, int]]:
        """Versions of other assets that rest on the same bytes."""
        rows = self._queries.twins(tx.connection, workspace=tx.workspace, artefact_digest=artefact_digest, urn=urn)
        return [(row["urn"], row["version"]) async for row in rows]

    async def add(
        self,
        tx: Transaction,
        content: Content,
        digest: str,
        author: Actor,
        at: datetime,
        terms: Iterable[str],
        text: str,
    ) -> Version:
        """The next version of a held asset, and what search finds it by."""
        event = content.submitted
        number = await self._queries.take_number(tx.connection, workspace=tx.workspace, urn=event.urn)
        document = content.document
        order = await self._queries.insert_version(
            tx.connection,
            workspace=tx.workspace,
            urn=event.urn,
            version=number,
            digest=digest,
            content=document,
            artefact_digest=event.artefact.digest if event.artefact else None,
            artefact_size=content.artefact_size,
            tags=event.tags,
            description=event.description,
            metrics=event.metrics,
            author=author.id,
            author_proven=author.proven,
            submission_id=event.submission_id,
            registered_at=at,
        )
        await self._queries.insert_terms(
            tx.connection, workspace=tx.workspace, number=order, terms=list(terms), text=text
        )
        return Version(
            ref=AssetRef(urn=event.urn, version=number, digest=digest),
            number=order,
            content=document,
            artefact_size=content.artefact_size,
            tags=event.tags,
            description=event.description,
            metrics=event.metrics,
            author=author,
            submission_id=event.submission_id,
            registered_at=at,
        )

    async def swap_term(self, tx: Transaction, version: Version, before: str, after: str) -> None:
        """From now on one exact term finds a version in the place of another."""
        await self._queries.swap_term(
            tx.connection, workspace=tx.workspace, number=version.number, before=before, after=after
        )

    async def find(self, tx: Transaction, terms: Sequence[str], text: str, before: int, most: int) -> list[Version]:
        """Versions that every term and every word of the text finds, newest first, below an order of registration."""
        words: list[str] = await self._queries.lexemes(tx.connection, text=text) if text else []
        if text and not words:
            return []  # nothing but stop words and signs, which find nothing
        asked = sorted({*terms, *(f"word:{word}" for word in words)})
        if not asked:
            numbers = [
                row["number"]
                async for row in self._queries.find_all(tx.connection, workspace=tx.workspace, before=before, most=most)
            ]
        else:
            first, *rest = [
                row["term"]
                async for row in self._queries.frequencies(
                    tx.connection, workspace=tx.workspace, terms=asked, most=COMMON
                )
            ]
            numbers = [
                row["number"]
                async for row in self._queries.find(
                    tx.connection, workspace=tx.workspace, first=first, rest=rest, before=before, most=most
                )
            ]
        rows = self._queries.versions_by_number(tx.connection, workspace=tx.workspace, numbers=numbers)
        return [_version(row) async for row in rows]

    async def hold_artefacts(self, tx: Transaction, sizes: Sequence[tuple[str, int]], at: datetime) -> None:
        """From now on this workspace holds these bytes (digest, size)."""
        for digest, size in sorted(sizes):
            await self._queries.hold_artefact(tx.connection, workspace=tx.workspace, digest=digest, size=size, since=at)

    async def artefact_size(self, tx: Transaction, digest: str) -> int | None:
        """Size of bytes that this workspace holds; None when it does not."""
        row = await self._queries.artefact(tx.connection, workspace=tx.workspace, digest=digest)
        return None if row is None else int(row["size"])


def _version(row: Any) -> Version:
    return Version(
        ref=AssetRef(urn=row["urn"], version=row["version"], digest=row["digest"]),
        number=row["number"],
        content=row["content"],
        artefact_size=row["artefact_size"],
        tags=row["tags"],
        description=row["description"],
        metrics=row["metrics"],
        author=Actor(id=row["author"], proven=row["author_proven"]),
        submission_id=row["submission_id"],
        registered_at=row["registered_at"],
    )
