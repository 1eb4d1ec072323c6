"""Assets, their versions, and the artefacts that a workspace holds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from services.registry.domain.assets import Asset, Change, Draft, Version
from services.registry.errors import NameTaken
from services.registry.search.facts import Found
from services.registry.search.index import come_of, numbers_of
from shared.db.database import Transaction
from shared.errors import Unavailable
from shared.events.base import Actor, AssetRef


@dataclass(frozen=True, slots=True)
class AtOnce:
    """asset.registered as the text before and after the version's number, which is known when it is written."""

    id: str
    digest: str
    before: str
    after: str
    correlation_id: str | None
    causation_id: str | None
    traceparent: str | None


class Versions:
    """Tables asset, version, artefact."""

    def __init__(self, queries: Any) -> None:
        self._queries = queries

    async def lock_asset(self, tx: Transaction, urn: str, title: str, at: datetime) -> Asset:
        """Hold the asset until commit, made if need be. Raises NameTaken for a title that another asset has."""
        return (await self.make_asset(tx, urn, title, at))[0]

    async def make_asset(self, tx: Transaction, urn: str, title: str, at: datetime) -> tuple[Asset, bool]:
        """The same, and whether it was made just now."""
        there = await self._queries.lock_asset(tx.connection, workspace=tx.workspace, urn=urn)
        if there is not None:
            return _asset(there), False
        kind, _, name = urn[3:].partition("/")
        made = await self._queries.make_asset(
            tx.connection, workspace=tx.workspace, urn=urn, kind=kind, name=name, title=title, at=at
        )
        if made is not None:
            return _asset(made), True
        there = await self._queries.lock_asset(tx.connection, workspace=tx.workspace, urn=urn)
        if there is None:
            raise NameTaken(f"a {kind} with another name is called {title[:200]!r} already")
        return _asset(there), False

    async def hold(self, tx: Transaction, urn: str) -> Asset | None:
        """Hold an asset until commit; None when there is none."""
        row = await self._queries.asset_for_update(tx.connection, workspace=tx.workspace, urn=urn)
        return None if row is None else _asset(row)

    async def asset(self, tx: Transaction, urn: str) -> Asset | None:
        row = await self._queries.asset(tx.connection, workspace=tx.workspace, urn=urn)
        return None if row is None else _asset(row)

    async def called(self, tx: Transaction, title: str, kinds: Sequence[str]) -> Asset | None:
        """What people call so, of the first of these kinds that has one; not what is hidden."""
        row = await self._queries.asset_by_title(tx.connection, workspace=tx.workspace, title=title, kinds=list(kinds))
        return None if row is None else _asset(row)

    async def put_asset(self, tx: Transaction, asset: Asset) -> None:
        """A held asset's metadata. Raises NameTaken for a title that another asset of the kind has."""
        try:
            await self._queries.put_asset(
                tx.connection,
                workspace=tx.workspace,
                urn=asset.urn,
                title=asset.title,
                description=asset.description,
                tags=asset.tags,
                revision=asset.revision,
                updated_at=asset.updated_at,
                hidden=asset.hidden,
            )
        except asyncpg.UniqueViolationError:
            raise NameTaken(f"another {asset.kind} is called {asset.title[:200]!r} already") from None

    async def put_state(self, tx: Transaction, version: Version) -> None:
        """A version's metadata as they are now; its asset is held."""
        await self._queries.put_version_state(
            tx.connection,
            workspace=tx.workspace,
            urn=version.ref.urn,
            version=version.ref.version,
            description=version.description,
            tags=version.tags,
            revision=version.revision,
            yanked_at=version.yanked_at,
            updated_at=version.updated_at,
        )

    async def log(self, tx: Transaction, change: Change) -> None:
        await self._queries.log_change(
            tx.connection,
            workspace=tx.workspace,
            urn=change.urn,
            version=change.version,
            revision=change.revision,
            field=change.field,
            before=change.before,
            after=change.after,
            who=change.who.id,
            who_proven=change.who.proven,
            reason=change.reason,
            at=change.at,
        )

    async def changes(self, tx: Transaction, urn: str, version: int, before: int, most: int) -> list[Change]:
        """Changes of metadata, newest first, below a revision."""
        rows = self._queries.changes_before(
            tx.connection, workspace=tx.workspace, urn=urn, version=version, before=before, most=most
        )
        return [
            Change(
                urn, version, row["revision"], row["field"], row["before"], row["after"],
                Actor(id=row["who"], proven=row["who_proven"]), row["reason"], row["at"],
            )
            async for row in rows
        ]  # fmt: skip

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

    async def assets_listed(self, tx: Transaction, kinds: Sequence[str], after: str, most: int) -> list[Asset]:
        """Assets that are not hidden, by title, after one."""
        rows = self._queries.assets_listed(
            tx.connection, workspace=tx.workspace, kinds=list(kinds), after=after, most=most
        )
        return [_asset(row) async for row in rows]

    async def listed(
        self, tx: Transaction, kinds: Sequence[str], urn: str | None, offset: int, most: int
    ) -> list[Version]:
        """Versions that are not yanked, last changed first."""
        rows = self._queries.versions_listed(
            tx.connection, workspace=tx.workspace, kinds=list(kinds), urn=urn, offset=offset, most=most
        )
        return [_version(row) async for row in rows]

    async def newest_by_stage(self, tx: Transaction, urns: Sequence[str]) -> list[tuple[Version, str]]:
        """The highest version in each stage of some assets, without those that are yanked."""
        rows = self._queries.newest_by_stage(tx.connection, workspace=tx.workspace, urns=list(urns))
        return [(_version(row), row["stage"]) async for row in rows]

    async def add_at_once(
        self, connection: asyncpg.Connection, workspace: str, draft: Draft, title: str, found: Found, event: AtOnce
    ) -> int | None:
        """A further version of an asset that has some, with what finds it and its event, in a transaction of its own.

        Its number; None where there is no such asset, or no version of it yet.
        """
        numbers = numbers_of(found)
        made: int | None = await self._queries.register_at_once(
            connection,
            workspace=workspace,
            urn=draft.urn,
            title=title,
            digest=event.digest,
            content=draft.content,
            tags=draft.tags,
            description=draft.description,
            author=draft.author.id,
            author_proven=draft.author.proven,
            submission_id=draft.submission_id,
            registered_at=draft.registered_at,
            come=come_of(found),
            text=found.text,
            fields=list(numbers),
            numbers=list(numbers.values()),
            gist=found.gist,
            event_id=event.id,
            before=event.before,
            after=event.after,
            correlation_id=event.correlation_id,
            causation_id=event.causation_id,
            traceparent=event.traceparent,
        )
        return made

    async def twins(self, tx: Transaction, urn: str, artefact_digest: str) -> list[tuple[str, int]]:
        """Versions of other assets that rest on the same bytes."""
        rows = self._queries.twins(tx.connection, workspace=tx.workspace, artefact_digest=artefact_digest, urn=urn)
        return [(row["urn"], row["version"]) async for row in rows]

    async def add(self, tx: Transaction, draft: Draft, title: str) -> Version:
        """The next version of a held asset, or the one that the draft names."""
        number = await self._queries.take_number(
            tx.connection, workspace=tx.workspace, urn=draft.urn, wanted=draft.version, at=draft.registered_at
        )
        digest = draft.digest
        order = await self._queries.insert_version(
            tx.connection,
            workspace=tx.workspace,
            urn=draft.urn,
            version=number,
            digest=digest,
            content=draft.content,
            artefact_digest=draft.artefact_digest,
            artefact_size=draft.artefact_size,
            tags=draft.tags,
            description=draft.description,
            metrics=draft.metrics,
            author=draft.author.id,
            author_proven=draft.author.proven,
            submission_id=draft.submission_id,
            registered_at=draft.registered_at,
        )
        return draft.numbered(title, number, order, digest)

    async def numbered(self, tx: Transaction, numbers: Sequence[int]) -> list[Version]:
        """Versions by their order of registration."""
        rows = self._queries.versions_by_number(tx.connection, workspace=tx.workspace, numbers=list(numbers))
        return [_version(row) async for row in rows]

    async def consumers(self, tx: Transaction, urn: str, version: int) -> list[str]:
        """Who is bound to a version, at most twenty."""
        rows = self._queries.consumers(tx.connection, workspace=tx.workspace, urn=urn, version=version)
        return [row["consumer"] async for row in rows]

    async def claim(self, tx: Transaction, digests: Collection[str]) -> set[str]:
        """Nobody removes these bytes until commit; returns those that this workspace holds, which are there for sure.

        Whoever removes bytes has them to itself, looks whether anybody holds them, and removes them before it commits.
        Raises Unavailable where that takes longer than a statement may.
        """
        if not digests:
            return set()
        try:
            await self._queries.claim_bytes(tx.connection, digests=list(digests))
        except TimeoutError:
            raise Unavailable("these bytes are being removed just now, and the store takes its time") from None
        # A statement of its own: it sees what was decided while the other one waited.
        rows = self._queries.held(tx.connection, workspace=tx.workspace, digests=list(digests))
        return {row["digest"] async for row in rows}

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
        title=row["title"],
        revision=row["revision"],
        updated_at=row["updated_at"],
        yanked_at=row["yanked_at"],
    )


def _asset(row: Any) -> Asset:
    return Asset(
        urn=row["urn"],
        kind=row["kind"],
        name=row["name"],
        title=row["title"],
        description=row["description"],
        tags=row["tags"],
        last_version=row["last_version"],
        revision=row["revision"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        hidden=row["hidden"],
    )


version_of = _version
"""Of a row of version_now, for whoever reads it together with more."""
