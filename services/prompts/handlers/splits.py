"""Splits: some units that ask for a label get another label's version, always the same one."""

from __future__ import annotations

from collections.abc import Mapping

from services.prompts.domain import splits
from services.prompts.domain.content import LATEST
from services.prompts.errors import PromptNotFound, SplitRefused
from services.prompts.handlers.labels import MatchState
from services.prompts.store import Split, Store
from shared.clock import Clock
from shared.db.database import Database
from shared.identity.principal import Principal


class Splits:
    """Every change holds the prompt's row, as moves of labels do."""

    def __init__(self, database: Database, store: Store, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._clock = clock

    async def set(
        self, caller: Principal, given: str, label: str, wanted: Mapping[str, int], reason: str, match: MatchState
    ) -> Split:
        """Give each arm its share in basis points; without arms the split ends. Raises SplitRefused."""
        async with self._database.begin(caller.workspace) as tx:
            known = await self._store.versions.find(tx, given)
            if known is None:
                raise PromptNotFound(f"there is no prompt {given!r}")
            prompt = await self._store.versions.hold(tx, known.title)
            pointing = {move.label for move in await self._store.labels.of(tx, prompt.name)}
            missing = sorted({label, *wanted} - pointing)
            if missing:
                raise SplitRefused(f"prompt {prompt.title!r} has no label {', '.join(missing[:5])}")
            if label in wanted or LATEST in wanted:
                raise SplitRefused("an arm is another label than the one that is split, and not latest")
            protected = await self._store.standings.protected(tx)
            if label in protected and not set(wanted) <= protected:
                # Else moving an arm's label, which nothing guards, would move what a protected label gives.
                raise SplitRefused(f"label {label!r} is protected, so its arms must be protected labels too")
            history = await self._store.splits.history(tx, prompt.name, label)
            match(history[0].id if history else 0)
            arms = splits.spread(history[0].arms if history else {}, wanted)
            return await self._store.splits.add(tx, prompt.name, label, arms, (caller.id, reason), self._clock())

    async def history(self, caller: Principal, given: str, label: str) -> list[Split]:
        """Every state of a label's split, newest first; empty where it never was. Raises PromptNotFound."""
        async with self._database.begin(caller.workspace) as tx:
            prompt = await self._store.versions.find(tx, given)
            if prompt is None:
                raise PromptNotFound(f"there is no prompt {given!r}")
            return await self._store.splits.history(tx, prompt.name, label)
