"""Publishing: what a version includes is locked, its variables are checked, it gets the next number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from services.prompts.domain import composition, content
from services.prompts.domain.composition import Closure, Included, Reference
from services.prompts.domain.content import LATEST, Content
from services.prompts.errors import IncludeRefused
from services.prompts.handlers.labels import Labels
from services.prompts.rendering import Rendering
from services.prompts.store import Prompt, PromptVersion, Store, reading
from shared.artefacts import ArtefactStore
from shared.clock import Clock
from shared.db.database import Database, Transaction
from shared.events.base import Actor, Artefact, AssetRef
from shared.events.names import name_of
from shared.events.prompts import PromptPublished
from shared.events.upstream import AssetSubmitted
from shared.identity.principal import Principal
from shared.ids import new_id


@dataclass(frozen=True, slots=True)
class Prepared:
    """A content that may be published: its document, kept under its digest, and what it includes."""

    title: str
    digest: str
    document: dict[str, Any]
    closure: Closure


class Publishing:
    """Templates are read before the transaction begins: no lock is held while a stranger's program is at work."""

    def __init__(
        self,
        database: Database,
        store: Store,
        artefacts: ArtefactStore,
        rendering: Rendering,
        labels: Labels,
        clock: Clock,
    ) -> None:
        self._database = database
        self._store = store
        self._artefacts = artefacts
        self._rendering = rendering
        self._labels = labels
        self._clock = clock

    async def publish(
        self,
        caller: Principal,
        title: str,
        written: Content,
        message: str,
        *,
        labels: Sequence[str] = (),
        tags: Sequence[str] | None = None,
    ) -> PromptVersion:
        """The next version, final at once, and its submission to the registry; labels move to it with it.

        Raises TemplateInvalid, IncludeRefused, RenderTooLarge, TitleTaken; LabelProtected when a label may not move.
        """
        prepared = await self.prepare(caller, title, written)
        async with self._database.begin(caller.workspace) as tx:
            prompt = await self._store.versions.hold(tx, title)
            version = await self.add(tx, caller, prompt, prepared, message)
            if tags is not None and tuple(tags) != prompt.tags:
                await self._store.versions.tag(tx, prompt.name, tags)
            for label in labels:
                if label != LATEST:
                    await self._labels.point(tx, caller, prompt, label, version, message)
        return version

    async def prepare(self, caller: Principal, title: str, written: Content) -> Prepared:
        """Everything about a version but its number. Raises TemplateInvalid, IncludeRefused, RenderTooLarge."""
        content.check_form(written)
        closure = await self._closure(caller, title, written)
        whole = closure.resolved
        schemas = {name: one.model_dump(mode="json") for name, one in written.variables.items()}
        used = await self._rendering.analyse(caller.workspace, whole.syntax, whole.texts(), schemas)
        variables = content.declared(written, used, closure.variables)
        document = _document(written.model_copy(update={"variables": variables}), closure)
        # The bytes first: content-addressed, they harm nobody when the transaction does not come about.
        digest = await self._artefacts.put_bytes(content.as_bytes(document))
        return Prepared(title, digest, document, closure)

    async def add(
        self,
        tx: Transaction,
        caller: Principal,
        prompt: Prompt,
        prepared: Prepared,
        message: str,
        proposal: UUID | None = None,
        given: tuple[int, Actor, datetime] | None = None,
    ) -> PromptVersion:
        """The next version of a prompt that is held; with the number, author and time that another registry gave."""
        number, author, at = given or (prompt.last_version + 1, caller.actor, self._clock())
        version = PromptVersion(
            prompt.name, number, prepared.digest, prepared.document, message, author.id, new_id(),
            "submitted", None, None, None, None, at, proposal,
        )  # fmt: skip
        await self._store.versions.add(tx, version)
        title = prompt.title if prompt.title != prompt.name else None
        tx.emit(
            PromptPublished(
                name=prompt.name,
                title=title,
                version=version.version,
                digest=version.digest,
                submission_id=version.submission_id,
                variables=tuple(prepared.document["variables"]),
                includes=tuple(_ref(entry) for entry in prepared.closure.flat()),
                commit_message=message,
                actor=caller.actor,
            )
        )
        tx.emit(
            AssetSubmitted(
                submission_id=version.submission_id,
                kind="prompt",
                name=prompt.name,
                title=title,
                artefact=Artefact(digest=version.digest, format="text"),
                description=message,
                tags={"prompt_version": str(version.version)},
                author=caller.id,
            )
        )
        return version

    async def _closure(self, caller: Principal, title: str, written: Content) -> Closure:
        wanted = composition.references(written)
        if not wanted:
            return composition.put_in(written, {})
        async with reading(self._database, caller.workspace) as tx:
            own = await self._store.versions.find(tx, title)
            name = own.name if own else name_of(title)
            found = {one.tag: await self._included(tx, one) for one in wanted}
        for included in found.values():
            composition.check_cycle(name, title, included)
        return composition.put_in(written, found)

    async def _included(self, tx: Transaction, reference: Reference) -> Included:
        prompt = await self._store.versions.find(tx, reference.title)
        if prompt is None:
            raise IncludeRefused(f"{reference.tag[:200]}: there is no prompt {reference.title[:100]!r}")
        number = reference.version
        if number is None and reference.label == LATEST:
            newest = await self._store.versions.newest(tx, prompt.name)
            number = newest.version if newest else None
        elif number is None:
            move = await self._store.labels.one(tx, prompt.name, str(reference.label))
            number = move.after if move else None
        version = await self._store.versions.one(tx, prompt.name, number) if number else None
        if version is None:
            pointer = f"version {number}" if number else f"label {reference.label!r}"
            raise IncludeRefused(f"{reference.tag[:200]}: {prompt.title[:100]!r} has no {pointer}")
        return Included(prompt.name, prompt.title, version.version, version.digest, version.content)


def _document(written: Content, closure: Closure) -> dict[str, Any]:
    """What the digest covers: what was written, and where something is included, the closure and the texts put in."""
    document = written.model_dump(mode="json")
    if closure.entries:
        document["closure"] = closure.entries
        resolved = closure.resolved
        if resolved.text is not None:
            document["resolved_text"] = resolved.text
        else:
            document["resolved_messages"] = [turn.model_dump(mode="json") for turn in resolved.messages]
    return document


def _ref(entry: dict[str, Any]) -> AssetRef:
    return AssetRef(urn=f"mm:prompt/{entry['name']}", version=entry["version"], digest=entry["digest"])
