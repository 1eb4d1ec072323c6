"""Models and prompts as clients know them that find an asset by its title and name no state that they change.

A prompt that came this way is an asset of kind `prompt`, not a model with a tag: search, lineage and policy tell them
apart by kind. For these clients both share one name space, so a title is looked for among both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from services.registry.domain import assets, lineage
from services.registry.domain.assets import Asset, Draft, Source, Stage, Version
from services.registry.errors import ArtefactMissing, InUse, NameTaken
from services.registry.handlers import usage
from services.registry.handlers.catalog import Catalog, Wanted
from services.registry.handlers.pointers import Pointers
from services.registry.handlers.reading import LAST, Standing
from services.registry.reuse.intents import Intents
from services.registry.reuse.wishes import intent_in, wish_of_words
from services.registry.search import facts
from services.registry.search.index import Index
from services.registry.store import AtOnce, Move, Store
from shared.clock import Clock
from shared.db.database import Database, Transaction, encoded, on_first_transaction
from shared.errors import Invalid, NotFound
from shared.events import cause
from shared.events.base import Signature
from shared.events.names import name_of
from shared.identity.principal import Principal
from shared.ids import new_id, sha256
from shared.telemetry import traces

KINDS = ("model", "prompt")
"""Where a title names one of each, it means the model."""

PROMPT_TEXT = "mlflow.prompt.text"
WHY = "by a client of MLflow"
CHUNK = 1_000
MOST_SEARCHED = 1_000_000


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes that the registry holds of a version that is known by its source."""

    artefact: dict[str, str]
    size: int
    signature: Signature


@dataclass(frozen=True, slots=True)
class NewVersion:
    """What a client says of a version that it registers."""

    source: str
    run_id: str | None = None
    run_link: str | None = None
    model_id: str | None = None
    tags: Mapping[str, str] | None = None
    description: str = ""
    held: Held | None = None

    @property
    def plain(self) -> bool:
        """Whether it brings nothing along but its address: no run, no logged model, no bytes that are held here."""
        return self.run_id is None and self.model_id is None and self.held is None


@dataclass(frozen=True, slots=True)
class ModelStanding:
    """An asset, its newest version in each stage, and where its aliases point."""

    asset: Asset
    newest: tuple[Standing, ...]
    aliases: tuple[Move, ...]


class Models:
    """Every change holds the asset's row, and is logged with who made it."""

    def __init__(
        self,
        database: Database,
        store: Store,
        index: Index,
        catalog: Catalog,
        pointers: Pointers,
        intents: Intents,
        clock: Clock,
    ) -> None:
        self._database = database
        self._store = store
        self._index = index
        self._catalog = catalog
        self._pointers = pointers
        self._intents = intents
        self._clock = clock

    # Assets

    async def create(
        self, caller: Principal, title: str, kind: str, tags: Mapping[str, str], description: str
    ) -> ModelStanding:
        """A new asset without versions; one that was deleted is there again. Raises NameTaken."""
        urn = f"mm:{kind}/{name_of(title)}"
        async with self._database.begin(caller.workspace) as tx:
            called = await self._store.versions.called(tx, title, KINDS)
            if called is not None:
                raise NameTaken(f"the name {title[:200]!r} is already taken by a {called.kind}", kind=called.kind)
            before = await self._store.versions.hold(tx, urn)
            if before is not None and (before.title != title or not before.hidden):
                raise NameTaken(f"{urn} is called {before.title[:200]!r}, and keeps the name of {title[:200]!r}")
            asset, made = await self._store.versions.make_asset(tx, urn, title, self._clock())
            if before is None and not made:
                raise NameTaken(f"the name {title[:200]!r} was taken a moment ago", kind=kind)
            gone: dict[str, str | None] = dict.fromkeys(asset.tags, None)
            wanted = Wanted(description, None, gone | dict(tags), WHY)
            asset = await self._catalog.change_asset(tx, asset, wanted, caller.actor)
            return ModelStanding(asset, (), ())

    async def get(self, caller: Principal, title: str) -> ModelStanding:
        """Raises NotFound."""
        async with self._database.begin(caller.workspace) as tx:
            (found,) = await self.standings(tx, [await self._called(tx, title)])
            return found

    async def describe(self, caller: Principal, title: str, wanted: Wanted) -> ModelStanding:
        """Another title, description or tags. Raises NotFound or NameTaken."""
        async with self._holding(caller, title) as (tx, asset):
            if wanted.title is not None and wanted.title != asset.title:
                called = await self._store.versions.called(tx, wanted.title, KINDS)
                if called is not None:
                    raise NameTaken(f"the name {wanted.title[:200]!r} is already taken by a {called.kind}")
            asset = await self._catalog.change_asset(tx, asset, wanted, caller.actor)
            (found,) = await self.standings(tx, [asset])
            return found

    async def delete(self, caller: Principal, title: str) -> None:
        """Hide an asset with all of its versions. Raises InUse, and hides nothing then."""
        async with self._holding(caller, title) as (tx, asset):
            before = asset.last_version + 1
            while versions := await self._store.versions.before(tx, asset.urn, before, 500):
                for version in versions:
                    await self._yank(tx, caller, version)
                before = versions[-1].ref.version
            now = max(self._clock(), asset.updated_at)
            hidden = replace(asset, hidden=True, revision=asset.revision + 1, updated_at=now)
            await self._store.versions.put_asset(tx, hidden)
            await self._catalog.say_hidden(tx, hidden, caller.actor, WHY)

    # Versions

    async def register(self, caller: Principal, title: str, wanted: NewVersion) -> Standing:
        """The next version of an asset that is there. Raises NotFound."""
        if wanted.plain and on_first_transaction.get() is None:
            made = await self._register_at_once(caller, title, wanted)
            if made is not None:
                return made
        async with self._holding(caller, title) as (tx, asset):
            if asset.kind == "model" and asset.last_version == 0:
                wish = wish_of_words("model", title, wanted.description, wanted.tags or {})
                named = intent_in(wanted.tags or {})
                await self._intents.require(tx, f"{asset.urn} is new", "model", named, wish)
            draft = self._draft(caller, asset.urn, wanted)
            if draft.artefact_digest is not None:
                await self._claim(tx, draft.artefact_digest)
            version = await self._store.versions.add(tx, draft, asset.title)
            await self._index.add(tx, version.number, facts.found_in(draft, asset.title), version.ref.version)
            edges = lineage.of_version(version)
            await self._store.graph.link(tx, edges, draft.registered_at, str(draft.submission_id))
            tx.emit(version.registered(draft.submission_id))
            return Standing(version, "development", ())

    async def _claim(self, tx: Transaction, digest: str) -> None:
        if digest not in await self._store.versions.claim(tx, [digest]):
            raise ArtefactMissing(f"{digest} is kept no longer; log the model again")

    async def _register_at_once(self, caller: Principal, title: str, wanted: NewVersion) -> Standing | None:
        """The same in one statement, for a further version of a model whose URN its title tells; None for others.

        Raises Invalid.
        """
        draft = self._draft(caller, f"mm:model/{name_of(title)}", wanted)
        digest = assets.sourced_digest(draft.content)
        event = draft.numbered(title, LAST, 0, digest).registered(draft.submission_id)
        before, after = encoded(event).decode().split(f'"version":{LAST}', 1)
        why = cause.current.get()
        said = AtOnce(
            id=str(new_id()),
            digest=digest,
            before=f'{before}"version":',
            after=after,
            correlation_id=why.correlation_id,
            causation_id=why.causation_id,
            traceparent=traces.traceparent(),
        )
        async with self._database.acquire() as connection:
            number = await self._store.versions.add_at_once(
                connection, caller.workspace, draft, title, facts.found_in(draft, title), said
            )
        if number is None:
            return None
        self._database.outbox_filled()
        return Standing(draft.numbered(title, number, 0, digest), "development", ())

    def _draft(self, caller: Principal, urn: str, wanted: NewVersion) -> Draft:
        text = (wanted.tags or {}).get(PROMPT_TEXT)
        submission_id = new_id()
        source = Source(
            uri=wanted.source,
            submission=submission_id,
            run_link=wanted.run_link,
            model_id=wanted.model_id,
            text_digest=sha256(text.encode()) if text is not None and urn.startswith("mm:prompt/") else None,
        )
        content = assets.sourced_content(
            urn,
            source,
            run_id=wanted.run_id,
            artefact=wanted.held.artefact if wanted.held else None,
            signature=wanted.held.signature if wanted.held else None,
        )
        return Draft(
            urn=urn,
            content=content,
            artefact_size=wanted.held.size if wanted.held else None,
            tags=dict(wanted.tags or {}),
            description=wanted.description,
            metrics={},
            author=caller.actor,
            submission_id=submission_id,
            registered_at=self._clock(),
        )

    async def version(self, caller: Principal, title: str, number: int) -> Standing:
        """Raises NotFound, for a yanked version, too."""
        async with self._database.begin(caller.workspace) as tx:
            asset = await self._called(tx, title)
            return await self._standing(tx, await self._one(tx, asset, number))

    async def newest(self, caller: Principal, title: str) -> Standing:
        """The highest version that is not yanked. Raises NotFound."""
        async with self._database.begin(caller.workspace) as tx:
            asset = await self._called(tx, title)
            found = await self._store.versions.before(tx, asset.urn, LAST, 1)
            if not found:
                raise NotFound(f"{title[:200]!r} has no version")
            return await self._standing(tx, found[0])

    async def aliased(self, caller: Principal, title: str, alias: str) -> Standing:
        """The version that an alias points at. Raises NotFound for the asset, Invalid for the alias."""
        async with self._database.begin(caller.workspace) as tx:
            asset = await self._called(tx, title)
            move = await self._store.pointers.alias(tx, asset.urn, alias, self._clock())
            if move is None or move.after is None:
                raise Invalid(f"Registered model alias {alias[:100]} not found.")
            assert isinstance(move.after, int)
            return await self._standing(tx, await self._one(tx, asset, move.after))

    async def describe_version(self, caller: Principal, title: str, number: int, wanted: Wanted) -> Standing:
        """Another description or other tags. Raises Invalid for the text of a prompt, which is the version itself."""
        async with self._holding(caller, title) as (tx, asset):
            version = await self._one(tx, asset, number)
            if PROMPT_TEXT in (wanted.tags or {}) and "text_digest" in version.content.get("source", {}):
                raise Invalid("the text of a prompt version cannot be changed; register another version")
            version = await self._catalog.change_version(tx, version, wanted, caller.actor)
            return await self._standing(tx, version)

    async def delete_version(self, caller: Principal, title: str, number: int) -> None:
        """Yank a version; aliases that point at it are removed first. Raises InUse where it serves."""
        async with self._holding(caller, title) as (tx, asset):
            await self._yank(tx, caller, await self._one(tx, asset, number))

    async def point(self, caller: Principal, title: str, alias: str, number: int | None) -> None:
        """Point an alias at a version, or remove it where there is one. Raises NotFound."""
        async with self._holding(caller, title) as (tx, asset):
            if number is not None:
                assets.check_alias(alias)
                await self._one(tx, asset, number)
            await self._pointers.move_alias(tx, asset.urn, alias, number, caller.actor, WHY)

    async def transition(
        self, caller: Principal, title: str, number: int, stage: Stage, *, archive_existing: bool
    ) -> Standing:
        """Move a version to a stage; with `archive_existing`, those that are there are retired.

        One that something still uses cannot be retired; it is monitored, which these clients call archived, too.
        """
        async with self._holding(caller, title) as (tx, asset):
            version = await self._one(tx, asset, number)
            if archive_existing:
                for there in await self._store.pointers.in_stage(tx, asset.urn, stage, self._clock()):
                    if there.version is not None and there.version != number:
                        await self._to(tx, caller, await self._one(tx, asset, there.version), "retired")
            await self._to(tx, caller, version, stage)
            return await self._standing(tx, version)

    async def _to(self, tx: Transaction, caller: Principal, version: Version, stage: Stage) -> None:
        if stage == "retired" and await usage.users(self._store, tx, version, self._clock()):
            stage = "monitoring"
        await self._pointers.move_stage(tx, version.ref.urn, version.ref.version, stage, caller.actor, WHY)

    # Search

    async def search(
        self,
        caller: Principal,
        kinds: Sequence[str],
        fits: Callable[[Asset], bool],
        order: Sequence[tuple[Callable[[Asset], Any], bool]],
        offset: int,
        most: int,
    ) -> list[ModelStanding]:
        """Assets that fit, by title where no other order is asked for."""
        async with self._database.begin(caller.workspace) as tx:
            found: list[Asset] = []
            after = ""
            while page := await self._store.versions.assets_listed(tx, kinds, after, CHUNK):
                found += [asset for asset in page if fits(asset)]
                after = page[-1].title
                if len(page) < CHUNK or (not order and len(found) >= offset + most):
                    break
            for key, ascending in reversed(order):
                found.sort(key=key, reverse=not ascending)
            return await self.standings(tx, found[offset : offset + most])

    async def search_versions(
        self,
        caller: Principal,
        kinds: Sequence[str],
        title: str | None,
        fits: Callable[[Standing], bool],
        order: Sequence[tuple[Callable[[Standing], Any], bool]],
        offset: int,
        most: int,
    ) -> list[Standing]:
        """Versions that fit, of one asset where its title is asked for, last changed first or in another order."""
        async with self._database.begin(caller.workspace) as tx:
            urn = None
            if title is not None:
                asset = await self._store.versions.called(tx, title, kinds)
                if asset is None:
                    return []
                urn = asset.urn
            found: list[Standing] = []
            for read in range(0, MOST_SEARCHED, CHUNK):
                page = await self._store.versions.listed(tx, kinds, urn, read, CHUNK)
                found += [standing for standing in await self._standings(tx, page) if fits(standing)]
                if len(page) < CHUNK or (not order and len(found) >= offset + most):
                    break
        for key, ascending in reversed(order):
            found.sort(key=key, reverse=not ascending)
        return found[offset : offset + most]

    # Shared

    async def _standings(self, tx: Transaction, versions: Sequence[Version]) -> list[Standing]:
        """Versions with their stages and aliases, in two questions for each asset that they are of."""
        by_urn: dict[str, list[int]] = {}
        for version in versions:
            by_urn.setdefault(version.ref.urn, []).append(version.ref.version)
        stages: dict[tuple[str, int], str] = {}
        for urn, numbers in by_urn.items():
            for number, stage in (await self._store.pointers.stages(tx, urn, numbers)).items():
                stages[urn, number] = stage
        aliases: dict[tuple[str, Any], list[str]] = {}
        for urn, move in await self._store.pointers.aliases_of(tx, list(by_urn)):
            aliases.setdefault((urn, move.after), []).append(move.name or "")
        keys = [(version.ref.urn, version.ref.version) for version in versions]
        return [
            Standing(version, stages.get(key, "development"), tuple(aliases.get(key, ())))
            for version, key in zip(versions, keys, strict=True)
        ]

    async def standings(self, tx: Transaction, found: Sequence[Asset]) -> list[ModelStanding]:
        """Assets with their newest versions and aliases, in two questions for all of them."""
        urns = [asset.urn for asset in found]
        newest: dict[str, list[Standing]] = {urn: [] for urn in urns}
        aliases: dict[str, list[Move]] = {urn: [] for urn in urns}
        for urn, move in await self._store.pointers.aliases_of(tx, urns):
            aliases[urn].append(move)
        for version, stage in await self._store.versions.newest_by_stage(tx, urns):
            urn = version.ref.urn
            named = tuple(move.name or "" for move in aliases[urn] if move.after == version.ref.version)
            newest[urn].append(Standing(version, stage, named))
        return [ModelStanding(asset, tuple(newest[asset.urn]), tuple(aliases[asset.urn])) for asset in found]

    async def _yank(self, tx: Transaction, caller: Principal, version: Version) -> None:
        users = await usage.serves(self._store, tx, version)
        if users:
            raise InUse(f"{version.ref} is used by {', '.join(users[:20])}", used_by=users)
        ref = version.ref
        for move in await self._store.pointers.aliases(tx, ref.urn, self._clock()):
            if move.after == ref.version:
                await self._pointers.move_alias(tx, ref.urn, move.name or "", None, caller.actor, WHY)
        stage = await self._store.pointers.stage(tx, ref.urn, ref.version, self._clock())
        if stage is not None and stage.after in ("staging", "production", "monitoring"):
            await self._pointers.move_stage(tx, ref.urn, ref.version, "retired", caller.actor, WHY)
        await self._catalog.hide_version(tx, version, caller.actor, WHY)

    @asynccontextmanager
    async def _holding(self, caller: Principal, title: str) -> AsyncIterator[tuple[Transaction, Asset]]:
        async with self._database.begin(caller.workspace) as tx:
            asset = await self._called(tx, title)
            held = await self._store.versions.hold(tx, asset.urn)
            if held is None or held.hidden or held.title != title:
                raise NotFound(f"Registered Model with name={title[:200]} not found")
            yield tx, held

    async def _called(self, tx: Transaction, title: str) -> Asset:
        asset = await self._store.versions.called(tx, title, KINDS)
        if asset is None:
            raise NotFound(f"Registered Model with name={title[:200]} not found")
        return asset

    async def _one(self, tx: Transaction, asset: Asset, number: int) -> Version:
        found = await self._store.versions.one(tx, asset.urn, number) if 0 < number <= LAST else None
        if found is None or found.yanked_at is not None:
            raise NotFound(f"Model Version (name={asset.title[:200]}, version={number}) not found")
        return found

    async def _standing(self, tx: Transaction, version: Version) -> Standing:
        ref = version.ref
        stage = await self._store.pointers.stage(tx, ref.urn, ref.version, self._clock())
        moves = await self._store.pointers.aliases(tx, ref.urn, self._clock())
        named = tuple(move.name or "" for move in moves if move.after == ref.version)
        return Standing(version, str(stage.after) if stage else "development", named)
