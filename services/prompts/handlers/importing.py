"""Prompts of another registry, with the numbers, times and labels that they have there.

Sending the same again changes nothing: a version is known by its number and by what its author wrote. One that stands
here with another text is named and left alone; a label that was moved here since stays where it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from services.prompts.domain.content import LATEST, Content
from services.prompts.errors import LabelProtected
from services.prompts.handlers.labels import Labels
from services.prompts.handlers.publishing import Publishing
from services.prompts.store import Prompt, PromptVersion, Store
from shared.clock import Clock
from shared.db.database import Database, Transaction
from shared.errors import MintmarkError
from shared.events.base import LAST_VERSION, Actor
from shared.events.names import name_of
from shared.identity.principal import Principal

LABEL = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?")
WRITTEN = ("text", "messages", "syntax", "config")
"""What an author writes. What is included in it may be locked to another version here, and is no other text."""

Outcome = Literal["created", "changed", "same", "conflict", "refused"]


@dataclass(frozen=True, slots=True)
class ForeignVersion:
    """A version as the source has it."""

    id: str
    number: int
    written: Content
    message: str
    author: str
    published_at: datetime | None


@dataclass(frozen=True, slots=True)
class ForeignPrompt:
    """A prompt with some of its versions; `labels` come with the last of them."""

    id: str
    title: str
    tags: Sequence[str]
    versions: Sequence[ForeignVersion]
    labels: Mapping[str, int] | None


@dataclass(frozen=True, slots=True)
class Difference:
    """A field that differs; with `why_not` it stays as it is here."""

    field: str
    before: str | None
    after: str | None
    why_not: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """What became, or would become, of a prompt (`version` is None) or of a version."""

    id: str
    urn: str
    version: int | None
    outcome: Outcome
    differences: Sequence[Difference] = field(default_factory=tuple)
    reason: str = ""


class Importing:
    """One transaction a version; labels of a prompt move together when its versions are here."""

    def __init__(self, database: Database, store: Store, publishing: Publishing, labels: Labels, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._publishing = publishing
        self._labels = labels
        self._clock = clock

    async def bring(self, caller: Principal, source: str, prompt: ForeignPrompt, *, dry: bool) -> list[Item]:
        """The prompt, then its versions. What cannot be brought in is named; the rest goes on."""
        async with self._database.begin(caller.workspace) as tx:
            known = await self._store.versions.find(tx, prompt.title)
        found: list[Item] = []
        for version in sorted(prompt.versions, key=lambda one: one.number):
            try:
                found.append(await self._version(caller, prompt.title, version, dry=dry))
            except MintmarkError as error:
                urn = f"mm:prompt/{name_of(prompt.title)}"
                found.append(Item(version.id, urn, version.number, "refused", reason=error.message))
        try:
            first = await self._prompt(caller, source, prompt, made=known is None, dry=dry)
        except MintmarkError as error:
            first = Item(prompt.id, f"mm:prompt/{name_of(prompt.title)}", None, "refused", reason=error.message)
        return [first, *found]

    async def _version(self, caller: Principal, title: str, foreign: ForeignVersion, *, dry: bool) -> Item:
        async with self._database.begin(caller.workspace) as tx:
            known = await self._store.versions.find(tx, title)
            item = await self._compared(tx, known, title, foreign)
        if item is not None or dry:
            return item or Item(foreign.id, f"mm:prompt/{name_of(title)}", foreign.number, "created")
        prepared = await self._publishing.prepare(caller, title, foreign.written)
        async with self._database.begin(caller.workspace) as tx:
            held = await self._store.versions.hold(tx, title)
            # Again, now that nobody else can bring it in meanwhile.
            item = await self._compared(tx, held, title, foreign)
            if item is None:
                at = min(foreign.published_at or self._clock(), self._clock())
                given = (foreign.number, Actor(id=foreign.author, proven=False), at)
                await self._publishing.add(tx, caller, held, prepared, foreign.message, given=given)
                item = Item(foreign.id, f"mm:prompt/{held.name}", foreign.number, "created")
            return item

    async def _compared(
        self, tx: Transaction, prompt: Prompt | None, title: str, foreign: ForeignVersion
    ) -> Item | None:
        """What stands here under the number; None where nothing does, and it may be taken."""
        if prompt is None:
            return None
        urn = f"mm:prompt/{prompt.name}"
        here = await self._store.versions.one(tx, prompt.name, foreign.number)
        if here is not None:
            same = _written(here.content) == _written(foreign.written.model_dump(mode="json"))
            reason = "" if same else f"version {foreign.number} has another text here"
            return Item(foreign.id, urn, foreign.number, "same" if same else "conflict", reason=reason)
        if foreign.number <= prompt.last_version:
            reason = f"version {prompt.last_version} is here already; a number that was passed by is not given any more"
            return Item(foreign.id, urn, foreign.number, "conflict", reason=reason)
        return None

    async def _prompt(self, caller: Principal, source: str, foreign: ForeignPrompt, *, made: bool, dry: bool) -> Item:
        async with self._database.begin(caller.workspace) as tx:
            prompt = await self._store.versions.find(tx, foreign.title)
            found: list[Difference] = []
            if prompt is not None and not dry:
                prompt = await self._store.versions.hold(tx, prompt.title)
            before = prompt.tags if prompt else ()
            if tuple(foreign.tags) != before and foreign.labels is not None:
                found.append(Difference("tags", ", ".join(before) or None, ", ".join(foreign.tags) or None))
                if prompt is not None and not dry:
                    await self._store.versions.tag(tx, prompt.name, foreign.tags)
            for label, number in sorted((foreign.labels or {}).items()):
                one = await self._label(tx, caller, source, prompt, (label, number), foreign, dry=dry)
                found += [one] if one is not None else []
            done = any(one.why_not is None for one in found)
            outcome: Outcome = "created" if made else "changed" if done else "conflict" if found else "same"
            urn = f"mm:prompt/{prompt.name if prompt else name_of(foreign.title)}"
            return Item(foreign.id, urn, None, outcome, found)

    async def _label(
        self,
        tx: Transaction,
        caller: Principal,
        source: str,
        prompt: Prompt | None,
        wanted: tuple[str, int],
        foreign: ForeignPrompt,
        *,
        dry: bool,
    ) -> Difference | None:
        label, number = wanted
        last = await self._store.labels.one(tx, prompt.name, label) if prompt else None
        now = last.after if last else None
        if label == LATEST or now == number:
            return None
        one = Difference(f"label:{label}", str(now) if now else None, str(number))
        if not LABEL.fullmatch(label) or not 0 < number <= LAST_VERSION:
            return Difference(one.field, one.before, one.after, "there can be no such label here")
        if last is not None and last.reason != _why(source):
            return Difference(one.field, one.before, one.after, "it was moved here")
        version = await self._store.versions.one(tx, prompt.name, number) if prompt else None
        if version is None:
            missing = None if dry else f"version {number} is not here"
            return Difference(one.field, one.before, one.after, missing)
        written = next((each.written for each in foreign.versions if each.number == number), None)
        if written is not None and _written(version.content) != _written(written.model_dump(mode="json")):
            return Difference(one.field, one.before, one.after, f"version {number} has another text here")
        return await self._moved(tx, caller, source, prompt, version, one, dry=dry) if prompt else one

    async def _moved(
        self,
        tx: Transaction,
        caller: Principal,
        source: str,
        prompt: Prompt,
        version: PromptVersion,
        one: Difference,
        *,
        dry: bool,
    ) -> Difference:
        label = one.field.removeprefix("label:")
        try:
            # Protection is looked at before anything is written, so that a refusal leaves the transaction whole.
            await self._labels.check_protection(tx, prompt.name, label, version)
        except LabelProtected as error:
            return Difference(one.field, one.before, one.after, error.message)
        if not dry:
            await self._labels.point(tx, caller, prompt, label, version, _why(source))
        return one


def _why(source: str) -> str:
    return f"imported from {source}"


def _written(document: dict[str, Any]) -> dict[str, Any]:
    return {key: document.get(key) or None for key in WRITTEN}
