"""What another registry says, brought in: assets, versions with their own numbers and times, stages, aliases.

- What came from a source once is known by its name there; reading it again changes what was said of it, never what it
  is. A version that stands here with other content is left alone and named.
- One transaction a version: either it is here whole (metadata, stage, lineage, its row in the map), or it is not.
- Protected pointers stay protected: what another registry let into production was not let through here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from services.registry.domain import assets, lineage, standing
from services.registry.domain.assets import Asset, Draft, Material, Version
from services.registry.domain.lineage import Edge
from services.registry.domain.tracking import checked_path
from services.registry.errors import ArtefactMissing, UnknownFormat
from services.registry.handlers import usage
from services.registry.handlers.artefacts import Artefacts
from services.registry.handlers.catalog import MOST_TAGS_BYTES, Catalog, Wanted
from services.registry.handlers.pointers import Pointers
from services.registry.importers.documents import ForeignAsset, ForeignFile, ForeignVersion, From, said
from services.registry.importers.merging import Difference, Said, differences, marks
from services.registry.importers.store import Imported, Known
from services.registry.search import facts
from services.registry.search.index import Index
from services.registry.store import Store
from shared.clock import Clock
from shared.db.database import Database, Transaction
from shared.errors import Invalid, MintmarkError, TooLarge
from shared.events.base import LAST_VERSION
from shared.events.names import name_of
from shared.identity.principal import Principal

ONE_NAME_SPACE = ("model", "prompt")
"""Clients of MLflow find both by title, so that no two may share one."""

FILES = "mlflow-artifacts:/"
Outcome = Literal["created", "changed", "same", "conflict", "refused"]


@dataclass(frozen=True, slots=True)
class Item:
    """What became, or would become, of an asset (`version` is None) or of a version."""

    id: str
    urn: str
    version: int | None
    outcome: Outcome
    differences: Sequence[Difference] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Import:
    """One asset on its way in."""

    caller: Principal
    source: From
    asset: ForeignAsset
    dry: bool

    @property
    def why(self) -> str:
        return f"imported from {self.source.key}"


class Imports:
    """A dry run reads what the real one reads and decides what it decides, and writes nothing."""

    def __init__(
        self,
        database: Database,
        store: Store,
        index: Index,
        imported: Imported,
        catalog: Catalog,
        pointers: Pointers,
        artefacts: Artefacts,
        clock: Clock,
    ) -> None:
        self._database = database
        self._store = store
        self._index = index
        self._imported = imported
        self._catalog = catalog
        self._pointers = pointers
        self._artefacts = artefacts
        self._clock = clock

    async def bring(self, caller: Principal, source: From, asset: ForeignAsset, *, dry: bool) -> list[Item]:
        """One asset, then its versions, then its aliases. What cannot be brought in is named; the rest goes on."""
        it = _Import(caller, source, asset, dry)
        try:
            first = await self._asset(it)
        except MintmarkError as error:
            return [Item(asset.id, asset.urn, None, "refused", reason=error.message)]
        if first.outcome == "conflict":
            return [first]
        found = [first]
        for version in asset.versions:
            try:
                found.append(await self._version(it, first.urn, version))
            except MintmarkError as error:
                found.append(Item(version.id, first.urn, version.number, "refused", reason=error.message))
        if asset.aliases is not None:
            fit = {item.version for item in found[1:] if item.version and item.outcome not in ("conflict", "refused")}
            try:
                found[0] = await self._aliases(it, first, fit)
            except MintmarkError as error:
                outcome: Outcome = "refused" if first.outcome == "same" else first.outcome
                found[0] = replace(first, outcome=outcome, reason=error.message)
        return found

    # Assets

    async def _asset(self, it: _Import) -> Item:
        async with self._database.begin(it.caller.workspace) as tx:
            asset = it.asset
            known = (await self._imported.known(tx, it.source.key, [asset.key])).get(asset.key)
            here = await self._here(tx, known.urn if known else asset.urn, hold=not it.dry)
            urn = here.urn if here else asset.urn
            against = await self._against(tx, it, known, here)
            if against is not None:
                return Item(asset.id, urn, None, "conflict", reason=against)
            last = _without_aliases(known.said if known else {})
            found = differences(last, asset.said, _said_here(here) if here else {})
            item = Item(asset.id, urn, None, _outcome(found, made=here is None), found if here else ())
            if it.dry or (known and item.outcome == "same" and not found):
                return item
            if here is None:
                here, _ = await self._store.versions.make_asset(tx, urn, asset.title, self._past(asset.created_at))
            after = await self._catalog.change_asset(tx, here, _wanted(found, it.why), it.caller.actor)
            if item.outcome == "created":
                at = max(here.created_at, self._past(asset.updated_at or here.created_at))
                await self._store.versions.put_asset(tx, replace(after, updated_at=at))
            remembered = marks(last, asset.said, _kept_back(found)) | _aliases_alone(known.said if known else {})
            await self._imported.keep(tx, it.source.key, Known(asset.key, urn, 0, "", remembered), self._clock())
            return item

    async def _against(self, tx: Transaction, it: _Import, known: Known | None, here: Asset | None) -> str | None:
        """What speaks against bringing the asset in."""
        if here is not None and here.hidden:
            return f"{here.urn} was deleted here"
        if known is not None:
            return None
        kinds = ONE_NAME_SPACE if it.asset.kind in ONE_NAME_SPACE else (it.asset.kind,)
        called = await self._store.versions.called(tx, it.asset.title, kinds)
        if called is not None and called.urn != it.asset.urn:
            return f"{called.urn} is called {it.asset.title[:200]!r} here"
        if here is not None and here.title != it.asset.title:
            return f"{here.urn} is called {here.title[:200]!r} here"
        return None

    # Versions

    async def _version(self, it: _Import, urn: str, foreign: ForeignVersion) -> Item:
        async with self._database.begin(it.caller.workspace) as tx:
            known = (await self._imported.known(tx, it.source.key, [foreign.key])).get(foreign.key)
        sizes = {} if known or it.dry else await self._sizes(foreign, urn)
        async with self._database.begin(it.caller.workspace) as tx:
            here = await self._here(tx, urn, hold=not it.dry)
            # Again, now that nobody else can bring it in meanwhile.
            known = (await self._imported.known(tx, it.source.key, [foreign.key])).get(foreign.key)
            if known is not None and known.urn != urn:
                reason = f"it came in as {known.urn}@{known.version} before"
                return Item(foreign.id, urn, foreign.number, "conflict", reason=reason)
            if known is not None:
                return await self._known_version(tx, it, known, foreign)
            there = await self._same_place(tx, it, urn, foreign)
            if isinstance(there, Item):
                return there
            if there is not None:  # the same bytes were submitted here before
                known = Known(foreign.key, urn, there.ref.version, foreign.fingerprint, {})
                item = await self._known_version(tx, it, known, foreign, new=True)
                now = Difference("source", None, it.source.key)
                return replace(item, outcome="changed", differences=[now, *item.differences])
            stage_back = await self._why_protected(tx, foreign.stage, None)
            back = [Difference("stage", "development", foreign.stage, stage_back)] if stage_back else []
            if it.dry:
                return Item(foreign.id, urn, foreign.number, "created", back)
            assert here is not None
            return await self._new_version(tx, it, here, foreign, sizes, back)

    async def _same_place(
        self, tx: Transaction, it: _Import, urn: str, foreign: ForeignVersion
    ) -> Version | Item | None:
        """What stands here already: the very same content, or a conflict, or nothing."""
        try:
            digest = self._draft(it, urn, foreign, None).digest
        except ValueError as error:
            raise Invalid(f"it holds a value that canonical JSON (RFC 8785) has no form for: {error}") from None
        twin = await self._store.versions.with_digest(tx, urn, digest)
        if twin is not None and foreign.number in (None, twin.ref.version):
            return twin
        if twin is not None:
            return Item(foreign.id, urn, foreign.number, "conflict", reason=f"{twin.ref} has the same content")
        if foreign.number is not None:
            there = await self._store.versions.one(tx, urn, foreign.number)
            if there is not None:
                return Item(foreign.id, urn, foreign.number, "conflict", reason=f"{there.ref} has other content")
        return None

    async def _known_version(
        self, tx: Transaction, it: _Import, known: Known, foreign: ForeignVersion, *, new: bool = False
    ) -> Item:
        """A version that is here: what was said of it may have changed, what it is may not."""
        version = await self._store.versions.one(tx, known.urn, known.version)
        assert version is not None
        if known.fingerprint != foreign.fingerprint or foreign.number not in (None, known.version):
            reason = "its content is another at the source by now; a version never changes"
            return Item(foreign.id, known.urn, known.version, "conflict", reason=reason)
        if version.yanked_at is not None:
            return Item(foreign.id, known.urn, known.version, "same", reason="it was yanked here")
        stage = await self._store.pointers.stage(tx, known.urn, known.version, self._clock())
        here = _said_here(version) | ({"stage": str(stage.after)} if stage and stage.after != "development" else {})
        found = [
            await self._unless_protected(tx, one, version) if one.field == "stage" else one
            for one in differences(known.said, foreign.said, here)
        ]
        item = Item(foreign.id, known.urn, known.version, _outcome(found), found)
        if it.dry:
            return item
        version = await self._catalog.change_version(tx, version, _wanted(found, it.why), it.caller.actor)
        if any(one.field == "stage" and one.why_not is None for one in found):
            await self._move(tx, it, version, foreign, self._clock())
        remembered = marks(known.said, foreign.said, _kept_back(found))
        if new or dict(known.said) != remembered:
            await self._imported.keep(tx, it.source.key, replace(known, said=remembered), self._clock())
        return item

    async def _new_version(
        self,
        tx: Transaction,
        it: _Import,
        asset: Asset,
        foreign: ForeignVersion,
        sizes: Mapping[str, int],
        back: list[Difference],
    ) -> Item:
        """Its row, its place in the index, its lineage, its stage and its row in the map."""
        if foreign.number is None and asset.last_version >= LAST_VERSION:
            raise TooLarge(f"{asset.urn} has no number left")
        await self._artefacts.claim(tx, sizes)
        await self._store.versions.claim(tx, [file.digest for file in foreign.files])
        for file in foreign.files:
            if await self._store.versions.artefact_size(tx, file.digest) is None:
                raise ArtefactMissing(f"{file.path[:200]} ({file.digest}) is not here; upload it first")
        if foreign.files_at is not None and foreign.files_at.startswith(FILES):
            await keep_files(self._store, tx, foreign.files_at.removeprefix(FILES), foreign.files, self._clock)
        draft = self._draft(it, asset.urn, foreign, sizes.get(foreign.artefact.digest) if foreign.artefact else None)
        version = await self._store.versions.add(tx, draft, asset.title)
        ref, now = version.ref, self._clock()
        await self._index.add(tx, version.number, facts.found_in(draft, asset.title), version.ref.version)
        await self._store.versions.hold_artefacts(tx, list(sizes.items()), now)
        edges = [*lineage.of_version(version), *self._edges(it, foreign, str(ref))]
        if draft.artefact_digest is not None:
            twins = await self._store.versions.twins(tx, ref.urn, draft.artefact_digest)
            edges += [Edge(f"{urn}@{number}", "SameAs", str(ref)) for urn, number in twins]
        await self._store.graph.link(tx, edges, draft.registered_at, str(draft.submission_id))
        tx.emit(version.registered(version.submission_id))
        if not back:
            await self._move(tx, it, version, foreign, self._past(foreign.stage_at or foreign.registered_at))
        updated_at = self._past(foreign.updated_at) if foreign.updated_at else draft.registered_at
        if updated_at > draft.registered_at:
            await self._store.versions.put_state(tx, replace(version, updated_at=updated_at))
        remembered = marks({}, foreign.said, _kept_back(back))
        known = Known(foreign.key, ref.urn, ref.version, foreign.fingerprint, remembered)
        await self._imported.keep(tx, it.source.key, known, now)
        return Item(foreign.id, ref.urn, ref.version, "created", back)

    def _draft(self, it: _Import, urn: str, foreign: ForeignVersion, size: int | None) -> Draft:
        return Draft(
            urn=urn,
            content=foreign.content(urn, it.source),
            artefact_size=size,
            tags=foreign.tags,
            description=foreign.description,
            metrics=foreign.metrics,
            author=it.source.author(foreign.author),
            submission_id=foreign.submission_id(it.source),
            registered_at=self._past(foreign.registered_at),
            version=foreign.number,
        )

    def _edges(self, it: _Import, foreign: ForeignVersion, here: str) -> list[Edge]:
        edges = [Edge(f"mm:dataset/{name_of(title)}", "ContributedTo", here) for title in foreign.datasets]
        return edges + [Edge(f"{it.source.kind}:{edge.node}", edge.association, here) for edge in foreign.lineage]

    async def _sizes(self, foreign: ForeignVersion, urn: str) -> dict[str, int]:
        """The artefact's size, once it was looked at. Raises Refused."""
        if sum(len(key) + len(value) for key, value in foreign.tags.items()) > MOST_TAGS_BYTES:
            raise TooLarge(f"its tags have more than {MOST_TAGS_BYTES} characters")
        if foreign.artefact is None:
            return {}
        digest, form = foreign.artefact.digest, foreign.artefact.format
        formats = assets.MODEL_FORMATS if urn.startswith("mm:model/") else assets.OTHER_FORMATS
        if form not in formats:
            raise UnknownFormat(f"format {form!r} is not taken; take one of {', '.join(formats)}")
        return await self._artefacts.check([Material(digest, form, None, None)])

    # Pointers

    async def _move(
        self, tx: Transaction, it: _Import, version: Version, foreign: ForeignVersion, at: datetime
    ) -> None:
        stage = foreign.stage or "development"
        if stage == "retired" and await usage.users(self._store, tx, version, self._clock()):
            stage = "monitoring"
        ref = version.ref
        await self._pointers.came_to_stage(tx, ref.urn, ref.version, stage, at, it.caller.actor, it.why)

    async def _aliases(self, it: _Import, item: Item, fit: set[int]) -> Item:
        """Aliases, of versions that came from this source alone: another version 3 is not what it called `champion`."""
        async with self._database.begin(it.caller.workspace) as tx:
            asset, urn = it.asset, item.urn
            here = await self._here(tx, urn, hold=not it.dry)
            known = (await self._imported.known(tx, it.source.key, [asset.key])).get(asset.key)
            now = {f"alias:{alias}": str(number) for alias, number in (asset.aliases or {}).items()}
            last = _aliases_alone(known.said if known else {})
            moves = await self._store.pointers.aliases(tx, urn, self._clock()) if here else []
            there = {f"alias:{move.name}": str(move.after) for move in moves}
            ours = fit | await self._imported.versions(tx, it.source.key, urn)
            found = [await self._alias(tx, it, urn, one, ours) for one in differences(last, now, there)]
            merged = [*item.differences, *found]
            outcome = item.outcome if item.outcome == "created" else _outcome(merged)
            if not it.dry and known is not None:
                for one in found:
                    if one.why_not is None:
                        alias, to = one.field.removeprefix("alias:"), int(one.after) if one.after else None
                        await self._pointers.move_alias(tx, urn, alias, to, it.caller.actor, it.why)
                remembered = _without_aliases(known.said) | marks(last, now, _kept_back(found))
                if remembered != dict(known.said):
                    await self._imported.keep(tx, it.source.key, replace(known, said=remembered), self._clock())
            return replace(item, differences=merged, outcome=outcome)

    async def _alias(self, tx: Transaction, it: _Import, urn: str, one: Difference, ours: set[int]) -> Difference:
        alias = one.field.removeprefix("alias:")
        if one.why_not is not None:
            return one
        if one.after is None:
            protected = alias in (await self._store.pointers.protection(tx)).aliases
            return replace(one, why_not="it is protected, and never removed") if protected else one
        try:
            assets.check_alias(alias)
        except MintmarkError as error:
            return replace(one, why_not=error.message)
        number = int(one.after)
        version = await self._store.versions.one(tx, urn, number) if 0 < number <= LAST_VERSION else None
        if version is None and not it.dry:
            return replace(one, why_not=f"version {number} is not here")
        if version is not None and number not in ours:
            return replace(one, why_not=f"{version.ref} did not come from there")
        if version is not None and version.yanked_at is not None:
            return replace(one, why_not=f"{version.ref} was yanked here")
        if alias in (await self._store.pointers.protection(tx)).aliases:
            why_not = await self._not_let_through(tx, version)
            return replace(one, why_not=f"it is protected: {why_not}") if why_not else one
        return one

    async def _unless_protected(self, tx: Transaction, one: Difference, version: Version) -> Difference:
        why_not = one.why_not or await self._why_protected(tx, one.after, version)
        return replace(one, why_not=why_not)

    async def _why_protected(self, tx: Transaction, stage: str | None, version: Version | None) -> str | None:
        if stage is None or stage not in (await self._store.pointers.protection(tx)).stages:
            return None
        why_not = await self._not_let_through(tx, version)
        return f"it is protected: {why_not}" if why_not else None

    async def _not_let_through(self, tx: Transaction, version: Version | None) -> str | None:
        if version is None:
            return "no gate has decided about it"
        findings = await self._store.graph.findings(tx, version.ref.urn, version.ref.version)
        return standing.why_not_let_through(version.content["kind"], findings, self._clock())

    # Shared

    async def _here(self, tx: Transaction, urn: str, *, hold: bool) -> Asset | None:
        return await (self._store.versions.hold(tx, urn) if hold else self._store.versions.asset(tx, urn))

    def _past(self, at: datetime | None) -> datetime:
        """When it was there; a clock that goes before ours is not believed."""
        now = self._clock()
        return min(at, now) if at is not None else now


def _said_here(what: Asset | Version) -> dict[str, str]:
    return said(what.description, what.tags)


def _outcome(found: Sequence[Difference], *, made: bool = False) -> Outcome:
    if made:
        return "created"
    return "changed" if any(one.why_not is None for one in found) else "conflict" if found else "same"


def _wanted(found: Sequence[Difference], why: str) -> Wanted:
    """The differences that may be made, as a change of metadata."""
    made = [one for one in found if one.why_not is None]
    description = next((one.after or "" for one in made if one.field == "description"), None)
    tags = {one.field.removeprefix("tag:"): one.after for one in made if one.field.startswith("tag:")}
    return Wanted(description, None, tags, why)


def _kept_back(found: Sequence[Difference]) -> set[str]:
    return {one.field for one in found if one.why_not is not None}


def _aliases_alone(said: Said) -> dict[str, str]:
    return {field: value for field, value in said.items() if field.startswith("alias:")}


def _without_aliases(said: Said) -> dict[str, str]:
    return {field: value for field, value in said.items() if not field.startswith("alias:")}


async def keep_files(store: Store, tx: Transaction, root: str, found: Sequence[ForeignFile], clock: Clock) -> None:
    """Files below a root by their paths. Raises Invalid for one that leads out of it, ArtefactMissing."""
    await store.versions.claim(tx, [file.digest for file in found])
    for file in found:
        path = checked_path(f"{root.strip('/')}/{file.path}")
        size = await store.versions.artefact_size(tx, file.digest)
        if size is None:
            raise ArtefactMissing(f"{file.path[:200]} ({file.digest}) is not here; upload it first")
        await store.tracking.put_file(tx, path, file.digest, size, clock())
