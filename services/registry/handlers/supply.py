"""What hangs on a version by law and origin: licence in effect, attributions, bill of material, scans."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.registry.domain import standing
from services.registry.licences import attribution, bom
from services.registry.licences.closure import Closure
from services.registry.licences.obligations import Judgement, judge
from services.registry.licences.store import Closures
from services.registry.scanning import Scan, Statement
from services.registry.scanning.store import Scans
from services.registry.store import Store
from shared.clock import Clock
from shared.db.database import Database, Transaction
from shared.errors import NotFound
from shared.identity.principal import Principal


@dataclass(frozen=True, slots=True)
class Judged:
    """A version's licence with everything that it was judged from."""

    closure: Closure
    judgement: Judgement


@dataclass(frozen=True, slots=True)
class Inspected:
    """What was said of a version's bytes; `artefact` is absent where it has none."""

    artefact: dict[str, Any] | None
    statements: tuple[Statement, ...]
    at: datetime
    held_back: str | None


class Supply:
    """Answers from this workspace alone. `base_url` is where the registry is reached from outside."""

    def __init__(
        self, database: Database, store: Store, closures: Closures, scans: Scans, base_url: str, clock: Clock
    ) -> None:
        self._database = database
        self._store = store
        self._closures = closures
        self._scans = scans
        self._base_url = base_url
        self._clock = clock

    async def licence(self, caller: Principal, urn: str, number: int) -> Judged:
        """Declared and in effect, with obligations and conflicts. Raises NotFound."""
        async with self._database.begin(caller.workspace) as tx:
            return await self._judged(tx, urn, number)

    async def attribution(self, caller: Principal, urn: str, number: int) -> str:
        """The file that goes along with the version. Raises NotFound."""
        judged = await self.licence(caller, urn, number)
        return attribution.text(judged.closure, judged.judgement)

    async def bom(self, caller: Principal, urn: str, number: int) -> dict[str, Any]:
        """The bill of material. Raises NotFound."""
        async with self._database.begin(caller.workspace) as tx:
            judged = await self._judged(tx, urn, number)
            findings = await self._store.graph.findings(tx, urn, number)
            parts = [judged.closure.root, *(reached.part for reached in judged.closure.reached)]
            digests = [part.content["artefact"]["digest"] for part in parts if part.content.get("artefact")]
            scans = {scan.digest: scan for scan in await self._scans.of(tx, digests)}
        return bom.build(judged.closure, judged.judgement, findings, scans, self._base_url)

    async def scan(self, caller: Principal, digest: str) -> Scan:
        """What the scanners said of bytes that this workspace holds. Raises NotFound."""
        async with self._database.begin(caller.workspace) as tx:
            found = await self._scans.of(tx, [digest])
        if not found:
            raise NotFound(f"{digest[:80]} was not scanned here: only what may hold pickles is")
        return found[0]

    async def inspected(self, caller: Principal, urn: str, number: int) -> Inspected:
        """Who looked at a version's artefact and what they found; why it is held back, where it is. Raises NotFound."""
        async with self._database.begin(caller.workspace) as tx:
            closure = await self._closures.of(tx, urn, number)
            if closure is None:
                raise NotFound(f"there is no {urn}@{number}")
            artefact = closure.root.content.get("artefact")
            found = await self._scans.of(tx, [artefact["digest"]] if artefact else [])
            findings = await self._store.graph.findings(tx, urn, number)
        statements, at = bom.statements_of(closure.root, found[0] if found else None)
        held_back = standing.why_held_back(artefact, findings, self._clock())
        return Inspected(artefact, statements, at, held_back)

    async def _judged(self, tx: Transaction, urn: str, number: int) -> Judged:
        closure = await self._closures.of(tx, urn, number)
        if closure is None:
            raise NotFound(f"there is no {urn}@{number}")
        return Judged(closure, judge(closure))
