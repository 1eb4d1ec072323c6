"""Models described elsewhere: proposed by rules, a kept mapping and a model; corrected by people; then registered."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast
from uuid import UUID, uuid4

from pydantic import ValidationError

from services.registry.domain import assets, lineage
from services.registry.errors import AlreadyAccepted, NotNamed
from services.registry.foreign import assistant, document, fields, proposal
from services.registry.foreign.assistant import Assistant
from services.registry.foreign.proposal import Mapping, Proposal, Rule
from services.registry.foreign.store import Proposals
from services.registry.handlers.artefacts import hold
from services.registry.handlers.registration import Registration
from services.registry.search import facts
from services.registry.search.index import Index
from services.registry.store import Store
from shared.artefacts import ArtefactStore
from shared.clock import Clock
from shared.db.database import Database, Transaction, on_first_transaction
from shared.errors import Invalid, NotFound, Refused, TooLarge, Unavailable
from shared.events.base import Artefact, Kind, Signature
from shared.events.names import name_of
from shared.events.upstream import AssetSubmitted, Training
from shared.identity.principal import Principal
from shared.ids import new_id

SHOWN = ("description", "licence", "task")


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a proposal became. `version` is absent while its bytes are being fetched."""

    proposal_id: UUID
    urn: str
    version: int | None
    submission_id: UUID
    mapping: str | None


class Foreign:
    """`assistant` is absent where no group of the gateway is named for this."""

    def __init__(
        self,
        database: Database,
        store: Store,
        index: Index,
        proposals: Proposals,
        artefacts: ArtefactStore,
        registration: Registration,
        helper: Assistant | None,
        clock: Clock,
    ) -> None:
        self._database = database
        self._store = store
        self._index = index
        self._proposals = proposals
        self._artefacts = artefacts
        self._registration = registration
        self._assistant = helper
        self._clock = clock

    async def propose(self, caller: Principal, data: bytes, mapping: str | None, *, ask: bool) -> Proposal:
        """What a document would become. Raises TooLarge, Malformed, Invalid, or NotFound for the mapping."""
        whole = await asyncio.to_thread(document.parse, data)
        shape = await asyncio.to_thread(document.shape, whole)
        chosen = await self._mapping(caller, mapping, shape)
        draft = await asyncio.to_thread(proposal.drafted, whole, chosen.rules if chosen else ())
        notes: list[str] = []
        if ask and draft.unmapped:
            draft, notes = await self._helped(whole, draft)
        digest = await self._artefacts.put_bytes(data)
        made = Proposal(
            id=new_id(),
            document=digest,
            shape=shape,
            mapping=chosen.name if chosen else None,
            fields=tuple(draft.fields.values()),
            unmapped=draft.unmapped,
            notes=tuple(notes),
            made_by=caller.id,
            made_at=self._clock(),
        )
        async with self._database.begin(caller.workspace) as tx:
            await hold(self._store, self._artefacts, tx, digest, len(data), made.made_at)
            await self._proposals.add(tx, made)
        return made

    async def _mapping(self, caller: Principal, name: str | None, shape: str) -> Mapping | None:
        with _beforehand():
            async with self._database.begin(caller.workspace) as tx:
                if name is None:
                    return await self._proposals.mapping_of_shape(tx, shape)
                found = await self._proposals.mapping(tx, name)
        if found is None:
            raise NotFound(f"there is no mapping {name!r}")
        return found

    async def _helped(self, whole: Any, draft: proposal.Draft) -> tuple[proposal.Draft, list[str]]:
        """The draft with what a model makes of the rest; without one, or without its answer, the draft and a note."""
        if self._assistant is None:
            return draft, [
                "no model is connected (MINTMARK_REGISTRY_MAPPING_GROUP), so the rules' word is all there is"
            ]
        try:
            said = await self._assistant.ask(draft.unmapped)
        except Unavailable as error:
            return draft, [error.message]
        found, refused = assistant.mapped(whole, draft.unmapped, draft.fields, said)
        notes = [f"group {self._assistant.group!r} mapped {len(found)} of what was left"]
        return proposal.with_fields(draft, found, whole), notes + [f"not taken: {one}" for one in refused[:50]]

    async def one(self, caller: Principal, proposal_id: UUID) -> Proposal:
        """Raises NotFound."""
        async with self._database.begin(caller.workspace) as tx:
            return await self._one(tx, proposal_id)

    async def listed(self, caller: Principal, before: UUID, most: int) -> list[Proposal]:
        """Newest first."""
        async with self._database.begin(caller.workspace) as tx:
            return await self._proposals.before(tx, before, most)

    async def correct(self, caller: Principal, proposal_id: UUID, corrections: Sequence[Rule]) -> Proposal:
        """Single fields as a person wants them. Raises NotFound, AlreadyAccepted or Invalid."""
        async with self._database.begin(caller.workspace) as tx:
            found = await self._open(tx, proposal_id)
            whole = document.parse(await self._artefacts.get(found.document))
            made = proposal.corrected(whole, found, corrections)
            if len(made.fields) > fields.MOST_FIELDS:
                raise Invalid(f"a proposal has {fields.MOST_FIELDS} fields at most")
            await self._proposals.correct(tx, made)
        return made

    async def accept(self, caller: Principal, proposal_id: UUID, keep_as: str | None) -> Accepted:
        """Register what is proposed, in one transaction; `keep_as` keeps its corrections under that name.

        Raises NotFound, AlreadyAccepted, NotNamed, Invalid, or what the registry refuses a submission for.
        """
        async with self._database.begin(caller.workspace) as tx:
            found, now = await self._open(tx, proposal_id), self._clock()
            event = _submission(found)
            if event.artefact is not None:
                version = await self._submitted(tx, caller, event)
            else:
                version = await self._catalogued(tx, caller, event, found.document)
            await self._proposals.accept(tx, found, event.urn, event.submission_id, version, now)
            if keep_as is not None:
                whole = document.parse(await self._artefacts.get(found.document))
                rules = proposal.kept(whole, found)
                await self._proposals.keep_mapping(tx, Mapping(keep_as, found.shape, rules, caller.id, now))
        return Accepted(proposal_id, event.urn, version, event.submission_id, keep_as)

    async def _submitted(self, tx: Transaction, caller: Principal, event: AssetSubmitted) -> int | None:
        """By the road that every submission goes, since there are bytes to look at."""
        submission = await self._registration.submit_in(tx, caller, event)
        if submission.state == "refused":
            raise _refusal(submission.code, submission.reason)
        return submission.version

    async def _catalogued(self, tx: Transaction, caller: Principal, event: AssetSubmitted, source: str) -> int:
        """A version by what is said of it alone. Its content names the document: the same one is one version."""
        await self._registration.decided_to_build(tx, event)
        now, title = self._clock(), event.title or event.name
        content = assets.Content(event, None, event.training, None).document | {"source": {"document": source}}
        draft = replace(assets.Content(event, None, event.training, None).draft(caller.actor, now), content=content)
        asset = await self._store.versions.lock_asset(tx, event.urn, title, now)
        version = await self._store.versions.with_digest(tx, event.urn, draft.digest)
        if version is None:
            version = await self._store.versions.add(tx, draft, asset.title)
            await self._index.add(tx, version.number, facts.found_in(draft, asset.title), version.ref.version)
            await self._store.graph.link(tx, lineage.of_version(version), now, str(event.submission_id))
            await self._store.graph.link_bases(tx, version, now, str(event.submission_id))
        tx.emit(version.registered(event.submission_id))
        return version.ref.version

    async def of_version(self, caller: Principal, urn: str, number: int) -> list[Proposal]:
        """The imports that became a version, with what was not mapped. Raises NotFound."""
        async with self._database.begin(caller.workspace) as tx:
            if await self._store.versions.one(tx, urn, number) is None:
                raise NotFound(f"there is no {urn}@{number}")
            return await self._proposals.of_version(tx, urn, number)

    async def mappings(self, caller: Principal) -> list[Mapping]:
        async with self._database.begin(caller.workspace) as tx:
            return await self._proposals.mappings(tx)

    async def mapping(self, caller: Principal, name: str) -> Mapping:
        """Raises NotFound."""
        async with self._database.begin(caller.workspace) as tx:
            found = await self._proposals.mapping(tx, name)
        if found is None:
            raise NotFound(f"there is no mapping {name!r}")
        return found

    async def forget(self, caller: Principal, name: str) -> None:
        """Raises NotFound."""
        async with self._database.begin(caller.workspace) as tx:
            if not await self._proposals.drop_mapping(tx, name):
                raise NotFound(f"there is no mapping {name!r}")

    async def _one(self, tx: Transaction, proposal_id: UUID, *, lock: bool = False) -> Proposal:
        found = await self._proposals.one(tx, proposal_id, lock=lock)
        if found is None:
            raise NotFound(f"there is no proposal {proposal_id}")
        return found

    async def _open(self, tx: Transaction, proposal_id: UUID) -> Proposal:
        found = await self._one(tx, proposal_id, lock=True)
        if found.accepted_at is not None:
            raise AlreadyAccepted()
        return found


@contextmanager
def _beforehand() -> Iterator[None]:
    """A look that leads to nothing by itself: it does not use up the request's Idempotency-Key."""
    token = on_first_transaction.set(None)
    try:
        yield
    finally:
        on_first_transaction.reset(token)


def _refusal(code: str | None, reason: str | None) -> Refused:
    error = Invalid(reason or "refused")
    error.code = code or "refused"  # type: ignore[misc]
    return error


def _submission(found: Proposal) -> AssetSubmitted:
    """What a proposal says, as a submission. Raises NotNamed, Invalid or TooLarge."""
    title = found.field("name")
    if title is None:
        raise NotNamed()
    name, kind = name_of(title), cast(Kind, found.field("kind") or "model")
    artefact = found.group("artefact")
    if artefact and not {"digest", "format"} <= artefact.keys():
        raise Invalid("bytes need both artefact.digest and artefact.format; correct them, or leave both out")
    try:
        event = AssetSubmitted.model_construct(
            submission_id=uuid4(),
            kind=kind,
            name=name,
            title=title if title != name else None,
            artefact=Artefact.model_validate(artefact) if artefact else None,
            signature=Signature(
                inputs=tuple(fields.tensor(one, type_) for one, type_ in found.group("inputs").items()),
                outputs=tuple(fields.tensor(one, type_) for one, type_ in found.group("outputs").items()),
            ),
            training=Training(
                run_id=found.field("run_id"),
                intent_id=found.field("intent_id"),
                commit=found.field("commit"),
                parameters=found.group("parameters"),
                base=tuple(dict.fromkeys(found.group("base").values())),
            ),
            metrics=found.group("metrics"),
            tags=found.group("tags"),
            **{one: found.field(one) for one in SHOWN if found.field(one) is not None},
        )
        if artefact:
            event = AssetSubmitted.model_validate(event.model_dump())
    except ValidationError as error:
        first = error.errors()[0]
        raise Invalid(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    size = len(event.model_dump_json())
    if size > assets.MOST_BYTES:
        raise TooLarge(f"what is mapped has {size} bytes; {assets.MOST_BYTES} is the most, so leave some fields out")
    return event
