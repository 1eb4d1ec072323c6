"""What is said of an asset or a version after it was registered: changed, logged, and told; and versions hidden."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from services.registry.domain.assets import Asset, Change, Version
from services.registry.errors import AlreadyYanked, InUse, NameTaken
from services.registry.handlers import usage
from services.registry.handlers.pointers import Expected
from services.registry.search import facts
from services.registry.search.index import Index
from services.registry.store import Store
from shared.clock import Clock
from shared.db.database import Database, Transaction
from shared.errors import Invalid, NotFound
from shared.events.base import Actor
from shared.events.names import name_of
from shared.events.registry import AssetChanged
from shared.http import etag
from shared.identity.principal import Principal

MOST_TAGS = 1_000
MOST_TAGS_BYTES = 300_000
"""Of one asset's or version's tags; what is searched by them, and an event about it, must hold them."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A change of metadata: None leaves a field as it is, a tag that is None is removed."""

    description: str | None = None
    title: str | None = None
    tags: Mapping[str, str | None] | None = None
    reason: str = ""


@dataclass(slots=True)
class _Changing:
    """Changes of one asset or version that are made together."""

    urn: str
    version: int
    revision: int
    who: Actor
    reason: str
    at: datetime
    changes: list[Change]

    def say(self, field: str, before: str | None, after: str | None) -> None:
        if before != after:
            made = Change(self.urn, self.version, self.revision, field, before, after, self.who, self.reason, self.at)
            self.changes.append(made)

    def tags(self, before: dict[str, str], wanted: Mapping[str, str | None] | None) -> dict[str, str]:
        """The tags as they are then. Raises Invalid for too many."""
        after = dict(before)
        for key, value in (wanted or {}).items():
            self.say(f"tag:{key}", before.get(key), value)
            if value is None:
                after.pop(key, None)
            else:
                after[key] = value
        if len(after) > MOST_TAGS or sum(len(key) + len(value) for key, value in after.items()) > MOST_TAGS_BYTES:
            raise Invalid(f"{MOST_TAGS} tags and {MOST_TAGS_BYTES} characters in them are the most")
        return after


class Catalog:
    """Every change holds the asset's row, so that changes of one asset are one after the other."""

    def __init__(self, database: Database, store: Store, index: Index, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._index = index
        self._clock = clock

    async def describe_asset(self, caller: Principal, urn: str, wanted: Wanted, expected: Expected) -> Asset:
        """Another title, description or tags. Raises NotFound, NameTaken, or for a state that is another by now."""
        async with self._holding(caller, urn) as (tx, asset):
            expected.check(asset_etag(asset), exists=True)
            return await self.change_asset(tx, asset, wanted, caller.actor)

    async def change_asset(self, tx: Transaction, asset: Asset, wanted: Wanted, who: Actor) -> Asset:
        """The same for an asset that is held."""
        now = max(self._clock(), asset.updated_at)
        log = _Changing(asset.urn, 0, asset.revision + 1, who, wanted.reason, now, [])
        title = asset.title if wanted.title is None else wanted.title
        if title != asset.title:
            await self._free(tx, asset, title)
            log.say("title", asset.title, title)
        description = asset.description if wanted.description is None else wanted.description
        log.say("description", asset.description, description)
        tags = log.tags(asset.tags, wanted.tags)
        if not log.changes:
            return asset
        after = replace(asset, title=title, description=description, tags=tags, revision=log.revision, updated_at=now)
        await self._store.versions.put_asset(tx, after)
        if title != asset.title:
            await self._found_as(tx, asset, title)
        await self._tell(tx, log)
        return after

    async def _found_as(self, tx: Transaction, asset: Asset, title: str) -> None:
        """Every version of the asset is found by its new title, and no longer by the old one."""
        gone = [facts.term("label", asset.title)]
        if asset.title != asset.name:
            gone.append(facts.term("name", asset.title))
        before = asset.last_version + 1
        while versions := await self._store.versions.before(tx, asset.urn, before, 500):
            for version in versions:
                await self._index.change(
                    tx,
                    version.number,
                    gone=gone,
                    come=[facts.term("label", title), facts.term("name", title)],
                    text=(facts.text_of(version, asset.title), facts.text_of(version, title)),
                    gist=facts.gist_of(version, title),
                )
            before = versions[-1].ref.version

    async def describe_version(
        self, caller: Principal, urn: str, number: int, wanted: Wanted, expected: Expected
    ) -> Version:
        """Another description or other tags of a version; what its digest covers stays."""
        async with self._holding(caller, urn) as (tx, _):
            version = await self._one(tx, urn, number)
            expected.check(version_etag(version), exists=True)
            return await self.change_version(tx, version, wanted, caller.actor)

    async def change_version(self, tx: Transaction, version: Version, wanted: Wanted, who: Actor) -> Version:
        """The same for a version whose asset is held."""
        now = max(self._clock(), version.updated_at or version.registered_at)
        log = _Changing(version.ref.urn, version.ref.version, version.revision + 1, who, wanted.reason, now, [])
        description = version.description if wanted.description is None else wanted.description
        log.say("description", version.description, description)
        tags = log.tags(version.tags, wanted.tags)
        if not log.changes:
            return version
        after = replace(version, description=description, tags=tags, revision=log.revision, updated_at=now)
        await self._store.versions.put_state(tx, after)
        await self._index.change(
            tx,
            version.number,
            gone=[facts.tag_term(key, value) for key, value in version.tags.items() if tags.get(key) != value],
            come=[facts.tag_term(key, value) for key, value in tags.items() if version.tags.get(key) != value],
            text=(facts.text_of(version, version.title), facts.text_of(after, version.title)),
            gist=facts.gist_of(after, version.title),
            at=now,
        )
        await self._tell(tx, log)
        return after

    async def yank(self, caller: Principal, urn: str, number: int, reason: str, expected: Expected) -> Version:
        """Hide a version from all that does not ask for yanked ones; its number is never given again. Raises InUse."""
        async with self._holding(caller, urn) as (tx, _):
            version = await self._one(tx, urn, number)
            expected.check(version_etag(version), exists=True)
            users = await self.users(tx, version)
            if users:
                raise InUse(f"{version.ref} is used by {', '.join(users[:20])}", used_by=users)
            return await self.hide_version(tx, version, caller.actor, reason)

    async def hide_version(self, tx: Transaction, version: Version, who: Actor, reason: str) -> Version:
        """The same for a version whose asset is held, and that nothing uses."""
        now = max(self._clock(), version.updated_at or version.registered_at)
        after = replace(version, revision=version.revision + 1, yanked_at=now, updated_at=now)
        await self._store.versions.put_state(tx, after)
        ref = version.ref
        await self._index.change(tx, version.number, come=[facts.YANKED], at=now)
        log = _Changing(ref.urn, ref.version, after.revision, who, reason, now, [])
        log.say("yanked", None, now.isoformat())
        await self._tell(tx, log, "yanked")
        return after

    async def say_hidden(self, tx: Transaction, asset: Asset, who: Actor, reason: str) -> None:
        """An asset is hidden as a whole."""
        log = _Changing(asset.urn, 0, asset.revision, who, reason, asset.updated_at, [])
        log.say("hidden", None, asset.updated_at.isoformat())
        await self._tell(tx, log, "yanked")

    async def users(self, tx: Transaction, version: Version) -> list[str]:
        """What uses a version: aliases, production, groups that it serves, deployments, versions that rest on it."""
        ref, now = version.ref, self._clock()
        stage = await self._store.pointers.stage(tx, ref.urn, ref.version, now)
        produces = ["stage production"] if stage is not None and stage.after == "production" else []
        return produces + await usage.users(self._store, tx, version, now)

    async def changes(self, caller: Principal, urn: str, version: int, before: int, most: int) -> Sequence[Change]:
        """The log, newest first, below a revision. Raises NotFound."""
        async with self._database.begin(caller.workspace) as tx:
            if await self._store.versions.asset(tx, urn) is None:
                raise NotFound(f"there is no {urn}")
            return await self._store.versions.changes(tx, urn, version, before, most)

    async def _free(self, tx: Transaction, asset: Asset, title: str) -> None:
        """Raises NameTaken for a title, or a name made from it, that another asset of the kind has."""
        urn = f"mm:{asset.kind}/{name_of(title)}"
        if urn != asset.urn and await self._store.versions.asset(tx, urn) is not None:
            raise NameTaken(f"{title[:200]!r} is the name of {urn}")
        called = await self._store.versions.called(tx, title, [asset.kind])
        if called is not None and called.urn != asset.urn:
            raise NameTaken(f"{called.urn} is called {title[:200]!r} already")

    async def _tell(self, tx: Transaction, log: _Changing, change: Literal["metadata", "yanked"] = "metadata") -> None:
        for made in log.changes:
            await self._store.versions.log(tx, made)
            tx.emit(
                AssetChanged(
                    urn=made.urn,
                    change=change,
                    version=made.version or None,
                    name=made.field,
                    before=made.before,
                    after=made.after,
                    reason=made.reason,
                    actor=made.who,
                    at=made.at,
                )
            )

    @asynccontextmanager
    async def _holding(self, caller: Principal, urn: str) -> AsyncIterator[tuple[Transaction, Asset]]:
        async with self._database.begin(caller.workspace) as tx:
            asset = await self._store.versions.hold(tx, urn)
            if asset is None:
                raise NotFound(f"there is no {urn}")
            yield tx, asset

    async def _one(self, tx: Transaction, urn: str, number: int) -> Version:
        version = await self._store.versions.one(tx, urn, number)
        if version is None:
            raise NotFound(f"there is no {urn}@{number}")
        if version.yanked_at is not None:
            raise AlreadyYanked(f"{version.ref} was yanked at {version.yanked_at.isoformat()}")
        return version


def asset_etag(asset: Asset) -> str:
    """The ETag of what is said of an asset."""
    return etag(["asset", asset.urn, asset.revision])


def version_etag(version: Version) -> str:
    """The ETag of what is said of a version."""
    return etag(["version", version.ref.urn, version.ref.version, version.revision])
