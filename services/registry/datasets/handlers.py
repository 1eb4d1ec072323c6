"""What people and services do with datasets: lock golden sets, hold, look at rows in common, import and export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from pydantic import ValidationError

from services.registry.datasets import croissant
from services.registry.datasets.croissant import Known, Read, Split
from services.registry.datasets.reading import Files
from services.registry.datasets.store import Bytes, Counted, Expired, Keeping, Mark, What
from services.registry.domain.assets import Version
from services.registry.domain.lineage import Finding
from services.registry.errors import CroissantRefused, NoChange, SamePerson
from services.registry.handlers.registration import Registration
from services.registry.store import Store, Submission
from shared.clock import Clock
from shared.db.database import Database, Transaction
from shared.errors import NotFound
from shared.events.names import name_of
from shared.events.registry import AssetChanged
from shared.events.upstream import AssetSubmitted, Manifest
from shared.identity.principal import Principal

MOST_EXPIRED = 100


@dataclass(frozen=True, slots=True)
class Governed:
    """A dataset version and everything that is decided about it."""

    version: Version
    manifest: Manifest
    keeping: Keeping
    golden: Mark | None
    hold: Mark | None
    counted: list[Counted]
    work: dict[str, tuple[str, str | None]]
    findings: list[Finding]
    trained_on: list[str]


@dataclass(frozen=True, slots=True)
class Going:
    """A version whose time is over, and what of it would go."""

    expired: Expired
    bytes: list[Bytes]


@dataclass(frozen=True, slots=True)
class Imported:
    """What a Croissant description became."""

    read: Read
    submission: Submission | None


class Datasets:
    """One method a use case."""

    def __init__(
        self, database: Database, store: Store, registration: Registration, files: Files, clock: Clock, address: str
    ) -> None:
        self._database = database
        self._store = store
        self._registration = registration
        self._files = files
        self._clock = clock
        self._address = address.rstrip("/")

    async def one(self, caller: Principal, urn: str, number: int) -> Governed:
        """Raises NotFound."""
        async with self._database.begin(caller.workspace) as tx:
            version, keeping = await self._found(tx, urn, number)
            rows = self._store.datasets
            return Governed(
                version=version,
                manifest=Manifest.model_validate(version.content["manifest"]),
                keeping=keeping,
                golden=await rows.last(tx, urn, number, "golden"),
                hold=await rows.last(tx, urn, number, "hold"),
                counted=await rows.counted(tx, urn, number),
                work=await rows.work(tx, urn, number),
                findings=await self._store.graph.findings(tx, urn, number),
                trained_on=await rows.trained_on(tx, urn, number),
            )

    async def log(self, caller: Principal, urn: str, number: int) -> list[Mark]:
        """Every lock and hold of a version, newest first. Raises NotFound."""
        async with self._database.begin(caller.workspace) as tx:
            await self._found(tx, urn, number)
            return await self._store.datasets.marks(tx, urn, number)

    async def mark(self, caller: Principal, urn: str, number: int, what: What, holds: bool, reason: str) -> Mark:
        """Lock or unlock a golden set, begin or end a legal hold. Raises NotFound, NoChange or SamePerson."""
        async with self._database.begin(caller.workspace) as tx:
            if await self._store.datasets.hold(tx, urn, number) is None:
                raise NotFound(f"there is no {urn}@{number}")
            last = await self._store.datasets.last(tx, urn, number, what)
            if holds == (last is not None and last.holds):
                raise NoChange(f"{urn}@{number} {WORDS[what][holds]} already")
            if what == "golden" and last is not None and not holds and last.who.same_person(caller.actor):
                raise SamePerson(f"{last.who.id} locked {urn}@{number}; another person unlocks it")
            now = self._clock()
            revision = 1 if last is None else last.revision + 1
            made = Mark(what, revision, holds, caller.actor, reason, now)
            await self._store.datasets.mark(tx, urn, number, made)
            tx.emit(
                AssetChanged(
                    urn=urn,
                    change="metadata",
                    version=number,
                    name=what,
                    before=not holds,
                    after=holds,
                    reason=reason,
                    actor=caller.actor,
                    at=now,
                )
            )
            return made

    async def going(self, caller: Principal, at: datetime | None) -> list[Going]:
        """A dry run of retention: whose time is over, now or at a moment, and what would go. Nothing is changed."""
        async with self._database.begin(caller.workspace) as tx:
            expired = await self._store.datasets.expired(tx, at or self._clock(), MOST_EXPIRED)
            return [Going(one, await self._store.datasets.bytes_of(tx, one.urn, one.version)) for one in expired]

    async def as_croissant(self, caller: Principal, urn: str, number: int) -> dict[str, Any]:
        """Raises NotFound."""
        async with self._database.begin(caller.workspace) as tx:
            version, _ = await self._found(tx, urn, number)
        manifest = Manifest.model_validate(version.content["manifest"])
        return croissant.write(version.ref, manifest, version.description, version.registered_at, self._address)

    async def from_croissant(
        self,
        caller: Principal,
        document: Any,
        *,
        name: str | None,
        split: Split,
        label: str | None,
        submission_id: UUID | None,
        dry_run: bool,
    ) -> Imported:
        """Submit the dataset that a Croissant description stands for. Raises CroissantRefused."""
        known = await self._known(caller, croissant.digests(document))
        read = croissant.read(document, known, split=split, label=label)
        try:
            event = AssetSubmitted(
                submission_id=submission_id or uuid4(),
                kind="dataset",
                name=name or name_of(read.name),
                title=read.name if name is None and name_of(read.name) != read.name else None,
                manifest=read.manifest,
                description=read.description[:10_000],
            )
        except ValidationError as error:
            first = error.errors()[0]
            raise CroissantRefused(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        if dry_run:
            return Imported(read, None)
        return Imported(read, await self._registration.submit(caller, event))

    async def _known(self, caller: Principal, asked: Sequence[tuple[str, str]]) -> dict[str, Known]:
        """Sizes and rows of the files that this workspace holds."""
        found: dict[str, Known] = {}
        for digest, form in asked:
            async with self._database.begin(caller.workspace) as tx:
                size = await self._store.versions.artefact_size(tx, digest)
            if size is not None:
                found[digest] = Known(size, await self._files.rows(digest, form))
        return found

    async def _found(self, tx: Transaction, urn: str, number: int) -> tuple[Version, Keeping]:
        version = await self._store.versions.one(tx, urn, number)
        keeping = await self._store.datasets.keeping(tx, urn, number)
        if version is None or keeping is None:
            raise NotFound(f"there is no {urn}@{number}")
        return version, keeping


WORDS = {"golden": {True: "is locked", False: "is not locked"}, "hold": {True: "is held", False: "is not held"}}
