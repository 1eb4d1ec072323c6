"""The use cases of prompts: publish, read by version, label or time, move labels, hear what the registry says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from services.prompts.domain import LATEST, Content, as_bytes, checked, difference
from services.prompts.errors import LabelReserved, PromptNotFound
from services.prompts.store import LabelMove, PromptVersion, Store
from shared.artefacts import ArtefactStore
from shared.clock import Clock
from shared.db.database import Database, Transaction
from shared.events.base import Artefact
from shared.events.envelope import Received
from shared.events.prompts import PromptLabelMoved, PromptPublished
from shared.events.registry import AssetRefused, AssetRegistered
from shared.events.upstream import AssetSubmitted
from shared.identity.principal import Principal
from shared.ids import new_id

MatchState = Callable[[int], None]
"""Raises unless the caller's If-Match names the label's state (its last move's id, 0 when there was none)."""


class Handlers:
    """One transaction each."""

    def __init__(self, database: Database, store: Store, artefacts: ArtefactStore, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._artefacts = artefacts
        self._clock = clock

    async def publish(self, caller: Principal, name: str, content: Content, message: str) -> PromptVersion:
        """The next version, final at once, and its submission to the registry. Raises TemplateInvalid."""
        document = checked(content).model_dump(mode="json")
        # The bytes first: content-addressed, they harm nobody when the transaction does not come about.
        digest = await self._artefacts.put_bytes(as_bytes(document))
        async with self._database.begin(caller.workspace) as tx:
            number = await self._store.lock(tx, name) + 1
            version = PromptVersion(
                name, number, digest, document, message, caller.id, new_id(),
                "submitted", None, None, None, None, self._clock(),
            )  # fmt: skip
            await self._store.add(tx, version)
            tx.emit(
                PromptPublished(
                    name=name,
                    version=number,
                    digest=digest,
                    submission_id=version.submission_id,
                    variables=tuple(document["variables"]),
                    commit_message=message,
                    actor=caller.actor,
                )
            )
            tx.emit(
                AssetSubmitted(
                    submission_id=version.submission_id,
                    kind="prompt",
                    name=name,
                    artefact=Artefact(digest=digest, format="text"),
                    description=message,
                    tags={"prompt_version": str(number)},
                    author=caller.id,
                )
            )
        return version

    async def registered(self, tx: Transaction, received: Received[AssetRegistered]) -> None:
        """A prompt of ours is an asset now."""
        event = received.event
        if event.kind == "prompt":
            found = (event.asset.version, event.asset.digest)
            await self._store.decide(tx, event.submission_id, registered=found)

    async def refused(self, tx: Transaction, received: Received[AssetRefused]) -> None:
        """A submission was refused; if it was ours, its version says so."""
        event = received.event
        if event.submission_id is not None:
            await self._store.decide(tx, event.submission_id, refused=(event.code, event.reason))

    async def read(
        self,
        caller: Principal,
        name: str,
        *,
        version: int | None = None,
        label: str = LATEST,
        at: datetime | None = None,
    ) -> tuple[PromptVersion, list[str]]:
        """One version by number, else by label, as of a time; with the labels that point at it now."""
        async with self._database.begin(caller.workspace) as tx:
            found = await self._find(tx, name, version, label, at)
            labels = [move.label for move in await self._store.labels(tx, name) if move.after == found.version]
            return found, labels

    async def _find(
        self, tx: Transaction, name: str, version: int | None, label: str, at: datetime | None
    ) -> PromptVersion:
        if version is None and label == LATEST:
            found = await self._store.newest(tx, name, at)
        elif version is None:
            move = await self._store.label(tx, name, label, at)
            found = await self._store.version(tx, name, move.after) if move and move.after else None
        else:
            found = await self._store.version(tx, name, version)
        if found is None:
            what = f"version {version}" if version is not None else f"label {label!r}"
            raise PromptNotFound(f"prompt {name!r} has no {what}" + (f" at {at.isoformat()}" if at else ""))
        return found

    async def versions(self, caller: Principal, name: str, before: int, most: int) -> list[PromptVersion]:
        """Versions, newest first. Raises PromptNotFound when there is none at all."""
        async with self._database.begin(caller.workspace) as tx:
            if await self._store.newest(tx, name) is None:
                raise PromptNotFound(f"there is no prompt {name!r}")
            return await self._store.versions(tx, name, before, most)

    async def listed(self, caller: Principal, after: str, most: int) -> list[tuple[str, int]]:
        """Prompts by name."""
        async with self._database.begin(caller.workspace) as tx:
            return await self._store.prompts(tx, after, most)

    async def diff(self, caller: Principal, name: str, before: int, after: int) -> str:
        """The unified diff of two versions."""
        async with self._database.begin(caller.workspace) as tx:
            first = await self._find(tx, name, before, LATEST, None)
            second = await self._find(tx, name, after, LATEST, None)
        return difference((f"{name}@{before}", first.content), (f"{name}@{after}", second.content))

    async def move_label(
        self, caller: Principal, name: str, label: str, version: int, reason: str, match: MatchState
    ) -> LabelMove:
        """Point a label at a version. Raises LabelReserved, PromptNotFound, and what `match` raises."""
        if label == LATEST:
            raise LabelReserved()
        async with self._database.begin(caller.workspace) as tx:
            await self._store.lock(tx, name)
            await self._find(tx, name, version, LATEST, None)
            before = await self._store.label(tx, name, label)
            match(before.id if before else 0)
            old = before.after if before else None
            await self._store.move_label(tx, name, label, (old, version), (caller.id, reason), self._clock())
            tx.emit(
                PromptLabelMoved(name=name, label=label, before=old, after=version, reason=reason, actor=caller.actor)
            )
            moved = await self._store.label(tx, name, label)
        assert moved is not None
        return moved

    async def label(
        self, caller: Principal, name: str, label: str, at: datetime | None = None
    ) -> tuple[LabelMove, list[LabelMove]]:
        """Where a label points (as of a time), and all of its moves. Raises PromptNotFound."""
        async with self._database.begin(caller.workspace) as tx:
            move = await self._store.label(tx, name, label, at)
            if move is None:
                raise PromptNotFound(f"prompt {name!r} has no label {label!r}" + (" at that time" if at else ""))
            return move, await self._store.label_history(tx, name, label)


def shown(value: Any) -> dict[str, Any]:
    """A row's fields, for the HTTP edge."""
    return {name: getattr(value, name) for name in value.__slots__}
