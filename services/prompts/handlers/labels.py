"""Labels: moved under If-Match with a reason, read as of any time, rolled back in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from services.prompts.domain.content import LATEST
from services.prompts.errors import LabelProtected, LabelReserved, NothingBefore, PromptNotFound
from services.prompts.store import LabelMove, Prompt, PromptVersion, Store
from shared.clock import Clock
from shared.db.database import Database, Transaction
from shared.events.prompts import PromptLabelMoved
from shared.identity.authorizer import Authorizer
from shared.identity.principal import Principal

MatchState = Callable[[int], None]
"""Raises unless the caller's If-Match names the label's state (its last move's id, 0 when there was none)."""


class Labels:
    """Every move holds the prompt's row, so that moves of one prompt are one after the other."""

    def __init__(self, database: Database, store: Store, authorizer: Authorizer, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._authorizer = authorizer
        self._clock = clock

    def may_move(self, caller: Principal) -> None:
        """For who moves labels with something else. Raises Forbidden."""
        self._authorizer.require(caller, "move", "prompt")

    async def move(
        self, caller: Principal, given: str, label: str, version: int, reason: str, match: MatchState
    ) -> LabelMove:
        """Point a label at a version. Raises LabelReserved, LabelProtected, PromptNotFound, and what `match` raises."""
        async with self._database.begin(caller.workspace) as tx:
            prompt = await self._held(tx, given)
            found = await self._version(tx, prompt, version)
            before = await self._store.labels.one(tx, prompt.name, label)
            match(before.id if before else 0)
            return await self.point(tx, caller, prompt, label, found, reason)

    async def add(self, caller: Principal, given: str, labels: Sequence[str], version: int, reason: str) -> None:
        """Point several labels at a version, whatever they pointed at. Raises as `move` does, then none is moved."""
        async with self._database.begin(caller.workspace) as tx:
            prompt = await self._held(tx, given)
            found = await self._version(tx, prompt, version)
            for label in labels:
                await self.point(tx, caller, prompt, label, found, reason)

    async def remove(self, caller: Principal, given: str, label: str, reason: str, match: MatchState) -> LabelMove:
        """Point a label nowhere. Raises PromptNotFound, and what `match` raises."""
        async with self._database.begin(caller.workspace) as tx:
            prompt = await self._held(tx, given)
            before = await self._store.labels.one(tx, prompt.name, label)
            if before is None or before.after is None:
                raise PromptNotFound(f"prompt {given!r} has no label {label!r}")
            guarding = await self._guarding(tx, prompt.name, label)
            if guarding is not None:
                raise LabelProtected(f"{guarding}: it moves to another version, and is never removed")
            match(before.id)
            return await self._log(tx, caller, prompt, label, (before.after, None), reason)

    async def roll_back(self, caller: Principal, given: str, label: str, reason: str) -> LabelMove:
        """Back to where the label pointed before its last move. Raises NothingBefore, LabelProtected."""
        async with self._database.begin(caller.workspace) as tx:
            prompt = await self._held(tx, given)
            last = await self._store.labels.one(tx, prompt.name, label)
            if last is None:
                raise PromptNotFound(f"prompt {given!r} has no label {label!r}")
            if last.before is None:
                raise NothingBefore(f"label {label!r} of prompt {given!r} pointed nowhere before its last move")
            found = await self._version(tx, prompt, last.before)
            return await self.point(tx, caller, prompt, label, found, reason)

    async def point(
        self, tx: Transaction, caller: Principal, prompt: Prompt, label: str, version: PromptVersion, reason: str
    ) -> LabelMove:
        """Move a label of a prompt that is held; where it points there already nothing is logged."""
        if label == LATEST:
            raise LabelReserved()
        last = await self._store.labels.one(tx, prompt.name, label)
        if last is not None and last.after == version.version:
            return last
        await self.check_protection(tx, prompt.name, label, version)
        return await self._log(tx, caller, prompt, label, (last.after if last else None, version.version), reason)

    async def check_protection(self, tx: Transaction, name: str, label: str, version: PromptVersion) -> None:
        """Raises LabelProtected where the label of the prompt is protected and the version was not let through."""
        guarding = await self._guarding(tx, name, label)
        if guarding is not None:
            now = self._clock()
            objections = (await self._store.standings.of(tx, version, now)).objections(now)
            if objections:
                raise LabelProtected(
                    f"{guarding}, and version {version.version}: {'; '.join(objections)}",
                    objections=objections,
                )

    async def _guarding(self, tx: Transaction, name: str, label: str) -> str | None:
        """What protects a label of a prompt: it is protected itself, or gives a share of what a protected label gives.

        A split that began before the label was protected may have arms that are not.
        """
        protected = await self._store.standings.protected(tx)
        if label in protected:
            return f"label {label!r} is protected"
        splits = await self._store.splits.of(tx, name)
        split = next((one.label for one in splits if one.label in protected and label in one.arms), None)
        return f"label {label!r} is an arm of {split!r}, which is protected" if split is not None else None

    async def _log(
        self,
        tx: Transaction,
        caller: Principal,
        prompt: Prompt,
        label: str,
        points: tuple[int | None, int | None],
        reason: str,
    ) -> LabelMove:
        moved = await self._store.labels.move(tx, prompt.name, label, points, (caller.id, reason), self._clock())
        tx.emit(
            PromptLabelMoved(
                name=prompt.name, label=label, before=points[0], after=points[1], reason=reason, actor=caller.actor
            )
        )
        return moved

    async def _held(self, tx: Transaction, given: str) -> Prompt:
        known = await self._store.versions.find(tx, given)
        if known is None:
            raise PromptNotFound(f"there is no prompt {given!r}")
        return await self._store.versions.hold(tx, known.title)

    async def _version(self, tx: Transaction, prompt: Prompt, version: int) -> PromptVersion:
        found = await self._store.versions.one(tx, prompt.name, version)
        if found is None:
            raise PromptNotFound(f"prompt {prompt.title!r} has no version {version}")
        return found

    async def protected(self, caller: Principal) -> list[str]:
        """Labels that the workspace protects, as policy was last heard."""
        async with self._database.begin(caller.workspace) as tx:
            return sorted(await self._store.standings.protected(tx))

    async def one(
        self, caller: Principal, given: str, label: str, at: datetime | None = None
    ) -> tuple[LabelMove, list[LabelMove]]:
        """Where a label points (as of a time), and all of its moves. Raises PromptNotFound."""
        async with self._database.begin(caller.workspace) as tx:
            prompt = await self._store.versions.find(tx, given)
            move = await self._store.labels.one(tx, prompt.name, label, at) if prompt else None
            if prompt is None or move is None:
                raise PromptNotFound(f"prompt {given!r} has no label {label!r}" + (" at that time" if at else ""))
            return move, await self._store.labels.history(tx, prompt.name, label)

    async def all(self, caller: Principal, given: str, at: datetime | None = None) -> list[LabelMove]:
        """Where every label points, or pointed at a time. Raises PromptNotFound."""
        async with self._database.begin(caller.workspace) as tx:
            prompt = await self._store.versions.find(tx, given)
            if prompt is None:
                raise PromptNotFound(f"there is no prompt {given!r}")
            return await self._store.labels.of(tx, prompt.name, at)
