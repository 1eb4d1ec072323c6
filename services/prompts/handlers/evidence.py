"""Which prompt to take: by what was measured; and what prompts are bound to."""

from __future__ import annotations

from services.prompts.domain import ranking
from services.prompts.domain.ranking import Ranked
from services.prompts.errors import PromptNotFound
from services.prompts.handlers.reading import Pointer, Reading
from services.prompts.store import Binding, Candidate, Evidence, LiveCandidate, LiveEvidence, Store
from shared.clock import Clock
from shared.db.database import Database, Transaction
from shared.identity.principal import Principal

MOST = 1000


class EvidenceHandlers:
    """Evidence has two sources that never share an interval: evaluations on golden sets (eval.completed), and what the
    versions that close over a prompt did in traffic (group.measured)."""

    def __init__(self, database: Database, store: Store, reading: Reading, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._reading = reading
        self._clock = clock

    async def of(self, caller: Principal, given: str, pointer: Pointer) -> list[Evidence]:
        """What was measured of a version, newest first. Raises PromptNotFound."""
        found = await self._reading.one(caller, given, pointer)
        if found.version.asset_version is None:
            return []
        async with self._database.begin(caller.workspace) as tx:
            evidence = await self._store.evidence.of(tx, found.version.name, found.version.asset_version)
        return [one for one in evidence if one.digest == found.version.asset_digest]

    async def live(self, caller: Principal, given: str, pointer: Pointer) -> list[LiveEvidence]:
        """What the versions that close over a version did in traffic, newest first. Raises PromptNotFound."""
        version = (await self._reading.one(caller, given, pointer)).version
        if version.asset_version is None or version.asset_digest is None:
            return []
        async with self._database.begin(caller.workspace) as tx:
            return await self._store.live.of(tx, version.name, version.asset_version, version.asset_digest)

    async def ranked(
        self, caller: Principal, task: str | None, model: str | None, measure: str | None, given: str | None
    ) -> tuple[str | None, list[Ranked[Candidate]]]:
        """Versions best first by evaluations, and the measure that they are compared by. Raises PromptNotFound."""
        async with self._database.begin(caller.workspace) as tx:
            name = await self._name(tx, given)
            candidates = await self._store.evidence.candidates(tx, task, model, name, MOST)
        chosen = measure or ranking.default_measure(one.measures for one in candidates)
        return chosen, ranking.ranked(((one, one.measures) for one in candidates), chosen or "")

    async def ranked_live(
        self, caller: Principal, group: str | None, measure: str | None, given: str | None
    ) -> tuple[str | None, list[Ranked[LiveCandidate]]]:
        """Versions best first by what was closed over them and had traffic. Raises PromptNotFound."""
        async with self._database.begin(caller.workspace) as tx:
            candidates = await self._store.live.candidates(tx, group, await self._name(tx, given), MOST)
        chosen = measure or ranking.default_measure(one.measures for one in candidates)
        return chosen, ranking.ranked(((one, one.measures) for one in candidates), chosen or "")

    async def bind(self, caller: Principal, given: str, model: str, use_case: str, label: str) -> Binding:
        """Say that a prompt's label is meant for a model and a use case. Raises PromptNotFound."""
        async with self._database.begin(caller.workspace) as tx:
            prompt = await self._store.versions.find(tx, given)
            if prompt is None:
                raise PromptNotFound(f"there is no prompt {given!r}")
            made = Binding(prompt.name, prompt.title, model, use_case, label, caller.id, self._clock())
            await self._store.evidence.bind(tx, made)
            return made

    async def unbind(self, caller: Principal, given: str, model: str, use_case: str) -> None:
        """Raises PromptNotFound when it was not bound so."""
        async with self._database.begin(caller.workspace) as tx:
            prompt = await self._store.versions.find(tx, given)
            if prompt is None or not await self._store.evidence.unbind(tx, prompt.name, model, use_case):
                raise PromptNotFound(f"prompt {given!r} is not bound to {model!r} for {use_case!r}")

    async def bindings(
        self, caller: Principal, given: str | None, model: str | None, use_case: str | None
    ) -> list[Binding]:
        async with self._database.begin(caller.workspace) as tx:
            return await self._store.evidence.bindings(tx, await self._name(tx, given), model, use_case)

    async def _name(self, tx: Transaction, given: str | None) -> str | None:
        """Raises PromptNotFound."""
        if given is None:
            return None
        prompt = await self._store.versions.find(tx, given)
        if prompt is None:
            raise PromptNotFound(f"there is no prompt {given!r}")
        return prompt.name
