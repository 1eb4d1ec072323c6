"""What is asked: submissions, versions with what was said of them, search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from services.registry.beside.reading import Beside, Besides
from services.registry.domain.assets import Asset, Version
from services.registry.domain.lineage import Finding
from services.registry.store import Move, Store, Submission
from shared.clock import Clock
from shared.db.database import Database, Transaction
from shared.errors import NotFound
from shared.identity.principal import Principal

LAST = 2**31 - 1
LAST_NUMBER = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Standing:
    """A version with its stage, the aliases that point at it, and everything that was said of it, newest first."""

    version: Version
    stage: str
    aliases: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    beside: Beside | None = None


@dataclass(frozen=True, slots=True)
class AssetStanding:
    """An asset: its newest version that is not yanked, all aliases, and the version that is in production."""

    asset: Asset
    newest: Standing | None
    aliases: tuple[Move, ...]
    production: int | None


class Reading:
    """Answers from this workspace alone."""

    def __init__(self, database: Database, store: Store, besides: Besides, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._besides = besides
        self._clock = clock

    async def submission(self, caller: Principal, submission_id: UUID) -> Submission:
        async with self._database.begin(caller.workspace) as tx:
            found = await self._store.submissions.one(tx, submission_id)
        if found is None:
            raise NotFound(f"there is no submission {submission_id}")
        return found

    async def version(self, caller: Principal, urn: str, number: int) -> Standing:
        """One version and everything next to it. Raises NotFound."""
        async with self._database.begin(caller.workspace) as tx:
            found = await self._beside(tx, urn, number)
            if found is None:
                raise NotFound(f"there is no {urn}@{number}")
            return found

    async def many(
        self, caller: Principal, refs: Sequence[tuple[str, int | None, str | None]]
    ) -> list[Standing | None]:
        """Versions by number or alias with everything next to them; None for what is not there."""
        async with self._database.begin(caller.workspace) as tx:
            aliased = {(urn, alias) for urn, _, alias in refs if alias is not None}
            pointed = await self._besides.pointed(tx, aliased)
            asked = [(urn, pointed.get((urn, alias), 0) if alias else number) for urn, number, alias in refs]
            found = await self._besides.of(tx, [(urn, number) for urn, number in asked if number])
        return [
            None
            if (one := found.get((urn, number or 0))) is None
            else Standing(one.version, one.stage, one.aliases, one.findings, one)
            for urn, number in asked
        ]

    async def asset(self, caller: Principal, urn: str) -> AssetStanding:
        """The asset by its newest version. Raises NotFound."""
        async with self._database.begin(caller.workspace) as tx:
            asset = await self._store.versions.asset(tx, urn)
            if asset is None:
                raise NotFound(f"there is no {urn}")
            found = await self._store.versions.before(tx, urn, LAST, 1)
            now = self._clock()
            production = await self._store.pointers.in_stage(tx, urn, "production", now)
            return AssetStanding(
                asset=asset,
                newest=await self._beside(tx, urn, found[0].ref.version) if found else None,
                aliases=tuple(await self._store.pointers.aliases(tx, urn, now)),
                production=production[0].version if production else None,
            )

    async def called(self, caller: Principal, kind: str, title: str) -> AssetStanding:
        """The asset that people call so, else the one whose name it is. Raises NotFound."""
        async with self._database.begin(caller.workspace) as tx:
            asset = await self._store.versions.called(tx, title, [kind])
            asset = asset or await self._store.versions.asset(tx, f"mm:{kind}/{title}")
        if asset is None:
            raise NotFound(f"there is no {kind} called {title[:200]!r}")
        return await self.asset(caller, asset.urn)

    async def versions(self, caller: Principal, urn: str, before: int, most: int) -> list[Standing]:
        """Newest first, below a number. Raises NotFound for an asset that is not there."""
        async with self._database.begin(caller.workspace) as tx:
            found = await self._store.versions.before(tx, urn, before, most)
            if not found and await self._store.versions.asset(tx, urn) is None:
                raise NotFound(f"there is no {urn}")
            return await self._standings(tx, found)

    async def standings_of(self, tx: Transaction, numbers: Sequence[int]) -> dict[int, Standing]:
        """Versions by their order of registration."""
        found = await self._store.versions.numbered(tx, numbers)
        return {standing.version.number: standing for standing in await self._standings(tx, found)}

    async def _beside(self, tx: Transaction, urn: str, number: int) -> Standing | None:
        """A version with everything next to it, in one round trip."""
        found = (await self._besides.of(tx, [(urn, number)])).get((urn, number))
        if found is None:
            return None
        return Standing(found.version, found.stage, found.aliases, found.findings, found)

    async def _standings(self, tx: Transaction, versions: Sequence[Version]) -> list[Standing]:
        stages: dict[tuple[str, int], str] = {}
        aliases: dict[tuple[str, int], list[str]] = {}
        keys = [(version.ref.urn, version.ref.version) for version in versions]
        if keys:
            stages = await self._store.pointers.stages_of(tx, keys)
            for urn, move in await self._store.pointers.aliases_of(tx, sorted({urn for urn, _ in keys})):
                aliases.setdefault((urn, move.after), []).append(move.name or "")
        return [
            Standing(version, stages.get(key, "development"), tuple(aliases.get(key, ())))
            for version, key in zip(versions, keys, strict=True)
        ]
